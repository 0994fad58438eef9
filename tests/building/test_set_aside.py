"""Rows of an unfinished build of another plan: taken over by their source, none decoded again."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.drawing import draw_dataset, encoded, photo, pixels, save
from helpers.properties import examples
from helpers.running import Run
from helpers.stopping import StopError, stop_after
from helpers.tabled import listed, write_table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from batchify.building import set_aside, workfile
from batchify.building.build import build
from batchify.building.target import MOST_KEPT, kept_names
from batchify.common import durable
from batchify.dataset_options import DiscoverOptions, ManifestOptions, SplitOptions
from batchify.decoding import image
from batchify.errors import BadImagesError, OutputExistsError, OutputIOError, ResumeError
from batchify.format.structure import read_row_offsets
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.options import BuildOptions
from batchify.sharding.build import build_shards

SMALL = BuildOptions(decode=DecodeOptions((20, 16)), batch_size=4)
SEEDS = [replace(SMALL, split=SplitOptions(seed=seed)) for seed in range(9)]
Decoded = list[int]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Decoded:
    """Return a list that grows by one for each image that a build in this process decodes."""
    calls: Decoded = []
    real = image.decode_image

    def counted(data: bytes, *rest: Any, **options: Any) -> Any:
        calls.append(len(data))
        return real(data, *rest, **options)

    monkeypatch.setattr("batchify.decoding.batch.decode_image", counted)
    return calls


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Draw 40 photos; tasks are a batch and commits two batches, so that there is a middle."""
    commit_early(monkeypatch)
    return draw_dataset(tmp_path / "data", {"cat": 15, "dog": 25})


