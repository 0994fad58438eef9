"""Encoded files from strangers, and rotten ones: refused, or named; nothing else is read."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.drawing import encoded, save
from helpers.encoding import SMALL, columns, decoded
from helpers.files import flip
from helpers.running import Run
from numpy.typing import NDArray
from PIL import Image

import batchify
from batchify.building.build import build
from batchify.checking.verify import verify
from batchify.errors import FileFormatError
from batchify.format.checksums import write_checksums
from batchify.format.rows import RowWriter
from batchify.format.structure import read_row_offsets
from batchify.image_options import DecodeOptions
from batchify.reporting.sheet import write_sheet
from batchify.reporting.summary import summarize

Extents = NDArray[np.int64]


@pytest.fixture
def out(photos: Path, tmp_path: Path) -> Path:
    """Build a small encoded file."""
    build(photos, tmp_path / "out.h5", SMALL)
    return tmp_path / "out.h5"


def refused(path: Path, message: str) -> None:
    """Hold that whoever opens a file refuses it, for a reason."""
    for call in (batchify.open, summarize):
        with pytest.raises(FileFormatError, match=message):
            call(path)
    found = verify(path).findings
    assert [(f.code, f.split) for f in found] == [("structure", "")]


def swap(extents: Extents) -> None:
    """Exchange two rows."""
    extents[[2, 3]] = extents[[3, 2]]


def overlap(extents: Extents) -> None:
    """Let a row begin before the one before it ends."""
    extents[4] += (-1, 1)


def gap(extents: Extents) -> None:
    """Leave a byte out."""
    extents[4] += (1, -1)


def negative(extents: Extents) -> None:
    """Let two rows run backwards."""
    extents[4, 1] = -5
    extents[5] = (extents[4].sum(), extents[5].sum() - extents[4].sum())


def beyond(extents: Extents) -> None:
    """Let the last row end past the last byte."""
    extents[-1, 1] += 1


def short(extents: Extents) -> None:
    """Let the last byte be of no row."""
    extents[-1, 1] -= 1


def huge(extents: Extents) -> None:
    """Let sums wrap."""
    extents[3] = (2**63 - 1, 2**63 - 1)


def late(extents: Extents) -> None:
    """Begin with the second byte."""
    extents[0] += (1, -1)


@pytest.mark.parametrize(
    ("change", "row"),
    [
        (swap, 2), (overlap, 4), (gap, 4), (negative, 4), (beyond, None), (short, None),
        (huge, 3), (late, 0),
    ],
)  # fmt: skip
def test_rows_lie_one_after_another(
    out: Path, change: Callable[[Extents], None], row: int | None
) -> None:
    """From the first byte to the last; all else is refused, with the row."""
    with h5py.File(out, "r+") as file:
        extents = file["train/image_extents"][()]
        change(extents)
        file["train/image_extents"][...] = extents
    if row is None:
        refused(out, "train/encoded has [0-9,]+ bytes, but its rows end at")
    else:
        refused(out, f"train/image_extents of row {row} does not start where the row before ends")


def configured(path: Path, **changes: Any) -> None:
    """Write other options into the config of a file, and sums that fit."""
    with h5py.File(path, "r+") as file:
        config = {**json.loads(file.attrs["config"]), **changes}
        text = json.dumps({k: v for k, v in config.items() if v is not None})
        file.attrs.create("config", np.bytes_(text.encode()))
    writer = RowWriter(os.fsencode(path), read_row_offsets(os.fsencode(path)))
    try:
        write_checksums(os.fsencode(path), writer)
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"store": "elsewhere"}, "its store is not known to this batchify"),
        ({"store": 5}, "its store is not known to this batchify"),
        ({"store": None}, "train has no images"),
        ({"target_size": [20]}, "its target_size is not two numbers"),
        ({"target_size": [20, 16.5]}, "its target_size is not two numbers"),
        ({"target_size": [20, True]}, "its target_size is not two numbers"),
        ({"target_size": [0, 16]}, "its target_size is not valid"),
        ({"target_size": [2**40, 2**40]}, "its target_size is not valid"),
        ({"color_mode": "grayscale"}, r"train/channel_sums has shape \(12, 3, 3\)"),
    ],
)
def test_configs_that_cannot_be_are_refused(
    out: Path, changes: dict[str, Any], message: str
) -> None:
    """What is served is what they say, so they are held to what can be."""
    with h5py.File(out, "r+") as file:
        config = {**json.loads(file.attrs["config"]), **changes}
        text = json.dumps({k: v for k, v in config.items() if v is not None})
        file.attrs.create("config", np.bytes_(text.encode()))
    refused(out, message)


def test_images_are_not_served_larger_than_the_caps(out: Path, tmp_path: Path) -> None:
    """A small file cannot ask for gigabytes a row, whatever it records as its caps."""
    configured(out, target_size=[20_000, 20_000], max_pixels=2**40)
    assert summarize(out).splits[0].image_shape == (20_000, 20_000, 3)
    with pytest.raises(FileFormatError, match="images of 20000×20000 are more than 178,956,970 pi"):
        batchify.open(out)
    with pytest.raises(FileFormatError, match="more than 178,956,970 pixels"):
        write_sheet(out, tmp_path / "sheet.png")
    assert batchify.open(out, trusted=True)["train"].images.shape == (12, 20_000, 20_000, 3)
    configured(out, target_size=[20, 20], fit="crop", shorter_side=20_000)
    with pytest.raises(FileFormatError, match="20000, every image has more than 178,956,970 pixel"):
        batchify.open(out)
    configured(out, shorter_side=-1)
    with pytest.raises(FileFormatError, match="shorter side must be a whole number of at least 1"):
        batchify.open(out)


def test_a_bomb_is_not_decoded(photos: Path, tmp_path: Path) -> None:
    """An image of a stranger's file that is larger than the default caps, said to be allowed."""
    bomb = encoded(Image.new("1", (14_000, 14_000)), "PNG")
    save(photos / "dog" / "wide.png", bomb)
    out = tmp_path / "out.h5"
    options = dataclasses.replace(SMALL, decode=DecodeOptions((20, 16), max_pixels=2**28))
    build(photos, out, options)
    split = batchify.open(out)["train"]
    row = list(split.paths).index("dog/wide.png")
    with pytest.raises(FileFormatError, match=r"cannot be decoded: .*(bomb|max-pixels)"):
        split[row]
    assert verify(out).is_ok
    sheet = write_sheet(out, tmp_path / "sheet.png")
    assert sheet.undecoded == (f"train, row {row}",)
    assert sheet.damaged == ()


