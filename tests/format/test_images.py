"""Stored images are read by offset and compared with their checksums, in each form of storing."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batchify.building.build import build
from batchify.format.images import StoredPixels, stored_images
from batchify.format.intact import damaged_images
from batchify.format.reader import Reader
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.options import BuildOptions

FORMS: list[dict[str, Any]] = [{}, {"compression": "gzip"}, {"store": "encoded"}]


@pytest.fixture(params=FORMS, ids=["pixels", "gzip", "encoded"])
def out(photos: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Build a small file whose images are stored in one of the forms."""
    options = BuildOptions(decode=DecodeOptions((20, 16)), store=StoreOptions(**request.param))
    build(photos, tmp_path / "out.h5", options)
    return tmp_path / "out.h5"


def test_images_are_read_after_the_file_is_closed(out: Path) -> None:
    """Row by row, or all at once: the bytes are the same, and match their checksums."""
    with Reader(out) as reader:
        images = stored_images(reader, "train")
        crc32 = reader.column("train", "row_crc32").tolist()
    with images:
        data, damaged = images.checked(0, crc32)
        assert not damaged
        assert data == b"".join(images.get(row, row + 1) for row in range(images.rows))
        assert sum(images.sizes(0, images.rows)) == len(data)
        pieces = list(images.pieces())
    assert [start for start, _ in pieces] == [0, *(stop for _, stop in pieces[:-1])]
    assert pieces[-1][1] == images.rows
    assert images.piece_nbytes >= max(sum(images.sizes(*piece)) for piece in pieces)


def test_rows_that_do_not_match_their_checksum_are_named(out: Path) -> None:
    """Those and no others."""
    with Reader(out) as reader, stored_images(reader, "train") as images:
        crc32 = reader.column("train", "row_crc32")
        assert not any(damaged for _, damaged in damaged_images(reader, "train"))
        crc32[[1, 3]] ^= np.uint32(1)
        assert images.checked(0, crc32.tolist())[1] == [1, 3]
        assert images.checked(2, crc32[2:].tolist())[1] == [3]


def test_damage_is_found_in_mapped_memory_as_in_what_is_read(out: Path) -> None:
    """A wrong byte in the last image; also if the file system maps no files."""
    content = bytearray(out.read_bytes())
    with Reader(out) as reader, stored_images(reader, "train") as images:
        last = reader.rows("train") - 1
        if isinstance(images, StoredPixels) and images.compressed:
            chunks = reader.splits["train"]["images"].id
            info = chunks.get_chunk_info(chunks.get_num_chunks() - 1)
            position = info.byte_offset + info.size // 2
        else:
            position = content.rindex(images.get(last, last + 1)) + 5
    content[position] ^= 1
    out.write_bytes(content)
    for has_maps in (True, False):
        with Reader(out) as reader, pytest.MonkeyPatch.context() as patch:
            if not has_maps:
                patch.setattr(np, "memmap", _no_map)
            assert (reader.mapped() is not None) == has_maps
            read, found = (
                [row for _, damaged in damaged_images(reader, "train", mapped=mapped)
                 for row in damaged]
                for mapped in (False, True)
            )  # fmt: skip
        assert read == found
        assert last in [row for row, _ in found]


def _no_map(*_: object) -> None:
    raise OSError(errno.ENODEV, "no maps here")
