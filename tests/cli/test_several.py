"""Commands that take several files: each is shown, and the worst one decides the exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.drawing import draw_dataset
from helpers.running import Run

SMALL = ("--target-size", "8")


@pytest.fixture
def files(run: Run, photos: Path, tmp_path: Path) -> tuple[str, ...]:
    """Two files: nothing is wrong with the first; the second has a leak, and is damaged."""
    draw_dataset(tmp_path / "clean", {"cat": 12, "dog": 12})
    assert run("build", "clean", "a.h5", *SMALL).returncode == 0
    (photos / "cat" / "z.jpg").write_bytes((photos / "cat" / "img_000.jpg").read_bytes())
    assert run("build", photos, "b.h5", *SMALL).returncode == 0
    data = bytearray((tmp_path / "b.h5").read_bytes())
    at = data.rindex(b"cat/z.jpg")
    data[at + 4] ^= 1
    (tmp_path / "b.h5").write_bytes(data)
    return ("a.h5", "none.h5", "b.h5")


@pytest.mark.parametrize(("command", "code"), [("inspect", 1), ("check", 8), ("verify", 6)])
def test_every_file_is_shown(run: Run, files: tuple[str, ...], command: str, code: int) -> None:
    """As it is alone; one that cannot be read does not end the command."""
    alone = [run(command, name) for name in files]
    assert [done.returncode for done in alone] == [0, 1, 0 if command == "inspect" else code]
    done = run(command, *files)
    assert done.returncode == code
    between = "\n" if command == "inspect" else ""
    assert done.stdout == alone[0].stdout + between + alone[2].stdout
    assert done.stderr == alone[1].stderr
    found = json.loads(run(command, *files, "--json").stdout)
    listed = [json.loads(run(command, name, "--json").stdout) for name in files]
    listed[1] = {"json_version": 1, "path": "none.h5", **listed[1]}
    assert found == {"json_version": 1, "files": listed}
    assert list(listed[1]) == ["json_version", "path", "error", "code", "failed"]


def test_what_is_for_one_file_is_refused(run: Run, files: tuple[str, ...]) -> None:
    """A sheet of several, and a command line that is not valid, before a file is read."""
    for command in (
        ("inspect", *files, "--sheet", "sheet.png"),
        ("inspect", *files, "--report", "report.html"),
        ("verify", *files, "--redecode", "3"),
        ("check", *files, "--max-imbalance", "0"),
        ("check",),
    ):
        done = run(*command)
        assert (done.returncode, done.stdout) == (2, ""), command