def commit_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make tasks of a batch, and a commit of every two."""
    monkeypatch.setattr("batchify.building.jobs.TASK_ROWS", 4)
    monkeypatch.setattr(workfile, "COMMIT_NBYTES", 2 * 4 * 20 * 16 * 3)


def stopped(root: Path, out: Path, images: int, options: BuildOptions = SMALL, **run: Any) -> None:
    """Begin a build and end it after some images."""
    with pytest.raises(StopError):
        build(root, out, options, workers=1, progress=stop_after(images), **run)


def fresh(root: Path, out: Path, options: BuildOptions = SMALL) -> bytes:
    """Return the bytes of a build that nothing disturbed."""
    path = out.parent / "fresh" / out.name
    shutil.rmtree(path.parent, ignore_errors=True)
    path.parent.mkdir()
    build(root, path, options, workers=1, on_error="skip")
    return path.read_bytes()


def left(out: Path) -> list[str]:
    """Return the files next to a target that begin with its name."""
    return sorted(path.name for path in out.parent.glob(f"{out.name}*"))


def test_removing_what_failed_keeps_every_other_row(
    run: Run, tmp_path: Path, decoded: Decoded
) -> None:
    """As the message of exit 3 says: one of 601 images failed, and 600 are kept (case L15)."""
    root = tmp_path / "data"
    for i in range(600):
        image = Image.fromarray(np.random.RandomState(i).randint(0, 256, (2, 2, 3), np.uint8))
        save(root / "ab"[i % 2] / f"{i:03}.png", encoded(image, "PNG"))
    save(root / "a" / "bad.png", b"bad")
    command = ("build", "data", "out.h5", "--target-size", "2", "--workers", "1")
    done = run(*command)
    assert done.returncode == 3
    assert (
        "the other 600 rows are kept: fix or remove these files and run the same command again"
        in done.stderr
    )
    (root / "a" / "bad.png").unlink()
    del decoded[:]
    done = run(*command)
    assert (done.returncode, decoded) == (0, [])
    assert "  continued: 600 rows of an earlier build were kept\n" in done.stdout
    assert left(tmp_path / "out.h5") == ["out.h5"]
    options = BuildOptions(decode=DecodeOptions((2, 2)))
    assert (tmp_path / "out.h5").read_bytes() == fresh(root, tmp_path / "out.h5", options)


def remove(root: Path) -> None:
    """Remove a file."""
    (root / "dog" / "img_024.jpg").unlink()


def rename(root: Path) -> None:
    """Give a class, and so all of its files, another name and another place in the order."""
    (root / "cat").rename(root / "zebra")


def add(root: Path) -> None:
    """Add files, and a class."""
    for i in range(60):
        save(root / "cow" / f"{i}.jpg", encoded(photo(seed=100 + i), "JPEG"))


CHANGES: dict[str, tuple[Callable[[Path], object], dict[str, Any], dict[str, Any]]] = {
    "a file removed": (remove, {}, {}),
    "files added": (add, {}, {}),
    "files renamed": (rename, {}, {}),
    "seed": (lambda _: None, {"split": SplitOptions(seed=1)}, {}),
    "shares": (lambda _: None, {"split": SplitOptions(validation=0.5, test=0.2)}, {}),
    "policy": (lambda _: None, {"split": SplitOptions("hash")}, {}),
    "extensions": (
        lambda root: save(root / "cat" / "a.gif", encoded(photo(seed=99), "GIF")),
        {"discover": DiscoverOptions(extensions=("gif",))},
        {},
    ),
    "on error": (
        lambda root: save(root / "cat" / "a.jpg", b"bad"), {}, {"on_error": "skip"},
    ),
    "labels": (lambda _: None, {"store": StoreOptions(class_mode="categorical")}, {}),
    "compression": (lambda _: None, {"store": StoreOptions(compression="gzip")}, {}),
    "rescale of integers": (lambda _: None, {"store": StoreOptions(rescale=1)}, {}),
    "truncated": (
        lambda root: save(root / "cat" / "a.jpg", (root / "cat" / "img_000.jpg").read_bytes()[:-9]),
        {"decode": DecodeOptions((20, 16), truncated="accept")},
        {},
    ),
    "a raised cap": (lambda _: None, {"decode": DecodeOptions((20, 16), max_pixels=10**9)}, {}),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_else_changed_rows_are_kept(
    root: Path, tmp_path: Path, decoded: Decoded, change: str
) -> None:
    """Files, splits, order, labels and storage: the 16 committed rows are taken over."""
    out = tmp_path / "out.h5"
    (root / "dog" / "img_024.jpg").write_bytes((root / "cat" / "img_000.jpg").read_bytes())
    stopped(root, out, 20)
    edit, changed, run = CHANGES[change]
    edit(root)
    options = replace(SMALL, **changed)
    expected = fresh(root, out, options)
    images = len(listed(root))
    del decoded[:]
    report = build(root, out, options, workers=1, **run)
    assert report.kept >= 16
    assert len(decoded) == images - report.kept
    assert report.redone == report.copied == 0
    assert out.read_bytes() == expected
    assert left(out) == ["out.h5"]


def test_a_table_takes_over_the_rows_of_folders(
    root: Path, tmp_path: Path, decoded: Decoded
) -> None:
    """Other labels, classes and order; the images are the same."""
    out = tmp_path / "out.h5"
    stopped(root, out, 20)
    rows = [{"path": path, "label": path[4:9]} for path in listed(root)]
    table = write_table(tmp_path / "labels.csv", rows)
    options = replace(SMALL, manifest=ManifestOptions(str(table)))
    del decoded[:]
    assert build(root, out, options, workers=1).kept == 16
    assert len(decoded) == 24
    assert out.read_bytes() == fresh(root, out, options)


@pytest.mark.parametrize(
    "store",
    [
        StoreOptions(dtype="float32"),
        StoreOptions(dtype="uint16"),
        StoreOptions(compression="gzip"),
        StoreOptions(store="encoded"),
        StoreOptions(class_mode="none"),
    ],
    ids=["float32", "uint16", "gzip", "encoded", "no labels"],
)
def test_every_form_of_storage_is_taken_over(
    root: Path, tmp_path: Path, decoded: Decoded, store: StoreOptions
) -> None:
    """Twice in a row, so that rows are moved between files, too."""
    out = tmp_path / "out.h5"
    one, two, three = (replace(options, store=store) for options in SEEDS[:3])
    stopped(root, out, 20, one)
    stopped(root, out, 36, two)
    assert left(out) == ["out.h5.partial", "out.h5.partial.journal", "out.h5.partial.rows-1"]
    del decoded[:]
    report = build(root, out, three, workers=1)
    assert report.kept >= 32
    assert len(decoded) == 40 - report.kept
    assert out.read_bytes() == fresh(root, out, three)
    assert left(out) == ["out.h5"]


def test_images_of_masks_are_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: Decoded
) -> None:
    """Masks are read again: they may be other ones."""
    commit_early(monkeypatch)
    rows = []
    for i in range(30):
        save(tmp_path / "data" / f"{i}.png", encoded(photo(seed=i), "PNG"))
        mask = Image.fromarray(pixels(40, 30, 1, i)[:, :, 0])
        save(tmp_path / "data" / "masks" / f"{i}.png", encoded(mask, "PNG"))
        rows.append({"path": f"{i}.png", "label": f"masks/{i}.png"})
    masks = StoreOptions(class_mode="mask")
    out = tmp_path / "out.h5"
    table = ManifestOptions(str(write_table(tmp_path / "all.csv", rows)))
    stopped(tmp_path / "data", out, 20, replace(SMALL, store=masks, manifest=table))
    table = ManifestOptions(str(write_table(tmp_path / "few.csv", rows[1:])))
    few = replace(SMALL, store=masks, manifest=table)
    del decoded[:]
    report = build(tmp_path / "data", out, few, workers=1)
    assert report.kept >= 15
    assert len(decoded) == 29 - report.kept
    assert out.read_bytes() == fresh(tmp_path / "data", out, few)


def test_a_chain_of_plans_decodes_no_committed_row_twice(
    root: Path, tmp_path: Path, decoded: Decoded
) -> None:
    """Each build is of another plan than the one before, and is ended in the middle."""
    out = tmp_path / "out.h5"
    for number, images in enumerate((9, 17, 25, 33, 20, 40)):
        stopped(root, out, images, SEEDS[number])
    assert len(decoded) <= 40 + 5 * 8  # at most two batches were not committed each time
    report = build(root, out, SEEDS[8], workers=1)
    assert report.kept == 40
    assert out.read_bytes() == fresh(root, out, SEEDS[8])
    assert left(out) == ["out.h5"]


def test_a_plan_that_comes_back_continues(root: Path, tmp_path: Path, decoded: Decoded) -> None:
    """Of A, B and A again, the rows of both are there."""
    out = tmp_path / "out.h5"
    stopped(root, out, 20, SEEDS[0])
    stopped(root, out, 30, SEEDS[1])
    del decoded[:]
    report = build(root, out, SEEDS[0], workers=1)
    assert report.kept >= 24
    assert len(decoded) == 40 - report.kept
    assert out.read_bytes() == fresh(root, out, SEEDS[0])


def test_a_file_and_an_unfinished_build_both_give_their_rows(
    root: Path, tmp_path: Path, decoded: Decoded
) -> None:
    """With --overwrite; the old file is whole until the end."""
    out = tmp_path / "out.h5"
    build(root, out, SMALL)
    before = out.read_bytes()
    for path in sorted((root / "dog").iterdir())[:20]:
        path.write_bytes(encoded(photo(seed=200 + int(path.stem[-3:])), "JPEG"))
    stopped(root, out, 30, SEEDS[1], overwrite=True)
    assert out.read_bytes() == before
    del decoded[:]
    with pytest.raises(OutputExistsError):
        build(root, out, SEEDS[2])
    report = build(root, out, SEEDS[2], workers=1, overwrite=True)
    assert report.kept >= 24
    assert report.kept + report.copied + len(decoded) == 40
    assert len(decoded) < 12
    assert out.read_bytes() == fresh(root, out, SEEDS[2])
    assert left(out) == ["out.h5"]


def test_a_smaller_build_in_between_loses_nothing(root: Path, tmp_path: Path) -> None:
    """Its file has not room for all rows, so there are two, until a build completes."""
    out = tmp_path / "out.h5"
    stopped(root, out, 36)
    (root / "dog").rename(tmp_path / "dog")
    (root / "cow").mkdir()
    for i in range(4):
        save(root / "cow" / f"{i}.jpg", encoded(photo(seed=300 + i), "JPEG"))
    stopped(root, out, 19)
    (tmp_path / "dog").rename(root / "dog")
    save(root / "cat" / "bad.jpg", b"bad")
    with pytest.raises(BadImagesError, match="the other 44 rows are kept"):
        build(root, out, SMALL, workers=1)
    (root / "cat" / "bad.jpg").unlink()
    assert build(root, out, SMALL).kept == 44
    assert out.read_bytes() == fresh(root, out)
    assert left(out) == ["out.h5"]


def test_one_file_is_kept_however_often_images_fail(root: Path, tmp_path: Path) -> None:
    """The rows of a file that lacks few go into the one before, or it takes theirs."""
    out = tmp_path / "out.h5"
    for number in range(4):
        save(root / "cat" / f"{number}.jpg", b"bad")
        with pytest.raises(BadImagesError):
            build(root, out, SMALL)
        (root / "cat" / f"{number}.jpg").write_bytes(encoded(photo(seed=500 + number), "JPEG"))
        save(root / "dog" / f"bad{number}.jpg", b"bad")
    with pytest.raises(BadImagesError):
        build(root, out, SMALL)
    assert sum("rows" in name for name in left(out)) == 1
    for number in range(4):
        (root / "dog" / f"bad{number}.jpg").unlink()
    assert build(root, out, SMALL).kept == 44
    assert left(out) == ["out.h5"]


@pytest.mark.parametrize("work_dir", [None, "work"])
def test_a_row_that_rotted_is_decoded(
    root: Path, tmp_path: Path, decoded: Decoded, work_dir: str | None
) -> None:
    """In its pixels, or in what is known of it: its checksums are compared."""
    out = tmp_path / "out.h5"
    options = replace(SMALL, split=SplitOptions(shuffle=False, validation=0))
    stopped(root, out, 20, options)
    partial = tmp_path / "out.h5.partial"
    if work_dir:  # after it was set aside
        stopped(root, out, 0, SEEDS[1])
        partial = tmp_path / "out.h5.partial.rows-1"
    data = bytearray(partial.read_bytes())
    offsets = read_row_offsets(os.fsencode(partial))
    data[offsets["train/images"].offsets[0] + 2 * 20 * 16 * 3 + 5] ^= 1
    if work_dir:
        data[offsets["train/source_flags"].offsets[0] + 2 * 5] ^= 1
    partial.write_bytes(data)
    del decoded[:]
    report = build(root, out, SEEDS[2], workers=1)
    assert report.kept == (14 if work_dir else 15)
    assert len(decoded) == 40 - report.kept
    assert out.read_bytes() == fresh(root, out, SEEDS[2])


def test_only_committed_rows_are_believed(root: Path, tmp_path: Path, decoded: Decoded) -> None:
    """Rows that were written but not committed are decoded again, though they look right."""
    out = tmp_path / "out.h5"
    stopped(root, out, 20)
    journal = tmp_path / "out.h5.partial.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-1]))
    del decoded[:]
    assert build(root, out, SEEDS[1], workers=1).kept == 8
    assert len(decoded) == 32
    assert out.read_bytes() == fresh(root, out, SEEDS[1])


def test_a_file_that_changed_is_decoded(root: Path, tmp_path: Path) -> None:
    """Rows are found by what is in a file, not by its name."""
    out = tmp_path / "out.h5"
    stopped(root, out, 40)
    first, second = root / "cat" / "img_000.jpg", root / "cat" / "img_001.jpg"
    data = first.read_bytes(), second.read_bytes()
    first.write_bytes(data[1])
    second.write_bytes(encoded(photo(seed=77), "JPEG"))
    report = build(root, out, SEEDS[1], workers=1)
    assert report.kept == 39
    assert out.read_bytes() == fresh(root, out, SEEDS[1])


def test_no_room_for_two_files_changes_nothing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 4 before anything is moved: the plan before continues, or room is made."""
    out = tmp_path / "out.h5"
    stopped(root, out, 20)
    with monkeypatch.context() as patch:
        patch.setattr(durable, "free_nbytes", lambda _: 1000)
        with pytest.raises(OutputIOError, match=r"1,000 are free.*pass --restart to discard"):
            build(root, out, SEEDS[1], workers=1)
        assert left(out) == ["out.h5.partial", "out.h5.partial.journal"]
    shutil.copytree(tmp_path, tmp_path.parent / f"{tmp_path.name}-copy")
    copy = tmp_path.parent / f"{tmp_path.name}-copy"
    assert build(copy / "data", copy / "out.h5", SEEDS[0]).kept == 16
    assert build(root, out, SEEDS[1]).kept == 16


