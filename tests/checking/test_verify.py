"""Verification: whatever rots is found and named, and what nobody reads does not matter."""

from __future__ import annotations

import dataclasses
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.drawing import draw_dataset, draw_zoo, encoded, photo, save
from helpers.files import flip

from batchify.building.build import build
from batchify.checking import provenance
from batchify.checking.findings import KEPT, Finding
from batchify.checking.verification import Findings, Verification
from batchify.checking.verify import verify
from batchify.common.progress import Progress
from batchify.dataset_options import SplitOptions
from batchify.errors import FileMissingError, OptionError
from batchify.format.checksums import write_checksums
from batchify.format.rows import RowWriter
from batchify.format.structure import read_row_offsets
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.options import BuildOptions

SMALL = BuildOptions(decode=DecodeOptions((20, 16)), batch_size=4)


def contents(path: Path) -> list[Any]:
    """Return all that h5py reads in a file."""
    found: list[Any] = []

    def visit(name: str, node: Any) -> None:
        found.append(
            [
                name,
                type(node).__name__,
                [(k, np.asarray(v).tobytes()) for k, v in node.attrs.items()],
            ]
        )
        if isinstance(node, h5py.Dataset):
            found.append([str(node.dtype), node.shape, node.maxshape, node[()].tobytes()])

    with h5py.File(path) as file:
        visit("/", file)
        file.visititems(visit)
        found.append(sorted(file))
    return found


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("class_mode", ["sparse", "categorical", "none"])
def test_a_built_file_is_whole(tmp_path: Path, compression: Any, class_mode: Any) -> None:
    """With its sources hashed and decoded again; all is counted."""
    root = draw_zoo(tmp_path / "zoo")
    options = dataclasses.replace(
        SMALL, store=StoreOptions(class_mode, compression=compression, dtype="float32")
    )
    report = build(root, tmp_path / "out.h5", options, on_error="skip")
    stages = []
    result = verify(
        tmp_path / "out.h5", source=root, redecode="all", progress=lambda p: stages.append(p.stage)
    )
    rows = report.plan.images
    assert result == Verification(os.fsencode(tmp_path / "out.h5"), rows, rows, rows, rows, {}, ())
    assert result.is_ok
    assert list(dict.fromkeys(stages)) == ["verify", "hash", "decode"]


def test_quick_leaves_the_images_out(out: Path) -> None:
    """They are not read, all else is."""
    offset = read_row_offsets(os.fsencode(out))["train/images"].offsets[0]
    flip(out, offset + 20 * 16 * 3 + 7)
    assert verify(out, quick=True).is_ok
    assert verify(out, quick=True).images == 0
    found = verify(out)
    assert [(f.code, f.split, f.row) for f in found.findings] == [("image", "train", 1)]
    assert found.images == 14


@pytest.mark.parametrize(
    ("column", "codes"),
    [
        ("labels", {"record", "digest"}),
        ("paths", {"record", "digest"}),
        ("source_sha256", {"record", "digest"}),
        ("row_crc32", {"record", "digest", "image"}),
        ("source_size", {"record", "digest"}),
        ("source_flags", {"record", "digest"}),
        ("record_crc32", {"record", "digest"}),
    ],
)
def test_damage_beside_the_images_names_the_row(out: Path, column: str, codes: set[str]) -> None:
    """By a checksum of each row, and the digest."""
    where = read_row_offsets(os.fsencode(out))[f"validation/{column}"]
    flip(out, where.offsets[0] + where.row_nbytes)
    found = verify(out)
    assert set(found.counts) == codes
    assert {(f.split, f.row) for f in found.findings if f.code != "digest"} == {("validation", 1)}


