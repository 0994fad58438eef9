"""Find classes whose names or folders are suspicious."""

from __future__ import annotations

from collections.abc import Iterator

from batchify.checking.facts import Facts
from batchify.checking.findings import CheckLimits, Finding, Found
from batchify.common.text import plural, printable
from batchify.datasets.classes import similar_names


def find_linked(facts: Facts, _limits: CheckLimits) -> Iterator[Found]:
    """Find folders of classes that are links out of the dataset."""
    if count := len(facts.linked):
        examples = (Finding("", "a link out of the dataset", path=path) for path in facts.linked)
        yield f"{plural(count, 'class folder')} outside of the dataset", count, examples


def find_similar(facts: Facts, _limits: CheckLimits) -> Iterator[Found]:
    """Find classes whose names are nearly the same."""
    if pairs := similar_names(facts.classes):
        examples = (Finding("", f"is like {printable(one)}", path=other) for one, other in pairs)
        pair = plural(len(pairs), "pair")
        message = f"{pair} of classes differ by case, spaces or Unicode form only"
        yield message, len(pairs), examples


def find_warnings(code: str, facts: Facts, _limits: CheckLimits) -> Iterator[Found]:
    """Report the warnings from reading the folders of the dataset."""
    for warning in facts.warnings:
        if warning.code == code:
            yield str(warning), 1, iter(())
