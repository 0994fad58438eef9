"""The bar that `progress=True` shows."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from tqdm import tqdm

import batchify
from batchify.common.progress import Progress, reporting


def test_true_shows_a_bar_until_the_end(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is gone when the function returns or raises, as the bar of the command is."""
    out = tmp_path / "out.h5"
    batchify.build(photos, out, target_size=(8, 8), progress=True)
    assert "0/15 [" in capsys.readouterr().err
    batchify.verify(out, progress=True)
    assert "0/15 [" in capsys.readouterr().err
    (photos / "cat" / "img_000.jpg").write_bytes(b"no")
    with pytest.raises(batchify.BatchifyError):
        batchify.build(photos, tmp_path / "bad.h5", target_size=(8, 8), progress=True)
    assert capsys.readouterr().err.endswith("\r")
    assert not list(tqdm._instances)  # type: ignore[attr-defined]


def test_a_notebook_has_its_own_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of tqdm.auto, which shows a widget where it can."""
    asked: list[dict[str, Any]] = []
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))

    def notebook_bar(**options: Any) -> Mock:
        asked.append(options)
        return Mock(n=0)

    monkeypatch.setattr("tqdm.auto.tqdm", notebook_bar)
    with reporting(True) as report:
        report(Progress("fill", 1, 2, split="train"))
    assert asked[0]["total"] == 2


def test_false_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """As None, the default, does; a function is called itself."""
    seen: list[Progress] = []
    for progress in (False, None, seen.append):
        with reporting(progress) as report:
            report(Progress("fill", 1, 2))
    assert seen == [Progress("fill", 1, 2)]
    assert capsys.readouterr().err == ""
