"""Where a file is to be published, and why it cannot be."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from batchify.common.paths import is_url, is_within, local_path, shown
from batchify.common.text import printable
from batchify.errors import OutputExistsError, OutputIOError, OutputPathError

PARTIAL = b".partial"
"""What the names of files that a build makes beside its target go on with."""


def check_folder(path: bytes, dataset_root: str | os.PathLike[str]) -> None:
    """Refuse a folder that files cannot be put into, before any work; it may be yet to be made.

    Parameters
    ----------
    path : bytes
        Absolute.
    dataset_root : path

    Raises
    ------
    OutputPathError
        If it is something else, is inside the dataset folder, or its own folder is missing.
    OutputIOError
        If it cannot be written.
    """
    name, parent = printable(path), os.path.dirname(path)
    if os.path.lexists(path) and not os.path.isdir(path):
        raise OutputPathError(f"target {name} is not a folder; with --shards it is to be one")
    if not os.path.isdir(parent):
        raise OutputPathError(f"target {name}: there is no folder {printable(parent)}; make it")
    there = path if os.path.isdir(path) else parent
    if not os.access(there, os.W_OK):
        raise OutputIOError(f"target {name}: no permission to write in {printable(there)}")
    check_outside(path, path, dataset_root)


def check_outside(asked: bytes, folder: bytes, dataset_root: str | os.PathLike[str]) -> None:
    """Refuse a target in the dataset.

    Parameters
    ----------
    asked : bytes
        The target, for people.
    folder : bytes
        Where it is, on this machine.
    dataset_root : path or URL

    Raises
    ------
    OutputPathError
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
    """Where a build is to be published.

    Parameters
    ----------
    path : bytes
        Absolute.
    overwrite : bool
        Replace what is there, by a rename, when the new file is whole.
    asked : bytes
        What was asked for, where that is no path of this machine.
    """

    path: bytes
    overwrite: bool
    asked: bytes = b""

    def check(self, dataset_root: str | os.PathLike[str]) -> None:
        """Refuse a target that cannot be, before any work.

        Raises
        ------
        OutputPathError
            If it is inside the dataset folder, or is the archive of the dataset.

        And as `check_writable`.
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
        """Refuse a target that cannot be, before any work.

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

    def _is_file(self, path: bytes) -> bool:
        """Tell whether the target is another name of a file."""
        return os.path.isfile(path) and self.exists and os.path.samefile(path, self.path)

    def check_apart(self, path: str) -> None:
        """Refuse a target that is a file which is read.

        Raises
        ------
        OutputPathError
        """
        if self._is_file(os.fsencode(path)):
            raise OutputPathError(
                f"target {printable(self.path)} is the manifest itself; name another"
            )

    @property
    def shown(self) -> bytes:
        """What the user calls it."""
        return self.asked or self.path

    @property
    def name(self) -> str:
        """What the user calls it, on one line."""
        return printable(self.shown)

    @property
    def exists(self) -> bool:
        """Whether something has that name now."""
        return os.path.lexists(self.path)

    def check_free(self) -> None:
        """Refuse to replace what was not to be overwritten.

        Raises
        ------
        OutputExistsError
        """
        if self.exists and not self.overwrite:
            raise OutputExistsError(f"target {self.name} exists; pass --overwrite to replace it")


@dataclass(frozen=True)
class Destination:
    """Where a build writes.

    Parameters
    ----------
    target : Target
        On a disk of this machine.
    publish : callable
        To be called when the target is whole: brings it to where it was asked for, and returns
        whether that had to be done.
    """

    target: Target
    publish: Callable[[], bool] = lambda: False