def test_no_room_that_is_found_later_keeps_the_rows(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quota shows when blocks are reserved: the rows are set aside already, and stay."""
    out = tmp_path / "out.h5"
    stopped(root, out, 20)

    def full(*_: object) -> None:
        raise OutputIOError("full")

    with monkeypatch.context() as patch:
        patch.setattr(durable, "reserve", full)
        with pytest.raises(OutputIOError, match="full"):
            build(root, out, SEEDS[1])
    assert left(out) == ["out.h5.partial.rows-1"]
    assert build(root, out, SEEDS[1]).kept == 16
    assert left(out) == ["out.h5"]


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty"])
def test_damage_of_what_was_set_aside_is_said(root: Path, tmp_path: Path, damage: str) -> None:
    """Exit 7, and nothing is lost; --restart discards it."""
    out = tmp_path / "out.h5"
    stopped(root, out, 20)
    stopped(root, out, 4, SEEDS[1])
    kept = tmp_path / "out.h5.partial.rows-1"
    data = kept.read_bytes()
    kept.write_bytes({"cut": data[:5000], "garbage": bytes(len(data)), "empty": b""}[damage])
    with pytest.raises(ResumeError, match=r"rows-1 cannot be continued: .*; pass --restart"):
        build(root, out, SEEDS[1])
    assert len(left(out)) == 3
    assert build(root, out, SEEDS[1], restart=True).kept == 0
    assert left(out) == ["out.h5"]


def test_other_pixels_cannot_be_continued(root: Path, tmp_path: Path) -> None:
    """Neither from the unfinished file nor from one that was set aside, alone or not."""
    out = tmp_path / "out.h5"
    stopped(root, out, 20)
    other = replace(SMALL, decode=DecodeOptions((20, 16), max_pixels=10**7))
    with pytest.raises(
        ResumeError, match=r"max_pixels was 178956970, now 10000000; pass --restart"
    ):
        build(root, out, other)
    stopped(root, out, 4, SEEDS[1])
    for path in (tmp_path / "out.h5.partial", tmp_path / "out.h5.partial.journal"):
        path.unlink()
    with pytest.raises(ResumeError, match="rows-1 cannot be continued: dtype was uint8, now fl"):
        build(root, out, replace(SMALL, store=StoreOptions(dtype="float32")))
    assert left(out) == ["out.h5.partial.rows-1"]
    assert build(root, out, SEEDS[3]).kept == 16


def test_too_many_files_are_said(root: Path, tmp_path: Path) -> None:
    """Hardly to be reached: each holds rows for which no other has room."""
    out = tmp_path / "out.h5"
    stopped(root, out, 20)
    partial = tmp_path / "out.h5.partial"
    data = partial.read_bytes()
    names = kept_names(os.fsencode(out))
    assert len(names) == MOST_KEPT
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(set_aside, "_move_rows", lambda *_: False)
        for name in names:
            Path(os.fsdecode(name)).write_bytes(data)
        with pytest.raises(ResumeError, match="there are 9 files of earlier unfinished builds"):
            build(root, out, SEEDS[1])
    assert partial.exists()


def test_restart_discards_all_of_it(root: Path, tmp_path: Path, decoded: Decoded) -> None:
    """Whatever was set aside, too."""
    out = tmp_path / "out.h5"
    stopped(root, out, 20)
    stopped(root, out, 30, SEEDS[1])
    del decoded[:]
    stopped(root, out, 4, SEEDS[2], restart=True)
    assert left(out) == ["out.h5.partial", "out.h5.partial.journal"]
    assert build(root, out, SEEDS[2], workers=1, restart=True).kept == 0
    assert len(decoded) == 44
    assert left(out) == ["out.h5"]


def test_a_kill_after_the_rename_leaves_nothing_for_long(root: Path, tmp_path: Path) -> None:
    """The next build finds that the file is up to date, and removes what was set aside."""
    out = tmp_path / "out.h5"
    stopped(root, out, 20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workfile.WorkFile, "_remove_kept", _raise)
        with pytest.raises(StopError):
            build(root, out, SEEDS[1])
    assert left(out) == ["out.h5", "out.h5.partial.journal", "out.h5.partial.rows-1"]
    assert build(root, out, SEEDS[1]).up_to_date
    assert left(out) == ["out.h5"]


def _raise(*_: object) -> None:
    raise StopError


def test_a_finished_file_keeps_what_another_plan_left(root: Path, tmp_path: Path) -> None:
    """It is up to date; the unfinished builds are not its own."""
    out = tmp_path / "out.h5"
    build(root, out, SMALL)
    (root / "cat" / "img_000.jpg").write_bytes(encoded(photo(seed=90), "JPEG"))
    stopped(root, out, 20, SEEDS[1], overwrite=True)
    stopped(root, out, 20, SEEDS[2], overwrite=True)
    before = left(out)
    (root / "cat" / "img_000.jpg").write_bytes(encoded(photo(seed=1), "JPEG"))
    assert build(root, out, SMALL).up_to_date
    assert left(out) == before


def test_a_share_of_0_is_one_build_however_it_is_written(root: Path, tmp_path: Path) -> None:
    """As an integer or a float: the identity is the same, and the build continues in place."""
    out = tmp_path / "out.h5"
    for share in (0, 0.0, -0.0):
        assert repr(SplitOptions(validation=share, test=share).validation) == "0.0"
    stopped(root, out, 20, replace(SMALL, split=SplitOptions(validation=0)))
    options = replace(SMALL, split=SplitOptions(validation=0.0))
    stopped(root, out, 24, options)
    assert left(out) == ["out.h5.partial", "out.h5.partial.journal"]
    assert build(root, out, options).kept == 24


def test_each_shard_takes_over_its_rows(root: Path, tmp_path: Path, decoded: Decoded) -> None:
    """A split that is not shuffled: the rows of each shard are those of it before."""
    options = replace(SMALL, split=SplitOptions(shuffle=False, validation=0))
    save(root / "cat" / "img_001.jpg", b"bad")
    save(root / "dog" / "img_024.jpg", b"bad")
    out = tmp_path / "shards"
    with pytest.raises(BadImagesError, match="the other 38 rows are kept"):
        build_shards(root, out, options, shards=2, workers=1)
    (root / "dog" / "img_024.jpg").unlink()
    (root / "cat" / "img_001.jpg").write_bytes(encoded(photo(seed=99), "JPEG"))
    del decoded[:]
    report = build_shards(root, out, options, shards=2, workers=1)
    assert report.kept >= 37
    assert len(decoded) == 39 - report.kept
    assert not list(out.glob("*.partial*"))
    build_shards(root, tmp_path / "fresh", options, shards=2, workers=1)
    for path in out.glob("*.h5"):
        assert path.read_bytes() == (tmp_path / "fresh" / path.name).read_bytes()


@settings(
    max_examples=examples(20),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    rounds=st.lists(
        st.tuples(
            st.lists(
                st.tuples(st.sampled_from(["add", "remove", "move", "alter", "spoil"]),
                          st.integers(0, 15)),
                max_size=3,
            ),
            st.integers(0, 2),
            st.integers(0, 18),
            st.booleans(),
        ),
        min_size=2,
        max_size=5,
    ),
    encoded_files=st.booleans(),
)  # fmt: skip
def test_any_chain_ends_in_the_bytes_of_a_fresh_build(
    tmp_path_factory: pytest.TempPathFactory,
    rounds: list[tuple[list[tuple[str, int]], int, int, bool]],
    encoded_files: bool,
) -> None:
    """Whatever changed between builds that were ended anywhere, or failed for their images."""
    tmp_path = tmp_path_factory.mktemp("chain")
    root = draw_dataset(tmp_path / "data", {"a": 8, "b": 8})
    out = tmp_path / "out.h5"
    store = StoreOptions(store="encoded" if encoded_files else "decoded")
    with pytest.MonkeyPatch.context() as patch:
        commit_early(patch)
        for edits, seed, images, overwrite in rounds:
            for what, number in edits:
                path = root / "ab"[number // 8] / f"img_{number % 8:03}.jpg"
                if what == "add":
                    save(path.with_name(f"n{number}.jpg"), encoded(photo(seed=90 + number), "JPEG"))
                elif what == "remove" and path.exists() and len(list(path.parent.iterdir())) > 2:
                    path.unlink()
                elif what == "move" and path.exists() and len(list(path.parent.iterdir())) > 2:
                    shutil.move(path, root / "ba"[number // 8] / f"m{number}.jpg")
                elif what == "alter":
                    save(path, encoded(photo(seed=70 + number), "JPEG"))
                elif what == "spoil":
                    save(path, b"bad")
            options = replace(SMALL, split=SplitOptions(seed=seed), store=store)
            stop = stop_after(images)
            with contextlib.suppress(StopError, BadImagesError, OutputExistsError):
                build(root, out, options, workers=1, overwrite=overwrite, progress=stop)
        build(root, out, options, workers=1, overwrite=True, on_error="skip")
        assert left(out) in (["out.h5"], ["out.h5", "out.h5.partial", "out.h5.partial.journal"])
        assert out.read_bytes() == fresh(root, out, options)


@pytest.mark.parametrize("room", ["first", "second", "none"])
def test_rows_go_where_there_is_room_for_them(
    root: Path, tmp_path: Path, decoded: Decoded, room: str
) -> None:
    """From a small file into a large one, whichever is older; else both are kept."""
    cats, dogs = tmp_path / "cats", tmp_path / "dogs"
    shutil.copytree(root / "cat", cats / "cat")
    shutil.copytree(root / "dog", dogs / "dog")
    out = tmp_path / "out.h5"
    if room == "none":
        chain = [(cats, 15), (dogs, 25), (root, 0)]
    else:
        chain = [(root, 16), (cats, 15)] if room == "first" else [(cats, 15), (root, 24)]
    for dataset, images in chain:
        stopped(dataset, out, images, replace(SMALL, split=SplitOptions(validation=0)))
    stopped(root, out, 0, SEEDS[3])
    files = [name for name in left(out) if "rows" in name]
    assert len(files) == (2 if room == "none" else 1)
    del decoded[:]
    report = build(root, out, SEEDS[3], workers=1)
    assert report.kept >= {"first": 22, "second": 24, "none": 32}[room]
    assert report.kept + len(decoded) == 40
    assert out.read_bytes() == fresh(root, out, SEEDS[3])
