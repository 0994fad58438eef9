"""Near duplicates: images that look alike are found between splits and within one."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from helpers.drawing import encoded, save
from helpers.running import Run
from PIL import Image

import batchify
from batchify.building.build import build
from batchify.checking.check import check
from batchify.checking.facts import stored_facts
from batchify.checking.findings import CheckLimits, CheckReport, Finding, Problem
from batchify.checking.near import find_near_duplicates, find_near_leaks
from batchify.dataset_options import SplitOptions
from batchify.errors import OptionError
from batchify.format.reader import Reader
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.options import BuildOptions
from batchify.reporting.report_data import _lookalikes

OPTIONS = BuildOptions(
    decode=DecodeOptions((48, 64), interpolation="bilinear"),
    store=StoreOptions(appearance=True),
    split=SplitOptions(shuffle=False),
)


def scene(seed: int) -> Image.Image:
    """Return a drawn picture with smooth shades, as photos have them."""
    noise = np.random.RandomState(seed).randint(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(noise).resize((160, 120), Image.Resampling.BICUBIC)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Draw a cat in both splits with other bytes, one twice in train, and two plain images."""
    root = tmp_path / "data"
    for split, first in (("train", 0), ("val", 100)):
        for i in range(12):
            save(root / split / "cat" / f"{i}.png", encoded(scene(first + i), "PNG"))
    save(root / "train" / "cat" / "again.jpg", encoded(scene(3), "JPEG", quality=40))
    save(root / "train" / "cat" / "white.png", encoded(Image.new("RGB", (60, 60), "white"), "PNG"))
    save(root / "val" / "cat" / "seen.jpg", encoded(scene(5).resize((90, 70)), "JPEG"))
    save(root / "val" / "cat" / "gray.png", encoded(Image.new("RGB", (60, 60), "gray"), "PNG"))
    return root


def found(report: CheckReport) -> dict[str, Problem]:
    """Return the problems about images that look alike, by code."""
    return {each.code: each for each in report.problems if each.code.startswith("near-")}


def test_near_duplicates_are_found(root: Path, tmp_path: Path) -> None:
    """In a dataset, its file and its shards; plain images are not alike, and nothing fails."""
    out = tmp_path / "out.h5"
    build(root, out, OPTIONS)
    batchify.build_shards(root, tmp_path / "shards", OPTIONS, shards=2, workers=1)
    for report in (check(root, OPTIONS), check(out), check(tmp_path / "shards")):
        problems = found(report)
        leak, copy = problems["near-leak"], problems["near-duplicate"]
        assert (leak.severity, leak.count, copy.severity, copy.count) == ("warning", 1, "notice", 1)
        assert leak.message == "1 group of images that look alike in several splits"
        (example,) = leak.examples
        assert (example.split, example.path) == ("validation", b"val/cat/seen.jpg")
        assert example.message.startswith("looks like train row ")
        assert "(train/cat/5.png): " in example.message
        assert {k: v.tolist() for k, v in leak.rows.items()} == {"validation": [example.row]}
        (example,) = copy.examples
        assert (example.split, example.path) == ("train", b"train/cat/again.jpg")
        assert report.is_ok
        assert not any("--appearance" in note for note in report.notes)


def test_examples_begin_with_one_of_each_group(root: Path) -> None:
    """The others of a group follow, and all rows are known."""
    for i in range(3):
        save(root / "train" / "cat" / f"again{i}.jpg", encoded(scene(3), "JPEG", quality=50 + i))
    save(root / "train" / "cat" / "more.jpg", encoded(scene(7), "JPEG", quality=50))
    copies = found(check(root, OPTIONS))["near-duplicate"]
    paths = [each.path.removeprefix(b"train/cat/") for each in copies.examples]
    assert paths == [b"again.jpg", b"more.jpg", b"again0.jpg", b"again1.jpg", b"again2.jpg"]
    assert copies.count == len(copies.rows["train"]) == 5


def test_a_look_alike_of_another_class_is_told_apart(root: Path) -> None:
    """One of both labels is probably wrong."""
    save(root / "train" / "dog" / "cat.jpg", encoded(scene(7), "JPEG", quality=50))
    copies = found(check(root, OPTIONS))["near-duplicate"]
    ends = {each.path: each.message.partition(" bits differ")[2] for each in copies.examples}
    assert ends == {b"train/cat/again.jpg": "", b"train/dog/cat.jpg": ", in another class"}


