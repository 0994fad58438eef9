"""Doubt a label column that no option names, because of its name or its values."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from batchify.common.text import plural, printable

_MEASURES = (
    "(image_?)?(width|height|size|area)|w|h|file_?size|n?_?bytes|count|number|n|year|age|lat|lon"
    "|latitude|longitude|time|timestamp"
)
_SELDOM = re.compile(
    f"{_MEASURES}|(sub|data)?_?sets?|(data_?)?splits?|(k_?)?folds?(_?(id|no))?|partition|phase|part"
    "|usage|stage|groups?|patient|subject|lesion|user|hash|md5|sha_?[0-9]*|crc(_?32)?|checksum"
    "|digest|.*_(id|hash)|uu?id|guid|index|idx|row|no|.*(url|uri)|link|source|license|author"
    "|credit|date(_?time)?|format|ext(ension)?|mode|bbox|[xy]_?(min|max)|caption|text|description"
    "|comments?|notes?|title|is_?(train(ing)?|val(id)?|validation|test|dev)"
)
_MEASURE = re.compile(_MEASURES)
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_MOST_CLASSES = 10
"""Up to this many images may each have their own class."""


def name_doubt(name: str, key: str, mode: str) -> str:
    """Return why a column probably has no labels, by its name; "" if it may.

    Parameters
    ----------
    key : str
        The name in lower case, with "_" between its words.
    """
    is_measure = _MEASURE.fullmatch(key) is not None
    if not _SELDOM.fullmatch(key) or (is_measure and mode == "regression"):
        return ""
    return (
        f"has no column of labels by its name; the only other column, {printable(name)}, is "
        f"probably not one: {_advice(name, is_number=is_measure)}"
    )


def value_doubt(name: str, classes: Collection[bytes], rows: int, *, is_guessed: bool) -> str:
    """Return why values are probably no classes; "" if they may be.

    Parameters
    ----------
    rows : int
        How many rows have them.
    is_guessed : bool
        The column was only chosen because no other is left.
    """
    numbers = [
        text for each in classes if _NUMBER.fullmatch(text := each.decode("utf-8", "replace"))
    ]
    is_number = len(numbers) == len(classes) > 0
    if is_number and (fractions := [text for text in numbers if not float(text).is_integer()]):
        seen = f"fractions such as {min(fractions)}"
    elif len(classes) * 2 > rows if is_guessed else len(classes) == rows > _MOST_CLASSES:
        found = plural(len(classes), "different value")
        seen = f"{found} in {plural(rows, 'row')}"
    else:
        return ""
    return (
        f"has a column {printable(name)} that probably has no classes, since it has {seen}: "
        f"{_advice(name, is_number=is_number)}"
    )


def many_advice(names: Sequence[str], mode: str, *, is_truth: bool) -> str:
    """Return how to choose one of several columns, or all of them."""
    both = ",".join(names)
    if mode == "multilabel":
        return f"choose with --label-columns, e.g. --label-columns {both}"
    if is_truth:
        return (
            "choose with --label-columns; if each of them is 0 or 1 for a class, pass --class-mode "
            f"multilabel --label-columns {both}"
        )
    return "choose with --label-columns"


def _advice(name: str, *, is_number: bool) -> str:
    predicts = ", --class-mode regression predicts numbers" if is_number else ""
    return (
        f"--label-columns {printable(name)} takes it nevertheless (or name another column)"
        f"{predicts}, and --class-mode none needs no labels"
    )
