"""Keep the rows of unfinished builds of other plans, so that the next build can copy them.

The unfinished file is renamed, and its checksums mark the valid rows: ``record_crc32`` is right for
those that the journal lists, and wrong for all others. It therefore needs no journal, and
`batchify.building.old_rows.OldRows` reads it like a finished file. The order of rows does not
matter: they are found by the SHA-256 of their source.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from batchify import choices
from batchify.building.jobs import RowFlags
from batchify.building.journal import differences, plain_config, plain_values
from batchify.building.target import kept_names
from batchify.common import durable
from batchify.common.keys import KeyIndex, first_bytes
from batchify.decoding.pillow_settings import decoder_text
from batchify.errors import FileAccessError, FileFormatError, FileMissingError, ResumeError
from batchify.format import schema
from batchify.format.checksums import record_sums
from batchify.format.config import CAPS, pixel_options
from batchify.format.reader import Reader
from batchify.format.rows import ImageRows, RowWriter, put_in_slots
from batchify.options import BuildOptions
from batchify.planning.plan import BuildPlan


def pixel_differences(reader: Reader, decoder: str, config: Mapping[str, Any]) -> list[str]:
    """Return why rows of a file differ from those that a build makes; empty if they do not.

    They need the same decoder and options for pixels. Rows stay valid with higher limits, with
    --truncated accept, without --strict-decode, and with a plugin for another format.

    Parameters
    ----------
    decoder, config
        Those of the plan of the build.
    """
    header = reader.header
    if set(header.decoder.split(", ")) <= set(decoder.split(", ")):
        decoder = header.decoder
    before, now = pixel_options(header.config), pixel_options(config)
    for name in CAPS:
        if isinstance(before.get(name), int) and before[name] <= now[name]:
            before[name] = now[name]
    if "truncated" not in before and now.get("truncated") == "accept":
        del now["truncated"]
    if "strict_decode" not in now:
        before.pop("strict_decode", None)
    made_by = {"creator": header.creator, "decoder": header.decoder}
    return [
        *differences(made_by, {"creator": schema.CREATOR, "decoder": decoder}),
        *differences(before, now),
    ]


def is_reusable(plan: BuildPlan, path: bytes) -> bool:
    """Return whether rows of a file can be copied into the file of a plan."""
    try:
        with Reader(path) as reader:
            return not pixel_differences(reader, plan.decoder, plain_config(plan))
    except (FileMissingError, FileFormatError, FileAccessError):
        return False


def read_looks(path: bytes, options: BuildOptions) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
    """Return the SHA-256 and the perceptual hashes of images that a build would decode alike.

    There are none in a file that has no hashes, was built with other options for pixels, or is
    missing.

    Returns
    -------
    ndarray of uint8, shape (n, 32)
    ndarray of uint64, shape (n,)
    """
    digests, hashes = [np.zeros((0, 32), np.uint8)], [np.zeros(0, np.uint64)]
    decoder = decoder_text(options.decode.plugins, options.store.store)
    with (
        contextlib.suppress(FileMissingError, FileFormatError, FileAccessError),
        Reader(path) as reader,
    ):
        config = plain_values(options.config(layout=str(reader.header.config.get("layout"))))
        if reader.has_appearance and not pixel_differences(reader, decoder, config):
            for split in reader.splits:
                for _, records in reader.records(split):
                    is_whole = record_sums(records) == records["record_crc32"]
                    digests.append(records["source_sha256"][is_whole])
                    hashes.append(records["phash"][is_whole])
    return np.concatenate(digests), np.concatenate(hashes)


def check_reusable(plan: BuildPlan, path: bytes) -> None:
    """Refuse rows of a file that is damaged, or was built with other options for pixels.

    Raises
    ------
    ResumeError, FileFormatError, FileAccessError
        With the differences.
    """
    with Reader(path) as reader:
        if found := pixel_differences(reader, plan.decoder, plain_config(plan)):
            raise ResumeError("; ".join(found))


def mark_rows(path: bytes, rows: RowWriter, counted: RowFlags) -> None:
    """Make ``record_crc32`` right for the valid rows, and wrong for all others."""
    with Reader(path) as reader:
        for split in reader.splits:
            for start, records in reader.records(split):
                sums = record_sums(records)
                sums[~counted[split][start : start + len(sums)]] ^= np.uint32(0xFFFFFFFF)
                rows.put(split, start, {"record_crc32": sums})


def give_rows(path: bytes, kept: tuple[bytes, ...]) -> bool:
    """Copy the rows of an unfinished file into one that was set aside; return whether one had room.

    The rows are marked and durable.
    """
    return any(_move_rows(path, other) for other in kept)


def set_aside(path: bytes, target: bytes, kept: tuple[bytes, ...]) -> None:
    """Rename an unfinished file with marked, durable rows; copy the rows of others into it.

    Parameters
    ----------
    kept : tuple of bytes
        The files that were set aside before: removed if there is room for their rows.

    Raises
    ------
    ResumeError
        If there are too many of them.
    OutputIOError
        If the file cannot be renamed, or rows cannot be written.
    """
    free = [name for name in kept_names(target) if name not in kept]
    if not free:
        raise ResumeError(f"there are {len(kept)} files of earlier unfinished builds")
    try:
        os.replace(path, free[0])
        durable.sync_folder(path)
    except OSError as error:
        raise durable.io_error("renaming", path, error) from error
    for other in kept:
        if _move_rows(other, free[0]):
            durable.remove(other)


class _Rows(NamedTuple):
    """The valid rows of a file.

    Parameters
    ----------
    counted : dict of str to ndarray of bool, shape (N,)
    keys : ndarray of uint64, shape (n,)
        The first bytes of the SHA-256 of each valid row, in order.
    """

    counted: RowFlags
    keys: NDArray[np.uint64]


def _read_rows(reader: Reader) -> _Rows:
    counted, keys = {}, [np.zeros(0, np.uint64)]
    for split in reader.splits:
        counted[split] = np.zeros(reader.rows(split), np.bool_)
        for start, records in reader.records(split):
            good = record_sums(records) == records["record_crc32"]
            counted[split][start : start + len(good)] = good
            keys.append(first_bytes(records["source_sha256"][good]))
    return _Rows(counted, np.concatenate(keys))


def _positions(flags: Mapping[str, NDArray[np.bool_]]) -> Iterator[tuple[str, int]]:
    for split, marked in flags.items():
        for row in np.flatnonzero(marked).tolist():
            yield split, row


def _slot_nbytes(reader: Reader, split: str) -> int:
    """Return the room for each image in an unfinished file of images that are encoded again."""
    if reader.store not in choices.REENCODED_STORES:
        return 0
    nbytes: int = reader.splits[split]["encoded"].shape[0]
    return nbytes // max(1, reader.rows(split))


def _move_rows(source: bytes, into: bytes) -> bool:
    """Copy the rows that another file lacks into its free rows, durably; return whether all fit.

    If they do not, nothing is copied. Rows that a crash leaves half written have wrong checksums.

    Notes
    -----
    Memory: about 40 bytes per row.
    """
    with Reader(source) as reader:
        rows, offsets, store = _read_rows(reader), reader.row_offsets(), reader.store
        appearance = choices.APPEARANCE if reader.has_appearance else ()
    with Reader(into) as reader:
        taken, target_offsets = _read_rows(reader), reader.row_offsets()
        slots = {name: _slot_nbytes(reader, name) for name in reader.splits}
    lacking = ~KeyIndex(taken.keys, positions=False).has(rows.keys)
    first = np.zeros_like(lacking)
    first[np.unique(rows.keys, return_index=True)[1]] = True
    lacking &= first  # one of several rows with the same content is enough
    free = {split: ~counted for split, counted in taken.counted.items()}
    if np.count_nonzero(lacking) > sum(map(np.count_nonzero, free.values())):
        return False
    if not lacking.any():
        return True
    names = ["source_sha256", "row_crc32", "source_size", "source_flags"]
    names.append("images" if store == "decoded" else "channel_sums")
    if store in choices.LOSSY_STORES:
        names.append("psnr")
    names += appearance
    with RowWriter(source, offsets) as old, RowWriter(into, target_offsets) as new:
        counted = zip(_positions(rows.counted), lacking, strict=True)
        wanted = (where for where, lacks in counted if lacks)
        for (split, row), (to_split, to_row) in zip(wanted, _positions(free), strict=False):
            for name in names:
                data = np.frombuffer(old.get(split, name, row, row + 1), np.uint8)
                new.put(to_split, to_row, {name: data.reshape(1, -1)})
            if store in choices.REENCODED_STORES:
                image = ImageRows(old).get(split, row, row + 1)
                put_in_slots(new, to_split, to_row, [image], slots[to_split])
            taken.counted[to_split][to_row] = True
        new.sync()  # before they count: else a power loss may leave a valid record of torn pixels
        mark_rows(into, new, taken.counted)
        new.sync()
    return True
