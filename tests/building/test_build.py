"""Building: the same bytes whatever the workers, and every refusal before it costs anything."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.drawing import draw_dataset, encoded, photo, save
from helpers.properties import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import batchify
from batchify import choices, errors
from batchify.building.build import build
from batchify.common import durable
from batchify.common.progress import Progress
from batchify.dataset_options import DiscoverOptions, SplitOptions
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.options import BuildOptions
from batchify.planning.planner import plan_build

SMALL = BuildOptions(decode=DecodeOptions((20, 16)), batch_size=4)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def spoil(root: Path) -> list[str]:
    """Put bad images into a dataset of cats and dogs; return their paths."""
    save(root / "cat" / "empty.jpg", b"")
    save(root / "cat" / "text.png", b"hello")
    save(root / "dog" / "cut.jpg", encoded(photo(), "JPEG")[:-200])
    return ["cat/empty.jpg", "cat/text.png", "dog/cut.jpg"]


@pytest.mark.parametrize("compression", [pytest.param("none", marks=pytest.mark.long), "gzip"])
@pytest.mark.parametrize("bad", [pytest.param(False, marks=pytest.mark.long), True])
def test_the_same_bytes_for_any_number_of_workers(
    tmp_path: Path, compression: Any, bad: bool
) -> None:
    """1, 2 and 4 workers, a second run, another batch size and another time: one sha256."""
    root = draw_dataset(tmp_path / "photos", {"cat": 30, "dog": 43})
    if bad:
        spoil(root)
    options = replace(SMALL, store=StoreOptions(compression=compression, dtype="uint16"))
    digests = set()
    for workers, batch_size in ((1, 4), (2, 4), (4, 4), (1, 4), (2, 33)):
        out = tmp_path / "out.h5"
        build(
            root, out, replace(options, batch_size=batch_size),
            workers=workers, on_error="skip",
        )  # fmt: skip
        digests.add(digest(out))
        out.unlink()
        time.sleep(0.3)  # a clock in the file would show
    assert len(digests) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos"]


@settings(max_examples=examples(15), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=3).filter(any),
    batch_size=st.integers(1, 12),
    validation=st.sampled_from([0.0, 0.2, 0.5]),
    bad=st.sets(st.integers(1, 26), max_size=6),
    compression=st.sampled_from(["none", "gzip"]),
    dtype=st.sampled_from(["uint8", "uint16", "float32"]),
    side=st.sampled_from([3, 8]),
)
def test_what_is_read_back_is_what_was_decoded_by_hand(
    tmp_path_factory: pytest.TempPathFactory,
    counts: list[int],
    batch_size: int,
    validation: float,
    bad: set[int],
    compression: Any,
    dtype: Any,
    side: int,
) -> None:
    """For any N, batch size, split, dtype and bad files: every row, label, path, hash and size."""
    folder = tmp_path_factory.mktemp("any")
    root = folder / "data"
    draw_dataset(
        root, {f"c{i}": count for i, count in enumerate(counts)}, size=(9, 7), format_name="PNG"
    )
    files = sorted(root.glob("*/*.png"))
    for index in bad & set(range(len(files))):
        files[index].write_bytes(b"broken")
    good = {path.relative_to(root).as_posix() for i, path in enumerate(files) if i not in bad}
    options = BuildOptions(
        decode=DecodeOptions((side, side)),
        split=SplitOptions(validation=validation),
        store=StoreOptions(compression=compression, dtype=dtype),
        batch_size=batch_size,
    )
    out = folder / "out.h5"
    build(root, out, options, workers=1, on_error="skip")
    seen = set()
    with h5py.File(out) as file:
        for split in ("train", "validation")[: 2 if validation else 1]:
            group = file[split]
            for i, name in enumerate(group["paths"].asstr()[:]):
                data = (root / name).read_bytes()
                with Image.open(root / name) as image:
                    expected = np.asarray(image.resize((side, side), Image.Resampling.NEAREST))
                row = group["images"][i]
                if dtype == "float32":
                    expected = expected.astype(np.float32) * np.float32(1 / 255)
                np.testing.assert_array_equal(row, expected)
                assert group["row_crc32"][i] == zlib.crc32(row.tobytes())
                assert group["source_sha256"][i].tobytes() == hashlib.sha256(data).digest()
                assert group["source_size"][i].tolist() == [7, 9]
                assert file.attrs["classes"][group["labels"][i]].decode() == name.split("/")[0]
                seen.add(name)
        skipped = (
            {path.decode() for path in file["skipped"]["path"]} if "skipped" in file else set()
        )
    assert seen == good
    assert skipped == {path.relative_to(root).as_posix() for path in files} - good


def test_the_file_is_schema_1(photos: Path, tmp_path: Path) -> None:
    """Names, dtypes, attributes, links: read with plain h5py."""
    out = tmp_path / "out.h5"
    build(photos, out, SMALL)
    with h5py.File(out) as file:
        assert file.attrs["format"] == b"batchify"
        assert file.attrs["schema_version"] == 1
        assert file.attrs["classes"].tolist() == [b"cat", b"dog"]
        assert file.attrs["NX_class"] == b"NXroot"
        assert file["X_train"] == file["train/images"]
        assert file["y_validation"] == file["validation/labels"]
        images = file["train/images"]
        assert (images.shape, images.dtype) == ((12, 20, 16, 3), np.uint8)
        assert images.maxshape == (None, 20, 16, 3)
        assert images.chunks == (12, 20, 16, 3)
        assert images.attrs["scale_factor"] == np.float32(1 / 255)
        assert images.attrs["CLASS"] == b"IMAGE"
        assert images.attrs["IMAGE_SUBCLASS"] == b"IMAGE_TRUECOLOR"
        assert images.attrs["INTERLACE_MODE"] == b"INTERLACE_PIXEL"
        assert images.attrs["interpretation"] == b"rgb-image"
        assert file["train"].attrs["signal"] == b"images"
        assert file["train/labels"].dtype == np.int64
        flags = file["train/source_flags"]
        assert flags.attrs["flag_masks"].tolist() == [1 << i for i in range(14)]
        assert flags.attrs["flag_meanings"].decode().split()[3] == "alpha"


@pytest.mark.parametrize(
    ("color_mode", "subclass", "interpretation", "default_slice"),
    [
        ("rgb", b"IMAGE_TRUECOLOR", b"rgb-image", None),
        ("rgba", None, b"rgba-image", [b"0", b".", b".", b"0"]),
        ("grayscale", b"IMAGE_GRAYSCALE", None, [b"0", b".", b".", b"0"]),
    ],
)
def test_viewers_are_told_what_the_images_are(
    photos: Path,
    tmp_path: Path,
    color_mode: choices.ColorMode,
    subclass: bytes | None,
    interpretation: bytes | None,
    default_slice: list[bytes] | None,
) -> None:
    """From the root to the signal: what H5Web and silx read, seen by scripts/check-viewers."""
    out = tmp_path / "out.h5"
    build(photos, out, replace(SMALL, decode=replace(SMALL.decode, color_mode=color_mode)))
    with h5py.File(out) as file:
        assert file.attrs["default"] == b"train"
        for split in ("train", "validation"):
            group = file[split]
            assert group.attrs["NX_class"] == b"NXdata"
            images = group[group.attrs["signal"].decode()]
            assert images.attrs.get("CLASS") == (b"IMAGE" if subclass else None)
            assert images.attrs.get("IMAGE_SUBCLASS") == subclass
            assert images.attrs.get("interpretation") == interpretation
            slice_ = group.attrs.get("default_slice")
            assert (None if slice_ is None else slice_.tolist()) == default_slice
            for name in {"CLASS", "IMAGE_SUBCLASS", "INTERLACE_MODE"} & {*images.attrs}:
                text = images.attrs.get_id(name).get_type()
                assert not text.is_variable_str()
                assert text.get_cset() == h5py.h5t.CSET_ASCII


def test_the_file_grows_by_resize(photos: Path, tmp_path: Path) -> None:
    """Plain HDF5: h5py appends to it, and what was there stays."""
    out = tmp_path / "out.h5"
    build(photos, out, SMALL)
    with h5py.File(out, "r+") as file:
        images = file["X_train"]
        before = images[:]
        images.resize(len(images) + 5, axis=0)
        images[-5:] = 7
    with h5py.File(out) as file:
        np.testing.assert_array_equal(file["X_train"][:12], before)
        assert (file["X_train"][12:] == 7).all()


def test_chunks_hold_whole_images(photos: Path, tmp_path: Path) -> None:
    """One image a chunk from 64 KiB up, many below; never h5py's guess."""
    out = tmp_path / "out.h5"
    build(photos, out)
    with h5py.File(out) as file:
        assert file["X_train"].chunks == (1, 150, 150, 3)


