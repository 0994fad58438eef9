"""`batchify build`: exit codes, messages, configuration; then the file, with plain h5py."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import pytest
from click.testing import CliRunner
from helpers.drawing import draw_dataset, encoded, photo, save
from helpers.running import Run

from batchify.cli import main
from batchify.cli.next_steps import next_steps
from batchify.cli.progress import ProgressLines, make_progress
from batchify.common.progress import ProgressBar
from batchify.common.text import size_text

SMALL = ("--target-size", "20x16")


def test_build_then_inspect(run_process: Run, photos: Path, tmp_path: Path) -> None:
    """The two commands of the README: exit 0, a report on stdout, nothing on stderr."""
    done = run_process("build", photos, "out.h5")
    assert (done.returncode, done.stderr) == (0, "")
    out = tmp_path / "out.h5"
    assert done.stdout.startswith(
        "out.h5: 12 train + 3 validation images of 150×150×3 uint8, 2 classes, "
    )
    with h5py.File(out) as file:
        assert file["X_train"].shape == (12, 150, 150, 3)
    assert run_process("inspect", "out.h5").returncode == 0


def test_what_comes_after_a_build(
    run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line of check, of what `batchify check` finds; on a terminal what to do next."""
    save(photos / "cat" / "same.jpg", (photos / "dog" / "img_009.jpg").read_bytes())
    save(photos / "cat" / "alpha.png", encoded(photo(mode="RGBA"), "PNG"))
    done = run("build", photos, "my out.h5", *SMALL)
    made, copied, warned, line = done.stdout.splitlines()
    assert (made[-9:], copied) == ("images/s)", "  image files: 1 with alpha")
    assert warned.startswith("  warning: 1 of 17 images have an alpha channel that is dropped")
    assert line == "check: 1 error, 3 warnings; run batchify check 'my out.h5'"
    checked = run("check", "my out.h5").stdout.splitlines()[0]
    assert checked == "my out.h5: 1 error, 3 warnings (17 images, 2 classes)"
    shards = run("build", photos, "shards", *SMALL, "--shards", "2").stdout.splitlines()[-1]
    assert shards == "check: 1 error, 3 warnings; run batchify check shards"
    merged = run("merge", "shards", "merged.h5").stdout.splitlines()[-1]
    assert merged == "check: 1 error, 3 warnings; run batchify check merged.h5"
    assert "check:" not in run("build", photos, "my out.h5", *SMALL, "--quiet").stdout
    monkeypatch.setattr("batchify.cli.next_steps.is_terminal", lambda: True)
    assert run("build", photos, "my out.h5", *SMALL).stdout.splitlines()[2:] == [
        line,
        "next:  batchify inspect 'my out.h5' --sheet sheet.png",
        '       batchify.open("my out.h5") in Python',
    ]
    (tmp_path / "my out.h5").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert next_steps("my out.h5").startswith("check: ")  # and no error, whatever it is


