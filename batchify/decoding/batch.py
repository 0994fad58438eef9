"""Files to the columns of a batch: images, bytes, masks.

A mask has one channel: the index of a palette, or the grey value; of one bit, 0 and 1. It is as
large as its image, turned as its image is, and fitted in the same way, by the nearest pixel: no
value is mixed. What ``pad`` adds is 0, as it is black in the image.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from batchify import choices
from batchify.common.text import printable
from batchify.decoding.channels import ChannelSums, channel_sums, sums_column
from batchify.decoding.image import decode, fitted, guard, opened, orientation_of
from batchify.errors import BadImageError
from batchify.options import DecodeOptions, StoreOptions
from batchify.storage.source import FileReader, SourceFile


def put_pixels(pixels: NDArray[Any], scale: np.float32, out: NDArray[Any]) -> None:
    """Put decoded pixels into a row, in the row's dtype, or refuse them.

    Parameters
    ----------
    pixels : ndarray of uint8, uint16 or int32, shape (H, W, C)
    scale : numpy.float32
        What a row of floats is multiplied by.
    out : ndarray, shape (H, W, C)

    Raises
    ------
    BadImageError
        If a pixel does not fit.
    """
    if out.dtype.kind == "f":
        np.multiply(pixels, scale, out=out, dtype=np.float32, casting="same_kind")
        return
    if pixels.dtype.itemsize > out.dtype.itemsize:
        low, high = int(pixels.min()), int(pixels.max())
        limit = int(np.iinfo(out.dtype).max)
        if low < 0 or high > limit:
            raise BadImageError(
                f"values from {low} to {high} do not fit {out.dtype.name}, which ends at "
                f"{limit} (see --dtype)"
            )
    out[...] = pixels


class OldRow(NamedTuple):
    """What a row keeps beside its image: checksum, (height, width) of the source, its flags.

    And sums over its pixels, where those are not stored.
    """

    row_crc32: int
    source_size: tuple[int, int]
    source_flags: int
    sums: ChannelSums | None = None


@dataclass(frozen=True, eq=False)
class Batch:
    """The rows made of some files, in their order; the row of a bad file is zeros.

    Parameters
    ----------
    columns : dict of str to ndarray
        ``images`` (n, H, W, C), ``source_sha256`` (n, 32) uint8, ``row_crc32`` (n,) uint32,
        ``source_size`` (n, 2) int32 and ``source_flags`` (n,) uint16, as the file stores them.
    bad : list of (int, str)
        Position and reason of each file that could not be used.
    copied : int
        How many images were known, and not decoded.
    """

    columns: dict[str, NDArray[Any]]
    bad: list[tuple[int, str]]
    copied: int = 0


class BatchReader:
    """Reads, hashes and decodes files into batches.

    Parameters
    ----------
    source : FileReader
        Who reads the files.
    options : DecodeOptions
    dtype : str
        A key of `choices.STORED_DTYPES`. Integers store pixels as they are; a pixel that does not
        fit is its image's error. float32 stores ``float32(pixel) * float32(scale)``.
    scale : float
        Used for float32 alone.
    known : callable
        Given the SHA-256 of a file and its row, puts the image there if it has it, which is then
        not decoded.

    Notes
    -----
    Memory: one batch and one decoded image. Sets Pillow's process-wide guards
    (`batchify.decoding.image.guard`).
    """

    def __init__(
        self,
        source: FileReader,
        options: DecodeOptions,
        *,
        dtype: str,
        scale: float,
        known: Callable[[bytes, NDArray[Any]], OldRow | None] = lambda *_: None,
    ) -> None:
        guard(options)
        self._source = source
        self._options = options
        self._dtype = np.dtype(choices.STORED_DTYPES[dtype])
        self._scale = np.float32(scale)
        self._known = known

    def read(
        self,
        files: Sequence[SourceFile],
        *,
        mark: Callable[[int], None] = lambda _: None,
        refused: Mapping[int, str] | None = None,
    ) -> Batch:
        """Return the batch of some files.

        Parameters
        ----------
        files : sequence of SourceFile
        mark : callable
            Called with the position of each file before it is read.
        refused : Mapping of int to str, optional
            Position and reason of files that are not to be touched: they are bad.
        """
        refused = refused or {}
        count = len(files)
        images = np.zeros((count, *self._options.image_shape), self._dtype)
        hashes = bytearray(32 * count)
        crc32, sizes, flags = [0] * count, [(0, 0)] * count, [0] * count
        bad = []
        copied = 0
        wanted = [file for i, file in enumerate(files) if i not in refused]
        contents = self._source.read_files(wanted, self._options.max_file_size)
        for i in range(count):
            mark(i)
            try:
                data = BadImageError(refused[i]) if i in refused else next(contents)
                if isinstance(data, BadImageError):
                    raise data
                digest = hashlib.sha256(data).digest()
                if old := self._known(digest, images[i]):
                    crc32[i], sizes[i], flags[i] = old[:3]
                    copied += 1
                else:
                    decoded = decode(data, self._options)
                    put_pixels(decoded.pixels, self._scale, images[i])
                    crc32[i] = zlib.crc32(images[i])
                    sizes[i], flags[i] = decoded.size, decoded.flags
            except BadImageError as error:
                bad.append((i, str(error)))
                continue
            hashes[32 * i : 32 * i + 32] = digest
        columns: dict[str, NDArray[Any]] = {
            "images": images,
            "source_sha256": np.frombuffer(hashes, np.uint8).reshape(count, 32),
            "row_crc32": np.array(crc32, "<u4"),
            "source_size": np.array(sizes, "<i4").reshape(count, 2),
            "source_flags": np.array(flags, "<u2"),
        }
        return Batch(columns, bad, copied)


_PLAIN = ("L", "P")


_DEEP = ("I", "I;16", "I;16L", "I;16B")


_MOST = 255


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""As `PIL.ImageOps.exif_transpose` turns an image."""


