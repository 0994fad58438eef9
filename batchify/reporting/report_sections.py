"""The sections of the report that show numbers: splits, classes, sources, options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from batchify import choices
from batchify.checking.image_stats import KINDS, TRAITS, Bin
from batchify.common.text import counts_text, plural, printable, share_text, size_text
from batchify.format.config import rescale_text, shown_options
from batchify.reporting.contents import SplitSummary
from batchify.reporting.html import (
    PATH_LENGTH,
    Html,
    bar,
    code,
    folded,
    join,
    named,
    paragraph,
    shorten,
    split_tag,
    table,
    tag,
)
from batchify.reporting.report_data import Dossier

ALL_CLASSES = 40
"""If there are more classes, only the largest and the smallest are drawn."""

END_CLASSES = 10
LISTED_CLASSES = 1000
LISTED_SKIPPED = 100
_TEXT_LENGTH = 160
_COMMAND_LENGTH = 4000

_FIGURE_SPACE = "\N{FIGURE SPACE}"
"""As wide as a digit."""

_CHANNELS = {1: ("gray",), 3: ("red", "green", "blue"), 4: ("red", "green", "blue", "alpha")}


def splits(dossier: Dossier) -> Html:
    """Return the splits with their rows and shapes."""
    summary = dossier.summary
    total = sum(split.rows for split in summary.splits)
    rows = []
    for split in summary.splits:
        shape = " × ".join(f"{side:,}" for side in (split.rows, *split.image_shape))
        rows.append(
            [
                split_tag(split.name),
                f"{split.rows:,}",
                share_text(split.rows, total),
                shape,
                tag("code", split.dtype),
                size_text(split.nbytes),
            ]
        )
    head = ["Split", "Images", "Share", "Shape", "Type", "On disk"]
    return table("Splits", head, rows, numbers=(1, 2, 5))


def balance(dossier: Dossier) -> Html:
    """Return how many images each class has in each split, or the labels that are not classes."""
    summary = dossier.summary
    counted = [split for split in summary.splits if split.class_counts is not None]
    if summary.config.get("class_mode") in choices.MANIFEST_MODES:
        return _labels(dossier)
    if not counted:
        text = f"{plural(len(summary.classes), 'class', 'classes')}; no labels are stored."
        return paragraph(text)
    parts = [_spread(counted)]
    totals = [sum(counts) for counts in zip(*map(_counts, counted), strict=True)]
    order = list(range(len(totals)))
    if len(totals) <= ALL_CLASSES:
        parts.append(_bars("Images of each class", dossier, counted, order))
    else:
        order.sort(key=lambda index: (-totals[index], index))
        ends = order[:END_CLASSES], order[-END_CLASSES:]
        for title, some in zip(("Largest classes", "Smallest classes"), ends, strict=True):
            parts += [tag("h3", title), _bars(title, dossier, counted, some)]
        parts.append(_all_classes(dossier, counted))
    for split in summary.splits:
        if split.class_counts is None:
            text = f"{split.name}: {plural(split.rows, 'image')} without labels."
            parts.append(paragraph(text, "note"))
    parts.append(paragraph("Bars compare the classes within a split.", "note"))
    return join(parts)


def _labels(dossier: Dossier) -> Html:
    """Return the numbers of each label column in each split."""
    summary = dossier.summary
    mode = summary.config["class_mode"]
    if mode == "mask":
        column = printable(summary.classes[0])
        return paragraph(f"The labels are masks, of the column {column} of a manifest.")
    is_counted = mode == "multilabel"
    columns = [split.labels for split in summary.splits if split.labels is not None]
    text = "How many images have each label." if is_counted else (
        "Numbers: from least to largest, and their mean."
    )  # fmt: skip
    rows = [
        [
            named(name),
            *(f"{of[i].positives:,}" if is_counted else of[i].range_text for of in columns),
        ]
        for i, name in enumerate(summary.classes[:LISTED_CLASSES])
    ]
    head = ["Label", *(split.name for split in summary.splits)]
    parts = [paragraph(text), table("Labels", head, rows, numbers=range(1, len(head)))]
    if len(summary.classes) > LISTED_CLASSES:
        more = len(summary.classes) - LISTED_CLASSES
        parts.append(paragraph(f"… and {more:,} more: batchify inspect --json lists all.", "note"))
    return join(parts)


def channels(dossier: Dossier) -> Html:
    """Return mean and standard deviation of each channel, as a table and as code to copy."""
    filled = [split for split in dossier.summary.splits if split.rows]
    if not filled:
        return paragraph("There are no images.")
    first = filled[0]
    rescale = rescale_text(dossier.summary.config)
    text = "\n".join(
        f"{name} = [{', '.join(map(_decimal, values))}]"
        for name, values in (("mean", first.mean), ("std ", first.std))
    )
    rows = []
    for split in filled:
        names = _CHANNELS[split.image_shape[-1]]
        for name, mean, std in zip(names, split.mean, split.std, strict=True):
            rows.append([split_tag(split.name), name, _decimal(mean), _decimal(std)])
    scale = shorten(printable(rescale), 40)
    return join(
        [
            paragraph(f"For normalization ({first.name}, {scale}):"),
            code(text),
            table("Channels", ["Split", "Channel", "Mean", "Std"], rows, numbers=(2, 3)),
        ]
    )


def skipped(dossier: Dossier) -> Html:
    """Return the skipped files with their reasons."""
    entries = dossier.summary.skipped
    ignored = _ignored(dossier.summary.ignored)
    if not entries:
        return join([paragraph("No image was skipped.", "good"), *ignored])
    shown = entries[:LISTED_SKIPPED]
    rows = [[named(entry.path, PATH_LENGTH), named(entry.reason, _TEXT_LENGTH)] for entry in shown]
    more = _more(len(entries) - len(shown), "image", "images")
    title = f"Show {'the first ' if more else ''}{plural(len(shown), 'path')} and reasons"
    return join(
        [
            paragraph(f"{plural(len(entries), 'image')} could not be used and "
                      f"{'is' if len(entries) == 1 else 'are'} not in the file."),
            folded(title, join([table("Skipped images", ["Path", "Reason"], rows), more])),
            *ignored,
        ]
    )  # fmt: skip


def _ignored(counts: Mapping[str, int]) -> list[Html]:
    """Return how many files were ignored because of their ending."""
    if not counts:
        return []
    kinds = counts_text(counts, len(counts))
    return [paragraph(f"Files ignored because of their ending: {kinds}.")]


def origin(dossier: Dossier) -> Html:
    """Return the command that made the file, the versions, and all options."""
    summary = dossier.summary
    rows = [
        [tag("code", named(name.replace("_", "-"))), named(_value(name, value), _TEXT_LENGTH)]
        for name, value in shown_options(summary.config)
    ]
    made = f"{summary.creator} with {summary.decoder}"
    return join(
        [
            paragraph("The command, with the options that are not the default:"),
            code(shorten(dossier.command, _COMMAND_LENGTH)),
            tag("p", f"Schema {summary.schema_version}, made by ", named(made, _TEXT_LENGTH), "."),
            folded("Show all options", table("Options", ["Option", "Value"], rows)),
        ]
    )


def _counts(split: SplitSummary) -> Sequence[int]:
    return split.class_counts or ()


def _spread(counted: Sequence[SplitSummary]) -> Html:
    """Return the sizes of the classes of each split."""
    rows = []
    for split in counted:
        counts = sorted(_counts(split))
        filled = [count for count in counts if count]
        ratio = f"{counts[-1] / filled[0]:,.1f}×" if filled else "–"
        middle = f"{median(counts or [0]):,.1f}".removesuffix(".0")
        rows.append(
            [
                split_tag(split.name),
                f"{len(filled):,}",
                f"{len(counts) - len(filled):,}",
                f"{max(counts, default=0):,}",
                middle,
                f"{min(filled, default=0):,}",
                ratio,
            ]
        )
    head = ["Split", "Classes", "Empty", "Largest", "Median", "Smallest", "Largest / smallest"]
    return table("Class sizes", head, rows, numbers=range(1, 7))


def _bars(
    label: str, dossier: Dossier, counted: Sequence[SplitSummary], shown: Sequence[int]
) -> Html:
    """Return a table of classes with a bar for every split."""
    rows = []
    for index in shown:
        number = tag("span", f"{index:{_FIGURE_SPACE}>{len(str(max(shown)))}}", class_="index")
        cells = [join([number, named(dossier.summary.classes[index])])]
        for split in counted:
            count = _counts(split)[index]
            length = bar(count, max(_counts(split)), split.name)
            cells.append(tag("div", tag("span", f"{count:,}"), length))
        rows.append(cells)
    head = ["Class", *(split.name for split in counted)]
    return table(label, head, rows, class_=f"bars of-{len(counted)}")


def _all_classes(dossier: Dossier, counted: Sequence[SplitSummary]) -> Html:
    """Return the numbers of all classes, or of the first thousand, folded."""
    names = dossier.summary.classes[:LISTED_CLASSES]
    rows = [
        [str(index), named(name), *(f"{_counts(split)[index]:,}" for split in counted)]
        for index, name in enumerate(names)
    ]
    head = ["Label", "Class", *(split.name for split in counted)]
    whole = table("All classes", head, rows, numbers=(0, *range(2, len(head))))
    more = _more(len(dossier.summary.classes) - len(names), "class", "classes")
    title = f"Show {'the first' if more else 'all'} {len(names):,} classes"
    return folded(title, join([whole, more]))


def _decimal(value: float) -> str:
    return f"{value:.6g}" if 0 < abs(value) < 0.001 else f"{value:.6f}"


def _more(count: int, word: str, many: str) -> Html:
    if not count:
        return Html("")
    text = f"… and {plural(count, word, many)} more: batchify inspect --json lists all."
    return paragraph(text, "note")


def _value(name: str, value: Any) -> str:
    if name == "target_size" and isinstance(value, list):
        return "x".join(map(str, value))
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def sources(dossier: Dossier) -> Html:
    """Return the sizes and kinds of the image files."""
    sizes = dossier.sizes
    if not sizes.images:
        return paragraph("There are no images.")
    longer = [(_range(each), each.count) for each in sizes.bins]
    frequent = [(f"{height:,} × {width:,}", count) for height, width, count in sizes.frequent]
    more = sizes.distinct - len(sizes.frequent)
    if more:
        frequent.append((plural(more, "other size"), sizes.images - sum(c for _, c in frequent)))
    kinds = _summed(dossier, "kinds", KINDS)
    smaller = sum(each.count for each in dossier.problems if each.code == "upscaled")
    traits = [*_summed(dossier, "traits", TRAITS), ("smaller than stored", smaller)]
    panels = [
        _histogram("Longer side, in pixels", "Longer side", longer, sizes.images),
        _histogram("Height × width, most frequent", "Size", frequent, sizes.images),
        _histogram("Kind of image", "Kind", kinds, sizes.images),
        _histogram("Images with", "Property", traits, sizes.images),
    ]
    return tag("div", *panels, class_="panels")


def _range(each: Bin) -> str:
    return f"{each.first:,}" if each.first == each.last else f"{each.first:,}–{each.last:,}"


def _summed(dossier: Dossier, of: str, names: Sequence[str]) -> list[tuple[str, int]]:
    """Return the kinds or traits of all splits together."""
    columns = zip(*(getattr(kinds, of) for kinds in dossier.kinds.values()), strict=True)
    return [(name, sum(column)) for name, column in zip(names, columns, strict=True)]


def _histogram(title: str, head: str, counts: Sequence[tuple[str, int]], total: int) -> Html:
    """Return a table of counts with bars."""
    most = max((count for _, count in counts), default=0)
    rows = [
        [name, bar(count, most), f"{count:,}", share_text(count, total)] for name, count in counts
    ]
    heads = [head, "", "Images", "Share"]
    whole = table(title, heads, rows, numbers=(2, 3), class_="histogram")
    return tag("div", tag("h3", title), whole)
