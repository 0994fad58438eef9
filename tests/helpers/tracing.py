"""Follows a process by ptrace: which of its system calls change a folder, in which order.

HDF5 writes from C, where no monkeypatch reaches; the kernel sees all. The same stops let a call
fail, or write less than it was asked to. Linux alone; no compiler, no strace.

References: ptrace(2), for PTRACE_GET_SYSCALL_INFO (Linux 5.3) and for what the stops look like.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from helpers import ptrace
from helpers.operations import Call, Fault, Operation, Trace

_WALL = 0x40000000
_TIMEOUT_S = 60


@dataclass
class _Stopped:
    """A relevant call between its entry and its exit."""

    tid: int
    number: int
    syscall: str
    arguments: tuple[int, ...]
    paths: tuple[str, ...]
    existed: bool = False
    file: int = -1
    answer: int | None = None


class Tracer:
    """Follows one process and all that it starts, until the last has ended.

    Parameters
    ----------
    pid : int
        The leader of a process group of its own, which waits for `go`.
    folder : Path
        Changes in it are recorded; it holds files alone.
    fault : Fault, optional
    """

    def __init__(self, pid: int, folder: Path, fault: Fault | None = None) -> None:
        self._pid, self._folder, self._fault = pid, os.path.realpath(folder), fault
        self._numbers = ptrace.NUMBERS[platform.machine()]
        self._open: dict[int, _Stopped] = {}
        self._by_inode: dict[int, int] = {}
        self.trace = Trace({}, {})
        for path in sorted(folder.iterdir()):
            self.trace.files[path.name] = self._new_file(path.stat().st_ino)
            self.trace.contents[self.trace.files[path.name]] = path.read_bytes()

    def run(self, go: Callable[[], None]) -> Trace:
        """Attach, let the process go, and return what it did."""
        ptrace.ptrace(ptrace.SEIZE, self._pid, 0, ptrace.OPTIONS)
        ptrace.ptrace(ptrace.INTERRUPT, self._pid)
        # One that hangs is killed, and its exit code tells.
        timer = threading.Timer(_TIMEOUT_S, os.killpg, (self._pid, signal.SIGKILL))
        timer.start()
        go()
        try:
            while True:
                tid, status = os.waitpid(-self._pid, _WALL)
                if os.WIFSTOPPED(status):
                    self._resume(tid, status)
                elif tid == self._pid:
                    self.trace.exit_code = os.waitstatus_to_exitcode(status)
        except ChildProcessError:
            return self.trace
        finally:
            timer.cancel()

    def _resume(self, tid: int, status: int) -> None:
        number = os.WSTOPSIG(status)
        try:
            if number == signal.SIGTRAP | 0x80 or status >> 16 == ptrace.EVENT_SECCOMP:
                self._at_syscall(tid)
                number = 0
            elif status >> 16:  # an event, of a new thread or process
                number = 0
            # One whose call is of interest stops again when it leaves it.
            request = ptrace.SYSCALL if tid in self._open else ptrace.CONT
            ptrace.ptrace(request, tid, 0, number)
        except ProcessLookupError:
            pass  # killed meanwhile; the next wait tells

    def _at_syscall(self, tid: int) -> None:
        if entry := ptrace.syscall_entry(tid):
            self._enter(tid, self._numbers[entry[0]], entry[1:])
        else:
            result = ptrace.syscall_result(tid)
            assert result is not None
            self._leave(self._open.pop(tid), result)

    def _enter(self, tid: int, syscall: str, arguments: tuple[int, ...]) -> None:
        paths = self._paths(tid, syscall, arguments)
        if not paths:
            return
        nbytes = arguments[2] if syscall in ("write", "pwrite64") else 0
        stopped = _Stopped(tid, len(self.trace.calls), syscall, arguments, paths)
        self.trace.calls.append(Call(syscall, self._name(paths[0]), nbytes))
        if os.path.lexists(paths[0]):
            stopped.existed = True
            stopped.file = self._by_inode.get(os.lstat(paths[0]).st_ino, -1)
        if syscall in ("write", "pwrite64", "ftruncate", "fallocate", "fsync", "fdatasync"):
            inode = os.stat(f"/proc/{tid}/fd/{arguments[0]}").st_ino
            stopped.file = self._by_inode.get(inode, -1)
        self._open[tid] = stopped
        self._disturb(stopped, nbytes)

    def _disturb(self, stopped: _Stopped, nbytes: int) -> None:
        """Change the registers of a call that is to fail, to be short, or to wait for no disk."""
        if self._fault and self._fault.call == stopped.number:
            if self._fault.errno:
                stopped.answer = -self._fault.errno
            else:
                ptrace.set_register(stopped.tid, ptrace.RDX, nbytes // 2)
        elif ptrace.X86_64 and stopped.syscall in ("fsync", "fdatasync"):
            stopped.answer = 0  # the page cache is all that is looked at
        if stopped.answer is not None:
            # No call has this number, so that it is skipped.
            ptrace.set_register(stopped.tid, ptrace.ORIG_RAX, -1)

    def _leave(self, stopped: _Stopped, result: int) -> None:
        if stopped.answer is not None:
            result = stopped.answer
            ptrace.set_register(stopped.tid, ptrace.RAX, result)
        elif self._fault and self._fault.call == stopped.number:
            # Whoever calls relies on it that a system call keeps this register.
            ptrace.set_register(stopped.tid, ptrace.RDX, stopped.arguments[2])
        if result >= 0:
            self.trace.operations += self._operations(stopped, result)

    def _operations(self, stopped: _Stopped, result: int) -> Iterator[Operation]:
        """Yield what a call that succeeded did."""
        syscall, arguments, file = stopped.syscall, stopped.arguments, stopped.file
        name = self._name(stopped.paths[0])
        if syscall in ("open", "openat", "creat"):
            if not stopped.existed:
                inode = os.stat(f"/proc/{stopped.tid}/fd/{result}").st_ino
                yield Operation("create", self._new_file(inode), name)
            elif _open_flags(syscall, arguments) & os.O_TRUNC:
                yield Operation("truncate", file, name)
        elif syscall in ("write", "pwrite64"):
            data = ptrace.memory(stopped.tid, arguments[1], result)
            offset = arguments[3] if syscall == "pwrite64" else 0
            if syscall == "write":
                with open(f"/proc/{stopped.tid}/fdinfo/{arguments[0]}") as info:
                    offset = int(info.readline().split()[1]) - result
            yield Operation("write", file, name, offset=offset, nbytes=result, data=data)
        elif syscall == "ftruncate":
            yield Operation("truncate", file, name, nbytes=arguments[1])
        elif syscall == "fallocate":
            assert arguments[1] == 0, "a hole was punched, or a range zeroed"
            yield Operation("allocate", file, name, offset=arguments[2], nbytes=arguments[3])
        elif syscall in ("fsync", "fdatasync"):
            yield Operation("sync", file, name) if name else Operation("sync folder")
        elif syscall.startswith("rename"):
            yield Operation("rename", file, name, self._name(stopped.paths[1]))
        else:
            yield Operation("unlink", file, name)

    def _paths(self, tid: int, syscall: str, arguments: tuple[int, ...]) -> tuple[str, ...]:
        """Return the paths in the folder that a call is about; none if it changes nothing there."""
        if syscall.startswith("open") or syscall == "creat":
            if not _open_flags(syscall, arguments) & (os.O_CREAT | os.O_TRUNC):
                return ()
            places = [(1, 0)] if syscall == "openat" else [(0, None)]
        elif syscall.startswith("rename"):
            places = [(0, None), (1, None)] if syscall == "rename" else [(1, 0), (3, 2)]
        elif syscall.startswith("unlink"):
            places = [(0, None)] if syscall == "unlink" else [(1, 0)]
        else:
            try:
                path = os.readlink(f"/proc/{tid}/fd/{arguments[0]}")
            except FileNotFoundError:
                return ()  # not open: the call will fail
            return (path,) if self._is_within(path) else ()
        paths = []
        for path_at, folder_at in places:
            at = "cwd"
            if folder_at is not None and (fd := ctypes.c_int(arguments[folder_at]).value) >= 0:
                at = f"fd/{fd}"  # else AT_FDCWD
            folder = os.readlink(f"/proc/{tid}/{at}")
            path = os.path.join(folder, ptrace.text(tid, arguments[path_at]))
            parent, name = os.path.split(path)
            paths.append(os.path.join(os.path.realpath(parent), name))
        return tuple(paths) if all(map(self._is_within, paths)) else ()

    def _is_within(self, path: str) -> bool:
        return path == self._folder or path.startswith(self._folder + "/")

    def _name(self, path: str) -> str:
        return path[len(self._folder) + 1 :]

    def _new_file(self, inode: int) -> int:
        """Give a file a number; its inode may have been that of one that is gone."""
        number = len(self.trace.contents)
        self._by_inode[inode] = number
        self.trace.contents[number] = b""
        return number


def _open_flags(syscall: str, arguments: tuple[int, ...]) -> int:
    if syscall == "creat":
        return os.O_CREAT | os.O_TRUNC
    return arguments[2 if syscall == "openat" else 1]
