"""Turn stored rows into pictures and thumbnails."""

from __future__ import annotations

import base64
import io
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, features

from batchify import choices
from batchify.common.closing import Closing
from batchify.common.text import printable
from batchify.errors import BadImageError, BatchifyError, FileFormatError, OptionError
from batchify.format.config import recorded_options
from batchify.format.images import Ranges, StoredPixels
from batchify.format.reader import Reader
from batchify.loading.encoded import EncodedImages
from batchify.loading.origin import AS_RECORDED, DecodeOverrides

_LIGHT, _DARK = 255, 204
"""Grays of the checkerboard behind transparent pixels, as in image editors."""

_SQUARES = 12
"""Squares of the checkerboard along the longer side, whatever the size of the image."""

_HIGH_BYTE = 257
"""65535 / 255."""

_DEEPEST = 65_535
"""The largest value of 16 bits."""

_PAPER, _CROSS = (250, 224, 224), (176, 0, 32)
_QUALITY = 82


class Pictures(Closing):
    """The images of one split as pictures.

    Parameters
    ----------
    reader : Reader
        Open while this is used.
    file : Ranges, optional
        Where to read images, if that is not the file of `reader`.
    overrides : DecodeOverrides
        How encoded images are decoded.

    Attributes
    ----------
    damaged : set of int
        The requested rows that could not be read so far.
    undecoded : set of int
        Those that are as they were written, and cannot be decoded: beyond the default limits, or in
        a format that needs a plugin.

    Notes
    -----
    Memory: one row at a time, in addition to `StoredPixels`.
    """

    def __init__(
        self,
        reader: Reader,
        split: str,
        file: Ranges | None = None,
        overrides: DecodeOverrides = AS_RECORDED,
    ) -> None:
        self.split = split
        self.damaged: set[int] = set()
        self.undecoded: set[int] = set()
        self._where = f"{printable(reader.path)}: {split}"
        self._reader = reader
        self._columns = reader.splits[split]
        with reader.refusing():
            self._rescale = recorded_options(reader.header.config).store.scale
        self._stored: StoredPixels | EncodedImages
        if reader.is_encoded:
            self._stored = EncodedImages(reader, split, overrides, file)
        else:
            self._stored = StoredPixels(reader, split, file=file)
        self._masks: StoredPixels | None = None
        if reader.class_mode(split) == "mask":
            self._masks = StoredPixels(reader, split, "labels", file)
        self._range: tuple[float, float] | None = None
        if self.dtype != np.uint8:
            scale = self._rescale if self.dtype.kind == "f" else None
            self._range = _shown_range(reader, split, scale)

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._stored.rows

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(H, W, C) of a row."""
        return self._stored.image_shape

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """The data type of the stored images."""
        return self._stored.dtype

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of a picture, in Pillow's order."""
        return self._stored.image_shape[1], self._stored.image_shape[0]

    def path(self, row: int) -> bytes:
        """Return the path of a row's image file, relative to the dataset folder."""
        with self._reader.refusing():
            return bytes(self._columns["paths"][row])

    def get(self, row: int, *, fit: bool = True) -> Image.Image:
        """Return a row as an RGB picture: `read` and `draw`."""
        return self.draw(row, self.read(row), fit=fit)

    def read(self, row: int) -> bytes:
        """Return the bytes of a row as they are stored.

        Raises
        ------
        FileFormatError
            If the row is damaged: it cannot be read, or its checksum does not match.
        RemoteError, FileMissingError, FileAccessError
            If its file is at a URL, and the store does not hand it over.
        """
        try:
            data = self._stored.get(row, row + 1)
        except FileFormatError as error:
            raise self._damage(row, str(error)) from error
        except BatchifyError:  # of a store
            raise
        except OSError as error:
            raise self._damage(row, str(error)) from error
        with self._reader.refusing():
            checksum = int(self._columns["row_crc32"][row])
        if zlib.crc32(data) != checksum:
            raise self._damage(row, "checksum mismatch")
        return data

    def draw(self, row: int, data: bytes, *, fit: bool = True) -> Image.Image:
        """Return the bytes of a row as an RGB picture, in its stored size or as it is decoded.

        `draw_pixels` says how values are shown. `_shown_range` says which ones have another range.

        Parameters
        ----------
        fit : bool
            Resize an image file to the size in which it is read.

        Raises
        ------
        FileFormatError
            If its image file cannot be decoded, such as one beyond the default limits.
        """
        try:
            if isinstance(self._stored, EncodedImages):
                pixels = self._stored.pixels(data, fit=fit)
            else:
                pixels = self._stored.pixels(data)
        except BadImageError as error:  # the bytes are those of the build
            raise FileFormatError(f"{self._where}, row {row} cannot be decoded: {error}") from error
        if self._range is not None:
            low, high = self._range
            values = (pixels.astype(np.float64) - low) * (255 / (high - low))
            return draw_pixels(values.clip(0, 255), 1)
        return draw_pixels(pixels, self._rescale)

    def mask(self, row: int) -> Image.Image:
        """Return the mask of a row as a picture, from black to white.

        Raises
        ------
        FileFormatError
            If it cannot be read.
        """
        if self._masks is None:
            raise OptionError(f"{self._where} has no masks")
        try:
            mask = self._masks.pixels(self._masks.get(row, row + 1))
        except BatchifyError:  # of a store
            raise
        except OSError as error:
            raise self._damage(row, str(error)) from error
        return draw_mask(mask)

    def thumbnail(self, row: int, side: int, data: bytes | None = None) -> Image.Image:
        """Return a row as an RGB picture of at most `side` by `side` pixels, as `fit_picture`.

        A row that cannot be read or decoded becomes a crossed tile and is added to `damaged` or
        `undecoded`, so that it does not hide the others.

        Parameters
        ----------
        data : bytes, optional
            What `read` returned.
        """
        faults = self.damaged
        try:
            data = self.read(row) if data is None else data
            faults = self.undecoded
            return fit_picture(self.draw(row, data), side)
        except FileFormatError:
            faults.add(row)
            return crossed_tile(fit_size(self.size, side))

    def data_uri(self, row: int, side: int) -> str:
        """Return `thumbnail` as a ``data:`` address, for a page that contains its pictures.

        WebP, without loss if the image was not reduced; PNG if this Pillow has no WebP.
        """
        exact = max(self.size) <= side
        if not features.check("webp"):
            return data_uri(self.thumbnail(row, side), "png", optimize=True)
        quality = 100 if exact else _QUALITY
        return data_uri(self.thumbnail(row, side), "webp", lossless=exact, quality=quality)

    def close(self) -> None:
        """Close the file."""
        self._stored.close()
        if self._masks is not None:
            self._masks.close()

    def _damage(self, row: int, reason: str) -> FileFormatError:
        return FileFormatError(
            f"{self._where}, row {row} is damaged: {reason}; `batchify verify` lists all damage"
        )


