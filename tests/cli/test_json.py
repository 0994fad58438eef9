"""What every command prints with ``--json``: one object, also if it fails."""

from __future__ import annotations

import json

import pytest
from helpers.running import Run

from batchify.cli import main

SMALL = ("--target-size", "8")
DONE = {
    "build": ("photos", "new.h5", *SMALL),
    "check": ("out.h5",),
    "export": ("out.h5", "exported", "--format", "mds", "--workers", "1"),
    "fingerprint": ("photos", *SMALL),
    "import": ("photos", "new.h5", *SMALL),
    "inspect": ("out.h5",),
    "merge": ("shards", "merged.h5"),
    "presets": (),
    "verify": ("out.h5",),
}
FAILS = {
    "build": ("nowhere", "new.h5"),
    "check": ("nowhere.h5",),
    "export": ("nowhere", "exported", "--format", "mds"),
    "fingerprint": ("nowhere",),
    "import": ("nowhere", "new.h5"),
    "inspect": ("nowhere.h5",),
    "merge": ("nowhere", "merged.h5"),
    "verify": ("nowhere.h5",),
}


@pytest.mark.usefixtures("photos")
def test_every_command_prints_one_object(run: Run) -> None:
    """With ``json_version``, whether it succeeds, fails or refuses its command line."""
    commands = {
        name
        for name, command in main.commands.items()
        if any("--json" in parameter.opts for parameter in command.params)
    }
    assert set(DONE) == {*FAILS, "presets"} == commands  # which nothing can keep from its table
    run("build", "photos", "out.h5", *SMALL)
    run("build", "photos", "shards", *SMALL, "--shards", "2")
    for name in sorted(commands):
        done = run(name, *DONE[name], "--json")
        assert next(iter(json.loads(done.stdout).items())) == ("json_version", 1), name
        fails = [((*DONE[name], "--colour"), 2)]
        if name in FAILS:
            fails += [(FAILS[name], 1), ((), 2)]
        for arguments, code in fails:
            failed = run(name, *arguments, "--json")
            found = json.loads(failed.stdout)
            assert list(found) == ["json_version", "error", "code", "failed"]
            assert (found["code"], found["failed"]) == (failed.returncode, []) == (code, [])
            assert found["error"] in failed.stderr


def test_the_environment_may_ask_for_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused command line is an object then, too; a value that is no flag is refused as text."""
    for value, is_json in (("1", True), ("0", False), ("perhaps", False)):
        monkeypatch.setenv("BATCHIFY_VERIFY_JSON", value)
        done = run("verify", "--colour")
        assert done.returncode == 2
        assert done.stdout.startswith('{\n  "json_version": 1') is is_json
