"""Where a build is to be published, and all the reasons why it cannot be."""

from __future__ import annotations

import os
from dataclasses import dataclass

from batchify.errors import OutputExistsError, OutputIOError, OutputPathError
from batchify.names import is_within, printable

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
    _check_outside(path, path, dataset_root)


def _check_outside(path: bytes, folder: bytes, dataset_root: str | os.PathLike[str]) -> None:
    root = os.path.realpath(os.fsencode(dataset_root))
    if is_within(os.path.realpath(folder), root):
        raise OutputPathError(
            f"target {printable(path)} is inside the dataset folder {printable(root)}; put it "
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
    """

    path: bytes
    overwrite: bool

    def check(self, dataset_root: str | os.PathLike[str]) -> None:
        """Refuse a target that cannot be, before any work.

        Raises
        ------
        OutputPathError
            If it is inside the dataset folder, or is the archive of the dataset.

        And as `check_place`.
        """
        self.check_place()
        _check_outside(self.path, os.path.dirname(self.path), dataset_root)
        root = os.path.realpath(os.fsencode(dataset_root))
        own = os.path.realpath(self.path)
        if root == own or root.startswith(own + PARTIAL) or self._is_file(root):
            raise OutputPathError(
                f"target {printable(self.path)} would replace the dataset {printable(root)}; name "
                "another"
            )

    def check_place(self) -> None:
        """Refuse a target that cannot be, before any work.

        Raises
        ------
        OutputPathError
            If it is not a regular file, or its folder is missing.
        OutputIOError
            If its folder cannot be written.
        """
        name = printable(self.path)
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
            raise OutputExistsError(
                f"target {printable(self.path)} exists; pass --overwrite to replace it"
            )
