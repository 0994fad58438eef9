"""Images that look unusual are notices: shown with examples, and no reason to fail."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.drawing import draw_dataset, encoded, photo, save
from helpers.running import Run
from PIL import Image, ImageFilter

import batchify
from batchify.building.build import build
from batchify.checking.check import check, list_images
from batchify.checking.findings import THRESHOLDS, CheckLimits, CheckReport, Problem
from batchify.checking.looks import _class_quartiles
from batchify.errors import OptionError
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.options import BuildOptions

SMALL = BuildOptions(decode=DecodeOptions((16, 16)))


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """Draw 24 photos of one size, and one each that is large, long, or large for its class."""
    root = draw_dataset(tmp_path / "data", {"cat": 12, "dog": 12})
    for i in range(12):
        save(root / "emu" / f"{i}.png", encoded(photo(50, 40, seed=200 + i), "PNG"))
    save(root / "cat" / "large.png", encoded(photo(200, 150, seed=100), "PNG"))
    save(root / "dog" / "long.png", encoded(photo(20, 60, seed=101), "PNG"))
    return root


def found(report: CheckReport) -> dict[str, Problem]:
    """Return the problems by code."""
    return {each.code: each for each in report.problems}


def test_odd_sizes_and_shapes(odd: Path, tmp_path: Path) -> None:
    """In the folder and in its file: what is odd in all of it, or in its class, with its size."""
    build(odd, tmp_path / "out.h5", SMALL)
    for report in (check(odd, SMALL), check(tmp_path / "out.h5")):
        problems = found(report)
        assert {*problems} - {"blurry"} == {"odd-size", "odd-aspect-ratio", "class-outlier"}
        assert problems["odd-size"].message == (
            "1 of 38 images have an odd size: √(height × width) below 4 or above 75 pixels"
        )
        assert problems["odd-aspect-ratio"].message == (
            "1 of 38 images have an odd aspect ratio: the shorter side is less than 0.35 of the "
            "longer one"
        )
        (large,) = problems["odd-size"].examples
        assert (large.path, large.message) == (b"cat/large.png", "150×200 pixels")
        (outlier,) = problems["class-outlier"].examples
        assert outlier.message == "unlike others of cat in size: 150×200 pixels"
        (long,) = problems["odd-aspect-ratio"].examples
        assert (long.path, long.message) == (b"dog/long.png", "60×20 pixels")


def test_images_that_are_hard_to_see(tmp_path: Path) -> None:
    """Dark, bright, blurry and flat ones; in a file if it was built with --appearance."""
    root = draw_dataset(tmp_path / "data", {"cat": 12, "dog": 12}, size=(64, 48))
    soft = Image.linear_gradient("L").rotate(30).crop((40, 40, 200, 160))
    edits = {
        "dark": photo(64, 48).point(lambda value: value // 8),
        "bright": photo(64, 48).point(lambda value: 255 - value // 25),
        "blurry": soft.filter(ImageFilter.GaussianBlur(9)).point(lambda value: value // 2),
        "low-information": Image.new("RGB", (64, 48), (100, 120, 140)),
    }
    for code, image in edits.items():
        save(root / "dog" / f"{code}.png", encoded(image, "PNG"))
    options = BuildOptions(decode=DecodeOptions((48, 48)))
    build(root, tmp_path / "plain.h5", options)
    assert not {*edits} & {*found(check(tmp_path / "plain.h5"))}
    measured = replace(options, store=StoreOptions(appearance=True))
    build(root, tmp_path / "out.h5", measured)
    for report in (check(root, options), check(tmp_path / "out.h5")):
        problems = found(report)
        paths = {code: problems[code].examples[0].path.decode() for code in edits}
        assert paths == {code: f"dog/{code}.png" for code in edits}
        assert {code for code in edits if problems[code].count > 1} <= {"low-information"}
        assert problems["dark"].message == (
            "1 of 28 images are dark: 99% of their pixels have a brightness below 0.32"
        )
        assert problems["low-information"].examples[0].message == "entropy 1.59 bits"


def test_colors_unlike_those_of_a_class(tmp_path: Path) -> None:
    """A red image among gray ones, but not one that is a little brighter."""
    for i in range(20):
        image = Image.new("RGB", (30, 30), (100 + i, 100, 100 + i % 3))
        save(tmp_path / "data" / "cat" / f"{i}.png", encoded(image, "PNG"))
    for name, color in (("red", (200, 90, 90)), ("near", (125, 118, 110))):
        image = Image.new("RGB", (30, 30), color)
        save(tmp_path / "data" / "cat" / f"{name}.png", encoded(image, "PNG"))
    problem = found(check(tmp_path / "data", SMALL))["class-outlier"]
    assert problem.message == "1 of 22 images differ from others of their class in size or color"
    (red,) = problem.examples
    assert red.path == b"cat/red.png"
    assert red.message == "unlike others of cat in color: mean RGB 200, 90, 90"


def test_notices_never_fail(odd: Path, tmp_path: Path, run: Run) -> None:
    """Not with --strict, either; but a threshold that is set is a limit like others."""
    build(odd, tmp_path / "out.h5", SMALL)
    done = run("check", "out.h5", "--strict")
    assert done.returncode == 0
    assert done.stdout.startswith("out.h5: 3 notices (38 images, 3 classes)\n  notice odd-size: 1")
    done = run("check", "out.h5", "--output-format", "github")
    assert done.stdout.startswith("::notice file=out.h5,title=batchify%3A odd-size::1 of 38 images")
    done = run("check", "out.h5", "--thresholds", "odd-size=1000,odd-aspect-ratio=0.9")
    assert done.returncode == 8
    assert "error odd-aspect-ratio: 38 of 38" in done.stdout
    assert "odd-size" not in done.stdout
    (tmp_path / "batchify.toml").write_text(
        '[tool.batchify.check]\nthresholds = ["odd-aspect-ratio=0.1", "class-outlier=100"]\n'
    )
    assert run("check", "out.h5").stdout.startswith("out.h5: 1 notice (38")


def test_thresholds_that_are_none_are_refused(run: Run) -> None:
    """With those that there are."""
    with pytest.raises(OptionError, match="'darkness' has no threshold, only dark, bright, "):
        CheckLimits(thresholds={"darkness": 1})
    with pytest.raises(OptionError, match="threshold of odd-size must be a number above 0"):
        CheckLimits(thresholds={"odd-size": 0})
    done = run("check", "out.h5", "--thresholds", "odd-size")
    assert (done.returncode, done.stdout) == (2, "")
    assert "'odd-size' is not a name and a number such as odd-size=4" in done.stderr


def test_problems_have_all_rows(odd: Path, tmp_path: Path) -> None:
    """Of each split, ascending: those of the examples, and more where there are many."""
    copy = (odd / "cat" / "img_000.jpg").read_bytes()
    for name in ("a", "z"):
        save(odd / "dog" / f"{name}.jpg", copy)
    build(odd, tmp_path / "out.h5", SMALL)
    report = check(tmp_path / "out.h5", limits=CheckLimits(thresholds={"odd-aspect-ratio": 0.9}))
    assert {"leak", "label-conflict", "odd-size", "odd-aspect-ratio"} <= set(found(report))
    for problem in report.problems:
        shown: dict[str, list[int]] = {}
        for each in problem.examples:
            assert each.row is not None
            shown.setdefault(each.split, []).append(each.row)
        rows = {split: each.tolist() for split, each in problem.rows.items()}
        if problem.code == "leak":  # examples are the first rows in another split
            assert {split: sorted(each)[:1] for split, each in rows.items()} == shown
            rows = shown
        assert {split: sorted(set(each)) for split, each in shown.items()} == rows


def test_images_are_listed_to_be_excluded(odd: Path, tmp_path: Path, run: Run) -> None:
    """All of them, once; a build without them is without the problems."""
    copy = (odd / "cat" / "img_000.jpg").read_bytes()
    for name in ("a", "z", "zz"):
        save(odd / "dog" / f"{name}.jpg", copy)
    save(odd / "dog" / "\u00fc bad.jpg", b"bad")
    build(odd, tmp_path / "out.h5", SMALL, on_error="skip")
    codes = "leak,duplicate,label-conflict,odd-size,odd-aspect-ratio,skipped,tiny-class"
    for path in ("out.h5", str(odd)):
        wanted = codes.replace("skipped", "unreadable") if path == str(odd) else codes
        done = run("check", path, "--target-size", "16", "--list", wanted)
        if path == "out.h5":
            assert "--target-size is for a dataset" in done.stderr
            done = run("check", path, "--list", wanted)
        assert (done.returncode, done.stderr) == (0, "")
        listed = set(done.stdout.splitlines())
        assert {"cat/large.png", "dog/long.png", "dog/\u00fc bad.jpg"} <= listed
        assert len(listed) == 6
        (tmp_path / "list.txt").write_text(done.stdout, encoding="utf-8")
        exclude = [f"@{tmp_path / 'list.txt'}"]
        build(odd, tmp_path / "clean.h5", SMALL, exclude=exclude, overwrite=True)
        assert not check(tmp_path / "clean.h5").problems
    done = run("check", "out.h5", "--list", "dark")  # not an empty list, as if none were dark
    assert (done.returncode, done.stdout) == (2, "")
    assert "dark, bright or blurry ones, were not looked for" in done.stderr
    done = run("check", "clean.h5", "--list", "leak")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("no images have these problems")
    done = run("check", "out.h5", "--list", "")
    assert (done.returncode, done.stdout) == (2, "")
    assert run("check", "out.h5", "--list", "dark", "--json").returncode == 2
    assert run("check", "out.h5", "out.h5", "--list", "dark").returncode == 2


def test_no_class_no_outlier(tmp_path: Path) -> None:
    """Nor in a class of few images, or where labels are no classes."""
    root = draw_dataset(tmp_path / "data", {"cat": 12, "dog": 5})
    save(root / "dog" / "large.png", encoded(photo(200, 150, seed=100), "PNG"))
    assert "class-outlier" not in found(check(root, SMALL))
    save(root / "cat" / "large.png", encoded(photo(200, 150, seed=101), "PNG"))
    assert found(check(root, SMALL))["class-outlier"].count == 1
    assert "class-outlier" not in found(check(root, SMALL, class_mode="none"))


def test_nothing_is_measured_that_no_one_looks_for(
    odd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a dataset: if all codes that need it are ignored, or others are listed."""
    save(odd / "cat" / "dark.png", encoded(Image.new("RGB", (50, 40)), "PNG"))
    assert found(check(odd, SMALL, workers=1, ignore=("dark",)))["dark"].ignored
    monkeypatch.setattr("batchify.decoding.batch.measure", lambda *_: 1 / 0)
    codes = ("near-leak", "near-duplicate", "dark", "bright", "blurry", "low-information")
    report = check(odd, SMALL, workers=1, ignore=(*codes, "class-outlier"))
    assert found(report)["odd-size"].count == 1
    assert not {*codes} & {*found(report)}
    assert not any("appearance" in note for note in report.notes)
    assert list_images(odd, ["odd-size"], SMALL, workers=1) == [b"cat/large.png"]
    with pytest.raises(ZeroDivisionError):
        list_images(odd, ["odd-size", "dark"], SMALL, workers=1)


