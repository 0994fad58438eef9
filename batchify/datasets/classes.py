"""Choose the classes of a dataset and the label of each."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping

from batchify.common.paths import sort_names
from batchify.common.text import plural, printable, shown_names
from batchify.dataset_options import DiscoverOptions
from batchify.errors import BatchifyWarning, DatasetError

_DIGITS = re.compile("([0-9]+)")
_WHOLE = re.compile(rb"[+-]?[0-9]+(\.0+)?")
_FEWEST_NUMBERS, _NUMBER_SHARE = 3, 0.8
"""If at least this many names are numbers, and most are, all are probably meant to be numbers."""

NO_CLASS = b"unlabelled"
"""The only class of images that are stored without labels: a file has at least one."""


def order_classes(
    found: Collection[bytes], options: DiscoverOptions, where: str, *, numbered: bool = False
) -> list[bytes]:
    """Return the classes in the order of their labels.

    Parameters
    ----------
    found : collection of bytes
        The classes that the dataset has.
    where : str
        The dataset, for messages.
    numbered : bool
        Classes that are the numbers 0 to n - 1 are labels already, as in a table.

    Raises
    ------
    DatasetError
        If ``--classes`` lists a class that is missing, and does not list one that exists: one of
        them is probably misspelled.
    """
    if options.classes:
        listed = list(map(os.fsencode, options.classes))
        missing = [name for name in listed if name not in found]
        others = sorted(set(found).difference(listed))
        if missing and (others or not found):
            has = f"it has {shown_names(others)}, not listed" if others else "it has no classes"
            hint = ""
            if any(one in missing for one, _ in similar_names([*missing, *others])):
                hint = "; names must match in case, spaces and Unicode form: copy them from there"
            elif any(b"," in name for name in others):
                hint = "; for names with commas, use --classes @FILE with one name per line"
            raise DatasetError(
                f"{where} has no class {shown_names(missing)}, which --classes lists; {has}{hint}"
            )
        return listed
    classes = list(found)
    sort_names(classes)
    if options.class_order == "natural":
        classes.sort(key=_natural_key)
    elif numbered and (values := _numbers(classes)):
        by_value = sorted(values, key=lambda name: values[name])
        if [values[name] for name in by_value] == list(range(len(by_value))):
            return by_value
    return classes


def number_warnings(
    classes: Collection[bytes], options: DiscoverOptions
) -> tuple[BatchifyWarning, ...]:
    """Warn of classes that are whole numbers, but not those of their labels.

    A few other names among them, such as a stray folder, do not matter.
    """
    names = list(classes)
    values = {name: _value(name) for name in names if _WHOLE.fullmatch(name)}
    wrong = [i for i, name in enumerate(names) if values.get(name, i) != i]
    most = len(values) >= max(_FEWEST_NUMBERS, _NUMBER_SHARE * len(names))
    is_chosen = options.classes or options.class_order != "name"
    if is_chosen or not wrong or not (most or len(values) == len(names)):
        return ()
    count = f"all {len(names):,}"
    if len(values) < len(names):
        count = f"{len(values):,} of {len(names):,}"
    natural = sorted(names, key=_natural_key)
    found = [values[name] for name in natural if name in values]
    order, advice = "", "--classes sets any order"
    if natural != names and found == sorted(found):
        order = ", which sort as text"
        advice = f"--class-order natural sorts them by value, and {advice}"
    return (
        BatchifyWarning(
            "number-classes",
            f"{count} class names are whole numbers, but {len(wrong):,} of them have "
            f"another number as their label: class {printable(names[wrong[0]])} has label "
            f"{wrong[0]}, since labels count from 0 in the order of the names{order}; {advice}",
        ),
    )


def similar_names(names: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
    """Return pairs of names that differ only in case, in spaces or in their form of Unicode.

    In a folder name from macOS, ``é`` may be a letter and an accent; from Linux, a single letter.
    """
    first: dict[str, bytes] = {}
    pairs = []
    for name in names:
        text = unicodedata.normalize("NFC", os.fsdecode(name)).casefold()
        key = "".join(unicodedata.normalize("NFC", text).split())
        if first.setdefault(key, name) != name:
            pairs.append((first[key], name))
    return pairs


def similar_warnings(names: Iterable[bytes]) -> tuple[BatchifyWarning, ...]:
    """Warn of classes that are probably one: `similar_names`."""
    pairs = similar_names(names)
    if not pairs:
        return ()
    one, other = map(printable, pairs[0])
    more = f", and {plural(len(pairs) - 1, 'more pair')}" if len(pairs) > 1 else ""
    how = " by case, spaces or Unicode form only" if one != other else " by Unicode form only"
    return (
        BatchifyWarning(
            "similar-classes",
            f"classes {one} and {other} differ{how}{more}: if they are one class, give them "
            "the same name",
        ),
    )


def unlisted_warnings(found: Mapping[bytes, int], what: str) -> tuple[BatchifyWarning, ...]:
    """Warn of classes that were ignored because ``--classes`` does not list them.

    Parameters
    ----------
    found : Mapping of bytes to int
        How often each was found.
    what : str
        What was found: ``folder`` or ``row``.
    """
    if not found:
        return ()
    total, classes = sum(found.values()), plural(len(found), "class", "classes")
    return (
        BatchifyWarning(
            "unlisted-classes",
            f"ignored {plural(total, what)} of {classes} that --classes does not list: "
            f"{shown_names(sorted(found))}",
        ),
    )


def _natural_key(name: bytes) -> list[str | int]:
    """Return a sort key that orders numbers in names by value: texts and numbers alternate."""
    parts = _DIGITS.split(os.fsdecode(name))
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]


def _numbers(names: Collection[bytes]) -> dict[bytes, int]:
    """Return the value of each name; empty if one is not a whole number."""
    if not all(map(_WHOLE.fullmatch, names)):
        return {}
    return {name: _value(name) for name in names}


def _value(name: bytes) -> int:
    return int(name.partition(b".")[0])
