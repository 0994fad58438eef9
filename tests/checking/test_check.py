"""What spoils training is found, in a file and in the folder that it is made of; no more."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.drawing import draw_dataset, encoded, photo, save, sixteen_bit_rgb
from helpers.running import Run
from PIL import Image

from batchify.building.build import build
from batchify.checking.check import CHECKS, check
from batchify.checking.findings import CHECK_CODES, CheckLimits, CheckReport, Problem
from batchify.dataset_options import SplitOptions
from batchify.errors import DatasetError, FileFormatError, OptionError
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.options import BuildOptions

SMALL = DecodeOptions((16, 16))
HALVES = SplitOptions("stratified", 0.5)
NO_LIMIT = CheckLimits(max_imbalance=1e9, min_class_size=1)


def clean(root: Path, cats: int = 12, dogs: int = 12) -> Path:
    """Draw photos with which nothing is wrong."""
    return draw_dataset(root, {"cat": cats, "dog": dogs})


def reports(
    root: Path, out: Path, options: BuildOptions, **arguments: Any
) -> tuple[CheckReport, CheckReport]:
    """Return the reports of a folder, and of the file that is made of it."""
    build(root, out, options, on_error="skip", overwrite=True)
    return check(root, options, **arguments), check(out, **arguments)


def found(report: CheckReport) -> dict[str, Problem]:
    """Return the problems by their code, without notices: see `test_looks`."""
    return {each.code: each for each in report.problems if each.severity != "notice"}


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    """Plain photos, larger than what is stored, in two classes of a size."""
    for report in reports(
        clean(tmp_path / "data"), tmp_path / "out.h5", BuildOptions(decode=SMALL)
    ):
        assert report.problems == ()
        assert report.is_ok
        assert (report.images, report.classes) == (24, 2)


def test_leaks_duplicates_and_conflicts(tmp_path: Path) -> None:
    """Copies across splits, within one, and under two classes, each with where."""
    root = clean(tmp_path / "data")
    copy = (root / "cat" / "img_001.jpg").read_bytes()  # of validation
    save(root / "cat" / "z_copy.jpg", copy)  # of training
    twice = (root / "dog" / "img_009.jpg").read_bytes()  # of training
    save(root / "dog" / "y_copy.jpg", twice)
    save(root / "cat" / "y_copy.jpg", twice)
    for report in reports(root, tmp_path / "out.h5", BuildOptions(decode=SMALL)):
        problems = found(report)
        assert set(problems) == {"leak", "duplicate", "label-conflict"}
        assert not report.is_ok
        assert problems["leak"].count == 1
        (leak,) = problems["leak"].examples
        assert {leak.split, leak.path} == {"validation", b"cat/img_001.jpg"}
        assert "the same bytes as train row" in leak.message
        assert "(cat/z_copy.jpg)" in leak.message
        assert problems["duplicate"].count == 2
        assert problems["label-conflict"].count == 1
        assert {each.path for each in problems["label-conflict"].examples} < {
            b"cat/y_copy.jpg", b"dog/y_copy.jpg", b"dog/img_009.jpg",
        }  # fmt: skip


def test_annotations_of_a_workflow(run: Run, tmp_path: Path) -> None:
    """One per problem that is not ignored; no name in it can end the line or begin a command."""
    name = "a%,b:\n::error::x"
    save(tmp_path / "d" / name / "1.png", encoded(photo(seed=1), "PNG"))
    save(tmp_path / "d" / "dog" / "broken.png", b"no image")
    shown = ("--output-format", "github", "--quiet")
    done = run("check", "d", "--target-size", "8", *shown, "--ignore", "imbalance")
    assert done.returncode == 8
    told = done.stdout.splitlines()
    assert told[0] == (
        "::error file=d,title=batchify%3A unreadable::1 of 2 images failed; fix or remove them, or "
        "build with --on-error skip%0A- train row 0 (dog/broken.png): not an image, or a damaged "
        "one, of an allowed format (JPEG, PNG, BMP, PPM, TIFF, GIF, WEBP, AVIF)"
    )
    assert "%0A- a%25,b:\\n::error::x: 1 image" in done.stdout
    problems = check(tmp_path / "d", BuildOptions(decode=DecodeOptions((8, 8)))).problems
    starts = [f"::{each.severity} file=d,title=batchify%3A {each.code}::" for each in problems]
    assert all(line.startswith(start) for line, start in zip(told, starts, strict=True))
    assert run("check", "d", *shown, "--json").stdout == run("check", "d", "--json").stdout


def test_examples_of_copies_are_of_their_own_split(tmp_path: Path) -> None:
    """Of an image that leaks, too, only further rows of a split are copies within it."""
    root = clean(tmp_path / "data")
    data = (root / "cat" / "img_000.jpg").read_bytes()  # of validation, as its copy a.jpg
    for name in ("a.jpg", "x.jpg", "y.jpg", "z.jpg"):  # the others are of training
        save(root / "cat" / name, data)
    for report in reports(root, tmp_path / "out.h5", BuildOptions(decode=SMALL)):
        problems = found(report)
        (leak,) = problems["leak"].examples
        copies = problems["duplicate"].examples
        assert {leak.split} == {"validation"}
        assert len(copies) == problems["duplicate"].count == 3
        assert [each.split for each in copies] == ["train", "train", "validation"]
        for each in copies:
            assert each.message.startswith(f"the same bytes as {each.split} row ")


def test_no_leak_is_left_with_grouped_duplicates(tmp_path: Path) -> None:
    """What the advice says helps."""
    root = clean(tmp_path / "data")
    for i in range(12):
        save(root / "cat" / f"copy_{i}.jpg", (root / "cat" / f"img_{i:03}.jpg").read_bytes())
    options = BuildOptions(split=HALVES, decode=SMALL)
    assert all("leak" in found(report) for report in reports(root, tmp_path / "a.h5", options))
    grouped = replace(options, split=replace(HALVES, group_duplicates=True))
    for report in reports(root, tmp_path / "b.h5", grouped):
        assert set(found(report)) == {"duplicate"}


def test_groups_in_several_splits(tmp_path: Path) -> None:
    """By the pattern that is given, whatever the file was split by."""
    root = tmp_path / "data"
    for i in range(24):
        name = f"p{i % 6}_{i}.jpg"
        save(root / "cat" / name, encoded(photo(seed=i), "JPEG"))
    limits = CheckLimits(group_by=r"(p\d+)_")
    options = BuildOptions(split=HALVES, decode=SMALL)
    for report in reports(root, tmp_path / "a.h5", options, limits=limits):
        problem = found(report)["group-leak"]
        assert problem.severity == "error"
        assert 1 <= problem.count <= 6
        assert "as train row" in problem.examples[0].message
    whole = replace(options, split=replace(HALVES, group_by=r"(p\d+)_"))
    for report in reports(root, tmp_path / "b.h5", whole, limits=limits):
        assert not report.problems
    for path in (root, tmp_path / "a.h5"):
        with pytest.raises(DatasetError, match=r"no group in the paths of 24 of 24 files: cat/p"):
            check(path, limits=CheckLimits(group_by="(q)"))


def test_classes(tmp_path: Path) -> None:
    """Empty, tiny, in one split alone, and out of balance; an empty split."""
    root = draw_dataset(tmp_path / "data", {"ant": 88, "bee": 4, "cow": 0})
    for report in reports(root, tmp_path / "out.h5", BuildOptions(decode=SMALL)):
        problems = found(report)
        assert set(problems) == {"empty-class", "tiny-class", "missing-class", "imbalance"}
        assert problems["empty-class"].examples[0].path == b"cow"
        assert problems["tiny-class"].message == "1 of 3 classes have fewer than 10 images"
        assert problems["missing-class"].message == "1 of 3 classes have no images in validation"
        assert problems["imbalance"].message == (
            "class ant has 17.8 times the images of bee in train: 71 and 4"
        )
    few = draw_dataset(tmp_path / "few", {"ant": 2})
    for report in reports(few, tmp_path / "few.h5", BuildOptions(decode=SMALL)):
        assert set(found(report)) == {"empty-split", "tiny-class"}


@pytest.mark.parametrize(
    ("limits", "severity"),
    [
        (CheckLimits(), "warning"),
        (CheckLimits(max_imbalance=2.9), "error"),
        (CheckLimits(max_imbalance=3), None),
    ],
)
def test_a_limit_that_is_given_is_one(
    tmp_path: Path, limits: CheckLimits, severity: str | None
) -> None:
    """Beyond it there is an error; the default ones warn; up to it there is nothing."""
    root = draw_dataset(tmp_path / "data", {"ant": 33, "bee": 11})
    if severity == "warning":
        root = draw_dataset(tmp_path / "more", {"ant": 111, "bee": 11})
    options = BuildOptions(split=SplitOptions(validation=0), decode=SMALL)
    report = check(root, options, limits=limits)
    problem = found(report).get("imbalance")
    assert (problem and problem.severity) == severity
    assert report.is_ok == (severity != "error")
    assert check(root, options, limits=limits, strict=True).is_ok == (severity is None)


def test_images_that_lose_something(tmp_path: Path) -> None:
    """EXIF that is ignored, 16 bits, alpha, and images that are enlarged; TIFF is always turned."""
    root = clean(tmp_path / "data")
    exif = Image.Exif()
    exif[0x112] = 6
    save(root / "cat" / "turned.jpg", encoded(photo(), "JPEG", exif=exif))
    save(root / "cat" / "turned.tif", encoded(photo(), "TIFF", exif=exif))
    save(root / "cat" / "deep.png", encoded(photo(mode="I;16"), "PNG"))
    save(root / "dog" / "clear.png", encoded(photo(mode="RGBA"), "PNG"))
    save(root / "dog" / "small.png", encoded(photo(40, 15), "PNG"))
    for report in reports(root, tmp_path / "a.h5", BuildOptions(decode=SMALL)):
        problems = found(report)
        assert {code: problem.examples[0].path for code, problem in problems.items()} == {
            "exif-ignored": b"cat/turned.jpg",
            "clipped": b"cat/deep.png",
            "alpha-dropped": b"dog/clear.png",
            "upscaled": b"dog/small.png",
        }
        assert all(problem.count == 1 for problem in problems.values())
        assert report.is_ok
    kind = DecodeOptions((16, 16), color_mode="rgba", exif="apply", fit="pad")
    for report in reports(root, tmp_path / "b.h5", BuildOptions(decode=kind)):
        assert set(found(report)) == {"clipped"}
    grey = BuildOptions(
        decode=DecodeOptions((16, 16), color_mode="grayscale"), store=StoreOptions(dtype="uint16")
    )
    for report in reports(root, tmp_path / "c.h5", grey):
        assert set(found(report)) == {"exif-ignored", "eight-bit", "alpha-dropped", "upscaled"}


def test_colours_of_16_bits_are_cut_in_grayscale_too(tmp_path: Path) -> None:
    """Grey images of 16 bits are kept there, coloured ones come with 8."""
    root = clean(tmp_path / "data")
    save(root / "cat" / "colour.png", sixteen_bit_rgb())
    save(root / "cat" / "grey.png", encoded(photo(mode="I;16"), "PNG"))
    grey = BuildOptions(
        decode=DecodeOptions((4, 4), "grayscale"), store=StoreOptions(dtype="float32")
    )
    for report in reports(root, tmp_path / "out.h5", grey):
        (problem,) = found(report).values()
        assert problem.code == "cut"
        assert [each.path for each in problem.examples] == [b"cat/colour.png"]


def test_images_that_cannot_be_used(tmp_path: Path) -> None:
    """In the folder an error, with the reason; in the file they were left out, which warns."""
    root = clean(tmp_path / "data")
    data = (root / "cat" / "img_003.jpg").read_bytes()
    save(root / "cat" / "cut.jpg", data[: len(data) // 2])
    save(root / "dog" / "empty.jpg", b"")
    folder, file = reports(root, tmp_path / "out.h5", BuildOptions(decode=SMALL))
    problem = found(folder)["unreadable"]
    assert (problem.severity, problem.count) == ("error", 2)
    assert {each.path for each in problem.examples} == {b"cat/cut.jpg", b"dog/empty.jpg"}
    assert {each.message for each in problem.examples} >= {"empty file (0 bytes)"}
    for i in range(12):
        save(root / "eel" / f"{i}.jpg", b"bad")
    again, _ = reports(root, tmp_path / "again.h5", BuildOptions(decode=SMALL))
    assert found(again)["empty-class"].examples[0].path == b"eel"
    assert found(file)["skipped"].message == "2 of 26 images are skipped"
    assert found(file)["skipped"].severity == "warning"
    assert not check(tmp_path / "out.h5", limits=CheckLimits(max_skipped="1%")).is_ok
    assert check(tmp_path / "out.h5", limits=CheckLimits(max_skipped="10%")).problems == ()


@pytest.mark.parametrize("class_mode", ["categorical", "none"])
def test_every_class_mode(tmp_path: Path, class_mode: Any) -> None:
    """Of one-hot labels the classes are known; without labels copies are found all the same."""
    root = clean(tmp_path / "data", dogs=3)
    save(root / "dog" / "copy.jpg", (root / "cat" / "img_000.jpg").read_bytes())
    options = BuildOptions(decode=SMALL, store=StoreOptions(class_mode=class_mode))
    for report in reports(root, tmp_path / "out.h5", options):
        codes = set(found(report))
        assert codes >= {"leak"}
        assert ("tiny-class" in codes) == ("label-conflict" in codes) == (class_mode != "none")


def test_what_is_ignored_does_not_fail(tmp_path: Path) -> None:
    """It is listed as ignored; a code that is none is refused."""
    root = clean(tmp_path / "data")
    save(root / "cat" / "z.jpg", (root / "cat" / "img_000.jpg").read_bytes())
    options = BuildOptions(decode=SMALL)
    report = check(root, options, ignore=["leak"])
    assert report.is_ok
    assert found(report)["leak"].ignored
    with pytest.raises(
        OptionError, match="no code 'leek' to ignore, only unreadable, damaged, leak"
    ):
        check(root, options, ignore=["leek"])
    build(root, tmp_path / "out.h5", options)
    with pytest.raises(OptionError, match="a file has its own"):
        check(tmp_path / "out.h5", options)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_imbalance": 0.5}, "max imbalance must be 1 or more"),
        ({"max_imbalance": float("nan")}, "max imbalance must be a number"),
        ({"max_skipped": "x"}, "max skipped must be a count"),
        ({"max_duplicates": "101%"}, "max duplicates cannot be more than 100%"),
        ({"min_class_size": 0}, "min class size must be a whole number of at least 1"),
        ({"group_by": "x"}, "group by must have a group"),
    ],
)
def test_limits_that_cannot_be_meant_are_refused(values: dict[str, Any], message: str) -> None:
    """Each with what is wrong."""
    with pytest.raises(OptionError, match=message):
        CheckLimits(**values)


def test_the_command_tells_and_fails(run: Run, tmp_path: Path) -> None:
    """Exit code 8 for errors; names escaped; what to do; JSON has all of it."""
    root = clean(tmp_path / "data")
    save(root / "cat" / "z\n.jpg", (root / "cat" / "img_000.jpg").read_bytes())
    build(root, tmp_path / "out.h5", BuildOptions(decode=SMALL))
    for arguments in (["out.h5"], [root, "--target-size", "16"]):
        done = run("check", *arguments)
        assert done.returncode == 8, done.stderr
        assert ": 1 error (25 images, 2 classes)\n  error leak: 1 image in several" in done.stdout
        assert "same bytes as train row" in done.stdout
        assert "cat/z\\n.jpg" in done.stdout
        assert "build with --split stratified --group-duplicates" in done.stdout
    done = run("check", "out.h5", "--json")
    assert done.returncode == 8
    answer = json.loads(done.stdout)
    assert (answer["json_version"], answer["ok"], answer["images"]) == (1, False, 25)
    (problem,) = answer["findings"]
    assert set(problem) == {
        "code", "severity", "message", "advice", "count", "ignored", "examples",
    }  # fmt: skip
    assert problem["examples"][0]["split"] == "validation"
    done = run("check", "out.h5", "--ignore", "leak,imbalance")
    assert done.returncode == 0
    assert "no problems found" in done.stdout
    assert "ignored leak" in done.stdout


def test_a_problem_whose_message_says_what_to_do_is_one_line(tmp_path: Path) -> None:
    """There is no blank line where others have their advice."""
    root = clean(tmp_path / "data")
    save(root / "loose.jpg", (root / "cat" / "img_000.jpg").read_bytes())
    report = check(root, BuildOptions(decode=SMALL))
    head, problem = str(report).splitlines()
    assert head.endswith("1 warning (24 images, 2 classes)")
    assert problem.startswith("  warning loose: ignored 1 image next to the class folders")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["out.h5", "--target-size", "20"], 2, "--target-size is for a dataset"),
        (["out.h5", "--ignore", "leek"], 2, "'leek' is not one of"),
        (["out.h5", "--list", "upscale"], 2, "; did you mean 'upscaled'?"),
        (["out.h5", "--group-by", "("], 2, "group by is not a regular expression"),
        (["nowhere.h5"], 1, "there is no file nowhere.h5"),
        (["nowhere.h5", "--target-size", "20"], 1, "there is no file nowhere.h5"),
        (["out.h5", "--group-by", "(q)"], 1, "no group in the paths of 15 of 15 files"),
        (["text.h5"], 1, "text.h5 is not an HDF5 file"),
    ],
)
def test_the_command_refuses(
    run: Run, photos: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    """What cannot be checked, with a reason and no traceback."""
    (tmp_path / "text.h5").write_text("text")
    build(photos, tmp_path / "out.h5", BuildOptions(decode=SMALL))
    done = run("check", *arguments)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_reads_the_options_of_build(run: Run, tmp_path: Path) -> None:
    """A folder is checked as a build would read it: from the environment and the same table."""
    root = clean(tmp_path / "data")
    (tmp_path / "batchify.toml").write_text(
        '[tool.batchify.build]\ntarget-size = "60x60"\non-error = "skip"\n'
    )
    done = run("check", root)
    assert "24 of 24 images are smaller than 60×60" in done.stdout, done.stderr
    done = run("check", root, BATCHIFY_BUILD_TARGET_SIZE="16x16")
    assert "no problems found" in done.stdout, done.stderr


def test_a_limit_of_build_is_not_one_of_check(run: Run, tmp_path: Path) -> None:
    """What build may skip, and how it prints, is not what check was told; as in the environment."""
    root = clean(tmp_path / "data")
    save(root / "cat" / "bad.jpg", b"bad")
    build(root, tmp_path / "out.h5", BuildOptions(decode=SMALL), on_error="skip")
    (tmp_path / "batchify.toml").write_text(
        '[tool.batchify.build]\non-error = "skip"\nmax-skipped = "1%"\njson = true\n'
    )
    done = run("check", "out.h5")
    assert done.returncode == 0, done.stdout
    assert "  warning skipped: 1 of 25 images are skipped" in done.stdout


def test_a_file_of_another_fit_is_named(photos: Path, tmp_path: Path) -> None:
    """What a config says that no release wrote is refused, with the file."""
    build(photos, tmp_path / "out.h5", BuildOptions(decode=SMALL))
    with h5py.File(tmp_path / "out.h5", "r+") as file:
        config = file.attrs["config"].replace(b'"fit":"stretch"', b'"fit":"streeetch"')
        del file.attrs["config"]
        file.attrs["config"] = np.bytes_(config)
    with pytest.raises(FileFormatError, match=r"out\.h5 is not .*: its fit is not known"):
        check(tmp_path / "out.h5")


def test_every_code_is_in_the_help(run: Run) -> None:
    """With its severity; and each has a check that finds it."""
    text = " ".join(run("check", "--help").stdout.split())
    errors, others = text.split("error: ")[1].split("warning: ")
    warnings, notices = others.split("notice: ")
    assert set(CHECKS) == set(CHECK_CODES)
    for code, each in CHECK_CODES.items():
        assert code in {"error": errors, "warning": warnings, "notice": notices}[each.severity]
