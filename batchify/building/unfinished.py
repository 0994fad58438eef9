"""Create the unfinished file of a build, and recognize it among the files of a user."""

from __future__ import annotations

import os
from collections.abc import Mapping

from batchify.building.planned_columns import write_planned_columns
from batchify.common import durable
from batchify.common.text import printable
from batchify.errors import (
    FileAccessError,
    FileFormatError,
    FileMissingError,
    OutputExistsError,
)
from batchify.format.reader import Reader
from batchify.format.rows import RowWriter
from batchify.format.schema import RowOffsets
from batchify.format.structure import create_file, read_row_offsets
from batchify.planning.plan import BuildPlan


def create_unfinished(
    path: bytes, making: bytes, plan: BuildPlan
) -> tuple[Mapping[str, RowOffsets], bool]:
    """Create the complete file of a plan, and reserve its blocks if all of them will be filled.

    It gets its name when it is durable, so that it can be recognized.

    Parameters
    ----------
    making : bytes
        The name that it has until then.

    Returns
    -------
    Mapping of str to RowOffsets
    bool
        False if its blocks should be reserved, and cannot.
    """
    create_file(making, plan.file_layout)
    offsets = read_row_offsets(making)
    with RowWriter(making, offsets) as writer:
        write_planned_columns(writer, plan)
        # Images that are encoded later take a small part of their slots: the rest stays empty.
        reserved = plan.options.store.is_reencoded or writer.reserve()
        writer.sync()
    os.rename(making, path)
    # The journal is written next, and must never describe the file of an earlier build.
    durable.sync_folder(path)
    return offsets, reserved


def check_unfinished(path: bytes) -> None:
    """Refuse a file that has the name of an unfinished file, and was not created as one.

    Raises
    ------
    OutputExistsError
        If it is a file of the user.
    """
    try:
        with Reader(path) as reader:
            is_unfinished = not any(reader.digest) and not os.path.islink(path)
    except (FileMissingError, FileAccessError, FileFormatError):
        is_unfinished = False
    if not is_unfinished:
        raise OutputExistsError(
            f"{printable(path)} is not the unfinished file of a build, which would have this name; "
            "rename that file, or name another target"
        )
