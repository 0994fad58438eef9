"""Images that are stored more than once, found by the hashes of their sources."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from helpers.drawing import encoded, photo, save
from hypothesis import given
from hypothesis import strategies as st

from batchify.building.build import build
from batchify.format.reader import Reader
from batchify.image_options import DecodeOptions
from batchify.options import BuildOptions
from batchify.planning.duplicates import find_repeats, stored_digests


def digests_of(values: list[int]) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """Return hashes whose first 8 bytes are often the same, the last often not."""
    digests = np.zeros((len(values), 32), np.uint8)
    digests[:, 0] = np.array(values, np.int64) % 2
    digests[:, 31] = np.array(values, np.int64)
    return digests


@given(
    train=st.lists(st.integers(0, 9), max_size=30), test=st.lists(st.integers(0, 9), max_size=30)
)
def test_all_rows_of_an_image_are_found(train: list[int], test: list[int]) -> None:
    """Within and across splits, in the order of the file; a hash of zeros is of no image."""
    rows = [("train", i, v) for i, v in enumerate(train)]
    rows += [("test", i, v) for i, v in enumerate(test)]
    expected: dict[int, list[tuple[str, int]]] = {}
    for split, row, value in rows:
        if value:
            expected.setdefault(value, []).append((split, row))
    found = find_repeats({"train": digests_of(train), "test": digests_of(test)})
    assert list(map(list, found)) == [rows for rows in expected.values() if len(rows) > 1]
    for repeat in found:
        first = dict(reversed(repeat))
        assert repeat.firsts == first
        assert repeat.splits == tuple(name for name in ("train", "test") if name in first)


def test_a_file_knows_its_repeats(tmp_path: Path) -> None:
    """The same bytes under several names, in several classes and splits."""
    for i in range(8):
        save(tmp_path / "data" / "cat" / f"{i}.png", encoded(photo(seed=i), "PNG"))
    save(tmp_path / "data" / "cat" / "9.png", encoded(photo(seed=0), "PNG"))
    save(tmp_path / "data" / "dog" / "1.png", encoded(photo(seed=5), "PNG"))
    options = BuildOptions(decode=DecodeOptions((8, 8)))
    build(tmp_path / "data", tmp_path / "out.h5", options)
    with Reader(tmp_path / "out.h5") as reader:
        found = find_repeats(stored_digests(reader))
        named = [
            {bytes(reader.splits[split]["paths"][row]) for split, row in repeat} for repeat in found
        ]
    assert {b"cat/0.png", b"cat/9.png"} in named
    assert {b"cat/5.png", b"dog/1.png"} in named
    assert len(found) == 2
    assert {repeat.splits for repeat in found} == {("train", "validation"), ("train",)}
