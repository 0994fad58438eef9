"""Inspect a file: summarize it and, on request, write its contact sheet and report."""

from __future__ import annotations

import os
from dataclasses import dataclass

from batchify.common.durable import write_atomically
from batchify.format.reader import Reader
from batchify.reporting.contents import Summary
from batchify.reporting.fonts import Fonts
from batchify.reporting.report import check_report_path, render_report
from batchify.reporting.sampling import check_seed
from batchify.reporting.sheet import Sheet, check_sheet_path, draw_sheet
from batchify.reporting.summary import summarize, summary_of
from batchify.storage.transfer import local_copy


@dataclass(frozen=True, slots=True)
class Inspection:
    """What `inspect` found and wrote.

    Parameters
    ----------
    sheet : Sheet or None
        None if there was no request for one.
    report_nbytes : int or None
        Size of the report.
    """

    summary: Summary
    sheet: Sheet | None = None
    report_nbytes: int | None = None


def inspect(
    path: str | os.PathLike[str],
    *,
    sheet_path: str | None = None,
    report_path: str | None = None,
    seed: int = 0,
    font: str | None = None,
    trusted: bool = False,
) -> Inspection:
    """Summarize a file, and write its contact sheet and its report, opening the file once.

    Paths, seed and font are checked before anything is read or written.

    Parameters
    ----------
    path : path or URL
        A file; if there is nothing to write, a folder of shards as well.
    sheet_path, report_path : str, optional
        As for `write_sheet` and `write_report`.
    seed : int
        Draws the images that both show.
    font : str, optional
        As for `write_sheet`.
    trusted : bool
        As for `batchify.open`.

    Raises
    ------
    OptionError, OutputPathError, OutputIOError
        If the sheet or the report cannot be written.
    FileMissingError, FileAccessError, FileFormatError
        As `batchify.format.reader.Reader`.
    """
    check_seed(seed)
    sheet_target = None if sheet_path is None else check_sheet_path(sheet_path, path)
    fonts = None if sheet_path is None else Fonts(font)
    report_target = None if report_path is None else check_report_path(report_path, path)
    if sheet_path is None and report_path is None:
        return Inspection(summarize(path))
    sheet = report_nbytes = None
    with local_copy(path) as copy, Reader(copy).finished() as reader:
        summary = summary_of(reader)
        if sheet_path is not None and sheet_target is not None and fonts is not None:
            sheet, data = draw_sheet(reader, sheet_path, fonts, seed=seed, trusted=trusted)
            write_atomically(sheet_target, data)
        if report_target is not None:
            page = render_report(reader, summary, seed=seed, trusted=trusted)
            write_atomically(report_target, page)
            report_nbytes = len(page)
    return Inspection(summary, sheet, report_nbytes)
