"""Files to batches: what is read when, and which file is in progress."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from helpers.drawing import encoded, photo
from numpy.typing import NDArray

from batchify.decoding import batch
from batchify.decoding.batch import BatchReader, ImageRecord
from batchify.errors import BadImageError
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.storage.source import SourceFile

IMAGE = encoded(photo(8, 8), "PNG")


class Files:
    """A source of small images that notes what is read; one file takes all memory."""

    def __init__(self, steps: list[str], full: bytes = b"") -> None:
        self._steps = steps
        self._full = full

    def read_files(
        self, files: Sequence[SourceFile], _max_nbytes: int
    ) -> Iterator[bytes | BadImageError]:
        """Yield the same image for each file."""
        for file in files:
            if file.path == self._full:
                raise MemoryError
            self._steps.append(f"read {file.path.decode()}")
            yield IMAGE

    def file_sizes(self, files: Sequence[SourceFile]) -> Iterator[int]:
        """Yield the size of each file."""
        yield from (len(IMAGE) for _ in files)

    def close(self) -> None:
        """Nothing is open."""


def steps_of(names: str, **options: Any) -> list[str]:
    """Return what a reader does with some files, in its order."""
    steps: list[str] = []

    def find(_digest: bytes, _out: NDArray[Any]) -> ImageRecord:
        steps.append("decode")
        return ImageRecord(1, (8, 8), 0)

    reader = BatchReader(
        Files(steps, options.pop("full", b"")),
        DecodeOptions(target_size=(8, 8)),
        store=StoreOptions(),
        cached=find,
    )
    files = [SourceFile(name.encode()) for name in names]
    found = reader.read(files, mark=lambda i: steps.append(f"mark {names[i]}"), **options)
    assert [i for i, _ in found.bad] == sorted(options.get("refused", ()))
    return steps


def test_each_file_is_marked_before_it_is_read_and_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files are read together, as many as fit; whichever hangs, in either step, is named."""
    read_ab = ["mark a", "read a", "mark b", "read b"]
    decode_ab = ["mark a", "decode", "mark b", "decode"]
    rest = ["mark c", "read c", "mark c", "decode"]
    monkeypatch.setattr(batch, "_PORTION_NBYTES", len(IMAGE) + 1)
    assert steps_of("abc") == read_ab + decode_ab + rest
    monkeypatch.setattr(batch, "_PORTION_NBYTES", 1)
    assert steps_of("c") == rest


def test_a_refused_file_is_not_read() -> None:
    """The others of its portion are."""
    steps = steps_of("abc", refused={1: "it hangs"})
    assert [step for step in steps if step.startswith("read")] == ["read a", "read c"]


def test_a_file_that_takes_all_memory_is_named() -> None:
    """Also when it is read with others."""
    with pytest.raises(MemoryError, match="b"):
        steps_of("abc", full=b"b")
