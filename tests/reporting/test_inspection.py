"""An inspection: one opening of the file and one summary, for all that is written."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from batchify.building.build import build
from batchify.errors import OutputPathError
from batchify.format.reader import Reader
from batchify.reporting import inspection
from batchify.reporting.report import write_report
from batchify.reporting.sheet import write_sheet
from batchify.reporting.summary import summarize


def test_the_file_is_opened_once(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Summary, sheet and report of one open file are those of the functions that open their own."""
    path = tmp_path / "out.h5"
    build(photos, path)
    write_sheet(path, tmp_path / "a.png", seed=3)
    write_report(path, tmp_path / "a.html", seed=3)
    opened: Counter[str] = Counter()

    class Counted(Reader):
        def __init__(self, path: str) -> None:
            opened[str(path)] += 1
            super().__init__(path)

    monkeypatch.setattr(inspection, "Reader", Counted)
    monkeypatch.setattr("batchify.reporting.summary.Reader", Counted)
    sheet, report = tmp_path / "b.png", tmp_path / "b.html"
    found = inspection.inspect(path, sheet_path=str(sheet), report_path=str(report), seed=3)
    assert opened == {str(path): 1}
    assert found.summary == summarize(path)
    assert found.sheet is not None
    assert found.sheet.seed == 3
    assert found.report_nbytes == report.stat().st_size
    assert sheet.read_bytes() == (tmp_path / "a.png").read_bytes()
    assert report.read_bytes() == (tmp_path / "a.html").read_bytes()


def test_nothing_is_written_if_one_place_is_refused(photos: Path, tmp_path: Path) -> None:
    """Both places are checked before the first is written."""
    path, sheet = tmp_path / "out.h5", tmp_path / "a.png"
    build(photos, path)
    with pytest.raises(OutputPathError):
        inspection.inspect(
            path, sheet_path=str(sheet), report_path=str(tmp_path / "none" / "a.html")
        )
    assert not sheet.exists()
