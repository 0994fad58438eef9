"""Warnings: Python code gets them by `warnings.warn`, the command prints them last."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from helpers.drawing import draw_dataset
from helpers.running import Run

import batchify
from batchify.errors import BatchifyWarning


@pytest.fixture
def doubtful(tmp_path: Path) -> Path:
    """Return a dataset with a class that has no images."""
    root = draw_dataset(tmp_path / "d", {"cat": 5, "dog": 5})
    (root / "empty").mkdir()
    return root


def test_python_code_gets_each_warning_with_its_code(doubtful: Path, tmp_path: Path) -> None:
    """Issued at the line that builds, each time, up to date or not."""
    for _ in range(2):
        with pytest.warns(BatchifyWarning, match="1 of 3 classes have no images: empty") as found:
            made = batchify.build(doubtful, tmp_path / "out.h5", workers=1)
        assert [w.message.code for w in found] == ["empty-class"]  # type: ignore[union-attr]
        assert found[0].filename == __file__
        assert list(map(str, made.warnings)) == [str(found[0].message)]
    with pytest.warns(BatchifyWarning, match="empty"):
        batchify.build_shards(doubtful, tmp_path / "shards", shards=2, workers=1)


def test_the_command_prints_warnings_after_what_was_made(
    run: Run, doubtful: Path, tmp_path: Path
) -> None:
    """And JSON has them with their codes; a build that is up to date says them again."""
    out = tmp_path / "out.h5"
    for _ in range(2):
        done = run("build", doubtful, out)
        expected = "  warning: 1 of 3 classes have no images: empty"
        assert expected in done.stdout.splitlines()[-2:]
        assert "Warning" not in done.stderr
    done = run("build", doubtful, out, "--json")
    message = "1 of 3 classes have no images: empty"
    assert json.loads(done.stdout)["warnings"] == [{"code": "empty-class", "message": message}]


def test_a_warning_survives_pickling() -> None:
    """As it must between processes."""
    copy = pickle.loads(pickle.dumps(BatchifyWarning("code", "text")))
    assert (copy.code, str(copy)) == ("code", "text")
