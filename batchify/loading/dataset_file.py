"""An opened file, or several as one: its splits, by name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from batchify.common.closing import Closing
from batchify.loading.origin import closed, shown_files
from batchify.loading.split import Split, preview
from batchify.loading.split_data import kind_text


class DatasetFile(Mapping[str, Split], Closing):
    """The splits of a built file, or of several files as one, as `batchify.open` returns them.

    Close it with `close`, or use it in a ``with`` block; it also closes when nothing refers to it
    and its splits any more.

    Parameters
    ----------
    splits : Mapping of str to Split
    classes : tuple of str
    paths : tuple of str
        The paths of the files.
    """

    def __init__(
        self, splits: Mapping[str, Split], classes: tuple[str, ...], paths: tuple[str, ...]
    ) -> None:
        self._open_splits: dict[str, Split] | None = dict(splits)
        self.classes = classes
        self.paths = paths

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._open_splits is None

    def close(self) -> None:
        """Close the files and all splits.

        To ask for a split, or a split for rows, is a `FileClosedError` then; arrays that you took
        from a split stay valid.
        """
        for split in (self._open_splits or {}).values():
            split.close()
        self._open_splits = None

    @property
    def _splits(self) -> dict[str, Split]:
        if self._open_splits is None:
            raise closed(self._files)
        return self._open_splits

    @property
    def _files(self) -> tuple[bytes, ...]:
        return tuple(map(os.fsencode, self.paths))

    def __getitem__(self, name: str) -> Split:
        try:
            return self._splits[name]
        except KeyError:
            raise KeyError(f"there is no split {name!r}, only {', '.join(self._splits)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._splits)

    def __len__(self) -> int:
        return len(self._splits)

    def __repr__(self) -> str:
        if self.closed:
            return f"<batchify file {shown_files(self._files)}: closed>"
        counts = ", ".join(f"{name} {len(split):,}" for name, split in self.items())
        kind = kind_text(next(iter(self.values())))
        return f"<batchify file {shown_files(self._files)}: {counts} images of {kind}>"

    def _repr_html_(self) -> str | None:
        """Return what a notebook shows: a few images of each split."""
        return preview("file_html", self)