def orientation(data: bytes, options: DecodeOptions) -> int:
    """Return how an image is turned upright by ``exif="apply"``: its EXIF orientation, 1 to 8.

    1 for a TIFF, which Pillow turns by itself: there its mask is to be as Pillow shows it.

    Raises
    ------
    BadImageError
    """
    with opened(data, options) as image:
        if image.format == "TIFF":
            return 1
        if image.format == "PNG":
            image.load()  # its EXIF may come after the pixels
        return orientation_of(image)


def decode_mask(
    data: bytes, options: DecodeOptions, size: tuple[int, int], turn: int = 1
) -> NDArray[np.uint8]:
    """Decode a mask, and fit it as its image was.

    `batchify.decoding.image.guard` must have been called.

    Parameters
    ----------
    data : bytes
        The whole file.
    options : DecodeOptions
        Those of the image; `interpolation` and `color_mode` do not count.
    size : tuple of int
        (height, width) of the image, before it is turned.
    turn : int
        The EXIF orientation that the image was turned upright by. The mask's own is ignored.

    Returns
    -------
    ndarray of uint8, shape (H, W)

    Raises
    ------
    BadImageError
        With the reason.
    """
    with opened(data, options) as image:
        if image.format == "TIFF" and orientation_of(image) > 1:
            raise BadImageError("a TIFF with an EXIF orientation; save it without")
        width, height = image.size
        if (height, width) != size:
            raise BadImageError(
                f"it has {width}×{height} pixels, its image {size[1]}×{size[0]}: they must agree"
            )
        mask = Image.fromarray(_values(image))
    if turn in _TURNS:
        mask = mask.transpose(_TURNS[turn])
    return np.asarray(fitted(mask, replace(options, interpolation="nearest", scaled_decode=False)))


def _values(image: Image.Image) -> NDArray[np.uint8]:
    """Return the value of each pixel."""
    if image.mode in _PLAIN or image.mode == "1":
        return np.asarray(image).astype(np.uint8)
    if image.mode not in _DEEP:
        raise BadImageError(
            f"it has the colours of {image.mode}; a mask has one channel, of palette indices or "
            "grey values"
        )
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > _MOST:
        raise BadImageError(f"it has values from {low} to {high}; a mask has 0 to {_MOST}")
    return values.astype(np.uint8)


_EXIF = choices.flag_bit("exif_rotated")


class MaskReader:
    """Adds the masks of images to their batches.

    Parameters
    ----------
    source : FileReader
    options : DecodeOptions

    Notes
    -----
    Memory: the masks of a batch, and a decoded one.
    """

    def __init__(self, source: FileReader, options: DecodeOptions) -> None:
        self._source = source
        self._options = options

    def complete(
        self,
        batch: Batch,
        files: Sequence[SourceFile],
        masks: Sequence[SourceFile],
        mark: Callable[[int], None] = lambda _: None,
    ) -> Batch:
        """Return a batch with the columns of its masks; an image whose mask is bad is bad, too.

        Parameters
        ----------
        batch : Batch
            Its rows of images that are bad now become zeros.
        files, masks : sequence of SourceFile
            Of the images, and of the masks; of none, the batch is returned as it is.
        mark : callable
            Called with the position of each mask before it is read.
        """
        if not masks:
            return batch
        count, (height, width) = len(files), self._options.target_size
        labels = np.zeros((count, height, width), np.uint8)
        hashes = np.zeros((count, 32), np.uint8)
        bad = dict(batch.bad)
        good = [i for i in range(count) if i not in bad]
        contents = self._source.read_files([masks[i] for i in good], self._options.max_file_size)
        for i in good:
            mark(i)
            try:
                data = next(contents)
                if isinstance(data, BadImageError):
                    raise data
                size = tuple(batch.columns["source_size"][i].tolist())
                turn = self._turn(files[i], int(batch.columns["source_flags"][i]))
                labels[i] = decode_mask(data, self._options, size, turn)
            except BadImageError as error:
                bad[i] = f"its mask {printable(masks[i].path)}: {error}"
                batch.columns["images"][i] = 0
                continue
            hashes[i] = np.frombuffer(hashlib.sha256(data).digest(), np.uint8)
        columns: dict[str, NDArray[Any]] = {
            **batch.columns,
            "labels": labels,
            "label_sha256": hashes,
        }
        return Batch(columns, sorted(bad.items()), batch.copied)

    def _turn(self, file: SourceFile, flags: int) -> int:
        """Return how an image was turned; of those that were, which are few, it is read again."""
        if self._options.exif != "apply" or not flags & _EXIF:
            return 1
        (data,) = self._source.read_files([file], self._options.max_file_size)
        if isinstance(data, BadImageError):
            raise data
        return orientation(data, self._options)