PARTS = 9
"""Of the long form, of some minutes each; an odd number, so that each has all bytes of numbers."""


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize(
    "part",
    [
        pytest.param(None, id="some"),
        *(pytest.param(part, marks=pytest.mark.long) for part in range(PARTS)),
    ],
)
def test_any_byte_that_is_used_is_covered(
    photos: Path, tmp_path: Path, compression: Any, part: int | None
) -> None:
    """A flipped byte is found, or nothing that can be read is another: all bytes in the long form.

    The short form takes what is not zero, evenly, and some zeros.
    """
    (photos / "cat" / "img_000.jpg").write_bytes(b"bad")
    options = dataclasses.replace(
        SMALL, decode=DecodeOptions((4, 4)), store=StoreOptions(compression=compression)
    )
    out = tmp_path / "out.h5"
    build(photos, out, options, on_error="skip")
    data = np.fromfile(out, np.uint8)
    before = contents(out)
    used, zeros = np.flatnonzero(data), np.flatnonzero(data == 0)
    some = np.r_[used[::40], zeros[::3200]]
    offsets = some if part is None else np.arange(part, len(data), PARTS)
    missed, found = [], 0
    for offset in offsets.tolist():
        mask = 1 << offset % 8
        flip(out, offset, mask)
        if not verify(out, workers=1).is_ok:
            found += 1
        elif contents(out) != before:
            missed.append(offset)
        flip(out, offset, mask)
    assert not missed
    assert found > (len(used[::40]) // 2 if part is None else len(used) // (10 * PARTS))
    assert verify(out).is_ok


def grown(file: h5py.File) -> None:
    """Add a row to one column alone."""
    file["train/images"].resize(len(file["train/images"]) + 1, axis=0)


def relabelled(file: h5py.File) -> None:
    """Lead a tutorial's name to another split."""
    del file["y_train"]
    file["y_train"] = file["validation/labels"]


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        (grown, ["train/images has shape"]),
        (relabelled, ["y_train is not train/labels"]),
        (lambda f: f.create_group("more"), ["there is a more that is not part of schema 1"]),
        (lambda f: f["train"].create_group("x\ny"), [r"there is a train/x\ny that is not"]),
        (lambda f: f.__delitem__("X_train"), ["there is no X_train"]),
        (lambda f: f["train/images"].attrs.modify("scale_factor", np.float32(1)), ["scale_factor"]),
        (lambda f: f["train/images"].attrs.__delitem__("scale_factor"), ["scale_factor of train"]),
        (lambda f: f.attrs.create("more", 1), []),
        (lambda f: f["train"].attrs.__delitem__("NX_class"), []),
        (lambda f: f.attrs.__delitem__("format"), ["it has no attribute format"]),
    ],
)
def test_a_structure_that_is_not_schema_1_is_found(
    out: Path, change: Callable[[h5py.File], None], messages: list[str]
) -> None:
    """Names, links, shapes and attributes; by what schema 1 says, or by the digest."""
    with h5py.File(out, "r+") as file:
        change(file)
    found = verify(out)
    assert not found.is_ok
    told = [finding.message for finding in found.findings if finding.code == "structure"]
    assert len(told) == len(messages) or not messages
    for message in messages:
        assert message in told[0]


def restamp(path: Path) -> None:
    """Make the checksums those of what is in the file, as a wrong writer would."""
    writer = RowWriter(os.fsencode(path), read_row_offsets(os.fsencode(path)))
    write_checksums(os.fsencode(path), writer)
    writer.close()


@pytest.mark.parametrize(
    ("class_mode", "value"), [("sparse", 2), ("sparse", -1), ("categorical", [1, 1])]
)
def test_labels_of_no_class_are_found(
    photos: Path, tmp_path: Path, class_mode: Any, value: Any
) -> None:
    """Though all checksums say that they were written so."""
    out = tmp_path / "out.h5"
    build(photos, out, dataclasses.replace(SMALL, store=StoreOptions(class_mode)))
    with h5py.File(out, "r+") as file:
        file["validation/labels"][1] = value
    restamp(out)
    found = verify(out)
    assert [(f.code, f.split, f.row) for f in found.findings] == [("label", "validation", 1)]


@pytest.mark.parametrize("keep", [0, 7, 100, 5000, -1])
def test_a_file_that_was_cut_is_damage(out: Path, keep: int) -> None:
    """Whatever is left of it."""
    os.truncate(out, keep if keep >= 0 else out.stat().st_size - 1)
    found = verify(out)
    assert not found.is_ok


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """Not a finding."""
    with pytest.raises(FileMissingError):
        verify(tmp_path / "none.h5")


def test_sources_that_changed_are_listed(photos: Path, out: Path) -> None:
    """Changed, missing and new ones; a skipped one is not new."""
    (photos / "dog" / "img_002.jpg").write_bytes(encoded(photo(seed=77), "JPEG"))
    (photos / "dog" / "img_003.jpg").unlink()
    (photos / "dog" / "img_004.jpg").write_bytes(b"")
    save(photos / "cat" / "fresh.jpg", encoded(photo(seed=78), "JPEG"))
    found = verify(out, source=photos, redecode="all")
    assert {(f.code, f.path, f.message) for f in found.findings} == {
        ("changed", b"dog/img_002.jpg", "its content has changed"),
        ("changed", b"dog/img_004.jpg", "empty file (0 bytes)"),
        ("missing", b"dog/img_003.jpg", "it is not in the dataset any more"),
        ("new", b"cat/fresh.jpg", "it is not in the file"),
    }
    assert found.sources == 13
    assert found.decoded == 11
    with h5py.File(out) as file:
        for finding in found.findings:
            if finding.row is not None:
                assert file[finding.split]["paths"][finding.row] == finding.path


