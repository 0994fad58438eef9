"""A library that is put before the C library, and makes calls fail as they do on some machines."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

SOURCE = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The error number of a call that fails, from the environment; 0 if it works. */
static int failing(const char *name) { char *text = getenv(name); return text ? atoi(text) : 0; }

static int is_of(int fd, const char *part, const char *ending) {
  char link[64], path[4096]; ssize_t n;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  n = readlink(link, path, sizeof path - 1);
  path[n < 0 ? 0 : n] = 0;
  return strstr(path, part) && strstr(path, ending);
}

#define FAIL(name) if (failing(name)) { errno = failing(name); return -1; }

int flock(int fd, int op) { FAIL("FAULT_FLOCK") return syscall(SYS_flock, fd, op); }
int fsync(int fd) { FAIL("FAULT_FSYNC") return syscall(SYS_fsync, fd); }
int fallocate(int fd, int mode, off_t at, off_t n) {
  FAIL("FAULT_FALLOCATE") return syscall(SYS_fallocate, fd, mode, at, n);
}
int fallocate64(int fd, int mode, off_t at, off_t n) { return fallocate(fd, mode, at, n); }

void *mmap(void *p, size_t n, int prot, int flags, int fd, off_t at) {
  if (failing("FAULT_MMAP") && fd >= 0 && is_of(fd, "", ".h5")) {
    errno = failing("FAULT_MMAP"); return MAP_FAILED;
  }
  return (void *)syscall(SYS_mmap, p, n, prot, flags, fd, at);
}
void *mmap64(void *p, size_t n, int prot, int flags, int fd, off_t at) {
  return mmap(p, n, prot, flags, fd, at);
}

/* Reading images fails from the 61st read on, until as many reads have failed as are asked for. */
ssize_t read(int fd, void *to, size_t n) {
  static int reads;
  if (failing("FAULT_READ") && is_of(fd, "/eio/", ".jpg")
      && ++reads > 60 && reads <= 60 + atoi(getenv("FAULT_READS"))) {
    errno = failing("FAULT_READ"); return -1;
  }
  return syscall(SYS_read, fd, to, n);
}
"""


def compiler() -> str | None:
    """Return the C compiler of the system; None if there is none for Linux."""
    return shutil.which("cc") if os.path.exists("/proc/self/fd") else None


def build_library(folder: Path) -> Path:
    """Compile the library in a folder."""
    source, library = folder / "faults.c", folder / "faults.so"
    source.write_text(SOURCE)
    command = [compiler() or "cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source)]
    subprocess.run(command, check=True)
    return library