def pixels_too(file: h5py.File) -> None:
    """Store images beside the files."""
    file["train"].create_dataset("images", (12, 20, 16, 3), "u1", chunks=(12, 20, 16, 3))


def wide(file: h5py.File) -> None:
    """Store bytes as larger numbers."""
    data = file["train/encoded"][()]
    del file["train/encoded"]
    file["train"].create_dataset("encoded", data=data.astype("<u2"), chunks=True, maxshape=(None,))


def squeezed(file: h5py.File) -> None:
    """Compress the bytes."""
    data = file["train/encoded"][()]
    del file["train/encoded"]
    file["train"].create_dataset("encoded", data=data, chunks=(1000,), compression="gzip")


def outside(file: h5py.File) -> None:
    """Keep the bytes in another file."""
    del file["train/encoded"]
    file["train/encoded"] = h5py.ExternalLink("other.h5", "/data")


def flat(file: h5py.File) -> None:
    """Store the bytes as rows of one."""
    data = file["train/encoded"][()]
    del file["train/encoded"]
    file["train"].create_dataset("encoded", data=data[:, None], chunks=(1000, 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (wide, "train/encoded does not have type"),
        (squeezed, "train/encoded has a filter that is not gzip"),
        (outside, "has a link that is not a hard link"),
        (flat, "train/encoded has shape"),
    ],
)
def test_other_bytes_are_refused(
    out: Path, change: Callable[[h5py.File], None], message: str
) -> None:
    """They are plain bytes in chunks of the file."""
    with h5py.File(out, "r+") as file:
        change(file)
    refused(out, message)


