"""Keys that stand for paths, and the index that finds them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from batchify.common.keys import KeyIndex, join_path_keys, path_keys

KEYS = st.lists(st.integers(0, 8) | st.integers(0, 2**64 - 1), max_size=30)


def test_keys_of_pieces_are_those_of_all_paths() -> None:
    """However the paths are cut."""
    pieces = [[b"a", b"b/c"], [], [b"d"]]
    assert join_path_keys(pieces, 3).tolist() == path_keys([b"a", b"b/c", b"d"]).tolist()


@given(KEYS, KEYS)
def test_an_index_finds_what_a_search_of_the_list_finds(keys: list[int], asked: list[int]) -> None:
    """Keys that are there several times, and keys that are not."""
    index = KeyIndex(np.array(keys, np.uint64))
    some = np.array(asked, np.uint64)
    found = {key: [i for i, each in enumerate(keys) if each == key] for key in {*asked, *keys}}
    assert len(index) == len(keys)
    assert index.last(some).tolist() == [[-1, *found[key]][-1] for key in asked]
    assert [list(index.positions(key)) for key in some] == [found[key] for key in asked]
    assert sorted(index.repeats()) == sorted(
        (first, later) for first, *rest in filter(None, found.values()) for later in rest
    )
    for each in (index, KeyIndex(np.array(keys, np.uint64), positions=False)):
        assert each.has(some).tolist() == [key in keys for key in asked]