def _shown_range(reader: Reader, split: str, scale: float | None) -> tuple[float, float] | None:
    """Return the values to show as black and white, if those of `draw_pixels` would not do.

    Numbers of 32 bits have no usual range: black and white are three standard deviations below and
    above the mean of the split. 12-bit values in 16 bits would be almost black: white is the same.

    Parameters
    ----------
    scale : float or None
        What stored floats were multiplied by; None if values are whole numbers.
    """
    pieces = [piece for piece in reader.pieces(split, "source_flags") if len(piece)]
    every = {flags for piece in pieces for flags in np.unique(piece).tolist()}
    wide, deep = map(choices.flag_bit, ("thirty_two_bit", "sixteen_bit"))
    is_wide = scale is not None and any(flags & wide for flags in every)
    if not is_wide and not (every and all(flags & deep for flags in every)):
        return None
    (mean, *_), (deviation, *_) = reader.channel_statistics(split)
    low, high = mean - 3 * deviation, mean + 3 * deviation
    if not is_wide:
        stored = scale or float(reader.scale_factor(split) or 1)
        if not 0 < high / stored < _DEEPEST / 4:
            return None
        low, high = 0, high if scale else high / stored
    return (low, high) if np.isfinite(high - low) and low < high else None


def draw_pixels(pixels: NDArray[Any], rescale: float) -> Image.Image:
    """Return stored pixels, shape (H, W, C), as an RGB picture of the same size.

    One channel is shown as gray, transparent pixels over a checkerboard. Floats are divided by the
    rescale that they were multiplied with. An image with values above 255 has 16 bits, and is shown
    by its high byte (value / 257).
    """
    values = _bytes_of(pixels, rescale)
    height, width, channels = values.shape
    if channels == 1:
        return Image.fromarray(values[:, :, 0]).convert("RGB")
    if channels == 3:
        return Image.fromarray(values)
    square = max(1, max(height, width) // _SQUARES)
    odd = (np.arange(height)[:, np.newaxis] // square + np.arange(width) // square) % 2
    board = Image.fromarray(np.where(odd, _DARK, _LIGHT).astype(np.uint8)).convert("RGBA")
    return Image.alpha_composite(board, Image.fromarray(values)).convert("RGB")


def draw_mask(mask: NDArray[Any]) -> Image.Image:
    """Return a mask, whose values are small numbers of classes, as a picture: black to white."""
    most = max(1, int(mask.max(initial=0)))
    return draw_pixels((mask[..., np.newaxis] * (255 // most)).astype(np.uint8), 1)


def _bytes_of(pixels: NDArray[Any], rescale: float) -> NDArray[np.uint8]:
    """Convert stored values, shape (H, W, C), to the bytes that a screen shows."""
    if pixels.dtype == np.uint8:
        return pixels
    values = pixels.astype(np.float64)
    if pixels.dtype.kind == "f":
        values = np.rint(np.nan_to_num(values / rescale, nan=0, posinf=255, neginf=0))
    if values.max() > 255:  # only grayscale images of 16 bits have these
        values = np.rint(values / _HIGH_BYTE)
    return values.clip(0, 255).astype(np.uint8)


def fit_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return (width, height) of the thumbnail of a picture of a size."""
    width, height = size
    longest = max(width, height)
    if longest <= side:
        return width * (side // longest), height * (side // longest)
    return max(1, round(width * side / longest)), max(1, round(height * side / longest))


def fit_picture(picture: Image.Image, side: int) -> Image.Image:
    """Return a picture with at most `side` by `side` pixels, in its aspect ratio.

    Small ones are enlarged by whole factors, so that every stored pixel is a square; large ones are
    reduced by a good filter.
    """
    size = fit_size(picture.size, side)
    if picture.size == size:
        return picture
    resample = Image.Resampling.NEAREST if size > picture.size else Image.Resampling.LANCZOS
    return picture.resize(size, resample)


def crossed_tile(size: tuple[int, int]) -> Image.Image:
    """Return the tile that is shown for an image that cannot be read."""
    tile = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(tile)
    right, bottom = size[0] - 1, size[1] - 1
    width = max(1, max(size) // 32)
    draw.line((0, 0, right, bottom), _CROSS, width)
    draw.line((0, bottom, right, 0), _CROSS, width)
    draw.rectangle((0, 0, right, bottom), outline=_CROSS, width=width)
    return tile


def picture_file(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """Return a picture as an image file; `options` are those of Pillow for its format."""
    buffer = io.BytesIO()
    picture.save(buffer, kind.upper(), **options)
    return buffer.getvalue()


def data_uri(picture: Image.Image, kind: str, **options: Any) -> str:
    """Return a picture as a ``data:`` address; `options` as for `picture_file`."""
    data = picture_file(picture, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
