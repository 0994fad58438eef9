"""Reading a source: whole, regular, never blocking."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from helpers.drawing import save

from batchify.errors import BadImageError
from batchify.storage import source
from batchify.storage.source import read_file


def read(path: Path, max_nbytes: int = 1000) -> bytes:
    """Read a file with a small cap."""
    return read_file(os.fsencode(path), max_nbytes)[0]


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    """Its bytes, also where the system gives them in pieces."""
    assert read(save(tmp_path / "a", b"x" * 999)) == b"x" * 999


def test_pieces_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short read is continued."""
    monkeypatch.setattr(source, "_READ_NBYTES", 7)
    assert read(save(tmp_path / "a", bytes(range(100)))) == bytes(range(100))


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty file"), (b"x" * 1001, "file of 1,001 bytes is larger than 1,000")],
)
def test_empty_and_large_files_are_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    """Each with its reason."""
    with pytest.raises(BadImageError, match=reason):
        read(save(tmp_path / "a", content))


def test_a_vanished_file_is_an_error_of_that_file(tmp_path: Path) -> None:
    """Not of the build."""
    with pytest.raises(BadImageError, match="cannot be read: No such file"):
        read(tmp_path / "gone")


@pytest.mark.skipif(sys.platform == "win32", reason="no FIFOs there")
def test_a_fifo_never_blocks(tmp_path: Path) -> None:
    """Put in the place of a file after the walk."""
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(BadImageError, match="not a regular file"):
        read(tmp_path / "fifo")


def test_a_file_that_changed_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once: the bytes of one version come back, whole."""
    path = save(tmp_path / "a", b"old")
    real_read, reads = os.read, []

    def read_and_change(fd: int, nbytes: int) -> bytes:
        data = real_read(fd, nbytes)
        reads.append(data)
        if len(reads) == 1:
            path.write_bytes(b"newer")
        return data

    monkeypatch.setattr(os, "read", read_and_change)
    assert read(path) == b"newer"


def test_a_file_that_keeps_changing_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the second try."""
    path = save(tmp_path / "a", b"0")
    real_read, reads = os.read, []

    def read_and_change(fd: int, nbytes: int) -> bytes:
        reads.append(real_read(fd, nbytes))
        path.write_bytes(b"x" * (len(reads) + 1))
        return reads[-1]

    monkeypatch.setattr(os, "read", read_and_change)
    with pytest.raises(BadImageError, match="it changes while it is read"):
        read(path)
