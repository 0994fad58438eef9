"""What every command has: its help, versions, --quiet and --verbose."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from helpers.running import Run

from batchify.cli import main
from batchify.cli.help import Option

COMMANDS = sorted(main.commands)
SECTIONS = ["Images", "Labels and splits", "Which files", "Output", "Errors", "Running", "General"]


def help_of(*command: str, columns: int = 80) -> str:
    """Return the help as a terminal of some width shows it."""
    done = CliRunner().invoke(main, command, terminal_width=columns, prog_name="batchify")
    assert done.exit_code == 0
    return done.output


def headings(text: str) -> list[str]:
    """Return the headings of sections, in order."""
    return re.findall(r"^(\w[\w ]*):$", text, flags=re.MULTILINE)


def test_the_help_of_build_fits_on_two_screens() -> None:
    """In headed sections, under 100 lines of 80 columns; the rest is named."""
    text = help_of("build", "--help")
    assert headings(text) == SECTIONS
    assert len(text.splitlines()) < 100
    assert max(map(len, text.splitlines())) <= 80
    assert "batchify build dataset/ out.h5\n" in text
    rare = sum(isinstance(each, Option) and each.rare for each in main.commands["build"].params)
    assert rare > 15
    assert re.search(rf"--help-all +Show {rare} more options", text)
    assert "--max-pixels" not in text
    assert "--help-all" not in help_of("inspect", "-h")


@pytest.mark.parametrize("name", COMMANDS)
def test_all_options_are_in_the_long_help(name: str) -> None:
    """Each with a text, and with all words that it takes; common ones come first."""
    options = [each for each in main.commands[name].params if isinstance(each, click.Option)]
    is_long = any(isinstance(each, Option) and each.rare for each in options)
    text = help_of(name, "--help-all" if is_long else "--help")
    assert set(headings(text)) <= {"Options", *SECTIONS}
    assert not re.search(r" $", text, flags=re.MULTILINE)  # each text begins next to its name
    for option in options:
        assert (f"{option.opts[-1]} " in text) != option.hidden
        assert option.help
        if isinstance(option.type, click.Choice) and option.metavar != "CODE":
            words = set(re.findall(r"[\w-]+", option.help))
            assert words >= set(option.type.choices), option.name
    if name == "build":
        images = text.split("Images:")[1].split("Labels and splits:")[0]
        assert re.findall(r"^  --([\w-]+)", images, flags=re.MULTILINE)[-1] == "scaled-decode"


@pytest.mark.parametrize("columns", [80, 50])
def test_summaries_of_commands_are_never_cut(columns: int) -> None:
    """In a narrow terminal they take more lines."""
    text = help_of("--help", columns=columns)
    assert "..." not in text.split("Commands:")[1]
    assert "would hurt training." in " ".join(text.split())


def test_fingerprint_offers_what_means_something_to_it(run: Run) -> None:
    """Options of build that change no byte are accepted, hidden."""
    text = help_of("fingerprint", "--help-all")
    for name in ("--overwrite", "--batch-size", "--shards", "--dry-run", "--max-skipped"):
        assert name not in text
    for name in ("--target-size", "--on-error", "--workers", "--json"):
        assert name in text


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_version_names_the_libraries(run: Run, option: str) -> None:
    """Batchify, Pillow, libjpeg-turbo, h5py and HDF5; a variable of that name is not meant."""
    done = run(option, BATCHIFY_VERSION="1.2")
    assert done.returncode == 0
    for name in ("batchify ", "Pillow ", "libjpeg", "h5py ", "HDF5 "):
        assert name in done.stdout


def test_shell_completion(run: Run) -> None:
    """Scripts for three shells; what they ask for has options, their words and pages."""
    for shell in ("bash", "zsh", "fish"):
        done = run("completion", shell)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"_BATCHIFY_COMPLETE={shell}_complete" in done.stdout
    assert run("completion", "sh").returncode == 2
    for words, offered in (
        ("build --color-mode ", "plain,grayscale"),
        ("build --max-pix", "plain,--max-pixels"),
        ("docs arch", "plain,architecture"),
    ):
        done = run(
            _BATCHIFY_COMPLETE="bash_complete",
            COMP_WORDS=f"batchify {words}",
            COMP_CWORD=str(len(words.split(" "))),
        )
        assert offered in done.stdout.splitlines()


def test_color_is_for_terminals_and_as_the_environment_asks(run: Run, photos: Path) -> None:
    """Bold headings, red errors, yellow warnings; none in pipes and JSON; NO_COLOR wins."""
    force = {"FORCE_COLOR": "1"}
    run("build", photos, "out.h5", "--target-size", "8")
    commands = {
        ("inspect", "--help"): "\x1b[1mGeneral\x1b[0m:",
        ("inspect", "none.h5"): "\x1b[31m\x1b[1mError:\x1b[0m there is no file",
        ("build",): "\x1b[31m\x1b[1mError:\x1b[0m Missing argument",
        ("inspect", "out.h5"): "\x1b[1msplit       rows",
        ("check", "out.h5"): "  \x1b[33mwarning\x1b[0m tiny-class:",
    }
    for command, colored in commands.items():
        done = run(*command, **force)
        assert colored in done.stdout + done.stderr
        for plain in (run(*command), run(*command, **force, NO_COLOR="1")):
            assert "\x1b" not in plain.stdout + plain.stderr
            assert plain.stdout == click.unstyle(done.stdout)
            assert plain.stderr == click.unstyle(done.stderr)
    assert "\x1b" not in run("check", "out.h5", "--json", **force).stdout


def test_quiet_prints_errors_and_what_is_asked_for(run: Run, photos: Path) -> None:
    """JSON and a fingerprint; no report, no warning, no progress. --verbose is its opposite."""
    small = ("--target-size", "8")
    for command in (("build", photos, "out.h5", *small), ("check", photos, *small)):
        done = run(*command, "-q")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for name in ("verify", "inspect", "check"):
        assert run(name, "out.h5", "--quiet").stdout == ""
        assert json.loads(run(name, "out.h5", "--quiet", "--json").stdout)["json_version"] == 1
    assert len(run("fingerprint", photos, "-q").stdout.strip()) == 64
    failed = run("verify", "none.h5", "--quiet")
    assert failed.stderr.startswith("Error: ")
    verbose = run("verify", "none.h5", "-v", "--json")
    assert json.loads(verbose.stdout)["code"] == 1
    assert verbose.stderr.startswith("batchify ")
    assert re.search(r"^\d+ CPUs?, .* of memory$", verbose.stderr, re.MULTILINE)
    assert "Traceback" in verbose.stderr
    assert "cannot be combined" in run("inspect", "out.h5", "-qv").stderr


def test_a_dataset_in_the_place_of_a_command_is_built_with_build(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says how; for any other word, it names the command that may be meant."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    done = run("photos", "out.h5")
    assert done.returncode == 2
    assert "No such command 'photos'; to build it: batchify build photos out.h5" in done.stderr
    assert "No such command 'chek'" in run("chek", "out.h5").stderr
