"""Read files into the columns of a batch: pixels or encoded files, and masks."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from batchify import choices
from batchify.common.text import printable
from batchify.decoding.appearance import NOT_MEASURED, Measures, appearance_columns, measure
from batchify.decoding.channels import ChannelSums, channel_sums, sums_column
from batchify.decoding.damage import check_strict_decode, jpeg_damage
from batchify.decoding.encoding import Encoder
from batchify.decoding.fidelity import SAME
from batchify.decoding.image import decode_image
from batchify.decoding.losses import NOTHING_LOST, Lost
from batchify.decoding.mask import applied_orientation, decode_mask
from batchify.decoding.pillow_settings import set_pillow_limits
from batchify.decoding.pixel_writer import PixelWriter, Transform
from batchify.decoding.source_flags import EXIF_ROTATED, TRUNCATED
from batchify.errors import BadImageError
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.storage.source import FileReader, SourceFile


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
    appearance : Measures
        See `batchify.decoding.appearance`; zeros if the file of the row does not store it.
    """

    row_crc32: int
    source_size: tuple[int, int]
    source_flags: int
    sums: ChannelSums | None = None
    lost: Lost = NOTHING_LOST
    content: bytes | None = None
    psnr: float = SAME
    appearance: Measures = NOT_MEASURED


_PORTION_NBYTES = 64 << 10
"""Once so much has been read, it is decoded."""

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
        uint8 and ``label_sha256``; with a lossy store ``psnr`` (n,) float32; and those of
        `batchify.decoding.appearance`, if they are stored.
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
    Memory: one batch, its files if they are kept, 64 KiB of files or a larger one, and one decoded
    image. Sets Pillow's process-wide limits:
    `batchify.decoding.pillow_settings.set_pillow_limits`.
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
        self._measures = store.appearance
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
            Called with the position of each file before it is read, and before it is decoded; and
            with that of each mask.
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
        for i, data in self._contents(files, refused, mark):
            mark(i)
            try:
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
        if self._measures:
            columns |= appearance_columns([record.appearance for record in records])
        if masks:
            columns.update(self._read_masks(files, masks, columns, bad, mark))
            kept = {i: content for i, content in kept.items() if i not in bad}
        losses = {i: r.lost for i, r in enumerate(records) if r.lost is not NOTHING_LOST}
        counted = (each.of(files[i].path) for i, each in losses.items() if i not in bad)
        lost = sum(counted, start=NOTHING_LOST)
        damaged = {i: each.complaint for i, each in losses.items() if each.damaged}
        return Batch(columns, sorted(bad.items()), kept, lost, damaged)

    def _contents(
        self, files: Sequence[SourceFile], refused: Mapping[int, str], mark: Callable[[int], None]
    ) -> Iterator[tuple[int, bytes | BadImageError]]:
        """Yield the position of each file and its content, or why it cannot be read.

        Small files are read in portions: a processor that alternates between the kernel and the
        decoder with each file is slower at both.
        """
        wanted = [file for i, file in enumerate(files) if i not in refused] if refused else files
        contents = self._source.read_files(wanted, self._options.max_file_size)
        portion: list[tuple[int, bytes | BadImageError]] = []
        nbytes = 0
        for i, file in enumerate(files):
            mark(i)
            try:
                data = BadImageError(refused[i]) if i in refused else next(contents)
            except MemoryError as error:
                raise MemoryError(printable(file.path)) from error
            portion.append((i, data))
            nbytes += len(data) if isinstance(data, bytes) else 0
            if nbytes >= _PORTION_NBYTES:
                yield from portion
                portion, nbytes = [], 0
        yield from portion

    def _decode(self, data: bytes, out: NDArray[Any]) -> ImageRecord:
        """Decode an image into its row."""
        decoded = decode_image(data, self._stored, deep=self._pixels.keeps_deep)
        lost = decoded.lost
        is_known = decoded.is_intact or decoded.flags & TRUNCATED  # which has a flag
        if self._find_damage and not is_known:
            lost += jpeg_damage(data)
        if lost.damaged and self._options.strict_decode:
            raise BadImageError(f"its data is damaged: {lost.complaint}")
        appearance = measure(decoded, self._stored) if self._measures else NOT_MEASURED
        content, psnr = None, SAME
        if self._encoder is None:
            self._pixels.put(decoded, out)
        else:
            content, psnr = self._encoder.encode(data, decoded._replace(lost=lost), out)
        row_crc32 = zlib.crc32(out.data if content is None else content)
        return ImageRecord(
            row_crc32, decoded.size, decoded.flags, None, lost, content, psnr, appearance
        )

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
