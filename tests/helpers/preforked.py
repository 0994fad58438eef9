"""A `batchify` command that starts at once: it runs in a fork of a process that has imported all.

For tests of what calls the command dozens of times, and is not about its start.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

SERVER = """
import gc, json, os, select, socket, sys
import numpy.random, PIL.Image
import batchify.building.build, batchify.building.seal, batchify.building.unfinished
import batchify.checking.check, batchify.checking.verify
import batchify.cli, batchify.cli.output, batchify.reporting.report, batchify.reporting.sheet

PIL.Image.init()
gc.collect()
gc.freeze()  # or a collection in a fork would copy all pages of what is imported
with socket.socket(socket.AF_UNIX) as server:
    server.bind(sys.argv[1])
    server.listen()
    print(flush=True)
    while True:
        if 0 in select.select([0, server], [], [])[0]:
            os._exit(0)  # the test process has ended
        client, _ = server.accept()
        order, fds, _, _ = socket.recv_fds(client, 1 << 20, 4)
        pid = os.fork()
        if not pid:
            break
        for fd in fds:
            os.close(fd)
        with client:
            client.sendall(b"%d" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
client.close()
for number, fd in enumerate(fds[:3]):
    os.dup2(fd, number)
os.fchdir(fds[3])
for fd in fds:
    os.close(fd)
arguments, environment = json.loads(order)
os.environ.clear()
os.environ.update(environment)
batchify.cli.main(arguments, prog_name="batchify")
"""

CLIENT = """
import json, os, socket, sys

with socket.socket(socket.AF_UNIX) as client:
    client.connect(sys.argv[1])
    order = json.dumps([sys.argv[2:], dict(os.environ)]).encode()
    socket.send_fds(client, [order], [0, 1, 2, os.open(".", os.O_RDONLY)])
    sys.exit(int(client.recv(16)))
"""


@contextlib.contextmanager
def preforked() -> Iterator[Path]:
    """Start the process; the value is a folder for the PATH, with the command in it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # addresses may have 100 characters
        address = f"{folder}/socket"
        command = Path(folder, "bin", "batchify")
        command.parent.mkdir()
        start = shlex.join([sys.executable, "-ESc", CLIENT, address])
        command.write_text(f'#!/bin/sh\nexec {start} "$@"\n', encoding="utf-8")
        command.chmod(0o755)
        with subprocess.Popen(
            [sys.executable, "-c", SERVER, address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # a fork takes none of the threads of a BLAS along
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"},
        ) as server:
            assert server.stdout is not None
            assert server.stdout.readline() == b"\n"
            yield command.parent
            server.communicate()
