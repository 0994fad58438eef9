"""What Python users see of the objects that they get."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers.running import Run

import batchify


def test_reprs_are_short(photos: Path, tmp_path: Path) -> None:
    """One line that says what it is; none lists the paths of a dataset."""
    out, shards = tmp_path / "out.h5", tmp_path / "shards"
    options: batchify.OptionKeywords = {"target_size": (16, 12)}
    report = batchify.build(photos, out, **options)
    train = batchify.open(out)["train"]
    made = batchify.build_shards(photos, shards, shards=2, **options)
    merged = batchify.merge(shards, tmp_path / "m.h5")
    sheet = batchify.write_sheet(out, tmp_path / "sheet.png")
    check = batchify.check(out)
    found: list[tuple[object, str]] = [
        (report, f"{out} was built: 12 train + 3 validation images"),
        (report.plan, f"plan of {photos}: 12 train + 3 validation images"),
        (report.plan.dataset, f"dataset {photos}: 15 images, 2 classes"),
        (
            batchify.build(photos, out, **options),
            f"{out} is up to date: 12 train + 3 validation images",
        ),
        (made, f"{shards} was built: 4 shards, 12 train + 3 validation images"),
        (merged, f"{tmp_path / 'm.h5'} of 4 shards: 12 train + 3 validation images"),
        (batchify.verify(out), f"verification of {out}: OK"),
        (check, f"check of {out}: {check.tally}"),
        (check.problems[0], f"warning {check.problems[0].code}: {check.problems[0].message}"),
        (batchify.summarize(out), f"summary of {out}: 12 train + 3 validation images"),
        (sheet, f"sheet {tmp_path / 'sheet.png'}: 15 images, {sheet.width}×{sheet.height} pixels"),
        (train, "split 'train': 12 images of 16×12×3 uint8, 2 classes"),
        (train.batches(5), f"3 batches of 5 rows of {train!r}"),
    ]
    for value, text in found:
        assert repr(value) == f"<batchify {text}>"
    fingerprint = batchify.fingerprint(photos, **options)
    assert repr(fingerprint) == f"<batchify fingerprint {fingerprint} of {photos}>"
    changes = batchify.find_changes(photos, out)
    assert repr(changes) == f"<batchify {out} is out of date>"
    assert repr(train.paths) == f"<12 paths: {train.paths[0]!r}, …>"
    assert repr(train.columns) == "<columns: none>"
    assert repr(report.plan.dataset.samples) == "<15 samples>"


@pytest.mark.filterwarnings("ignore::batchify.BatchifyWarning")
def test_print_shows_what_the_command_prints(photos: Path, tmp_path: Path, run: Run) -> None:
    """The same lines for every report; a build has its time, and the command its next steps."""
    out, shards, merged = tmp_path / "out.h5", tmp_path / "shards", tmp_path / "merged.h5"
    options: batchify.OptionKeywords = {"target_size": (16, 12)}
    size = ("--target-size", "16x12")
    (photos / "cat" / "img_000.jpg").write_bytes(b"no image")
    report = batchify.build(photos, out, **options, on_error="skip")
    first, *rest = str(report).splitlines()
    assert re.fullmatch(
        rf"{re.escape(str(out))}: 12 train \+ 2 validation images of 16×12×3 uint8, 2 classes, "
        r"[\d.]+ kB in \d+\.\d s \([\d,]+ images/s\)",
        first,
    )
    assert "  skipped: 1" in rest
    made = batchify.build_shards(photos, shards, shards=2, **options, on_error="skip")
    assert "4 shards: 12 train + 2 validation images" in str(made)
    assert re.search(
        r"images of 4 shards, [\d.]+ kB in \d+\.\d s$", str(batchify.merge(shards, merged))
    )
    skip = ("--on-error", "skip")
    same = [
        (batchify.build(photos, out, **options, on_error="skip"), ("build", photos, out, *skip)),
        (batchify.find_changes(photos, out, **options), ("build", photos, out, "--check")),
        (batchify.plan_build(photos, **options), ("build", photos, out, "--dry-run")),
        (batchify.check(out), ("check", out)),
        (batchify.verify(out), ("verify", out)),
        (batchify.summarize(out), ("inspect", out)),
    ]
    for value, command in same:
        extra = size if command[0] == "build" else ()
        printed = run(*command, *extra).stdout.splitlines()
        left = [line for line in printed if not line.startswith(("check: ", "sizes  "))]
        assert str(value).splitlines() == left
