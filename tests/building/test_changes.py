"""Up to date, or what changed; and a rebuild that decodes only that, to a fresh build's bytes."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.drawing import draw_dataset, encoded, photo, save
from helpers.properties import examples
from helpers.running import Run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchify.building.build import build
from batchify.building.changes import find_changes
from batchify.building.outcome import Changes
from batchify.dataset_options import DiscoverOptions, SplitOptions
from batchify.decoding import image
from batchify.errors import BadImagesError, OptionError, OutputExistsError
from batchify.format.structure import read_row_offsets
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.options import BuildOptions

SMALL = BuildOptions(decode=DecodeOptions((20, 16)), batch_size=4)
Decoded = list[int]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Decoded:
    """Return a list that grows by one for each image that a build in this process decodes."""
    calls: Decoded = []
    real = image.decode_image

    def counted(data: bytes, options: DecodeOptions, **more: Any) -> Any:
        calls.append(len(data))
        return real(data, options, **more)

    monkeypatch.setattr("batchify.decoding.batch.decode_image", counted)
    return calls


def fresh(root: Path, options: BuildOptions = SMALL) -> bytes:
    """Return the bytes of a build that nothing was there for."""
    out = root.parent / "fresh.h5"
    out.unlink(missing_ok=True)
    build(root, out, options, workers=1, on_error="skip")
    return out.read_bytes()


def change(path: Path, seed: int) -> None:
    """Make a file another picture."""
    path.write_bytes(encoded(photo(seed=seed), "JPEG"))


def test_nothing_is_done_where_nothing_changed(
    photos: Path, tmp_path: Path, decoded: Decoded
) -> None:
    """With and without --overwrite; the file is not touched, and nothing is left next to it."""
    out = tmp_path / "out.h5"
    first = build(photos, out, SMALL, workers=1)
    before = (out.stat().st_ino, out.stat().st_mtime_ns, len(decoded))
    for overwrite in (False, True):
        report = build(photos, out, SMALL, workers=1, overwrite=overwrite)
        assert report.up_to_date
        assert report.as_json()["up_to_date"] is True
        assert (report.nbytes, report.flags) == (first.nbytes, first.flags)
    assert (out.stat().st_ino, out.stat().st_mtime_ns, len(decoded)) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.h5", "photos"]


def add(root: Path) -> None:
    """Add an image."""
    change(root / "cat" / "new.jpg", 50)


def alter(root: Path) -> None:
    """Change two images."""
    change(root / "dog" / "img_003.jpg", 51)
    change(root / "cat" / "img_001.jpg", 52)


def remove(root: Path) -> None:
    """Remove an image."""
    (root / "dog" / "img_004.jpg").unlink()


def add_class(root: Path) -> None:
    """Add an empty class folder."""
    (root / "eel").mkdir()


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (add, {"new": [b"cat/new.jpg"]}),
        (alter, {"changed": [b"cat/img_001.jpg", b"dog/img_003.jpg"]}),
        (remove, {"vanished": [b"dog/img_004.jpg"]}),
        (add_class, {"reasons": ["new classes: eel"]}),
    ],
)
def test_what_changed_is_found(
    photos: Path, tmp_path: Path, how: Callable[[Path], None], expected: dict[str, Any]
) -> None:
    """New, changed and vanished files, and classes; without --overwrite it is refused for it."""
    out = tmp_path / "out.h5"
    build(photos, out, SMALL)
    how(photos)
    changes = find_changes(photos, out, SMALL)
    changes.changed.sort()
    assert changes == Changes(os.fsencode(out), **expected)
    before = out.read_bytes()
    with pytest.raises(OutputExistsError, match=r"not up to date; pass --overwrite .*\n  - "):
        build(photos, out, SMALL)
    assert out.read_bytes() == before
    build(photos, out, SMALL, overwrite=True)
    assert not find_changes(photos, out, SMALL).is_due
    assert out.read_bytes() == fresh(photos)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["fresh.h5", "out.h5", "photos"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"decode": DecodeOptions((8, 8))}, "target_size was [20, 16], now [8, 8]"),
        ({"store": StoreOptions(compression="gzip")}, "compression was none, now gzip"),
        ({"discover": DiscoverOptions(hidden=True)}, "hidden was False, now True"),
        ({"split": SplitOptions(seed=3)}, "seed was 0, now 3"),
        (
            {"split": SplitOptions("stratified", group_by=r"img_(\d+)")},
            r"group_by was not given, now img_(\d+)",
        ),
    ],
)
def test_other_options_are_a_reason(
    photos: Path, tmp_path: Path, options: dict[str, Any], reason: str
) -> None:
    """Each by its name."""
    out = tmp_path / "out.h5"
    build(photos, out, SMALL)
    assert reason in find_changes(photos, out, dataclasses.replace(SMALL, **options)).reasons


def test_batch_size_and_workers_are_no_reason(photos: Path, tmp_path: Path) -> None:
    """They change no byte."""
    out = tmp_path / "out.h5"
    build(photos, out, SMALL)
    assert not find_changes(photos, out, dataclasses.replace(SMALL, batch_size=9), workers=2).is_due


def test_no_file_and_no_whole_file_are_reasons(photos: Path, tmp_path: Path) -> None:
    """And what somebody changed in it."""
    out = tmp_path / "out.h5"
    assert find_changes(photos, out, SMALL).reasons == ["there is no such file"]
    out.write_bytes(b"hello")
    assert "is not an HDF5 file" in find_changes(photos, out, SMALL).reasons[0]
    out.unlink()
    build(photos, out, SMALL)
    with h5py.File(out, "r+") as file:
        file["train/labels"][0] += 1
    (reason,) = find_changes(photos, out, SMALL).reasons
    assert reason == "it is damaged (batchify verify shows where)"


def test_another_version_is_a_reason_and_decodes_all(
    photos: Path, tmp_path: Path, decoded: Decoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another Pillow may decode otherwise."""
    out = tmp_path / "out.h5"
    build(photos, out, SMALL, workers=1)
    monkeypatch.setattr("batchify.planning.planner.decoder_text", lambda *_: "Pillow 99")
    (reason,) = find_changes(photos, out, SMALL).reasons
    assert reason.endswith("now Pillow 99")
    del decoded[:]
    assert build(photos, out, SMALL, workers=1, overwrite=True).copied == 0
    assert len(decoded) == 15


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_skipped_images_are_tried_again(photos: Path, tmp_path: Path) -> None:
    """A bad image that is bad still is no change; one that was mended is."""
    (photos / "cat" / "img_000.jpg").write_bytes(b"bad")
    save(photos / "cat" / "zero.jpg", b"")
    (photos / "cat" / "link.jpg").symlink_to(save(tmp_path / "else.jpg", b"x"))
    out = tmp_path / "out.h5"
    build(photos, out, SMALL, on_error="skip")
    assert not find_changes(photos, out, SMALL, on_error="skip").is_due
    assert build(photos, out, SMALL, on_error="skip").up_to_date
    (reason,) = find_changes(photos, out, SMALL).reasons
    assert reason == "2 images failed and were skipped (--on-error)"
    with pytest.raises(BadImagesError):
        build(photos, out, SMALL, overwrite=True)
    with pytest.raises(BadImagesError, match="more than --max-skipped allows"):
        build(photos, out, SMALL, on_error="skip", max_skipped=2)
    build(photos, out, SMALL, on_error="skip", overwrite=True, restart=True)
    (photos / "cat" / "img_000.jpg").write_bytes(b"worse")
    assert not find_changes(photos, out, SMALL, on_error="skip").is_due
    change(photos / "cat" / "img_000.jpg", 99)
    changes = find_changes(photos, out, SMALL, on_error="skip")
    assert changes.changed == [b"cat/img_000.jpg"]
    assert build(photos, out, SMALL, on_error="skip", overwrite=True).copied == 14
    assert out.read_bytes() == fresh(photos)
    (photos / "cat" / "link.jpg").unlink()
    reasons = find_changes(photos, out, SMALL, on_error="skip").reasons
    assert reasons == ["other files are skipped"]


