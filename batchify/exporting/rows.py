"""Read the rows of a split as samples: an image file, a label, a path, further columns."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchify import choices
from batchify.common.text import printable
from batchify.decoding.pil_image import as_pil_image
from batchify.errors import OptionError
from batchify.exporting.endings import ending_of
from batchify.loading.columns import kept_kinds
from batchify.loading.dataset_file import DatasetFile
from batchify.loading.split import Split

ENDINGS = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
"""Format of the images -> ending of their names."""

_SAVING: dict[str, dict[str, Any]] = {
    "png": {"compress_level": 3},  # of photos: 2 % larger than 6, in less than half the time
    "jpeg": {"quality": 90},
    "webp": {"lossless": True, "exact": True},  # the colors of transparent pixels, too
}
_BATCH_NBYTES = 8 << 20
_MOST_ROWS = 256


@dataclass(frozen=True, slots=True)
class Sample:
    """One row, as formats store it.

    Parameters
    ----------
    row : int
        Its number in the split.
    image : bytes
        An image file.
    ending : str
        The ending for the name of that file, with the dot.
    label : int, list of float, bytes or None
        The number of a class, numbers, or a mask as a PNG file.
    path : str
        The path of its image in the dataset.
    columns : Mapping
        Those of --keep-columns.
    """

    row: int
    image: bytes
    ending: str
    label: int | list[float] | bytes | None
    path: str
    weight: float | None
    columns: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Contents:
    """What the rows of a file hold, for formats to store or refuse.

    Parameters
    ----------
    label : str
        ``class``, ``numbers``, ``mask``, or empty if no split has labels.
    classes : tuple of str
        The names of the classes, or of the numbers.
    numbers : int
        The length of the labels that are ``numbers``.
    columns : Mapping of str to str
        The dtype of each column of --keep-columns: int64, float64, bool or text.
    is_encoded : bool
        The file stores image files.
    image_shape : tuple of int
        (H, W, C) of the images as they are read.
    dtype : str
        Their dtype.
    unlabelled : frozenset of str
        The splits without labels.
    """

    label: str
    classes: tuple[str, ...]
    numbers: int
    has_weights: bool
    columns: Mapping[str, str]
    is_encoded: bool
    image_shape: tuple[int, int, int]
    dtype: str
    unlabelled: frozenset[str]


def find_contents(file: DatasetFile) -> Contents:
    """Return what the rows of a file hold."""
    splits = list(file.values())
    labeled = next((split for split in splits if split.labels is not None), None)
    kind, numbers = "", 0
    if labeled is not None and labeled.labels is not None:
        kind = _label_kind(labeled)
        numbers = int(np.prod(labeled.labels.shape[1:2], dtype=int)) if kind == "numbers" else 0
    height, width, channels = splits[0].images.shape[1:]
    return Contents(
        kind,
        file.classes,
        numbers,
        any(split.weights is not None for split in splits),
        kept_kinds(splits[0].columns),
        any(map(stores_files, splits)),
        (height, width, channels),
        splits[0].images.dtype.name,
        frozenset(name for name, split in file.items() if split.labels is None),
    )


def _label_kind(split: Split) -> str:
    if split.class_mode == "mask":
        return "mask"
    return "class" if split.class_mode in choices.INDEXED_MODES else "numbers"


def stores_files(split: Split) -> bool:
    """Return whether the rows of a split are image files."""
    if not len(split):
        return False
    try:
        split.encoded(0)
    except OptionError:
        return False
    return True


def check_pixels(
    dtype: str, channels: int, image_format: str, where: str = "the file to export"
) -> None:
    """Refuse pixels that a format of image files does not have.

    Raises
    ------
    OptionError
        With what to do instead.
    """
    if dtype != "uint8" and not (dtype == "uint16" and channels == 1 and image_format == "png"):
        raise OptionError(
            f"{where} has {dtype} images of {channels} channels, which {image_format} files cannot "
            "store; use --format npz, or build with --dtype uint8"
        )
    if image_format == "jpeg" and channels == 4:
        raise OptionError(f"{where} has RGBA images, and JPEG has no alpha; use png or webp")


def encode_pixels(pixels: NDArray[Any], image_format: str = "png") -> bytes:
    """Return pixels, shape (H, W, C), as an image file."""
    buffer = io.BytesIO()
    as_pil_image(pixels).save(buffer, image_format, **_SAVING[image_format])
    return buffer.getvalue()


def utf8_text(text: str) -> str:
    """Return a name with bytes that are not UTF-8 escaped, for formats that cannot store them."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def read_samples(
    split: Split,
    start: int,
    stop: int,
    image_format: str,
    mark: Callable[[int], None] = lambda _: None,
    originals: Iterator[bytes] | None = None,
) -> Iterator[Sample]:
    """Yield some rows of a split, in order.

    Parameters
    ----------
    image_format : str
        A key of `ENDINGS`, for rows that are pixels.
    mark : callable
        Called with the number of each row, from `start` as 0, before it is encoded.
    originals : iterator of bytes, optional
        The image file of each row, to yield instead of what is stored.

    Notes
    -----
    Memory: some MiB of rows.
    """
    are_files = stores_files(split)
    row_nbytes = split.images.dtype.itemsize * math.prod(split.images.shape[1:])
    at_once = max(1, min(_MOST_ROWS, _BATCH_NBYTES // row_nbytes))
    for first in range(start, stop, at_once):
        rows = slice(first, min(first + at_once, stop))
        mark(first - start)
        pixels = None if are_files or originals else np.asarray(split.images[rows])
        labels = None if split.labels is None else np.asarray(split.labels[rows])
        weights = None if split.weights is None else np.asarray(split.weights[rows])
        paths = list(split.paths[rows])
        kept = {name: split.columns.rows(name, rows.start, rows.stop) for name in split.columns}
        for i, path in enumerate(paths):
            row = first + i
            mark(row - start)
            if pixels is None:
                image = next(originals) if originals else split.encoded(row)
                ending = ending_of(image, path)
            else:
                image, ending = encode_pixels(pixels[i], image_format), ENDINGS[image_format]
            yield Sample(
                row,
                image,
                ending,
                None if labels is None else _plain_label(split, labels[i]),
                path,
                None if weights is None else float(weights[i]),
                {name: _plain(values[i]) for name, values in kept.items()},
            )


def class_numbers(split: Split, start: int, stop: int) -> NDArray[np.intp]:
    """Return the class of some rows of a split that has class labels, shape (n,)."""
    if split.labels is None:
        raise OptionError(f"split {printable(split.name)} has no labels")
    labels = np.asarray(split.labels[start:stop])
    return labels.argmax(axis=1) if labels.ndim == 2 else labels.astype(np.intp)


def _plain_label(split: Split, label: Any) -> int | list[float] | bytes:
    kind = _label_kind(split)
    if kind == "mask":
        return encode_pixels(label[..., np.newaxis])
    if kind == "numbers":
        return [float(value) for value in np.atleast_1d(label)]
    return int(label.argmax() if np.ndim(label) else label)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
