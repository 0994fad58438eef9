"""Write the report about a file: a single self-contained HTML page."""

from __future__ import annotations

import base64
import hashlib
import os
from importlib.resources import files

from batchify import choices
from batchify._version import __version__
from batchify.common.durable import check_output_path, write_atomically
from batchify.common.text import plural, printable, size_text
from batchify.format.reader import Reader
from batchify.reporting import report_images, report_sections
from batchify.reporting.contents import Summary
from batchify.reporting.html import NAME_LENGTH, Html, join, named, paragraph, shorten, tag, void
from batchify.reporting.report_data import Dossier, gather, section_of, verdict_class
from batchify.reporting.sampling import check_seed
from batchify.reporting.summary import summary_of
from batchify.storage.transfer import local_copy

SUFFIXES = (".html", ".htm")

MOST_NBYTES = 3_000_000
"""A page is smaller than this for every file, since all lists and pictures are bounded."""

_TEXT_LENGTH = 600
"""The most characters of a problem in the first lines; names of classes may be long."""

_SECTIONS = (
    ("splits", "Splits", report_sections.splits),
    ("classes", "Class balance", report_sections.balance),
    ("images", "Images", report_images.galleries),
    ("sources", "Source images", report_sections.sources),
    ("channels", "Channels", report_sections.channels),
    ("duplicates", "Duplicates", report_images.repeats),
    ("unusual", "Unusual images", report_images.unusual),
    ("skipped", "Skipped images", report_sections.skipped),
    ("build", "How it was built", report_sections.origin),
)


def write_report(
    path: str | os.PathLike[str],
    report_path: str | os.PathLike[str],
    *,
    seed: int = 0,
    trusted: bool = False,
) -> None:
    """Write an HTML report about a file: splits, balance, pictures, duplicates, options.

    One HTML file of less than 3 MB that contains its pictures and loads nothing from the network.
    It runs no script, and all names in it are escaped. The same file and seed give the same bytes.

    Parameters
    ----------
    path : path
        The file.
    report_path : path
        Ends in .html or .htm. An existing file is replaced when the page is complete.
    seed : int
        Draws the images that are shown; 0 to 2**32 - 1.
    trusted : bool
        As for `batchify.open`.

    Raises
    ------
    OptionError
        If the name of the report has the wrong ending, or the seed is not valid.
    FileMissingError, FileAccessError, FileFormatError
        As `batchify.format.reader.Reader`.
    OutputPathError
        If the report cannot be written there: a folder, the file itself, a missing folder.
    OutputIOError
        If it cannot be written.

    Notes
    -----
    Memory: 80 bytes per row, 260 if every image is stored twice; one image at a time.
    """
    check_seed(seed)
    target = check_report_path(report_path, path)
    with local_copy(path) as copy, Reader(copy).finished() as reader:
        page = render_report(reader, summary_of(reader), seed=seed, trusted=trusted)
    write_atomically(target, page)


def check_report_path(report_path: str | os.PathLike[str], source: str | os.PathLike[str]) -> bytes:
    """Refuse a path where no report can be written, before any work; return where to write it."""
    return check_output_path(report_path, SUFFIXES, source)


def render_report(reader: Reader, summary: Summary, *, seed: int, trusted: bool = False) -> bytes:
    """Return the page about an open file."""
    return render(gather(reader, summary, seed=seed, trusted=trusted)).encode()


def render(dossier: Dossier) -> str:
    """Return the page for a dossier."""
    sheets = (files("batchify.reporting") / name for name in ("colors.css", "report.css"))
    style = "".join(sheet.read_text(encoding="utf-8") for sheet in sheets)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    name = named(dossier.name)
    head = [
        void("meta", charset="utf-8"),
        void("meta", http_equiv="Content-Security-Policy", content=policy),
        void("meta", name="viewport", content="width=device-width, initial-scale=1"),
        void("meta", name="color-scheme", content="light dark"),
        void("meta", name="referrer", content="no-referrer"),
        void("link", rel="icon", href="data:,"),
        tag("title", f"{_plain(dossier.name)} · batchify"),
        Html(f"<style>{style}</style>"),
    ]
    body = [
        tag("a", "Skip to the report", class_="skip", href="#report"),
        tag("header", paragraph("batchify report", "eyebrow"), tag("h1", name), *_lead(dossier)),
        tag(
            "nav",
            tag("ul", *(tag("li", tag("a", title, href=f"#{key}"))
                        for key, title, _ in _SECTIONS)),
            aria_label="Sections",
        ),
        tag(
            "main",
            *(
                tag("section", tag("h2", title, id=f"{key}-title"), make(dossier), id=key,
                    aria_labelledby=f"{key}-title")
                for key, title, make in _SECTIONS
            ),
            id="report",
            tabindex="-1",
        ),
        tag("footer", paragraph(
            f"Written by batchify {__version__}, seed {dossier.seed}. "
            "This page holds its pictures, asks the network for nothing and runs no script."
        )),
    ]  # fmt: skip
    document = tag("html", tag("head", *head), Html("\n"), tag("body", join(body, "\n")), lang="en")
    return f"<!DOCTYPE html>\n{document}\n"


def _lead(dossier: Dossier) -> list[Html]:
    """Return the first lines of the page: figures and verdicts."""
    summary, found = dossier.summary, dossier.repeats.counts
    rows = sum(split.rows for split in summary.splits)
    sides = " × ".join(map(str, summary.splits[0].image_shape))
    figures = [
        (f"{rows:,}", "image" if rows == 1 else "images"),
        (f"{len(summary.classes):,}", _labels_word(summary)),
        (sides, summary.splits[0].dtype),
        (size_text(summary.nbytes), "on disk"),
    ]
    tiles = [tag("div", tag("dt", label), tag("dd", value)) for value, label in figures]
    verdicts = [
        _verdict(verdict_class(each), section_of(each), shorten(str(each), _TEXT_LENGTH))
        for each in dossier.problems
    ]
    if dossier.damaged:
        text = f"{plural(dossier.damaged, 'image')} of those shown: damaged; run batchify verify"
        verdicts.insert(0, _verdict("bad", "images", text))
    if not found.leaks:
        text = "No image file is in more than one split"
        if not found.within:
            text = "No identical image files, within or across splits"
        verdicts.append(_verdict("good", "duplicates", text))
    if not summary.skipped:
        verdicts.append(_verdict("good", "skipped", "No image was skipped"))
    return [tag("dl", *tiles), tag("ul", *verdicts, class_="verdicts")]


def _labels_word(summary: Summary) -> str:
    """Return the noun for `Summary.classes`."""
    count, mode = len(summary.classes), summary.config.get("class_mode")
    if mode in choices.MANIFEST_MODES:
        return "label column" if count == 1 else "label columns"
    return "class" if count == 1 else "classes"


def _verdict(kind: str, section: str, text: str) -> Html:
    return tag("li", tag("a", text, href=f"#{section}"), class_=kind)


def _plain(name: bytes) -> str:
    return shorten(printable(name), NAME_LENGTH)
