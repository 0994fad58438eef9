"""Check the target path of a build before any work."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from batchify.common.paths import is_url, is_within, local_path, shown
from batchify.common.text import printable
from batchify.errors import OutputExistsError, OutputIOError, OutputPathError

PARTIAL = b".partial"
"""Ending of the unfinished file next to its target; other endings are appended to it."""

MOST_KEPT = 9
"""Few are needed: one receives the rows of the next while it has room."""


def kept_names(target: bytes) -> list[bytes]:
    """Return the names for files that keep the rows of unfinished builds of other plans."""
    return [b"%s%s.rows-%d" % (target, PARTIAL, number) for number in range(1, MOST_KEPT + 1)]


def kept_files(target: bytes) -> tuple[bytes, ...]:
    """Return the `kept_names` that exist."""
    return tuple(path for path in kept_names(target) if os.path.lexists(path))


def read_only_error(name: str, folder: bytes, lines: Iterable[str]) -> OutputIOError:
    """Return the error of a target that cannot be written, and is out of date for some reasons."""
    return OutputIOError(
        f"target {name} is not up to date, and there is no permission to write in "
        f"{printable(folder)}:\n" + "\n".join(f"  - {line}" for line in lines)
    )


def check_folder(path: bytes, dataset_root: str | os.PathLike[str]) -> None:
    """Refuse a folder that shards cannot be written to, before any work; it need not exist.

    Raises
    ------
    OutputPathError
        If it is not a folder, is inside the dataset folder, or its parent folder is missing.
    OutputIOError
        If it cannot be written.
    """
    name, parent = printable(path), os.path.dirname(path)
    if os.path.lexists(path) and not os.path.isdir(path):
        raise OutputPathError(f"target {name} is not a folder; --shards needs one")
    if not os.path.isdir(parent):
        raise OutputPathError(f"target {name}: there is no folder {printable(parent)}; make it")
    there = path if os.path.isdir(path) else parent
    if not os.access(there, os.W_OK):
        raise OutputIOError(f"target {name}: no permission to write in {printable(there)}")
    check_outside(path, path, dataset_root)


def check_outside(asked: bytes, folder: bytes, dataset_root: str | os.PathLike[str]) -> None:
    """Refuse a target inside the dataset.

    Parameters
    ----------
    asked : bytes
        The target, as the user wrote it.
    folder : bytes
        Its local folder.
    """
    if is_url(dataset_root):
        root = shown(dataset_root).rstrip(b"/")
        inside = asked.startswith(root + b"/")
    else:
        root = os.path.realpath(os.fsencode(local_path(dataset_root)))
        inside = is_within(os.path.realpath(folder), root)
    if inside:
        raise OutputPathError(
            f"target {printable(asked)} is inside the dataset folder {printable(root)}; put it "
            "elsewhere"
        )


@dataclass(frozen=True, slots=True)
class Target:
    """The file that a build publishes.

    Parameters
    ----------
    path : bytes
        Absolute.
    overwrite : bool
        Replace an existing file when the new one is complete.
    asked : bytes
        The URL that the user wrote, if it is not a local path.
    """

    path: bytes
    overwrite: bool
    asked: bytes = b""

    def check(self, dataset_root: str | os.PathLike[str]) -> None:
        """Refuse a target that cannot be written or would replace the dataset, before any work.

        Raises
        ------
        OutputPathError
            If it is inside the dataset folder, or is the archive of the dataset.
        As `check_writable`.
        """
        self.check_writable()
        check_outside(self.shown, os.path.dirname(self.path), dataset_root)
        if is_url(dataset_root):
            return
        root = os.path.realpath(os.fsencode(local_path(dataset_root)))
        own = os.path.realpath(self.path)
        if root == own or root.startswith(own + PARTIAL) or self._is_file(root):
            raise OutputPathError(
                f"target {self.name} would replace the dataset {printable(root)}; name another"
            )

    def check_writable(self) -> None:
        """Refuse a target that cannot be written, before any work.

        Raises
        ------
        OutputPathError
            If it is not a regular file, or its folder is missing.
        OutputIOError
            If its folder cannot be written.
        """
        name = self.name
        parent = os.path.dirname(self.path)
        if os.path.isdir(self.path):
            raise OutputPathError(f"target {name} is a folder; name a file in it")
        if not os.path.isdir(parent):
            raise OutputPathError(f"target {name}: there is no folder {printable(parent)}; make it")
        if not os.access(parent, os.W_OK):
            raise OutputIOError(f"target {name}: no permission to write in {printable(parent)}")
        if self.exists and not os.path.isfile(self.path):
            raise OutputPathError(f"target {name} is not a regular file; it is not overwritten")

    @property
    def is_read_only(self) -> bool:
        """Whether it is a file in a folder that cannot be written, on a read-only mount say."""
        return os.path.isfile(self.path) and not os.access(os.path.dirname(self.path), os.W_OK)

    def _is_file(self, path: bytes) -> bool:
        """Return whether the target is this file, under any name."""
        return os.path.isfile(path) and self.exists and os.path.samefile(path, self.path)

    def check_not_manifest(self, path: str) -> None:
        """Refuse a target that is the manifest."""
        if self._is_file(os.fsencode(path)):
            raise OutputPathError(
                f"target {printable(self.path)} is the manifest itself; name another"
            )

    @property
    def shown(self) -> bytes:
        """The target as the user wrote it."""
        return self.asked or self.path

    @property
    def name(self) -> str:
        """The target as the user wrote it, escaped for a line of text."""
        return printable(self.shown)

    @property
    def exists(self) -> bool:
        """Whether the path exists now."""
        return os.path.lexists(self.path)

    def check_free(self) -> None:
        """Refuse to replace an existing file that must not be overwritten."""
        if self.exists and not self.overwrite:
            raise OutputExistsError(f"target {self.name} exists; pass --overwrite to replace it")


@dataclass(frozen=True)
class Destination:
    """Where a build writes, and how the file gets to its destination.

    Parameters
    ----------
    target : Target
        A local path.
    publish : callable
        Called when the target is complete: uploads it, if it is for a URL and not uploaded yet;
        returns whether it did.
    """

    target: Target
    publish: Callable[[], bool] = lambda: False