@pytest.mark.parametrize(
    ("class_mode", "shape", "dtype"),
    [("sparse", (12,), "int64"), ("binary", (12,), "int64"), ("categorical", (12, 2), "float32")],
)
def test_labels_of_every_class_mode(
    photos: Path, tmp_path: Path, class_mode: Any, shape: tuple[int, ...], dtype: str
) -> None:
    """Their shape and dtype are those of the schema."""
    out = tmp_path / "out.h5"
    build(photos, out, replace(SMALL, store=StoreOptions(class_mode=class_mode)))
    with h5py.File(out) as file:
        assert (file["y_train"].shape, file["y_train"].dtype) == (shape, dtype)


def test_class_mode_none_stores_no_labels(photos: Path, tmp_path: Path) -> None:
    """Images and paths alone."""
    out = tmp_path / "out.h5"
    build(photos, out, replace(SMALL, store=StoreOptions(class_mode="none")))
    with h5py.File(out) as file:
        assert "labels" not in file["train"]
        assert "y_train" not in file
        assert "X_train" in file


def test_16_bits_that_do_not_fit_are_an_error_of_the_image(tmp_path: Path) -> None:
    """A 16-bit greyscale image into uint8 is named, never clipped; into uint16 it is kept."""
    image = photo(20, 16, mode="I;16")
    save(tmp_path / "d" / "a" / "deep.png", encoded(image, "PNG"))
    options = BuildOptions(
        decode=DecodeOptions((16, 20), "grayscale"), split=SplitOptions(validation=0)
    )
    with pytest.raises(errors.BadImagesError, match=r"a/deep.png: values from .* do not fit uint8"):
        build(tmp_path / "d", tmp_path / "out.h5", options)
    kept = replace(options, store=StoreOptions(dtype="uint16"))
    build(tmp_path / "d", tmp_path / "out.h5", kept, restart=True)
    with h5py.File(tmp_path / "out.h5") as file:
        np.testing.assert_array_equal(file["X_train"][0, :, :, 0], np.asarray(image))
    clipped = BuildOptions(decode=DecodeOptions((16, 20)), split=SplitOptions(validation=0))
    report = build(tmp_path / "d", tmp_path / "rgb.h5", clipped)
    assert report.flags["sixteen_bit"] == 1