def test_every_option_reaches_the_file(run: Run, photos: Path, tmp_path: Path) -> None:
    """Options of the command line are those of the config that the file records."""
    save(photos / "cat" / "extra.webp", encoded(photo(), "WEBP"))
    done = run(
        "build", photos, "out.h5", "--target-size", "30", "--color-mode", "grayscale",
        "--interpolation", "lanczos", "--fit", "pad", "--exif", "apply", "--scaled-decode",
        "--validation-split", "0.3", "--test-split", "0.2", "--split", "stratified",
        "--no-shuffle", "--seed", "9", "--class-mode", "categorical", "--rescale", "1/127.5",
        "--dtype", "uint16", "--compression", "gzip", "--compression-level", "9",
        "--batch-size", "2", "--workers", "2", "--extensions", "webp,gif", "--hidden",
        "--follow-links", "--on-error", "skip", "--max-skipped", "5%", "--max-pixels", "99999",
        "--max-dimension", "999", "--max-file-size", "99999", "--quiet",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with h5py.File(tmp_path / "out.h5") as file:
        assert json.loads(file.attrs["config"]) == {
            "layout": "classes", "target_size": [30, 30], "color_mode": "grayscale",
            "interpolation": "lanczos", "fit": "pad", "exif": "apply", "scaled_decode": True,
            "validation_split": 0.3, "test_split": 0.2, "split": "stratified", "shuffle": False,
            "seed": 9, "class_mode": "categorical", "rescale": "1/127.5", "dtype": "uint16",
            "compression": "gzip", "compression_level": 9, "extensions": ["gif", "webp"],
            "hidden": True, "follow_links": True, "max_pixels": 99999, "max_dimension": 999,
            "max_file_size": 99999,
        }  # fmt: skip
        assert list(file) == [
            "X_test", "X_train", "X_validation", "content_sha256", "statistics", "test", "train",
            "validation", "y_test", "y_train", "y_validation",
        ]  # fmt: skip
        assert file["X_train"].compression == "gzip"
        assert file["X_train"].compression_opts == 9


def test_a_dry_run_decodes_and_writes_nothing(run: Run, photos: Path, tmp_path: Path) -> None:
    """The plan, for people and for machines; the bytes it names are those of the file."""
    for path in photos.glob("*/*.jpg"):
        path.write_bytes(b"not even an image")
    plan = json.loads(run("build", photos, "out.h5", "--dry-run", "--json").stdout)
    done = run("build", photos, "out.h5", "--dry-run")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        f"plan of {photos}: 12 train + 3 validation images, 2 classes",
        "",
        "     class  train  validation",
        "  0  cat        4           1  ██████████",
        "  1  dog        8           2  ████████████████████",
        "",
        "sizes     not known: no image could be read",
        f"disk      {size_text(plan['bytes'])} ({plan['bytes']:,} bytes)",
        "memory    at most 75.6 MB per process, and one decoded image",
    ]
    verbose = run("build", photos, "out.h5", "--dry-run", "-v").stdout
    assert verbose.startswith(done.stdout)
    assert "train       images         12×150×150×3  u1\n" in verbose
    assert not list(tmp_path.glob("out.h5*"))
    assert plan["splits"]["train"]["class_counts"] == [4, 8]
    assert plan["splits"]["train"]["columns"]["images"] == {
        "shape": [12, 150, 150, 3], "dtype": "|u1",
    }  # fmt: skip
    draw_dataset(photos, {"cat": 5, "dog": 10})
    sized = run("build", photos, "out.h5", "--dry-run").stdout.splitlines()[6]
    assert sized == "sizes     30×40 pixels (15 of 15 images looked at)"
    report = json.loads(run("build", photos, "out.h5", "--json").stdout)
    assert report["bytes"] == plan["bytes"] == (tmp_path / "out.h5").stat().st_size
    assert report["identity"] == plan["identity"]


def test_bad_images_exit_3_and_are_named(run: Run, photos: Path, tmp_path: Path) -> None:
    """Each on a line of its own on stderr, escaped; no traceback."""
    save(photos / "cat" / "::error::\n.jpg", b"bad")
    done = run("build", photos, "out.h5", *SMALL)
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr == (
        "Error: 1 of 16 images failed:\n"
        "  - cat/::error::\\n.jpg: not an image, or a damaged one, of an allowed format "
        "(JPEG, PNG, BMP, PPM, TIFF, GIF, WEBP, AVIF)\n"
        "the other 15 rows are kept: fix or remove these files and run the same command again, "
        "or pass --on-error skip to skip them\n"
        f"all of them are listed in {tmp_path / 'out.h5.errors.txt'}\n"
    )
    done = run("build", photos, "out.h5", *SMALL, "--on-error", "skip")
    assert done.returncode == 0
    assert "    - cat/::error::\\n.jpg: not an image" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("nowhere", "out.h5"), 1, "Error: dataset {tmp}{sep}nowhere does not exist; "),
        (
            ("photos", "photos/out.h5"),
            1,
            "Error: target {tmp}{sep}photos{sep}out.h5 is inside the dataset",
        ),
        (("photos", "old.h5"), 1, "old.h5 exists and is not up to date; pass --overwrite to re"),
        (("photos", "out.h5", "--target-size", "0x5"), 2, "has a side of 0 pixels"),
        (("photos", "out.h5", "--target-size", "big"), 2, "is not a size such as 150x150"),
        (("photos", "out.h5", "--scaled-decode"), 2, "scaled decode needs an antialiased"),
        (("photos", "out.h5", "--rescale", "x"), 2, "rescale must be a fraction"),
        (("photos", "out.h5", "--validation-split", "1"), 2, "validation split must be"),
        (("photos", "out.h5", "--test-split", "20%"), 2, "'20%' is not a share such as 0.2"),
        (("photos", "out.h5", "--extensions", "*.svg"), 2, "'*.svg' is not an ending of files"),
        (("photos", "out.h5", "--max-skipped", "1"), 2, "--max-skipped requires --on-error skip"),
        (("photos", "out.h5", "--color-mode", "bgr"), 2, "'bgr' is not one of"),
        (("photos",), 2, "Missing argument 'OUT'"),
        (("", "presplit/out.h5", "--dry-run"), 1, "the path of the dataset is empty"),
        (("presplit", "out.h5", "--validation-split", "0.2"), 2, "is split into folders already"),
        (("photos", "out.h5", "--seed", "1", "--seed", "1"), 2, "--seed is given twice; give it"),
        (
            ("photos", "out.h5", *("--classes", "cat") * 3),
            2,
            "--classes is given 3 times; give it once, with all names: --classes a,b",
        ),
        (
            ("photos", "out.h5", "--manifest", "train.csv", "--manifest", "val.csv", "--dry-run"),
            2,
            "--manifest is given twice",
        ),
        (("photos", "out.h5", "--config", "none.toml"), 2, "'none.toml' does not exist"),
    ],
)
def test_what_cannot_be_is_refused(
    run: Run, photos: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    """An exit code, a message on stderr, no traceback, no file."""
    save(tmp_path / "old.h5", b"old")
    for name in ("train", "val"):
        draw_dataset(tmp_path / "presplit" / name, {"cat": 1})
    done = run("build", *arguments)
    assert done.returncode == code
    assert message.format(tmp=tmp_path, sep=os.sep) in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("out.h5*"))
    assert photos.is_dir()


