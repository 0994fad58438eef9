"""What ptrace of Linux is asked, and how the kernel numbers its calls and registers.

References: ptrace(2); asm/unistd_64.h and asm-generic/unistd.h for the numbers; `struct user` of
sys/user.h for the registers.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import re
import struct
import sys
from pathlib import Path

SEIZE, INTERRUPT, CONT, SYSCALL, _POKEUSER, _GET_SYSCALL_INFO = 0x4206, 0x4207, 7, 24, 6, 0x420E
EVENT_SECCOMP = 7
OPTIONS = 0x1 | 0x2 | 0x4 | 0x8 | 0x80 | 0x100000
"""TRACESYSGOOD, TRACEFORK, TRACEVFORK, TRACECLONE, TRACESECCOMP, EXITKILL."""

NUMBERS = {
    "x86_64": {
        1: "write", 2: "open", 18: "pwrite64", 74: "fsync", 75: "fdatasync", 77: "ftruncate",
        82: "rename", 85: "creat", 87: "unlink", 257: "openat", 263: "unlinkat", 264: "renameat",
        285: "fallocate", 316: "renameat2",
    },
    "aarch64": {
        35: "unlinkat", 38: "renameat", 46: "ftruncate", 47: "fallocate", 56: "openat",
        64: "write", 68: "pwrite64", 82: "fsync", 83: "fdatasync", 276: "renameat2",
    },
}  # fmt: skip
"""Calls that change files: a process stops at these alone, once it has called `filter_syscalls`."""

X86_64 = platform.machine() == "x86_64"
RDX, RAX, ORIG_RAX = 12 * 8, 10 * 8, 15 * 8
"""Offsets of registers of x86_64: third argument, result, number of the call."""


def why_not(*, inject: bool = False) -> str:
    """Return why this machine cannot trace, or inject faults; empty where it can."""
    if sys.platform != "linux":
        return "ptrace is traced on Linux alone"
    if platform.machine() not in NUMBERS or sys.maxsize < 1 << 32:
        return f"the system calls of {platform.machine()} are not listed"
    if tuple(map(int, re.findall(r"\d+", platform.release())[:2])) < (5, 3):
        return "PTRACE_GET_SYSCALL_INFO came with Linux 5.3"
    yama = Path("/proc/sys/kernel/yama/ptrace_scope")
    if yama.exists() and int(yama.read_text()) > 1:
        return "ptrace is not allowed here (kernel.yama.ptrace_scope)"
    actions = Path("/proc/sys/kernel/seccomp/actions_avail")
    if not actions.exists() or "trace" not in actions.read_text().split():
        return "seccomp of this kernel has no filters that stop for a tracer"
    if inject and not X86_64:
        return "faults are injected by the registers of x86_64 alone"
    return ""


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    libc.ptrace.restype = ctypes.c_long
    return libc


def filter_syscalls() -> None:
    """Let this process, and all that it starts, stop for their tracer at calls that change files.

    Each stop takes some ten microseconds, and of thousands of calls a hundred are those. See
    seccomp(2); the filter is a program for the machine of linux/filter.h.
    """
    load, jump_if_equal, end = 0x20, 0x15, 0x06
    trace, allow = 0x7FF00000, 0x7FFF0000
    numbers = list(NUMBERS[platform.machine()])
    program = [(load, 0, 0, 0)]  # the number of the call
    program += [(jump_if_equal, len(numbers) - i, 0, each) for i, each in enumerate(numbers)]
    program += [(end, 0, 0, allow), (end, 0, 0, trace)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *each) for each in program))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
    for option, value, address in ((38, 1, 0), (22, 2, ctypes.addressof(header))):
        # NO_NEW_PRIVS, without which only root may set a filter; SECCOMP, with a filter
        arguments = map(ctypes.c_ulong, (value, address, 0, 0))
        if _libc().prctl(option, *arguments):
            number = ctypes.get_errno()
            raise OSError(number, f"prctl {option}: {os.strerror(number)}")


def ptrace(request: int, tid: int, address: int = 0, data: int = 0) -> None:
    """Do a request of ptrace.

    Raises
    ------
    OSError
        ProcessLookupError where the thread was killed meanwhile.
    """
    if _libc().ptrace(request, tid, address, data & (1 << 64) - 1) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace {request:#x}: {os.strerror(number)}")


def set_register(tid: int, register: int, value: int) -> None:
    """Set a register of a stopped thread, of x86_64."""
    ptrace(_POKEUSER, tid, register, value)


def syscall_entry(tid: int) -> tuple[int, ...]:
    """Return the number and the six arguments of a call that the filter stops; else nothing."""
    kind, info = _syscall_info(tid)
    return struct.unpack_from("<7Q", info, 24) if kind == 3 else ()


def syscall_result(tid: int) -> int | None:
    """Return the result of a call that a thread leaves."""
    kind, info = _syscall_info(tid)
    result: int | None = struct.unpack_from("<q", info, 24)[0] if kind == 2 else None
    return result


def _syscall_info(tid: int) -> tuple[int, bytes]:
    """Return the kind and the bytes of `struct ptrace_syscall_info`."""
    buffer = ctypes.create_string_buffer(88)
    ptrace(_GET_SYSCALL_INFO, tid, len(buffer), ctypes.addressof(buffer))
    return buffer.raw[0], buffer.raw


def memory(tid: int, address: int, nbytes: int) -> bytes:
    """Return bytes of a stopped thread's memory."""
    fd = os.open(f"/proc/{tid}/mem", os.O_RDONLY)
    try:
        return os.pread(fd, nbytes, address)
    finally:
        os.close(fd)


def text(tid: int, address: int) -> str:
    """Return a C string; read to the end of a page, for the next one may not be mapped."""
    data = b""
    while b"\0" not in data:
        data += memory(tid, address + len(data), 4096 - (address + len(data)) % 4096)
    return os.fsdecode(data.partition(b"\0")[0])