@settings(
    max_examples=examples(20),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    edits=st.lists(
        st.tuples(st.sampled_from(["add", "alter", "remove", "move", "spoil"]), st.integers(0, 11)),
        max_size=4,
    ),
    before=st.sampled_from(["none", "gzip"]),
    after=st.sampled_from(["none", "gzip"]),
    seed=st.integers(0, 1),
    dtype=st.sampled_from(["uint8", "float32"]),
    workers=st.sampled_from([1, 1, 1, 2]),
)
def test_a_rebuild_has_the_bytes_of_a_fresh_build(
    tmp_path_factory: pytest.TempPathFactory,
    edits: list[tuple[str, int]],
    before: Any,
    after: Any,
    seed: int,
    dtype: Any,
    workers: int,
) -> None:
    """Whatever changed: files added, altered, removed, moved to another class; order, storage."""
    tmp_path = tmp_path_factory.mktemp("rebuild")
    root = draw_dataset(tmp_path / "data", {"a": 6, "b": 6})
    out = tmp_path / "out.h5"
    options = dataclasses.replace(SMALL, store=StoreOptions(dtype=dtype, compression=before))
    build(root, out, options, workers=1)
    for what, number in edits:
        path = root / "ab"[number // 6] / f"img_{number % 6:03}.jpg"
        if what == "add":
            change(path.with_name(f"new_{number}.jpg"), 90 + number)
        elif what == "alter":
            change(path, 70 + number)
        elif what == "remove":
            path.unlink(missing_ok=True)
        elif what == "move" and path.exists():
            shutil.move(path, root / "ba"[number // 6] / f"moved_{number}.jpg")
        elif what == "spoil":
            path.write_bytes(b"bad")
    options = dataclasses.replace(
        options,
        split=SplitOptions(seed=seed),
        store=StoreOptions(dtype=dtype, compression=after),
    )
    build(root, out, options, workers=workers, on_error="skip", overwrite=True)
    assert out.read_bytes() == fresh(root, options)


def test_only_what_changed_is_decoded(tmp_path: Path, decoded: Decoded) -> None:
    """By the hash of the source: a file that was moved or is there twice is found, too."""
    root = draw_dataset(tmp_path / "data", {"a": 50, "b": 50})
    out = tmp_path / "out.h5"
    build(root, out, SMALL, workers=1)
    change(root / "a" / "img_007.jpg", 900)
    shutil.move(root / "a" / "img_008.jpg", root / "b" / "moved.jpg")
    shutil.copy(root / "b" / "img_001.jpg", root / "a" / "twice.jpg")
    (root / "b" / "img_002.jpg").unlink()
    del decoded[:]
    report = build(root, out, SMALL, workers=1, overwrite=True)
    assert (len(decoded), report.copied) == (1, 99)
    assert out.read_bytes() == fresh(root)


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_row_that_rotted_is_not_copied(
    tmp_path: Path, decoded: Decoded, compression: Any
) -> None:
    """Its checksum is compared, and the image is decoded again."""
    root = draw_dataset(tmp_path / "data", {"a": 20})
    out = tmp_path / "out.h5"
    options = dataclasses.replace(
        SMALL,
        decode=DecodeOptions((200, 200)),
        split=SplitOptions(validation=0),
        store=StoreOptions(compression=compression),
    )
    build(root, out, options, workers=1)
    with h5py.File(out) as file:
        chunks: list[Any] = []
        file["train/images"].id.chunk_iter(chunks.append)
    data = bytearray(out.read_bytes())
    data[chunks[3].byte_offset + chunks[3].size // 2] ^= 4
    out.write_bytes(data)
    change(root / "a" / "img_007.jpg", 900)
    del decoded[:]
    build(root, out, options, workers=1, overwrite=True)
    assert len(decoded) == 2
    assert out.read_bytes() == fresh(root, options)


@pytest.mark.parametrize("column", ["source_size", "source_flags", "row_crc32", "labels", "paths"])
def test_what_rotted_beside_an_image_is_not_copied(
    photos: Path, tmp_path: Path, column: str
) -> None:
    """The checksum of its record is compared."""
    out = tmp_path / "out.h5"
    build(photos, out, SMALL)
    where = read_row_offsets(os.fsencode(out))[f"train/{column}"]
    data = bytearray(out.read_bytes())
    data[where.offsets[0] + where.row_nbytes] ^= 1
    out.write_bytes(data)
    assert build(photos, out, SMALL, overwrite=True).copied == 14
    assert out.read_bytes() == fresh(photos)


@pytest.mark.parametrize(
    "add",
    [lambda f: f.create_dataset("train/more", data=[1, 2]), lambda f: f.create_group("train/x")],
)
def test_what_its_owner_added_to_a_file_does_no_harm(
    photos: Path, tmp_path: Path, add: Callable[[h5py.File], object]
) -> None:
    """It is a reason to build again, and is not examined further."""
    out = tmp_path / "out.h5"
    build(photos, out, SMALL)
    with h5py.File(out, "r+") as file:
        add(file)
    assert find_changes(photos, out, SMALL).is_due
    assert build(photos, out, SMALL, overwrite=True).copied == 15
    assert out.read_bytes() == fresh(photos)


def test_restart_begins_anew(photos: Path, tmp_path: Path, decoded: Decoded) -> None:
    """Though it is up to date: the way to mend stored images that rotted."""
    out = tmp_path / "out.h5"
    build(photos, out, SMALL, workers=1)
    wanted = out.read_bytes()
    with h5py.File(out, "r+") as file:
        file["train/images"][3, 0, 0] ^= 1
    assert build(photos, out, SMALL).up_to_date
    with pytest.raises(OutputExistsError):
        build(photos, out, SMALL, restart=True)
    del decoded[:]
    report = build(photos, out, SMALL, workers=1, overwrite=True, restart=True)
    assert (len(decoded), report.copied) == (15, 0)
    assert out.read_bytes() == wanted


def test_pixel_options_that_differ_decode_all(photos: Path, tmp_path: Path) -> None:
    """A rescale is one where it is multiplied in; a cap may refuse what the file holds."""
    out = tmp_path / "out.h5"
    build(photos, out, SMALL)
    store = StoreOptions(rescale="1/2", class_mode="categorical", compression="gzip")
    options = dataclasses.replace(SMALL, store=store)
    assert build(photos, out, options, overwrite=True).copied == 15
    options = dataclasses.replace(options, decode=DecodeOptions((20, 16), max_pixels=10**6))
    assert build(photos, out, options, overwrite=True).copied == 0
    floats = StoreOptions(dtype="float32")
    assert build(photos, out, dataclasses.replace(SMALL, store=floats), overwrite=True).copied == 0
    floats = StoreOptions(dtype="float32", rescale="1/2")
    assert build(photos, out, dataclasses.replace(SMALL, store=floats), overwrite=True).copied == 0


def test_an_interrupted_rebuild_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: Decoded
) -> None:
    """The old file is whole until the end, and serves its rows to the next attempt as well."""
    monkeypatch.setattr("batchify.building.jobs.TASK_ROWS", 4)
    monkeypatch.setattr("batchify.building.workfile.COMMIT_NBYTES", 2 * 4 * 20 * 16 * 3)
    root = draw_dataset(tmp_path / "data", {"a": 40})
    out = tmp_path / "out.h5"
    build(root, out, SMALL, workers=1)
    before = out.read_bytes()
    change(root / "a" / "img_039.jpg", 900)

    def step(progress: Any) -> None:
        if progress.stage == "fill" and progress.done >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(root, out, SMALL, workers=1, overwrite=True, progress=step)
    assert out.read_bytes() == before
    report = build(root, out, SMALL, workers=1, overwrite=True)
    assert report.kept == 16
    assert report.copied in (23, 24)
    assert out.read_bytes() == fresh(root)


def test_what_a_killed_build_left_goes_when_it_is_up_to_date(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the rename and the end; what another plan left stays, to be continued."""
    options = dataclasses.replace(SMALL, store=StoreOptions(compression="gzip"))
    out = tmp_path / "out.h5"
    with monkeypatch.context() as patch:
        patch.setattr("batchify.common.durable.sync_folder", _stop_after(1))
        with pytest.raises(KeyboardInterrupt):
            build(photos, out, options)
    assert out.exists()
    assert (tmp_path / "out.h5.partial").exists()
    assert build(photos, out, options).up_to_date
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.h5", "photos"]
    with monkeypatch.context() as patch:
        patch.setattr("batchify.building.seal.create_file", _stop_after(0))
        other = dataclasses.replace(options, split=SplitOptions(seed=1))
        with pytest.raises(KeyboardInterrupt):
            build(photos, out, other, overwrite=True)
    assert build(photos, out, options).up_to_date
    assert build(photos, out, other, overwrite=True).kept == 15


def _stop_after(calls: int) -> Callable[..., None]:
    left = [calls]

    def stop(*_arguments: object, **_options: object) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt

    return stop


def test_arguments_that_cannot_be_meant(photos: Path, tmp_path: Path) -> None:
    """As for a build."""
    for options in ({"workers": 0}, {"on_error": "x"}, {"image_timeout_s": 0}):
        with pytest.raises(OptionError):
            find_changes(photos, tmp_path / "out.h5", SMALL, **options)


def test_the_check_of_the_command(run: Run, photos: Path, tmp_path: Path) -> None:
    """Exit 9 where a build is due, with the reasons; 0 where not; nothing is written."""
    size = ("--target-size", "20x16")
    done = run("build", "photos", "out.h5", *size, "--check")
    assert (done.returncode, done.stderr) == (9, "")
    assert done.stdout == "out.h5 is not up to date:\n  - there is no such file\n"
    assert not (tmp_path / "out.h5").exists()
    assert run("build", "photos", "out.h5", *size).returncode == 0
    done = run("build", "photos", "out.h5", *size, "--check")
    assert (done.returncode, done.stdout) == (0, "out.h5 is up to date\n")
    done = run("build", "photos", "out.h5", *size)
    assert done.returncode == 0
    assert done.stdout == (
        "out.h5 is up to date: 12 train + 3 validation images\n"
        "check: 1 warning; run batchify check out.h5\n"
    )
    for i in range(7):
        change(photos / "dog" / f"img_{i:03}.jpg", 40 + i)
    (photos / "cat" / "img_000.jpg").unlink()
    done = run("build", "photos", "out.h5", *size, "--seed", "1", "--check")
    assert done.returncode == 9
    lines = done.stdout.splitlines()[1:]
    assert lines[0] == "  - seed was 0, now 1"
    assert lines[1].startswith("  - 7 changed: dog/")
    assert lines[1].endswith(", …")
    assert lines[2] == "  - 1 missing: cat/img_000.jpg"
    done = run("build", "photos", "out.h5", *size, "--check", "--json")
    assert done.returncode == 9
    result = json.loads(done.stdout)
    assert (result["up_to_date"], len(result["changed"])) == (False, 7)
    done = run("build", "photos", "out.h5", *size, "--overwrite")
    assert "  copied: 7 rows of the old file, not decoded again\n" in done.stdout


def test_many_files_of_one_content(tmp_path: Path) -> None:
    """Rows are compared by the thousand, and one stored image serves them all."""
    tiny = encoded(photo(2, 2), "PNG")
    root = tmp_path / "many"
    for i in range(5_000):
        save(root / f"class{i % 10}" / f"image_{i:06}.png", tiny)
    out = tmp_path / "out.h5"
    options = BuildOptions(decode=DecodeOptions((2, 2)))
    build(root, out, options)
    assert not find_changes(root, out, options).is_due
    with h5py.File(out) as file:
        assert np.unique(file["train/source_sha256"][()], axis=0).shape == (1, 32)
    os.unlink(root / "class3" / "image_000003.png")
    report = build(root, out, options, overwrite=True)
    assert report.copied == 4_999
