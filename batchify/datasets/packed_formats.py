"""Recognize datasets that hold images and labels together, and open them.

To add a format, write a module with a function that returns a `PackedTree`, and add it to
`packed_kind` and `open_packed`.
"""

from __future__ import annotations

import os
from typing import Literal

from batchify.common.paths import is_url, local_path
from batchify.dataset_options import DiscoverOptions
from batchify.datasets.packed import PackedTree
from batchify.image_options import IMAGE_TIMEOUT_S

PackedKind = Literal["npz"]


def packed_kind(location: str | os.PathLike[str]) -> PackedKind | None:
    """Return the format of a dataset that holds images and labels together; None for others."""
    if is_url(location):
        return None
    path = os.fsencode(local_path(location))
    return "npz" if path.lower().endswith(b".npz") and os.path.isfile(path) else None


def open_packed(
    location: str | os.PathLike[str],
    kind: PackedKind,  # noqa: ARG001
    options: DiscoverOptions,
    timeout_s: float = IMAGE_TIMEOUT_S,
) -> PackedTree:
    """Return the images of such a dataset, and its table.

    Parameters
    ----------
    timeout_s : float
        See `batchify.storage.source.FolderSource`.

    Raises
    ------
    DatasetError
        If it is damaged, or not clear.
    """
    from batchify.datasets.npz import open_npz

    path = os.path.abspath(os.fsencode(local_path(location)))
    return open_npz(path, options, timeout_s)