def test_pixels_beside_the_bytes_are_found(out: Path) -> None:
    """A file has one of them; the other is told of, and never read."""
    with h5py.File(out, "r+") as file:
        pixels_too(file)
    messages = [f.message for f in verify(out).findings if f.code == "structure"]
    assert messages == ["there is a train/images that is not part of schema 1"]


def test_every_stored_byte_is_covered(out: Path) -> None:
    """A flipped one names its row; all of the bytes, and of what is known of them."""
    where = read_row_offsets(os.fsencode(out))
    ends = columns(out)["validation/image_extents"].sum(1)
    offset = where["validation/encoded"].offsets[0]
    for at in range(0, int(ends[-1]), 97):
        flip(out, offset + at, 1 << at % 8)
        found = verify(out, workers=1).findings
        row = int(np.searchsorted(ends, at, "right"))
        assert [(f.code, f.split, f.row) for f in found] == [("image", "validation", row)]
        flip(out, offset + at, 1 << at % 8)
    sums = where["validation/channel_sums"]
    for at in range(0, len(ends) * sums.row_nbytes, 5):
        flip(out, sums.offsets[0] + at)
        found = verify(out, workers=1).findings
        assert {f.code for f in found} == {"record", "digest"}
        assert {f.row for f in found} == {at // sums.row_nbytes, None}
        flip(out, sums.offsets[0] + at)
    extents = where["validation/image_extents"]
    for at in range(0, len(ends) * extents.row_nbytes, 3):
        flip(out, extents.offsets[0] + at)
        assert {f.code for f in verify(out, workers=1).findings} == {"structure"}
        flip(out, extents.offsets[0] + at)
    assert verify(out).is_ok


def test_other_pixels_than_at_the_build_are_found(photos: Path, out: Path) -> None:
    """By the sums over them, where the decoder has changed; the bytes are as they were."""
    with h5py.File(out, "r+") as file:
        sums = file["train/channel_sums"][()]
        sums[4, 0, 1] += 1
        file["train/channel_sums"][...] = sums
    configured(out)  # nothing but the sums is another
    assert verify(out, source=photos).is_ok
    found = verify(out, source=photos, redecode="all").findings
    assert [(f.code, f.split, f.row) for f in found] == [("pixels", "train", 4)]
    assert "decoding it again gives different pixels" in found[0].message


def test_a_damaged_picture_is_crossed_out(out: Path, tmp_path: Path, run: Run) -> None:
    """On a sheet; the others are shown."""
    offset = read_row_offsets(os.fsencode(out))["train/encoded"].offsets[0]
    flip(out, offset + 300)
    done = run("inspect", out, "--sheet", tmp_path / "sheet.png")
    assert done.returncode == 0, done.stderr
    assert "1 of them damaged" in done.stdout
    assert "train, row 0" in done.stdout


def test_pictures_are_those_of_a_file_of_pixels(photos: Path, out: Path, tmp_path: Path) -> None:
    """A sheet shows what is served."""
    build(photos, tmp_path / "b.h5", decoded(SMALL))
    write_sheet(out, tmp_path / "a.png")
    write_sheet(tmp_path / "b.h5", tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_refusal_names_the_file_once(out: Path) -> None:
    """Also where it is found while the file opens."""
    with h5py.File(out, "r+") as file:
        file["train/image_extents"][0] = (-1, 5)
    with pytest.raises(FileFormatError) as raised:
        batchify.open(out)
    assert str(raised.value).count("is not a valid batchify file") == 1