def test_all_bad_images_are_named_at_the_end(photos: Path, tmp_path: Path) -> None:
    """The default: every bad file with its reason, no target, and the work kept."""
    bad = spoil(photos)
    with pytest.raises(errors.BadImagesError) as caught:
        build(photos, tmp_path / "out.h5", SMALL)
    assert sorted(entry.path.decode() for entry in caught.value.bad) == bad
    message = str(caught.value)
    assert message.startswith("3 of 18 images failed:\n")
    assert "  - cat/empty.jpg: empty file (0 bytes)\n" in message
    assert "--on-error skip" in message
    assert not (tmp_path / "out.h5").exists()
    assert (tmp_path / "out.h5.partial").exists()
    for name in bad:
        (photos / name).write_bytes(encoded(photo(), "JPEG"))
    assert build(photos, tmp_path / "out.h5", SMALL).kept == 15
    assert not list(tmp_path.glob("out.h5.partial*"))


def test_skipped_images_are_listed_in_the_file(photos: Path, tmp_path: Path) -> None:
    """Their rows are gone, the others stay in order, each reason is kept."""
    build(photos, tmp_path / "clean.h5", replace(SMALL, split=SplitOptions(validation=0)))
    bad = spoil(photos)
    options = replace(SMALL, split=SplitOptions(validation=0, shuffle=False))
    report = build(photos, tmp_path / "out.h5", options, on_error="skip")
    assert report.plan.images == 15
    with h5py.File(tmp_path / "out.h5") as file:
        assert sorted(path.decode() for path in file["skipped"]["path"]) == bad
        assert b"empty file (0 bytes)" in file["skipped"]["reason"].tolist()
        paths = file["train/paths"].asstr()[:].tolist()
        assert paths == sorted(paths)
        assert len(file["X_train"]) == 15