def test_quartiles_are_those_of_numpy() -> None:
    """For each class, whatever the splits; without values that are not known."""
    random = np.random.default_rng(0)
    labels = {
        "train": random.integers(0, 50, 4000).astype(np.int32),
        "test": random.integers(0, 60, 500).astype(np.int32),
    }
    values = {name: random.random(len(each)) for name, each in labels.items()}
    values["train"][::7] = np.nan
    low, high = _class_quartiles(labels, values, 61)
    owners, numbers = np.concatenate([*labels.values()]), np.concatenate([*values.values()])
    for i in range(61):
        own = numbers[(owners == i) & ~np.isnan(numbers)]
        expected: Any = np.percentile(own, [25, 75]) if len(own) >= 10 else [np.nan, np.nan]
        assert np.allclose([low[i], high[i]], expected, equal_nan=True)


def test_the_report_shows_them(odd: Path, tmp_path: Path, run: Run) -> None:
    """With pictures, and what is odd; else that there are none."""
    build(odd, tmp_path / "out.h5", SMALL)
    assert run("inspect", "out.h5", "--report", "page.html").returncode == 0
    page = (tmp_path / "page.html").read_text()
    section = page.split('id="unusual"')[1].split("</section>")[0]
    assert section.count("<img ") == 3
    assert "<h3>odd-size<small> 1 image</small></h3>" in section
    assert "150×200 pixels" in section
    assert 'class="info"' in page
    plain = draw_dataset(tmp_path / "plain", {"cat": 12, "dog": 12})
    for appearance, verdict in ((True, "No unusual images."), (False, "of unusual sizes.")):
        out = tmp_path / f"{appearance}.h5"
        build(plain, out, replace(SMALL, store=StoreOptions(appearance=appearance)))
        batchify.write_report(out, tmp_path / "page.html")
        page = (tmp_path / "page.html").read_text()
        assert verdict in page
        for each in ("Images that look alike", "Dark, bright and blurry images"):
            assert (each in page) != appearance
        assert ("were not looked for: build with --appearance" in page) != appearance


def test_json_has_their_severity(odd: Path, run: Run) -> None:
    """As that of others."""
    answer = json.loads(run("check", odd, "--target-size", "16", "--json").stdout)
    assert answer["ok"]
    assert {each["severity"] for each in answer["findings"]} == {"notice"}
    assert {each["code"] for each in answer["findings"]} <= set(THRESHOLDS)
