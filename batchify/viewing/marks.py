"""Write marked rows as lists that build takes: rows, or paths."""

from __future__ import annotations

from collections.abc import Sequence

from batchify.common.excluded import (
    SplitRows,
    path_list_bytes,
    paths_digest,
    row_list_lines,
)
from batchify.viewing.catalog import Catalog


def list_paths(catalog: Catalog, numbers: Sequence[int]) -> bytes:
    """Return the paths of rows, one per line, each once: for ``build --exclude @FILE``.

    Raises
    ------
    OptionError
        If a path has a line break in it.
    """
    paths = list(dict.fromkeys(catalog.paths[number] for number in sorted(numbers)))
    return path_list_bytes(paths, "download the list of rows, for --exclude-rows")


def list_rows(catalog: Catalog, numbers: Sequence[int]) -> bytes:
    """Return rows as a list for ``build --exclude-rows``, with the build that they are rows of."""
    splits = {}
    for name, at in catalog.splits.items():
        pieces = catalog.paths.slices(at.start, at.stop)
        listed = {n - at.start: catalog.paths[n] for n in sorted(numbers) if n in at}
        splits[name] = SplitRows(len(at), paths_digest(paths for _, paths in pieces), listed)
    skipped = {each.path for each in catalog.facts.skipped}
    lines = row_list_lines(splits, skipped, catalog.name, catalog.identity)
    return "".join(f"{line}\n" for line in lines).encode("ascii")
