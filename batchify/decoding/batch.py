"""Read files into the columns of a batch: pixels or encoded files, and masks."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from batchify import choices
from batchify.choices import parse_rescale
from batchify.common.text import printable
from batchify.decoding.channels import ChannelSums, channel_sums, sums_column
from batchify.decoding.damage import check_strict_decode, jpeg_damage
from batchify.decoding.encoding import Encoder
from batchify.decoding.fidelity import SAME
from batchify.decoding.image import FLOAT_ADVICE, Decoded, decode_image, scaled_to_bytes
from batchify.decoding.losses import LEAST_BYTE_RESCALE, NOTHING_LOST, Lost
from batchify.decoding.mask import applied_orientation, decode_mask
from batchify.decoding.pillow_settings import set_pillow_limits
from batchify.decoding.source_flags import CUT, EXIF_ROTATED, TRUNCATED
from batchify.errors import BadImageError, OptionError
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.storage.source import FileReader, SourceFile

_RGBA = 4
_MAX_DEEP = 65535
_HIGH_BYTE = np.uint16(257)
"""65535 / 255."""


Transform = Callable[[NDArray[np.float32]], NDArray[Any]]
"""A function that takes an image, an array of shape (H, W, C), and returns one of that shape."""


class PixelWriter:
    """Converts decoded pixels to the dtype of rows.

    Integers are stored as they are, or scaled with ``depth="scale"``; a pixel that does not fit is
    its image's error. float32 rows hold ``float32(pixel) * float32(scale)``, where the scale may be
    that of the image's depth (`StoreOptions.scales_by_depth`).

    Parameters
    ----------
    transform : callable, optional
        For float32 rows: called with the pixels of each image, before they are scaled.

    Attributes
    ----------
    keeps_deep : bool
        Rows have 16 bits, by their dtype or scale: decode images with ``deep``.
    """

    def __init__(
        self, store: StoreOptions, decode: DecodeOptions, transform: Transform | None = None
    ) -> None:
        self._transform = transform
        self._copies = store.dtype == "uint8" and transform is None
        self._scales = decode.depth == "scale"
        self._factor = store.scale
        self._factors = {}
        if store.scales_by_depth:
            deep = parse_rescale(choices.AUTO_RESCALES["uint16"])
            self._factors = {np.dtype(np.uint8): self._factor, np.dtype(np.uint16): deep}
            self._factor = 1.0
        is_small = abs(store.scale) < LEAST_BYTE_RESCALE
        self.keeps_deep = store.dtype == "uint16" or (store.dtype == "float32" and is_small)

    def put(self, decoded: Decoded, out: NDArray[Any]) -> None:
        """Store the pixels of an image in `out`; a single channel goes to each of its channels.

        Raises
        ------
        BadImageError
            If a pixel does not fit, or if rows have 16 bits and only 8 of them were decoded.
        """
        pixels = decoded.pixels
        if self._copies and pixels.dtype == out.dtype and pixels.shape == out.shape:
            out[...] = pixels
            return
        if self.keeps_deep and decoded.flags & CUT:
            raise BadImageError(
                "only the high 8 bits of its channels are decoded, and --dtype or --rescale is for "
                "16; build with --dtype uint8, or convert it"
            )
        factor = self._factors.get(pixels.dtype, self._factor)
        if self._transform is None:
            self._put_bands(pixels, out, factor)
            return
        unscaled = np.empty(out.shape, np.float32)
        self._put_bands(pixels, unscaled, 1.0)
        found = _transformed(unscaled, self._transform)
        out[...] = found * found.dtype.type(factor)

    def _put_bands(self, pixels: NDArray[Any], out: NDArray[Any], factor: float) -> None:
        self._put(pixels, out, factor)
        if pixels.shape[-1] < out.shape[-1] == _RGBA:
            self._put(np.full((1, 1, 1), _MAX_DEEP, np.uint16), out[..., -1:], factor)

    def _put(self, pixels: NDArray[Any], out: NDArray[Any], factor: float) -> None:
        if self._scales and self.keeps_deep and pixels.dtype == np.uint8:
            pixels = pixels * _HIGH_BYTE
        if out.dtype.kind == "f":
            np.multiply(pixels, np.float32(factor), out=out, dtype=np.float32, casting="same_kind")
            return
        if pixels.dtype.kind == "f":
            raise BadImageError(FLOAT_ADVICE)
        if self._scales and pixels.dtype == np.uint16 and out.dtype == np.uint8:
            pixels = scaled_to_bytes(pixels)
        if pixels.dtype.itemsize > out.dtype.itemsize:
            low, high = int(pixels.min()), int(pixels.max())
            limit = int(np.iinfo(out.dtype).max)
            if low < 0 or high > limit:
                advice = (
                    "--dtype uint16 or --depth scale"
                    if pixels.dtype == np.uint16
                    else "--dtype float32"
                )
                raise BadImageError(
                    f"values from {low} to {high} do not fit {out.dtype.name}, which ends at "
                    f"{limit} (see {advice})"
                )
        out[...] = pixels


def _transformed(image: NDArray[np.float32], transform: Transform) -> NDArray[Any]:
    """Return the result of a user's function for an image, as floats.

    Raises
    ------
    OptionError
        If it is not an array of numbers with the image's shape.
    """
    shape = image.shape
    found = np.asarray(transform(image))
    if found.shape != shape or found.dtype.kind not in "biuf":
        raise OptionError(
            f"transform must return an array of numbers of shape {shape}, like its input, "
            f"not {found.dtype} of shape {found.shape}"
        )
    return found if found.dtype.kind == "f" else found.astype(np.float32)


class ImageRecord(NamedTuple):
    """What a row stores in addition to its image.

    Parameters
    ----------
    source_size : tuple of int
        (height, width) of the source.
    sums : ChannelSums or None
        Sums over the pixels, if the file of the row stores them.
    lost : Lost
        What decoding lost; nothing for a row that was not decoded.
    content : bytes or None
        The image, if it is encoded again.
    psnr : float
        See `batchify.decoding.encoding.Encoded`.
    """

    row_crc32: int
    source_size: tuple[int, int]
    source_flags: int
    sums: ChannelSums | None = None
    lost: Lost = NOTHING_LOST
    content: bytes | None = None
    psnr: float = SAME


FindCached = Callable[[bytes, NDArray[Any]], ImageRecord | None]
"""Look up an image by its file's SHA-256; on a hit, copy it into the row and return its record."""