@dataclass(frozen=True, eq=False)
class OriginalBatch:
    """The rows made of some files, in their order.

    Parameters
    ----------
    columns : dict of str to ndarray
        As `batchify.decoding.batch.Batch` has them, with ``channel_sums`` in place of ``images``;
        ``row_crc32`` is that of the file's bytes.
    contents : list of bytes
        Each file; empty where it could not be used.
    bad : list of (int, str)
    copied : int
        How many images were known, and not decoded.
    """

    columns: dict[str, NDArray[Any]]
    contents: list[bytes]
    bad: list[tuple[int, str]]
    copied: int


class OriginalReader:
    """Reads, hashes and decodes files, and keeps their bytes.

    Parameters
    ----------
    source : FileReader
    decode : DecodeOptions
    store : StoreOptions
    known : callable
        Given the SHA-256 of a file, what its row is, if it need not be decoded.

    Notes
    -----
    Memory: one batch, decoded, and the files that it is made of.
    """

    def __init__(
        self,
        source: FileReader,
        decode: DecodeOptions,
        store: StoreOptions,
        known: Callable[[bytes, NDArray[Any]], OldRow | None],
    ) -> None:
        self._kept = _Kept(source, known)
        self._store = store
        self._decoder = BatchReader(
            self._kept, decode, dtype=store.dtype, scale=store.scale, known=self._kept.known
        )

    def read(
        self,
        files: Sequence[SourceFile],
        sizes: Sequence[int],
        *,
        mark: Callable[[int], None] = lambda _: None,
        refused: Mapping[int, str] | None = None,
    ) -> OriginalBatch:
        """Return the batch of some files.

        Parameters
        ----------
        files, mark, refused
            As for `BatchReader.read`.
        sizes : sequence of int
            Bytes that there is room for: a file of another size changed, and is bad.
        """
        kept = self._kept
        kept.begin([size for i, size in enumerate(sizes) if i not in (refused or {})])
        batch = self._decoder.read(files, mark=mark, refused=refused)
        images = batch.columns.pop("images")
        bad = {i for i, _ in batch.bad}
        contents, sums = [], []
        fetched = iter(zip(kept.contents, kept.sums, strict=True))
        for i in range(len(files)):
            content, known = (b"", None) if i in (refused or {}) else next(fetched)
            if i in bad:
                content, known = b"", ChannelSums()
            contents.append(content)
            sums.append(known or channel_sums(images[i : i + 1], self._store.scale, images=1))
        batch.columns["row_crc32"] = np.array([zlib.crc32(each) for each in contents], "<u4")
        batch.columns["channel_sums"] = sums_column(sums, images.shape[-1])
        return OriginalBatch(batch.columns, contents, batch.bad, batch.copied)


class _Kept:
    """A source of files that keeps what passes through it, and holds sizes against a plan."""

    def __init__(
        self, source: FileReader, known: Callable[[bytes, NDArray[Any]], OldRow | None]
    ) -> None:
        self._source = source
        self._known = known
        self.begin([])

    def begin(self, sizes: Sequence[int]) -> None:
        """Begin a batch, given the size of each file that will be fetched."""
        self._sizes = sizes
        self.contents: list[bytes] = []
        self.sums: list[ChannelSums | None] = []

    def read_files(
        self, files: Sequence[SourceFile], max_nbytes: int
    ) -> Iterator[bytes | BadImageError]:
        """Yield the content of each file, or why it cannot be had."""
        for size, data in zip(self._sizes, self._source.read_files(files, max_nbytes), strict=True):
            if not isinstance(data, BadImageError) and len(data) != size:
                data = BadImageError("its size changed since the folder was scanned")
            self.contents.append(b"" if isinstance(data, BadImageError) else data)
            self.sums.append(None)
            yield data

    def known(self, digest: bytes, room: NDArray[Any]) -> OldRow | None:
        """Return what is known of the file that was fetched last."""
        old = self._known(digest, room)
        if old is not None:
            self.sums[-1] = old.sums
        return old

    def file_sizes(self, files: Sequence[SourceFile]) -> Iterator[int]:
        """Yield the size of each file."""
        return self._source.file_sizes(files)

    def close(self) -> None:
        """Leave the source open: whoever gave it closes it."""
