"""Rows by split, class, finding and path."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.drawing import draw_dataset, encoded, photo, save
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import batchify
from batchify.errors import FileAccessError, FileMissingError, OptionError
from batchify.viewing.catalog import Catalog, Query
from batchify.viewing.paths import PathTable

NAMES = st.binary(min_size=1, max_size=6).map(lambda name: name.replace(b"\0", b"-"))


@given(paths=st.lists(NAMES, max_size=40), needle=st.binary(max_size=2))
def test_a_search_finds_what_python_finds(paths: list[bytes], needle: bytes) -> None:
    """For any bytes, with ASCII letters of any case, and nothing across two paths."""
    table = PathTable([paths[:3], paths[3:]])
    text = needle.decode("utf-8", "surrogateescape")
    found = [i for i, path in enumerate(paths) if needle.lower() in path.lower()]
    assert table.search(text).tolist() == found
    assert [table[i] for i in range(len(table))] == paths
    assert [each for _, some in table.slices(0, len(paths), 7) for each in some] == paths


@pytest.fixture
def doubled(tmp_path: Path) -> Path:
    """Build a file with an image in train twice, and one in both splits."""
    root = draw_dataset(tmp_path / "d", {"cat": 10, "dog": 15})
    shutil.copy(root / "cat" / "img_000.jpg", root / "cat" / "zleak.jpg")
    shutil.copy(root / "dog" / "img_014.jpg", root / "dog" / "zcopy.jpg")
    batchify.build(root, tmp_path / "out.h5", target_size=(8, 8))
    return tmp_path / "out.h5"


def paths(catalog: Catalog, query: Query) -> set[bytes]:
    """Return the paths of the rows that match."""
    return {catalog.paths[number] for number in catalog.find(query).tolist()}


def test_filters_combine(doubled: Path) -> None:
    """Rows are numbered across the splits; each filter narrows the others."""
    with Catalog(doubled) as catalog:
        assert len(catalog) == 27
        assert len(catalog.find(Query())) == 27
        assert paths(catalog, Query(split="validation", label=0)) == {
            b"cat/img_000.jpg", b"cat/img_001.jpg",
        }  # fmt: skip
        assert paths(catalog, Query(label=1, text="IMG_00")) == {
            b"dog/img_%03d.jpg" % i for i in range(10)
        }  # fmt: skip
        assert paths(catalog, Query(finding="leak")) == {b"cat/img_000.jpg"}
        assert paths(catalog, Query(finding="duplicate")) <= {
            b"dog/zcopy.jpg", b"dog/img_014.jpg",
        }  # fmt: skip
        assert not len(catalog.find(Query(finding="leak", split="train")))
        for query in (Query(split="test"), Query(label=2), Query(finding="dark"), Query(label=-1)):
            with pytest.raises(OptionError, match=r"there is no (split|class|finding)"):
                catalog.find(query)


def test_the_rows_of_an_image_know_each_other(doubled: Path) -> None:
    """Across splits, by their bytes."""
    with Catalog(doubled) as catalog:
        (number,) = catalog.find(Query(text="zleak")).tolist()
        (other,) = catalog.same_image(number).tolist()
        assert catalog.paths[other] == b"cat/img_000.jpg"
        assert catalog.locate(other)[0] == "validation"
        with pytest.raises(OptionError, match="there is no row 27, only 27"):
            catalog.locate(27)


def test_images_that_look_alike_are_found(tmp_path: Path) -> None:
    """By the hashes of --appearance: not those of the same bytes, nor the row itself."""
    root = tmp_path / "d"
    for i in range(6):
        image = photo(64, 48, i)
        save(root / "cat" / f"{i}.png", encoded(image, "PNG"))
        save(root / "dog" / f"{i}.jpg", encoded(image.resize((48, 36)), "JPEG"))
    shutil.copy(root / "cat" / "0.png", root / "dog" / "z.png")
    batchify.build(root, tmp_path / "a.h5", target_size=(32, 32), appearance=True)
    batchify.build(root, tmp_path / "b.h5", target_size=(32, 32))
    with Catalog(tmp_path / "a.h5") as catalog:
        for number in range(len(catalog)):
            path = catalog.paths[number]
            name = path[4:5].replace(b"z", b"0")
            wanted = {b"cat/%s.png" % name} if path.endswith(b"jpg") else {b"dog/%s.jpg" % name}
            if path == b"dog/0.jpg":
                wanted.add(b"dog/z.png")
            found = {catalog.paths[each]: bits for each, bits in catalog.find_alike(number)}
            assert set(found) == wanted
            assert max(found.values()) <= 10
    with Catalog(tmp_path / "b.h5") as catalog:
        assert catalog.find_alike(0) == []
    for color in (0, 90, 250):  # all have the hash of nothing
        save(root / "cat" / f"solid{color}.png", encoded(Image.new("L", (32, 32), color), "PNG"))
    batchify.build(root, tmp_path / "c.h5", target_size=(32, 32), appearance=True)
    with Catalog(tmp_path / "c.h5") as catalog:
        for number in catalog.find(Query(text="solid")).tolist():
            assert catalog.find_alike(number) == []


def test_shards_are_one_catalog(doubled: Path, tmp_path: Path) -> None:
    """With the rows, findings and labels of the single file."""
    batchify.build_shards(tmp_path / "d", tmp_path / "shards", shards=3, target_size=(8, 8))
    with Catalog(doubled) as one, Catalog(tmp_path / "shards") as many:
        numbers = range(len(one))
        assert [one.paths[i] for i in numbers] == [many.paths[i] for i in numbers]
        np.testing.assert_array_equal(one.labels, many.labels)
        for code in ("leak", "duplicate"):
            query = Query(finding=code)
            np.testing.assert_array_equal(one.find(query), many.find(query))
        parts = [many.find_part(i) for i in numbers]
        assert [row for _, row in parts[:6]] == [0, 1, 2, 3, 4, 5]
        assert {part.file for part, _ in parts} == set(range(6))


def test_what_is_no_file_is_refused(tmp_path: Path, photos: Path) -> None:
    """As by every command."""
    with pytest.raises(FileMissingError):
        Catalog(tmp_path / "none.h5")
    with pytest.raises(FileAccessError):
        Catalog(photos)
