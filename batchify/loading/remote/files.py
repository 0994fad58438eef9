"""Find the files of a URL, and fetch one of them, or all of it but its images."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from batchify.common.paths import DownloadedPath, base_name, shown_url
from batchify.errors import FileFormatError, FileMissingError
from batchify.format.intact import check_head, check_intact, head_extents
from batchify.format.reader import Reader
from batchify.format.shard_index import INDEX_NAME, ShardIndex, is_shard_name, parse_index
from batchify.loading.files import SUFFIXES
from batchify.loading.remote.cache import reserve
from batchify.storage.direct import Extent
from batchify.storage.remote_file import RemoteFile, names_in, url_below

HEAD_NBYTES = 256 << 10
"""How much of the start and the end of a file is read to see where its columns are."""

_GROWTH = 8


def read_remote_index(url: str) -> ShardIndex:
    """Return the shard index in the folder of a URL.

    Raises
    ------
    FileMissingError
        If there is none.
    FileFormatError
        If it is not valid.
    FileAccessError, RemoteError
        As for `batchify.storage.remote_file.RemoteFile`.
    """
    file = RemoteFile(url_below(url, os.fsdecode(INDEX_NAME)))
    return parse_index(file.read_whole(), os.fsencode(file.shown))


def find_files(url: str) -> tuple[ShardIndex | None, list[RemoteFile]]:
    """Return the files that a URL means, as `batchify.open` does for a path.

    Returns
    -------
    index : ShardIndex or None
    files : list of RemoteFile
        The shards in the index, in its order; or without one, the file itself, or the .h5 and
        .hdf5 files in the folder, sorted by name.

    Raises
    ------
    FileMissingError, FileFormatError, FileAccessError, RemoteError
        As for `read_remote_index`.
    """
    if base_name(url).lower().endswith(SUFFIXES):
        return None, [RemoteFile(url)]
    try:
        index = read_remote_index(url)
    except FileMissingError:
        return None, _files_in(url)
    shards = [RemoteFile(url_below(url, shard.name), shard.nbytes) for shard in index.files]
    return index, shards


def _files_in(url: str) -> list[RemoteFile]:
    names = [name for name in names_in(url) if name.lower().endswith(SUFFIXES)]
    where = shown_url(url)
    if not names:
        raise FileMissingError(
            f"{where} is no folder of shards: it has no {os.fsdecode(INDEX_NAME)}, and no "
            f"{' or '.join(SUFFIXES)} file"
        )
    if all(map(is_shard_name, names)):
        raise FileMissingError(
            f"{where} has shards without {os.fsdecode(INDEX_NAME)}: run batchify build again to "
            "finish them"
        )
    return [RemoteFile(url_below(url, name)) for name in names]


def fetch_whole(file: RemoteFile, path: bytes, digest: str = "") -> None:
    """Download a file, and compare it with its checksums; a damaged copy is fetched again.

    Parameters
    ----------
    path : bytes
        Where to, in a folder that exists; replaced if it exists.
    digest : str
        The ``content_sha256`` that it must have, in hex; that of the file by default.

    Raises
    ------
    FileFormatError
        If the second copy is damaged, too.
    FileMissingError, FileAccessError, RemoteError
        As for `batchify.storage.remote_file.RemoteFile`.
    OutputIOError
        If there is no space for it.
    """
    open_whole(file, path, digest).close()


def fetch_head(file: RemoteFile, path: bytes, digest: str = "") -> None:
    """Download everything of a file but images and masks, to the same offsets of a sparse file.

    Its rows and their labels can then be read, as from the whole file. Parameters and errors are
    those of `fetch_whole`.
    """
    open_head(file, path, digest).close()


def open_whole(file: RemoteFile, path: bytes, digest: str = "") -> Reader:
    """Download a file as `fetch_whole`, and return it open."""

    def fetch() -> None:
        reserve(path, file.nbytes)
        file.copy([(0, file.nbytes)], path)

    return _intact(fetch, lambda: _checked(_named(file, path), check_intact, digest))


def open_head(file: RemoteFile, path: bytes, digest: str = "") -> Reader:
    """Download a part of a file as `fetch_head`, and return it open."""

    def make() -> None:
        reserve(path, 0)
        os.truncate(path, file.nbytes)

    def fetch() -> Reader:
        _fetch_head(file, path)
        return _checked(_named(file, path), check_head, digest)

    return _intact(make, fetch)


def _intact(fetch: Callable[[], None], opened: Callable[[], Reader]) -> Reader:
    """Fetch a file and open it; if it is damaged, do so once more."""
    for last in (False, True):
        fetch()
        try:
            return opened()
        except FileFormatError as error:
            if last:
                raise FileFormatError(f"{error} (downloaded twice)") from error
    raise AssertionError


def _checked(path: DownloadedPath, check: Callable[[Reader, str], None], digest: str) -> Reader:
    """Open a file and check it."""
    with contextlib.ExitStack() as opening:
        reader = opening.enter_context(Reader(path).finished())
        check(reader, digest)
        opening.pop_all()
    return reader


def fetch_copy(file: RemoteFile, path: bytes, digest: str = "") -> None:  # noqa: ARG001
    """Download a file, which may be damaged, or another than expected."""
    reserve(path, file.nbytes)
    file.copy([(0, file.nbytes)], path)


def fetch_records(file: RemoteFile, path: bytes, digest: str = "") -> None:  # noqa: ARG001
    """Download all of a file but its images, as `fetch_copy`; all of it if it is damaged."""
    reserve(path, 0)
    os.truncate(path, file.nbytes)
    try:
        _fetch_head(file, path)
        with Reader(path) as reader:
            has_masks = "mask" in map(reader.class_mode, reader.splits)
    except FileFormatError:
        fetch_copy(file, path)
    else:
        if has_masks:
            fetch_copy(file, path)


def fetch_facts(file: RemoteFile, path: bytes, digest: str = "") -> None:
    """Download as `fetch_head`; all of a damaged file, so that reading it says what is wrong."""
    try:
        fetch_head(file, path, digest)
    except FileFormatError:
        fetch_copy(file, path)


FETCHES = {"facts": fetch_facts, "whole": fetch_whole, "copy": fetch_copy, "records": fetch_records}


def _fetch_head(file: RemoteFile, path: bytes) -> None:
    total, size = file.nbytes, HEAD_NBYTES
    there: list[Extent] = []
    while True:
        wanted = [(0, min(size, total)), (max(0, total - size), min(size, total))]
        _copy(file, wanted, there, path)
        try:
            wanted = head_extents(_named(file, path))
            break
        except FileFormatError:
            if 2 * size >= total:
                raise
            size *= _GROWTH
    _copy(file, wanted, there, path)


def _copy(file: RemoteFile, wanted: list[Extent], there: list[Extent], path: bytes) -> None:
    """Download the bytes of some ranges that are not there yet, and note them as there."""
    for offset, nbytes in sorted(there):
        wanted = [part for extent in wanted for part in _without(extent, offset, offset + nbytes)]
    wanted = _joined(wanted)
    file.copy(wanted, path)
    there += wanted


def _without(extent: Extent, start: int, stop: int) -> list[Extent]:
    """Return the parts of a range outside another one."""
    first, last = extent[0], sum(extent)
    parts = [(first, min(last, start)), (max(first, stop), last)]
    return [(begin, end - begin) for begin, end in parts if end > begin]


def _joined(extents: list[Extent]) -> list[Extent]:
    """Return ranges as fewer ranges, if they overlap or touch."""
    found: list[Extent] = []
    for start, nbytes in sorted(extents):
        if found and start <= sum(found[-1]):
            first = found[-1][0]
            found[-1] = first, max(sum(found[-1]), start + nbytes) - first
        else:
            found.append((start, nbytes))
    return found


def _named(file: RemoteFile, path: bytes) -> DownloadedPath:
    return DownloadedPath(os.fsdecode(path), os.fsencode(file.shown))
