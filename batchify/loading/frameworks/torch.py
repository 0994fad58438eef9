"""Make PyTorch datasets from a split: of rows, or of whole batches.

The protocol is described at https://docs.pytorch.org/docs/stable/data.html. Images are tensors in
channels-last memory: (C, H, W) views of (H, W, C).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from numpy.typing import NDArray
from torch.utils.data import Dataset, default_collate, get_worker_info

from batchify.errors import OptionError
from batchify.loading.arrays import Column, pil_image
from batchify.loading.batches import Batches, BatchOptions
from batchify.loading.chunks import read_ahead
from batchify.loading.frameworks.shared_memory import channels_first
from batchify.loading.frameworks.torch_batches import (
    TorchBatches,
    Transform,
    as_tensors,
    find_ranks,
)
from batchify.loading.indexing import Rows
from batchify.loading.split_data import SplitData


def make_dataset(
    split: SplitData,
    options: BatchOptions,
    transform: Transform | None,
    pin_memory: bool,
    ranks: tuple[int | None, int | None],
    *,
    rows: bool,
    original: bool,
) -> TorchRows | TorchBatches:
    """Return a PyTorch dataset of the rows of a split, or of whole batches.

    Parameters
    ----------
    ranks : (int or None, int or None)
        Rank and world size; None finds both.

    Raises
    ------
    OptionError
        If rows are asked for with options of batches, batches with options of rows, or the ranks
        are not valid.
    """
    given = [value for value in ranks if value is not None]
    if rows:
        if options.shuffle or options.drop_last or options.prefetch or pin_memory or given:
            raise OptionError(
                "shuffle, drop_last, prefetch, pin_memory, rank and world_size are for whole "
                "batches; give batch_size, or give them to the DataLoader and its sampler"
            )
        if original:
            split.check_pil_images()
        return TorchRows(Batches(split, options, float_labels=False), transform, original)
    if original:
        raise OptionError(
            "original is for rows: images of different sizes are not one batch; "
            "give batch_size to the DataLoader"
        )
    if len(given) == 1:
        raise OptionError("rank and world_size go together: give both, or neither")
    rank, world_size = given or find_ranks()
    batches = Batches(split, replace(options, rank=rank, world_size=world_size), float_labels=False)
    return TorchBatches(batches, transform, pin_memory, ranks_found=not given)


class TorchRows(Dataset[Any]):
    """A split as a map-style dataset of (image, label).

    An image is a tensor (C, H, W), or the result of `transform` for the stored ndarray (H, W, C)
    or, with `original`, for a PIL image; a label is as stored. The row number follows if the
    options ask for it. If several rows are asked for together, by ``BatchSampler`` and
    ``batch_size=None``, an item is their batch, (n, C, H, W).

    Parameters
    ----------
    batches : Batches
        Reads the rows.
    original : bool
        See `batchify.loading.split.Split.to_torch`.

    Attributes
    ----------
    split : Split
    classes : tuple of str
    class_to_idx : dict of str to int
    targets : ndarray, or None
        The labels of all rows.
    """

    def __init__(
        self, batches: Batches, transform: Transform | None, original: bool = False
    ) -> None:
        self.split = batches.split
        self.classes = self.split.classes
        self.class_to_idx = self.split.class_to_idx
        self._batches = batches
        self._transform = transform
        self._original = original

    @property
    def targets(self) -> Column | None:
        """The labels of all rows, as they are stored."""
        return self.split.labels

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: Any) -> Any:
        """Return (image, label) of a row, or (images, labels) of several."""
        rows = self.split.row_numbers(key)
        if not rows.ndim:
            return self.__getitems__([int(rows)])[0]
        if self._transform is not None or self._original:
            return default_collate(self.__getitems__(rows))
        return next(as_tensors(self._batches, [rows], None))

    def __getitems__(self, rows: Sequence[int] | Rows) -> list[Any]:
        """Return ``[self[row] for row in rows]``, gathered together."""
        images: Any
        columns: Sequence[NDArray[Any]]
        if self._original:
            numbers = self.split.row_numbers(rows)
            images, columns = self._pil_images(numbers), self._batches.columns(numbers)
        else:
            found = self._batches.read(rows)
            images, *columns = found if isinstance(found, tuple) else (found,)
            if self._transform is None:
                images = channels_first(images)
        items = list(images if self._transform is None else map(self._transform, images))
        return list(zip(items, *columns, strict=True)) if columns else items

    def _pil_images(self, rows: Rows) -> Iterator[Any]:
        """Yield rows as PIL images; without workers of the loader, threads decode them."""
        read = partial(pil_image, self.split.images)
        in_threads = len(rows) > 1 and get_worker_info() is None
        return (read_ahead if in_threads else map)(read, rows.tolist())

    def __repr__(self) -> str:
        return f"<PyTorch rows of {self.split!r}>"