def test_pixels_that_decode_otherwise_are_found(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another Pillow might decode them; the message says which was which."""
    out = tmp_path / "out.h5"
    build(photos, out, SMALL)
    with h5py.File(out, "r+") as file:
        file["train/images"][2, 0, 0, 0] ^= 1
        file["train/row_crc32"][2] = zlib.crc32(file["train/images"][2].tobytes())
    restamp(out)
    monkeypatch.setattr(provenance, "decoder_text", lambda *_: "Pillow 99")
    found = verify(out, source=photos, redecode="all")
    assert [(f.code, f.split, f.row) for f in found.findings] == [("pixels", "train", 2)]
    assert "the file was decoded by Pillow 1" in found.findings[0].message
    assert "this is Pillow 99" in found.findings[0].message


def test_some_are_decoded_again(tmp_path: Path) -> None:
    """As many as asked, drawn evenly, the same ones each time."""
    root = draw_dataset(tmp_path / "data", {"a": 300, "b": 330}, size=(8, 8))
    build(root, tmp_path / "out.h5", dataclasses.replace(SMALL, split=SplitOptions(test=0.2)))
    for count in (1, 50, 629, 630, 10**9):
        result = verify(tmp_path / "out.h5", quick=True, source=root, redecode=count)
        assert result.decoded == min(count, 630)
        assert result.is_ok


@pytest.mark.parametrize(
    "options", [{"redecode": 3}, {"redecode": 0, "source": "x"}, {"workers": 0}]
)
def test_options_that_cannot_be_meant(out: Path, options: dict[str, Any]) -> None:
    """Before anything is read."""
    with pytest.raises(OptionError):
        verify(out, **options)


def test_a_stranger_leads_nowhere_by_paths(tmp_path: Path) -> None:
    """A path out of the source folder is a missing source, and is not read."""
    root = draw_dataset(tmp_path / "data", {"a": 5, "b": 5})
    secret = save(tmp_path / "secret.jpg", encoded(photo(), "JPEG"))
    out = tmp_path / "out.h5"
    build(root, out, dataclasses.replace(SMALL, split=SplitOptions(validation=0)))
    with h5py.File(out, "r+") as file:
        file["train/paths"][3] = b"../secret.jpg"
        file["train/paths"][4] = os.fsencode(secret)[:13]
    restamp(out)
    found = verify(out, source=root)
    assert [f.row for f in found.findings if f.code == "missing"] == [3, 4]
    assert "changed" not in found.counts


def test_findings_are_all_counted_and_some_kept() -> None:
    """A thousand of each code."""
    found = Findings()
    for row in range(KEPT + 5):
        found.add(Finding("image", "x", "train", row))
    found.add(Finding("digest", "y"))
    assert found.counts == {"image": KEPT + 5, "digest": 1}
    assert len(found.kept) == KEPT + 1


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_every_damaged_row_is_named(tmp_path: Path, compression: Any) -> None:
    """Of compressed images all that share a chunk; the reading goes on after it."""
    root = draw_dataset(tmp_path / "data", {"a": 50, "b": 50})
    out = tmp_path / "out.h5"
    options = dataclasses.replace(
        SMALL,
        decode=DecodeOptions((64, 64)),
        split=SplitOptions(validation=0),
        store=StoreOptions(compression=compression),
    )
    build(root, out, options)
    with h5py.File(out) as file:
        chunks: list[Any] = []
        file["train/images"].id.chunk_iter(chunks.append)
        chunk_rows = file["train/images"].chunks[0]
        offsets = [(info.byte_offset, info.size) for info in chunks]
    expected = []
    for index in (0, 3, len(offsets) - 1):
        flip(out, offsets[index][0] + offsets[index][1] // 2 - 2000)
        row = index * chunk_rows
        expected += list(range(row, min(row + chunk_rows, 100))) if compression == "gzip" else []
    found = [f.row for f in verify(out).findings if f.code == "image"]
    if compression == "gzip":
        assert found == expected
    else:
        assert len(found) == 3 or len(found) == 2  # the last chunk is not full
    stages: list[Progress] = []
    verify(out, progress=stages.append)
    assert stages[-1].done == stages[-1].total == 100