@pytest.mark.parametrize(
    ("limit", "fits"), [("3", True), ("2", False), ("20%", True), ("0%", False)]
)
def test_max_skipped_bounds_what_is_left_out(
    photos: Path, tmp_path: Path, limit: str, fits: bool
) -> None:
    """As a count, and as a share of all images."""
    spoil(photos)

    def call() -> batchify.BuildReport:
        return build(photos, tmp_path / "out.h5", SMALL, on_error="skip", max_skipped=limit)

    if fits:
        assert len(call().plan.skipped) == 3
    else:
        with pytest.raises(errors.BadImagesError, match="more than --max-skipped allows"):
            call()
        assert not (tmp_path / "out.h5").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no FIFOs there")
def test_special_files_are_listed_as_skipped(photos: Path, tmp_path: Path) -> None:
    """A FIFO is skipped with --on-error fail, too; the file lists it and the limit includes it."""
    os.mkfifo(photos / "cat" / "pipe.jpg")
    build(photos, tmp_path / "out.h5", SMALL)
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["skipped"][0].tolist() == (b"cat/pipe.jpg", b"not a regular file but a FIFO")
    with pytest.raises(errors.BadImagesError, match="1 image is skipped, more"):
        build(
            photos, tmp_path / "other.h5", SMALL, on_error="skip", max_skipped="0"
        )  # fmt: skip


def test_an_existing_target_is_refused_or_replaced_whole(photos: Path, tmp_path: Path) -> None:
    """Without overwrite it is untouched; with it, it is replaced at the end; on failure kept."""
    out = save(tmp_path / "out.h5", b"old")
    with pytest.raises(errors.OutputExistsError, match="--overwrite"):
        build(photos, out, SMALL)
    spoil(photos)
    with pytest.raises(errors.BadImagesError):
        build(photos, out, SMALL, overwrite=True)
    assert out.read_bytes() == b"old"
    build(photos, out, SMALL, overwrite=True, on_error="skip")
    assert h5py.is_hdf5(out)


def test_a_target_that_appears_meanwhile_is_not_replaced(photos: Path, tmp_path: Path) -> None:
    """Somebody else's file, put there during the build, stays."""
    out = tmp_path / "out.h5"

    def interfere(progress: Progress) -> None:
        if progress.stage == "seal":
            out.write_bytes(b"other")

    with pytest.raises(errors.OutputExistsError):
        build(photos, out, SMALL, progress=interfere)
    assert out.read_bytes() == b"other"


def test_targets_that_cannot_be_are_refused(photos: Path, tmp_path: Path) -> None:
    """A folder, a missing folder, inside the dataset: before any work, leaving nothing."""
    refused: list[tuple[str | Path, str]] = [
        (tmp_path, "is a folder"),
        (f"{tmp_path}/none/", "none/ is a folder; name a file in it"),
        ("", "is a folder"),
        (tmp_path / "none" / "out.h5", "there is no folder"),
        (photos / "out.h5", "is inside the dataset folder"),
        (photos / "cat" / "out.h5", "is inside the dataset folder"),
    ]
    for target, message in refused:
        with pytest.raises(errors.OutputPathError, match=message):
            build(photos, target, SMALL)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos"]


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_link_into_the_dataset_is_inside_it(photos: Path, tmp_path: Path) -> None:
    """The real place of the target counts."""
    (tmp_path / "link").symlink_to(photos)
    with pytest.raises(errors.OutputPathError, match="is inside the dataset folder"):
        build(photos, tmp_path / "link" / "out.h5", SMALL)


