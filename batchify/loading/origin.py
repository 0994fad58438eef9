"""Reopen a split in another process, with options that override those of the file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from batchify import choices
from batchify.common.paths import shown
from batchify.common.text import printable
from batchify.errors import FileClosedError, OptionError
from batchify.image_options import DecodeOptions
from batchify.loading.indexing import Selected

_CAPS = ("max_pixels", "max_dimension")
_DEFAULTS = DecodeOptions()


@dataclass(frozen=True, slots=True)
class DecodeOverrides:
    """Decoding options that replace recorded ones; None keeps the recorded one.

    They apply to files built with ``store="encoded"``, whose images are decoded when they are read.

    Parameters
    ----------
    trusted : bool
        Allow images beyond the default caps, up to the caps that the file records. Not for files
        from strangers: they could ask for all of the memory.
    target_size : tuple of int, int, or None
        (height, width), or the side of a square.
    interpolation, fit, shorter_side, scaled_decode
        See `batchify.image_options.DecodeOptions`.
    """

    trusted: bool = False
    target_size: tuple[int, int] | int | None = None
    interpolation: choices.Interpolation | None = None
    fit: choices.Fit | None = None
    shorter_side: int | None = None
    scaled_decode: bool | None = None

    def apply(self, recorded: DecodeOptions) -> DecodeOptions:
        """Return the options to decode with, given those that the file records.

        Raises
        ------
        OptionError
            If the options do not go together, or the images are larger than the caps.
        """
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "trusted"}
        changes = {name: value for name, value in given.items() if value is not None}
        if "fit" in changes:  # "crop" alone is that of the largest part, whatever the file records
            changes.setdefault("shorter_side", None)
        if not self.trusted:
            for name in _CAPS:
                changes[name] = min(getattr(recorded, name), getattr(_DEFAULTS, name))
        options = recorded.changed(**changes)
        height, width = options.target_size
        if height * width > options.max_pixels:
            raise OptionError(
                f"images of {height}×{width} are more than {options.max_pixels:,} pixels; "
                "if the file is your own, open it with trusted=True"
            )
        return options


AS_RECORDED = DecodeOverrides()


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a split comes from: everything another process needs to open it again.

    Parameters
    ----------
    files : tuple of bytes
        Absolute paths, or URLs.
    digests : tuple of bytes
        The content digest of each file.
    open_split : callable
        Opens the split again, given this. It is `batchify.loading.open.reopen`, which the arrays
        cannot import, since it makes them.
    """

    files: tuple[bytes, ...] = field(repr=False)  # a URL may have a password
    split: str
    digests: tuple[bytes, ...]
    rows: int
    overrides: DecodeOverrides
    open_split: Callable[[Origin], Any] = field(compare=False, repr=False)

    @property
    def shown(self) -> str:
        """The first file, as text, without the secrets in a URL."""
        return printable(shown(self.files[0]))


@dataclass(frozen=True, slots=True)
class ViewOrigin(Origin):
    """Where some rows of splits come from.

    Parameters
    ----------
    parts : tuple of Origin
        The splits that rows are selected of, concatenated.
    selected : range or ndarray of intp
        The row numbers.
    sha256 : str
        That of the row numbers.
    """

    parts: tuple[Origin, ...]
    selected: Selected = field(compare=False, repr=False)
    sha256: str


def reopened(origin: Origin, column: str | None = None) -> Any:
    """Open a split, or one of its columns, when a copy is unpickled in another process.

    Raises
    ------
    FileFormatError
        If a file is not the one that it was.
    """
    split = origin.open_split(origin)
    return split if column is None else getattr(split, column)


def shown_files(files: Sequence[bytes]) -> str:
    """Return the first of some files, and how many more there are, as text."""
    more = f" and {len(files) - 1:,} more" if len(files) > 1 else ""
    return printable(shown(files[0])) + more


def closed(files: Sequence[bytes]) -> FileClosedError:
    """Return the error for reading rows of closed files."""
    return FileClosedError(f"{shown_files(files)} {'are' if len(files) > 1 else 'is'} closed")