def test_a_single_value_given_twice_is_refused(run: Run, photos: Path) -> None:
    """In every command; patterns and flags may repeat, and the environment does not count."""
    for command in ("fingerprint", "check"):
        done = run(command, photos, "--extensions", "webp", "--extensions", "gif")
        assert done.returncode == 2
        assert "--extensions is given twice; give it once, with all names" in done.stderr
    twice = ("--exclude", "a/", "--exclude", "b/", "--quiet", "--quiet", "--seed", "1")
    done = run("build", photos, "o.h5", "--dry-run", *twice, BATCHIFY_BUILD_SEED="2")
    assert done.returncode == 0, done.stderr


def test_no_room_exits_4(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is too small: bytes needed and free, before any decode."""
    monkeypatch.setattr("batchify.common.durable.free_nbytes", lambda _: 5_000)
    result = CliRunner().invoke(main, ["build", str(photos), str(tmp_path / "out.h5")])
    assert result.exit_code == 4
    assert "but 5,000 are free; make room, or name a target on another disk" in result.stderr
    assert not list(tmp_path.glob("out.h5*"))


def test_options_from_the_environment(run: Run, photos: Path, tmp_path: Path) -> None:
    """Every option is a variable too; the command line wins."""
    run(
        "build", photos, "a.h5", BATCHIFY_BUILD_TARGET_SIZE="8x9", BATCHIFY_BUILD_SPLIT="stratified"
    )
    run("build", photos, "b.h5", "--target-size", "7", BATCHIFY_BUILD_TARGET_SIZE="8x9")
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["X_train"].shape[1:] == (8, 9, 3)
        assert json.loads(file.attrs["config"])["split"] == "stratified"
    with h5py.File(tmp_path / "b.h5") as file:
        assert file["X_train"].shape[1:] == (7, 7, 3)


def test_a_share_from_a_file_counts_as_given(run: Run, tmp_path: Path) -> None:
    """For a split that has a folder already it is a usage error, wherever it came from."""
    for name in ("train", "val"):
        draw_dataset(tmp_path / "data" / name, {"cat": 2})
    assert run("build", "data", "out.h5", *SMALL).returncode == 0
    done = run("build", "data", "b.h5", *SMALL, BATCHIFY_BUILD_VALIDATION_SPLIT="0.1")
    assert done.returncode == 2


@pytest.fixture(scope="module")
def large_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos that take half a second to decode."""
    return draw_dataset(tmp_path_factory.mktemp("large") / "data", {"a": 30}, size=(900, 900))


@pytest.mark.skipif(sys.platform == "win32", reason="signals differ there")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_signal_ends_the_build(
    large_photos: Path, tmp_path: Path, run: Run, number: signal.Signals, workers: str
) -> None:
    """Within a moment, with 128 + n, saying how to go on; the target is as it was."""
    out = tmp_path / "out.h5"
    command = [
        "build", str(large_photos), str(out),
        "--workers", workers, "--batch-size", "1", "--interpolation", "lanczos",
    ]  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-m", "batchify", *command],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=tmp_path,
    ) as process:  # fmt: skip
        while not (tmp_path / "out.h5.partial").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=100)
    assert process.returncode == 128 + number
    assert stderr == f"Error: stopped by {number.name}; run the same command again to continue\n"
    assert not out.exists()
    assert run(*command).returncode == 0
    assert not list(tmp_path.glob("*.partial*"))