def test_nothing_is_left_where_nothing_was_decoded(tmp_path: Path) -> None:
    """A dataset that cannot be built leaves no partial file and no journal."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(errors.DatasetError):
        build(tmp_path / "empty", tmp_path / "out.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


HOLDER = """
import sys, time
from batchify.building.target import Target
from batchify.building.workfile import WorkFile
work = WorkFile(Target(sys.argv[1].encode(), False))
print("held", flush=True)
time.sleep(600)
"""


def test_two_builds_on_one_target(photos: Path, tmp_path: Path) -> None:
    """The second is refused immediately; killing the first leaves no stale lock."""
    out = tmp_path / "out.h5"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(out)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        started = time.monotonic()
        with pytest.raises(errors.OutputLockedError, match="another build is writing this target"):
            build(photos, out, SMALL)
        waited_s = time.monotonic() - started
        holder.kill()
    assert waited_s < 50
    build(photos, out, SMALL)
    assert out.exists()


def test_a_disk_that_is_too_small_is_found_first(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes needed and bytes free are said before the first decode, and nothing is left."""
    monkeypatch.setattr(durable, "free_nbytes", lambda _: 1_000)
    needed = plan_build(photos, SMALL).nbytes
    decoded: list[Progress] = []

    def note(progress: Progress) -> None:
        if progress.stage == "fill":
            decoded.append(progress)

    with pytest.raises(errors.OutputIOError, match=f"needs {needed:,} bytes, but 1,000 are free"):
        build(photos, tmp_path / "out.h5", SMALL, progress=note)
    assert not decoded
    assert not list(tmp_path.glob("out.h5*"))


LIMITED = """
import resource, sys
from batchify.building.build import build
from batchify.errors import OutputIOError
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    build(sys.argv[1], sys.argv[2])
except OutputIOError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit there")
def test_a_file_size_limit_is_found_first(photos: Path, tmp_path: Path) -> None:
    """`ulimit -f` too small: said before the first decode, with what to do."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(photos), str(tmp_path / "out.h5")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "the limit for files of this process is 100,000 bytes (ulimit -f)" in done.stdout
    assert not list(tmp_path.glob("out.h5*"))