def test_all_rows_of_a_large_group_are_found(root: Path, tmp_path: Path) -> None:
    """Also one that is only near the last row of the other split, however many there are."""
    random = np.random.RandomState(0)
    centers = random.randint(0, 2**62, 2, np.uint64)
    chain = [centers[0]]
    for bit in range(0, 32, 2):  # far from the first, step by step
        chain.append(chain[-1] ^ np.uint64(0b11 << bit))
    many = np.concatenate([np.repeat(chain[:1], 5000), chain, centers[1:]])
    few = np.array([chain[-1] ^ np.uint64(1), centers[1] ^ np.uint64(0xFFFF), chain[0]])
    out = tmp_path / "out.h5"
    build(root, out, OPTIONS)
    with Reader(out) as reader:
        facts = stored_facts(reader)
    hashes = {"train": many, "validation": few}
    for name, each in hashes.items():
        numbers = np.arange(len(each)) + 10_000 * (name == "validation")
        digests = np.zeros((len(each), 32), np.uint8)
        digests[:, :8] = (numbers + 1).view(np.uint8).reshape(-1, 8)
        facts.splits[name] = replace(
            facts.splits[name], digests=digests, flags=np.zeros(len(each), np.uint16),
            labels=np.zeros(len(each), np.int32),
            appearance={"phash": each}, paths=lambda first, _: iter([(first, [b"a.png"])]),
        )  # fmt: skip
    limits = CheckLimits(thresholds={"near-leak": 2, "near-duplicate": 2})
    (leaks,) = find_near_leaks(facts, limits)
    (copies,) = find_near_duplicates(facts, limits)
    assert {name: rows.tolist() for name, rows in leaks.rows().items()} == {"validation": [0, 2]}
    assert {each.row: each.other for each in leaks.examples} == {
        0: ("train", 5016), 2: ("train", 0),
    }  # fmt: skip
    rows = copies.rows()
    assert copies.count == sum(map(len, rows.values())) == 5016 + 1
    assert all("65 of" not in each.message for each in islice(copies.examples, 5100))


def test_a_threshold_is_a_limit(root: Path) -> None:
    """Exceeding one that is given is an error; the distance has a most."""
    report = check(root, OPTIONS, limits=CheckLimits(thresholds={"near-leak": 8}))
    assert found(report)["near-leak"].severity == "error"
    for value in (0.5, 9):
        with pytest.raises(OptionError, match="near-leak must be 1 to 8 bits"):
            CheckLimits(thresholds={"near-leak": value})


def test_exact_copies_are_no_near_duplicates(root: Path) -> None:
    """Those are leaks and duplicates."""
    for name in ("train/cat/again.jpg", "val/cat/seen.jpg"):
        (root / name).unlink()
    save(root / "val" / "cat" / "same.png", (root / "train" / "cat" / "1.png").read_bytes())
    report = check(root, OPTIONS)
    assert "leak" in {each.code for each in report.problems}
    assert not found(report)


def test_a_file_without_hashes_says_so(root: Path, tmp_path: Path, run: Run) -> None:
    """With the option to build with; nothing is said if the codes are ignored."""
    out = tmp_path / "out.h5"
    build(root, out, BuildOptions(decode=OPTIONS.decode))
    report = check(out)
    assert not found(report)
    (note,) = report.notes
    assert note.startswith("images that look alike, and dark,")
    assert note.endswith(" were not looked for: build with --appearance")
    unwanted = ("near-leak", "near-duplicate", "dark", "bright", "blurry", "low-information")
    assert check(out, ignore=unwanted).notes == ()
    result = run("check", str(out), "--json")
    assert json.loads(result.stdout)["notes"] == [note]


def test_the_report_shows_them_side_by_side(root: Path, tmp_path: Path) -> None:
    """With their splits and rows."""
    out = tmp_path / "out.h5"
    build(root, out, OPTIONS)
    batchify.write_report(out, tmp_path / "out.html")
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert page.count('<ul class="pairs">') == 2
    _, _, pairs = page.partition("Look alike, in several splits")
    pair, _, _ = pairs.partition("</li>")
    assert pair.count("<img ") == 2
    assert "seen.jpg" in pair
    assert "5.png" in pair


def test_the_report_shows_a_pair_once() -> None:
    """Two rows that are each other's nearest are two findings."""
    rows = [("train", 3), ("train", 5), ("train", 1)]
    near = [(rows[0], rows[1]), (rows[1], rows[0]), (rows[2], rows[0])]
    examples = tuple(Finding("", "", *row, other=other) for row, other in near)
    problem = Problem("near-duplicate", "notice", "", "", 3, examples)
    album = Mock(picture=lambda split, row, _: (split, row))
    pairs: tuple[Any, ...] = _lookalikes(problem, Mock(), album).pairs
    assert pairs == ((rows[0], rows[1]), (rows[2], rows[0]))