def test_progress_off_a_terminal_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every few seconds of a stage, with the split, the rate and the failed images."""
    from batchify.common.progress import Progress

    clock = iter([0.0, 1.0, 6.0, 7.0, 12.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    lines = ProgressLines()
    for done in (10, 60, 70):
        lines(Progress("fill", done, 1000, 2, "train"))
    lines(Progress("seal", 0, 1000))  # begins
    assert capsys.readouterr().err == "train: 60 of 1,000 images, 12 images/s, 2 failed\n"


def test_progress_on_a_terminal_is_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the split, the failed images and images a second."""
    from batchify.common.progress import Progress

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    bar = make_progress()
    assert isinstance(bar, ProgressBar)  # as with progress=True in Python
    bar(Progress("scan"))
    bar(Progress("fill", 10, 100, 3, "train"))
    time.sleep(0.2)  # longer than tqdm's shortest interval
    bar(Progress("fill", 60, 100, 3, "train"))
    bar(Progress("seal", 100, 100, 3))
    shown = capsys.readouterr().err
    assert "train" in shown
    assert "failed=3" in shown
    assert "image/s" in shown


def test_a_closed_pipe_is_no_traceback(run: Run, photos: Path, tmp_path: Path) -> None:
    """`batchify inspect out.h5 | head -1` ends quietly."""
    run("build", photos, "out.h5", *SMALL)
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "batchify", "inspect", str(tmp_path / "out.h5")],
        stdout=writer, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(writer)
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell")
def test_closed_standard_files_do_no_harm(tmp_path: Path, photos: Path) -> None:
    """What libtiff prints on stderr must not land in the file that took its number."""
    tiff = bytearray(encoded(photo(200, 150, mode="1"), "TIFF", compression="group4"))
    tiff[40:60] = bytes(20)
    save(photos / "cat" / "noisy.tif", bytes(tiff))
    for closed in ("<&- 2>&-", "<&- >&- 2>&-", "2>&-"):
        command = f"exec {sys.executable} -m batchify build photos out.h5 --on-error skip"
        for workers in ("1", "2"):
            (tmp_path / "out.h5").unlink(missing_ok=True)
            subprocess.run(
                ["sh", "-c", f"{command} --workers {workers} {closed}"], cwd=tmp_path, check=True
            )
            assert (tmp_path / "out.h5").read_bytes()[:4] == b"\x89HDF"


@pytest.mark.skipif(sys.platform == "win32", reason="signals differ there")
def test_a_signal_that_was_ignored_stays_ignored(tmp_path: Path) -> None:
    """As under nohup, or for a background job of a script."""
    root = draw_dataset(tmp_path / "data", {"a": 40}, size=(500, 500))
    with subprocess.Popen(
        ["sh", "-c", f"trap '' HUP INT; exec {sys.executable} -m batchify build {root} out.h5"],
        cwd=tmp_path, stdout=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        while not (tmp_path / "out.h5.partial").exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGINT)
    assert process.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this platform")
def test_a_full_stdout_is_no_traceback(tmp_path: Path, photos: Path) -> None:
    """Neither a report nor a help can be written: exit 4, with the reason."""
    for command in (("build", str(photos), "out.h5"), ("build", "--help")):
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                [sys.executable, "-m", "batchify", *command],
                stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path, check=False,
            )  # fmt: skip
        assert done.returncode == 4
        assert "No space left on device" in done.stderr
        assert "Traceback" not in done.stderr