def test_a_failed_write_is_an_io_error(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EIO in the fill: exit code 4, no target, the work kept."""
    real_write = durable.pwrite_all

    def failing(fd: int, data: bytes | memoryview, offset: int) -> None:
        if memoryview(data).nbytes > 2_000:  # images, in the fill
            raise OSError(5, "Input/output error")
        real_write(fd, data, offset)

    monkeypatch.setattr(durable, "pwrite_all", failing)
    with pytest.raises(errors.OutputIOError, match="Input/output error") as caught:
        build(photos, tmp_path / "out.h5", SMALL, workers=1)
    assert caught.value.exit_code == 4
    assert sorted(path.name for path in tmp_path.glob("out.h5*")) == [
        "out.h5.partial",
        "out.h5.partial.journal",
    ]


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    """With every image bad there is no file, though bad images were to be skipped."""
    for name in ("a", "b"):
        save(tmp_path / "d" / "c" / f"{name}.jpg", b"bad")
    with pytest.raises(errors.BadImagesError, match="no images are left"):
        build(tmp_path / "d", tmp_path / "out.h5", SMALL, on_error="skip")
    assert not (tmp_path / "out.h5").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be removed there")
@pytest.mark.parametrize("name", ["out.h5.partial", "out.h5.partial.journal"])
def test_a_removed_lock_publishes_nothing(photos: Path, tmp_path: Path, name: str) -> None:
    """What has the name now may be another build's half-filled file."""

    def interfere(progress: Progress) -> None:
        if progress.stage == "fill":
            (tmp_path / name).unlink(missing_ok=True)
            (tmp_path / name).write_bytes(b"another build's")

    with pytest.raises(errors.OutputLockedError, match="was removed or replaced"):
        build(photos, tmp_path / "out.h5", SMALL, progress=interfere)
    assert not (tmp_path / "out.h5").exists()
    assert (tmp_path / name).read_bytes() == b"another build's"


@pytest.mark.parametrize("restart", [False, True])
def test_a_file_with_the_name_of_the_journal_is_kept(
    photos: Path, tmp_path: Path, restart: bool
) -> None:
    """Also beside one with the name of the unfinished file."""
    mine = save(tmp_path / "out.h5.partial.journal", b"A journal of my days")
    with pytest.raises(errors.OutputExistsError, match="is not the journal of a build"):
        build(photos, tmp_path / "out.h5", SMALL, restart=restart)
    other = save(tmp_path / "out.h5.partial", b"Mine, too")
    with pytest.raises(errors.OutputExistsError, match="rename that file"):
        build(photos, tmp_path / "out.h5", SMALL, restart=restart)
    assert mine.read_bytes() == b"A journal of my days"
    assert other.read_bytes() == b"Mine, too"


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
@pytest.mark.parametrize("suffix", [".partial", ".partial.journal", ".partial.sealing"])
def test_links_at_the_temporary_names_are_not_followed(
    photos: Path, tmp_path: Path, suffix: str
) -> None:
    """Somebody's file, to which such a link leads, is never written."""
    precious = save(tmp_path / "precious", b"precious")
    (tmp_path / f"out.h5{suffix}").symlink_to(precious)
    options = replace(SMALL, store=StoreOptions(compression="gzip"))
    refused = {".partial": errors.OutputExistsError, ".partial.journal": errors.OutputIOError}
    if suffix in refused:
        with pytest.raises(refused[suffix]):
            build(photos, tmp_path / "out.h5", options)
    else:
        build(photos, tmp_path / "out.h5", options)
        assert not (tmp_path / "out.h5").is_symlink()
    assert precious.read_bytes() == b"precious"


def test_progress_tells_every_stage(photos: Path, tmp_path: Path) -> None:
    """Scan, allocate, fill with counts that grow to the total, seal."""
    spoil(photos)
    seen: list[Progress] = []
    build(photos, tmp_path / "out.h5", SMALL, on_error="skip", progress=seen.append)
    stages = [stage for stage, _ in itertools.groupby(seen, key=lambda progress: progress.stage)]
    assert stages == ["scan", "allocate", "fill", "seal"]
    fills = [progress for progress in seen if progress.stage == "fill"]
    assert (fills[-1].done, fills[-1].total, fills[-1].bad) == (18, 18, 3)
    assert {progress.split for progress in fills} == {"train", "validation"}


def test_one_image_classes_and_empty_splits_work(tmp_path: Path) -> None:
    """A class of one image trains; the empty validation split is a dataset of no rows."""
    root = draw_dataset(tmp_path / "d", {"a": 1, "b": 2})
    report = build(root, tmp_path / "out.h5", SMALL)
    assert "the validation split is empty" in str(report.warnings[0])
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["X_validation"].shape == (0, 20, 16, 3)
        assert file["X_train"].shape == (3, 20, 16, 3)


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_all_images_of_a_split_may_be_skipped(tmp_path: Path, compression: Any) -> None:
    """What is left is a split of no rows, in a file that opens."""
    root = draw_dataset(tmp_path / "d", {"a": 10})
    for name in ("img_000.jpg", "img_001.jpg"):
        (root / "a" / name).write_bytes(b"bad")
    options = replace(SMALL, store=StoreOptions(compression=compression))
    build(root, tmp_path / "out.h5", options, on_error="skip")
    assert batchify.summarize(tmp_path / "out.h5").splits[1].rows == 0


def test_links_out_of_the_dataset_are_followed_when_asked(tmp_path: Path) -> None:
    """--follow-links decodes what the links lead to."""
    if sys.platform == "win32":
        pytest.skip("links need rights there")
    elsewhere = save(tmp_path / "elsewhere.jpg", encoded(photo(), "JPEG"))
    root = draw_dataset(tmp_path / "d", {"a": 2})
    (root / "a" / "link.jpg").symlink_to(elsewhere)
    options = replace(SMALL, discover=DiscoverOptions(follow_links=True))
    assert build(root, tmp_path / "out.h5", options).plan.images == 3


SCRIPT = """
import sys
import batchify
print("top")
batchify.build(sys.argv[1], sys.argv[2], workers=2)
print("built")
"""


def test_a_script_without_a_main_guard_works(photos: Path, tmp_path: Path) -> None:
    """Workers do not run the caller's script again, though processes are spawned."""
    script = save(tmp_path / "script.py", SCRIPT.encode())
    done = subprocess.run(
        [sys.executable, str(script), str(photos), str(tmp_path / "out.h5")],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "top\nbuilt\n"), done.stderr


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"on_error": "ignore"}, "on error must be one of fail, skip"),
        ({"workers": 0}, "workers must be a whole number of at least 1"),
        ({"max_skipped": "3"}, "--max-skipped requires --on-error skip"),
        ({"max_skipped": "many", "on_error": "skip"}, "must be a count"),
    ],
)
def test_arguments_that_cannot_be_meant(
    photos: Path, tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    """Each is refused with what is wrong."""
    call: Callable[..., Any] = build
    with pytest.raises(errors.OptionError, match=message):
        call(photos, tmp_path / "out.h5", SMALL, **values)
