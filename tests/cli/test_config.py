"""Options from a configuration file, and how much a command prints about them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click
import h5py
import pytest
from helpers.running import Run

from batchify.cli import main


@pytest.mark.parametrize("name", ["pyproject.toml", "batchify.toml", "other.toml"])
def test_options_from_a_file(run: Run, photos: Path, tmp_path: Path, name: str) -> None:
    """[tool.batchify.build] of the current folder, or of --config; environment wins over it."""
    text = (
        "[tool.batchify.build]\ntarget-size = [8, 9]\nextensions = ['webp']\nrescale = 0.5\n"
        "scaled_decode = false\nseed = 3\n"
    )
    (tmp_path / name).write_text(text)
    more = ("--config", name) if name == "other.toml" else ()
    done = run("build", photos, "out.h5", *more, BATCHIFY_BUILD_SEED="4")
    assert done.returncode == 0, done.stderr
    with h5py.File(tmp_path / "out.h5") as file:
        config = json.loads(file.attrs["config"])
    assert config["target_size"] == [8, 9]
    assert config["extensions"] == ["webp"]
    assert config["rescale"] == "0.5"
    assert config["seed"] == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[tool.batchify.build]\ntarget_sise = 8\n",
            "has 'target_sise', which is not an option; did",
        ),
        ("[tool.batchify.build]\nseed = 'x'\n", "'x' is not a valid integer (from x.toml)"),
        ("[tool.batchify]\nbuild = 3\n", "is not a table"),
        ("[tool\n", "cannot be read"),
        ("[tool.batchify.build]\nextensions = '*.svg'\n", "is not an ending"),
        ("[tool.batchify.build]\nhidden = [1]\n", "hidden must be true or false"),
        ("[tool.batchify.build]\nshuffle = ''\n", "shuffle must be true or false"),
        ("[tool.batchify.build]\nworkers = 1.5\n", "'1.5' is not a valid integer"),
        ("[tool.batchify.build]\nseed = true\n", "seed must be a string or a number"),
        ("[tool.batchify.build]\nvalidation-split = [0.1]\n", "must be a string or a number"),
        ("[tool.batchify.build]\nfit = 'pad'\n\"fit\" = 'crop'\n", "cannot be read"),
        ("[tool.batchify.build]\ncolor-mode = 'rgb'\ncolor_mode = 'rgba'\n", "color_mode twice"),
        ("[tool.other]\n", "has no table [tool.batchify]"),
        ("[tool]\nbatchify = 1\n", "[tool.batchify] of x.toml is not a table"),
        ("[tool.batchify.bild]\nseed = 1\n", "options; did you mean [tool.batchify.build]?"),
        ("[tool.batchify]\ntarget-size = 8\n", "options of build belong to [tool.batchify.build]"),
        ("[tool.batchify]\nodd = 8\n", "has 'odd', which is no command with options"),
        ("[tool.batchify.check]\nmax-imbalace = 3\n", "an option; did you mean max-imbalance?"),
        ("[tool.batchify.verify]\nconfig = 'x'\n", "has 'config', which is not an option"),
    ],
)
def test_a_wrong_file_of_options_is_refused(
    run: Run, photos: Path, tmp_path: Path, text: str, message: str
) -> None:
    """A misspelt option or table is never ignored, that of another command neither."""
    (tmp_path / "x.toml").write_text(text)
    done = run("build", photos, "out.h5", "--config", "x.toml")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="FIFOs of POSIX")
def test_a_fifo_is_no_file_of_options(run: Run, photos: Path, tmp_path: Path) -> None:
    """It would wait for a writer, for ever; nor is it a list that an option names."""
    os.mkfifo(tmp_path / "o.toml")
    for option, value in (
        ("--config", "o.toml"),
        ("--exclude", "@o.toml"),
        ("--exclude-rows", "o.toml"),
        ("--classes", "@o.toml"),
    ):
        done = run("build", photos, "out.h5", option, value)
        assert done.returncode == 2
        assert "o.toml cannot be read: it is not a regular file" in done.stderr


def test_every_command_has_a_table(run: Run, photos: Path, tmp_path: Path) -> None:
    """Its own options are there; those of build are taken from that table, too, unless it has one.

    A first line on stderr names the file; not with --json, and not if nothing of it is used.
    """
    (tmp_path / "batchify.toml").write_text(
        "[tool.batchify.build]\ntarget-size = 20\nquiet = true\n"
        "[tool.batchify.check]\nstrict = true\nignore = ['upscaled']\n"
        "[tool.batchify.inspect]\nsheet = 'sheet.png'\n[tool.batchify.verify]\nquick = true\n"
        "[tool.batchify.merge]\noverwrite = true\n[tool.batchify.fingerprint]\njson = true\n"
    )
    line = "options from batchify.toml\n"
    done = run("build", photos, "out.h5")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["X_train"].shape[1:] == (20, 20, 3)
    done = run("inspect", "out.h5")
    assert "sheet: sheet.png" in done.stdout
    assert done.stderr == line
    done = run("verify", "out.h5")
    assert done.stderr.startswith(line)
    assert run("verify", "out.h5", "--quick").stderr == ""
    done = run("check", "out.h5")
    assert done.returncode == 8
    assert done.stderr.startswith(line)
    done = run("check", photos, "--verbose", BATCHIFY_BUILD_SEED="1")
    assert done.stderr.startswith("batchify ")
    assert "\noptions from the command line: verbose\n" in done.stderr
    assert "\noptions from the environment: seed\n" in done.stderr
    assert "\noptions from batchify.toml: ignore, strict, target-size\n" in done.stderr
    done = run("fingerprint", photos)
    assert json.loads(done.stdout)["images"] == 15
    assert done.stderr == ""


def test_an_option_has_one_name_everywhere() -> None:
    """In a configuration file and in the environment that of the command line."""
    for command in main.commands.values():
        for option in command.params:
            if isinstance(option, click.Option):
                assert option.name == option.opts[-1].lstrip("-").replace("-", "_")


def test_the_environment_names_the_file(run: Run, photos: Path, tmp_path: Path) -> None:
    """For every command the same one; an error names the variable."""
    (tmp_path / "ci.toml").write_text("[tool.batchify.build]\ntarget-size = 8\n")
    done = run("check", photos, BATCHIFY_CONFIG="ci.toml")
    assert done.stderr == "options from ci.toml\n"
    done = run("inspect", "out.h5", BATCHIFY_CONFIG="none.toml")
    assert "File 'none.toml' does not exist (from BATCHIFY_CONFIG)" in done.stderr


def test_a_group_of_the_table_of_check_is_one_for_files(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    """One of build is that of a build, maybe of another file."""
    run("build", photos, "out.h5", "--target-size", "8")
    for table, found in (("check", True), ("build", False)):
        (tmp_path / "batchify.toml").write_text(
            f"[tool.batchify.{table}]\ngroup-by = '(img)'\nseed = 0\n"
        )
        done = run("check", "out.h5")
        assert ("group-leak" in done.stdout) == found
        assert ("options from" in done.stderr) == found


def test_the_line_about_problems_has_the_limits_of_check(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    """After a build or a merge, it says what `check` would: by its table and environment."""
    build = ("build", photos, "out.h5", "--target-size", "8")
    run(*build)
    table, tallies = tmp_path / "batchify.toml", set()
    for option in ("max-imbalance = 10", "max-imbalance = 1.1", "min-class-size = 8",
                   "ignore = 'tiny-class'", "group-by = '(.)'"):  # fmt: skip
        table.write_text(f"[tool.batchify.check]\n{option}\n")
        tally = run("check", "out.h5").stdout.splitlines()[0].split(": ")[1].split(" (")[0]
        line = run(*build).stdout.splitlines()[-1]
        assert line.removesuffix("; run batchify check out.h5") == f"check: {tally}", option
        tallies.add(tally)
    assert len(tallies) > 2
    for option, message in (
        ("max-imbalance = 0", "check: max imbalance must be a number above 0, not 0.0"),
        ("min-class-size = 'x'", "check: Invalid value for '--min-class-size': 'x' is not a valid"),
    ):
        table.write_text(f"[tool.batchify.check]\n{option}\n")
        done = run(*build)
        assert (done.returncode, message in done.stdout) == (0, True)


def test_a_variable_of_the_command_wins_over_that_of_build(run: Run, photos: Path) -> None:
    """As its table does; a file is not checked with the groups of a build, but with its own."""
    run("build", photos, "out.h5", "--target-size", "8")
    of_build = {"BATCHIFY_BUILD_TARGET_SIZE": "9", "BATCHIFY_BUILD_GROUP_BY": "(.)"}
    assert "group-leak" not in run("check", "out.h5", **of_build).stdout
    for command in (("check", "out.h5"), ("check", photos)):
        assert "group-leak" in run(*command, **of_build, BATCHIFY_CHECK_GROUP_BY="(img)").stdout
    done = run("check", photos, **of_build, BATCHIFY_CHECK_TARGET_SIZE="0")
    assert "has a side of 0 pixels (from BATCHIFY_CHECK_TARGET_SIZE)" in done.stderr
    prints = [
        run("fingerprint", photos, *size, **environment).stdout
        for size, environment in (
            (("--target-size", "8"), {}),
            ((), {"BATCHIFY_BUILD_TARGET_SIZE": "9", "BATCHIFY_FINGERPRINT_TARGET_SIZE": "8"}),
        )
    ]
    assert len(set(prints)) == 1