@dataclass(frozen=True, eq=False)
class Batch:
    """The rows made of some files, in their order; images that failed are zeros.

    Parameters
    ----------
    columns : dict of str to ndarray
        As the file stores them: ``source_sha256`` (n, 32) uint8, ``row_crc32`` (n,) uint32,
        ``source_size`` (n, 2) int32 and ``source_flags`` (n,) uint16; ``images`` (n, H, W, C), or
        ``channel_sums`` (n, 3, C) if files are kept; with masks also ``labels`` (n, H, W)
        uint8 and ``label_sha256``; with a lossy store ``psnr`` (n,) float32.
    bad : list of (int, str)
        Position and reason of each file that failed.
    files : dict of int to bytes
        Position and content of each file that did not fail, if files are kept: encoded again if
        the store says so.
    lost : Lost
        What the decoded images lost.
    damaged : dict of int to str
        Position and damage of each image that is damaged but was decoded.
    """

    columns: dict[str, NDArray[Any]]
    bad: list[tuple[int, str]]
    files: dict[int, bytes] = field(default_factory=dict)
    lost: Lost = NOTHING_LOST
    damaged: dict[int, str] = field(default_factory=dict)


class BatchReader:
    """Reads, hashes and decodes files into batches.

    Parameters
    ----------
    store : StoreOptions
        The dtype of the rows, and their rescale.
    keep_files : bool
        Return the files themselves, and sums over their pixels instead of the pixels.
    cached : callable
        See `FindCached`.
    mask_source : FileReader, optional
        Where masks are read; `source` by default.
    transform : callable, optional
        See `PixelWriter`.
    find_damage : bool
        Look for damage in JPEG images that decode, as with ``strict_decode``, but refuse none.

    Notes
    -----
    Memory: one batch, its files if they are kept, and one decoded image. Sets Pillow's
    process-wide limits (`batchify.decoding.pillow_settings.set_pillow_limits`).
    """

    def __init__(
        self,
        source: FileReader,
        options: DecodeOptions,
        *,
        store: StoreOptions,
        keep_files: bool = False,
        cached: FindCached = lambda *_: None,
        mask_source: FileReader | None = None,
        transform: Transform | None = None,
        find_damage: bool = False,
    ) -> None:
        set_pillow_limits(options)
        check_strict_decode(options)
        self._source = source
        self._mask_source = mask_source or source
        self._options = options
        self._stored = replace(options, max_side=store.max_side)
        self._dtype = np.dtype(choices.STORED_DTYPES[store.dtype])
        self._scale = store.scale
        self._pixels = PixelWriter(store, options, transform)
        self._encoder: Encoder | None = None
        if store.is_reencoded:
            deep = self._pixels.keeps_deep
            self._encoder = Encoder(store, options, self._pixels.put, deep=deep)
        self._is_lossy = store.is_lossy
        self._keep_files = keep_files
        self._cached = cached
        self._find_damage = find_damage or options.strict_decode

    def read(
        self,
        files: Sequence[SourceFile],
        *,
        masks: Sequence[SourceFile] = (),
        sizes: Sequence[int] | None = None,
        mark: Callable[[int], None] = lambda _: None,
        refused: Mapping[int, str] | None = None,
    ) -> Batch:
        """Return the batch of some files.

        Parameters
        ----------
        masks : sequence of SourceFile
            The mask of each file, or none; an image fails if its mask does.
        sizes : sequence of int, optional
            The planned size of each file, in bytes: a file with another size fails.
        mark : callable
            Called with the position of each file and each mask before it is read.
        refused : Mapping of int to str, optional
            Position and reason of files that must not be read: they fail.
        """
        refused = refused or {}
        count = len(files)
        room = 1 if self._keep_files else count  # pixels are only summed if files are kept
        images = np.empty((room, *self._options.image_shape), self._dtype)
        hashes = bytearray(32 * count)
        records = [ImageRecord(0, (0, 0), 0)] * count
        bad: dict[int, str] = {}
        kept: dict[int, bytes] = {}
        wanted = [file for i, file in enumerate(files) if i not in refused] if refused else files
        contents = self._source.read_files(wanted, self._options.max_file_size)
        for i in range(count):
            mark(i)
            try:
                data = BadImageError(refused[i]) if i in refused else next(contents)
                if isinstance(data, BadImageError):
                    raise data
                if sizes is not None and len(data) != sizes[i]:
                    raise BadImageError("its size changed since the folder was scanned")
                digest = hashlib.sha256(data).digest()
                out = images[i % room]
                record = self._cached(digest, out)
                record = record or self._decode(data, out)
            except BadImageError as error:
                bad[i] = str(error)
                images[i % room] = 0
                continue
            except MemoryError as error:
                raise MemoryError(printable(files[i].path)) from error
            if self._keep_files:
                kept[i] = data if record.content is None else record.content
                sums = record.sums or channel_sums(out[np.newaxis], self._scale, images=1)
                record = record._replace(row_crc32=zlib.crc32(kept[i]), sums=sums, content=None)
            hashes[32 * i : 32 * i + 32] = digest
            records[i] = record
        source_sizes = [record.source_size for record in records]
        columns: dict[str, NDArray[Any]] = {
            "source_sha256": np.frombuffer(hashes, np.uint8).reshape(count, 32),
            "row_crc32": np.array([record.row_crc32 for record in records], "<u4"),
            "source_size": np.array(source_sizes, "<i4").reshape(count, 2),
            "source_flags": np.array([record.source_flags for record in records], "<u2"),
        }
        if self._keep_files:
            sums_of = [record.sums or ChannelSums() for record in records]
            columns["channel_sums"] = sums_column(sums_of, images.shape[-1])
        else:
            columns["images"] = images
        if self._is_lossy:
            columns["psnr"] = np.array([record.psnr for record in records], "<f4")
        if masks:
            columns.update(self._read_masks(files, masks, columns, bad, mark))
            kept = {i: content for i, content in kept.items() if i not in bad}
        losses = {i: r.lost for i, r in enumerate(records) if r.lost is not NOTHING_LOST}
        counted = (each.of(files[i].path) for i, each in losses.items() if i not in bad)
        lost = sum(counted, start=NOTHING_LOST)
        damaged = {i: each.complaint for i, each in losses.items() if each.damaged}
        return Batch(columns, sorted(bad.items()), kept, lost, damaged)

    def _decode(self, data: bytes, out: NDArray[Any]) -> ImageRecord:
        """Decode an image into its row."""
        decoded = decode_image(data, self._stored, deep=self._pixels.keeps_deep)
        lost = decoded.lost
        if self._find_damage and not decoded.flags & TRUNCATED:  # which has a flag
            lost += jpeg_damage(data)
        if lost.damaged and self._options.strict_decode:
            raise BadImageError(f"its data is damaged: {lost.complaint}")
        found = ImageRecord(0, decoded.size, decoded.flags, lost=lost)
        if self._encoder is None:
            self._pixels.put(decoded, out)
            return found._replace(row_crc32=zlib.crc32(out.data))
        content, psnr = self._encoder.encode(data, decoded._replace(lost=lost), out)
        return found._replace(row_crc32=zlib.crc32(content), content=content, psnr=psnr)

    def _read_masks(
        self,
        files: Sequence[SourceFile],
        masks: Sequence[SourceFile],
        columns: dict[str, NDArray[Any]],
        bad: dict[int, str],
        mark: Callable[[int], None],
    ) -> dict[str, NDArray[Any]]:
        """Return the columns of masks; add images whose mask failed to `bad`, and clear them."""
        count, (height, width) = len(files), self._options.target_size
        labels = np.zeros((count, height, width), np.uint8)
        hashes = np.zeros((count, 32), np.uint8)
        good = [i for i in range(count) if i not in bad]
        contents = self._mask_source.read_files(
            [masks[i] for i in good], self._options.max_file_size
        )
        for i in good:
            mark(i)
            try:
                data = next(contents)
                if isinstance(data, BadImageError):
                    raise data
                size = tuple(columns["source_size"][i].tolist())
                turn = self._turn(files[i], int(columns["source_flags"][i]))
                labels[i] = decode_mask(data, self._options, size, turn)
            except BadImageError as error:
                bad[i] = f"its mask {printable(masks[i].path)}: {error}"
                for name in columns.keys() & {"images", "channel_sums"}:
                    columns[name][i] = 0
                continue
            hashes[i] = np.frombuffer(hashlib.sha256(data).digest(), np.uint8)
        return {"labels": labels, "label_sha256": hashes}

    def _turn(self, file: SourceFile, flags: int) -> int:
        """Return the EXIF orientation that was applied; the few rotated images are read again."""
        if self._options.exif != "apply" or not flags & EXIF_ROTATED:
            return 1
        (data,) = self._mask_source.read_files([file], self._options.max_file_size)
        if isinstance(data, BadImageError):
            raise data
        return applied_orientation(data, self._options)
