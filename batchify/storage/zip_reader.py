"""List and read the members of a ZIP archive.

The central directory is read as a stream and not by `zipfile`, which keeps about 700 bytes per
member and changes names. Format: PKWARE's APPNOTE.TXT 6.3.10, sections 4.3 and 4.4.
"""

from __future__ import annotations

import stat
import struct
import zlib
from array import array
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from batchify.errors import BadImageError
from batchify.storage.source import KINDS, Content, Extent, Member, check_size

MAGIC = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
"""The first bytes of any archive, of an empty one, and of one that was split."""

_END = struct.Struct("<4s4H2LH")
END_NBYTES = _END.size
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL_NBYTES = 30
_COMMENT_NBYTES = 65535
_AT_ONCE = 1 << 20
_STORED, _DEFLATED = 0, 8

_ENCRYPTED = 1 << 16
"""A flag above the numbers of compression methods, which have 16 bits (APPNOTE 4.4.5)."""

_ENCRYPTED_FLAGS = 0x2041
_METHODS = {
    9: "deflate64", 12: "bzip2", 14: "LZMA", 93: "Zstandard", 95: "XZ", 98: "PPMd",
}  # fmt: skip
_FAT = 0
_UNICODE_PATH = 0x7075


class _Directory(NamedTuple):
    """Where the central directory is, and how many entries it claims to have."""

    offset: int
    nbytes: int
    entries: int
    is_zip64: bool


class _DirectoryStream:
    """A stream of the bytes of the central directory, read in large pieces."""

    def __init__(self, file: Content, start: int, nbytes: int) -> None:
        self._file = file
        self._offset = start
        self._left = nbytes
        self._piece = b""
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._piece) or self._left > 0

    def take(self, nbytes: int) -> bytes:
        """Return the next bytes."""
        if self._at + nbytes > len(self._piece):
            more = min(max(_AT_ONCE, nbytes), self._left)
            self._piece = self._piece[self._at :] + self._file.read(self._offset, more)
            self._at = 0
            self._offset += more
            self._left -= more
            if nbytes > len(self._piece):
                raise self._file.damaged("its directory ends too early")
        self._at += nbytes
        return self._piece[self._at - nbytes : self._at]


def is_last_part(tail: bytes) -> bool:
    """Return whether a file ends like the last of several parts."""
    return tail.startswith(b"PK\x05\x06") and tail[4:6] != bytes(2)


def list_members(file: Content) -> Iterator[Member]:
    """Yield the members of an archive, in the order of its directory.

    An extent is (offset of the local header, bytes stored, bytes, method and CRC-32).

    Raises
    ------
    DatasetError
        If the archive is damaged, is in several parts, or members overlap; overlaps are found at
        the end.

    Notes
    -----
    Memory: 16 bytes per member.
    """
    directory = _find_directory(file)
    run = _DirectoryStream(file, directory.offset, directory.nbytes)
    starts, ends = array("q"), array("q")
    while run:
        member, start, stored = _entry(file, run)
        starts.append(start)
        ends.append(start + _LOCAL_NBYTES + stored)
        yield member
    # Writers without ZIP64 count modulo 65,536.
    count = len(starts) if directory.is_zip64 else len(starts) % (1 << 16)
    if count != directory.entries:
        raise file.damaged(f"its directory has {len(starts):,} entries, not {directory.entries:,}")
    _check_apart(file, starts, ends, directory.offset)


def _check_apart(file: Content, starts: array[int], ends: array[int], stop: int) -> None:
    """Refuse members that share bytes: a small archive could unpack to terabytes.

    See https://www.bamsoftware.com/hacks/zipbomb/
    """
    first, last = np.frombuffer(starts, np.int64), np.frombuffer(ends, np.int64)
    if not len(first):
        return
    if int(last.max()) > stop:
        raise file.damaged("a member reaches into its directory")
    order = np.argsort(first)
    if (last[order[:-1]] > first[order[1:]]).any():
        raise file.damaged("its members overlap, as those of a decompression bomb do")


def _find_directory(file: Content) -> _Directory:
    """Find the central directory with the record at the end."""
    tail_nbytes = min(file.nbytes, _END.size + _COMMENT_NBYTES)
    tail = file.read(file.nbytes - tail_nbytes, tail_nbytes)
    at = _find_end(tail)
    if at is None:
        raise file.damaged("the directory at its end is missing (or it is one of several parts)")
    _, disk, first_disk, _, count, nbytes, offset, _ = _END.unpack_from(tail, at)
    end = file.nbytes - tail_nbytes + at
    is_zip64 = False
    if end >= _LOCATOR.size:
        magic, _, end64, disks = _LOCATOR.unpack(file.read(end - _LOCATOR.size, _LOCATOR.size))
        if magic == b"PK\x06\x07":
            is_zip64 = True
            record = _END64.unpack(file.read(end64, _END64.size))
            if record[0] != b"PK\x06\x06":
                raise file.damaged("the ZIP64 record at its end is missing")
            disk, first_disk = record[4:6]
            count, nbytes, offset = record[7:]
            end = end64
            disk = max(disk, disks - 1)
    if disk or first_disk:
        raise file.refused("it is in several parts; join them (zip -s 0 IN.zip --out OUT.zip)")
    if offset + nbytes > end:
        raise file.damaged("bytes are missing before its directory")
    return _Directory(offset, nbytes, count, is_zip64)


def _find_end(tail: bytes) -> int | None:
    """Return the offset of the record at the end: the last one whose comment ends with the file.

    Otherwise the last one whose comment fits, since some tools append bytes.
    """
    fits = None
    at = len(tail)
    while (at := tail.rfind(b"PK\x05\x06", 0, at)) >= 0:
        if at + _END.size <= len(tail):
            stop = at + _END.size + int(_END.unpack_from(tail, at)[-1])
            if stop == len(tail):
                return at
            if fits is None and stop < len(tail):
                fits = at
    return fits


def _entry(file: Content, run: _DirectoryStream) -> tuple[Member, int, int]:
    """Return the next member, where its local header begins, and how many bytes it has stored."""
    (
        magic, made_by, _, flags, method, _, _, crc32, stored, nbytes,
        name_nbytes, extra_nbytes, comment_nbytes, _, _, attributes, offset,
    ) = _ENTRY.unpack(run.take(_ENTRY.size))  # fmt: skip
    if magic != b"PK\x01\x02":
        raise file.damaged("its directory has bytes that are not an entry")
    name = run.take(name_nbytes)
    extra = _extra_fields(run.take(extra_nbytes))
    run.take(comment_nbytes)
    sizes = iter(_numbers(extra.get(1, b"")))
    nbytes, stored, offset = (
        next(sizes, value) if value == 0xFFFFFFFF else value for value in (nbytes, stored, offset)
    )
    if max(nbytes, stored, offset) >> 62:
        raise file.damaged("it has a member with an impossible size")
    name = _unicode_name(extra.get(_UNICODE_PATH, b""), name)
    if made_by >> 8 == _FAT and b"/" not in name:
        name = name.replace(b"\\", b"/")  # as unzip does: old .NET writers use backslashes
    if flags & _ENCRYPTED_FLAGS:
        method |= _ENCRYPTED
    kind = stat.S_IFMT(attributes >> 16)
    if name.endswith(b"/") or kind == stat.S_IFDIR:
        return Member(name), offset, stored
    if kind in (0, stat.S_IFREG):
        return Member(name, (offset, stored, nbytes, method << 32 | crc32)), offset, stored
    return Member(name, reason=KINDS.get(kind, "not a regular file")), offset, stored


def _extra_fields(extra: bytes) -> dict[int, bytes]:
    fields = {}
    while len(extra) >= 4:
        tag, nbytes = struct.unpack_from("<2H", extra)
        fields[tag] = extra[4 : 4 + nbytes]
        extra = extra[4 + nbytes :]
    return fields


def _numbers(field: bytes) -> tuple[int, ...]:
    """Return the sizes and the offset of a ZIP64 field, which did not fit into the entry."""
    return struct.unpack_from(f"<{min(len(field) // 8, 3)}Q", field)


def _unicode_name(field: bytes, name: bytes) -> bytes:
    """Return the name of Info-ZIP's Unicode field, if it belongs to this name (APPNOTE 4.6.9)."""
    if len(field) > 5 and field[0] == 1 and field[1:5] == zlib.crc32(name).to_bytes(4, "little"):
        return field[5:]
    return name


def read_member(file: Content, extent: Extent, max_nbytes: int) -> bytes:
    """Return the content of a member; its size and CRC-32 are checked.

    Raises
    ------
    BadImageError
        If it cannot be read.
    """
    _, stored, nbytes, how = extent
    _check_method(extent)
    check_size(nbytes, max_nbytes)
    check_size(stored, max_nbytes)
    start = data_start(file, extent)
    data = file.read(start, stored) if is_stored(extent) else _inflate(file, start, stored, nbytes)
    if len(data) != nbytes:
        raise BadImageError(f"damaged in the archive: {len(data):,} bytes, not {nbytes:,}")
    if zlib.crc32(data) != how & 0xFFFFFFFF:
        raise BadImageError(_CRC_MISMATCH)
    return data


_CRC_MISMATCH = "damaged in the archive: CRC-32 mismatch"


def is_stored(extent: Extent) -> bool:
    """Return whether the bytes of a member are in the archive as they are."""
    return extent[3] >> 32 == _STORED


def unpacked_nbytes(extent: Extent) -> int:
    """Return the bytes of a member when it is unpacked."""
    return extent[2]


def data_start(file: Content, extent: Extent) -> int:
    """Return the offset at which the stored bytes of a member begin.

    Raises
    ------
    BadImageError
        If the member is not there.
    """
    offset, stored, _, _ = extent
    header = file.read(offset, _LOCAL_NBYTES)
    start: int = offset + _LOCAL_NBYTES + sum(struct.unpack_from("<2H", header, 26))
    if header[:4] != b"PK\x03\x04" or start + stored > file.nbytes:
        raise BadImageError("damaged in the archive: it is not where the directory says")
    return start


def read_head(file: Content, extent: Extent, nbytes: int) -> bytes:
    """Return the first bytes of a member, up to `nbytes`.

    Raises
    ------
    BadImageError
        If it cannot be read.
    """
    _check_method(extent)
    piece = file.read(data_start(file, extent), min(nbytes, extent[1]))
    if is_stored(extent):
        return piece
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(piece, nbytes)
    except zlib.error as error:
        raise BadImageError(f"damaged in the archive: {error}") from error


def check_crc32(file: Content, extent: Extent) -> None:
    """Compare the bytes of a stored member with its CRC-32, using one MiB of memory.

    Raises
    ------
    BadImageError
        If they differ.
    """
    start, crc32 = data_start(file, extent), 0
    for at in range(0, extent[1], _AT_ONCE):
        crc32 = zlib.crc32(file.read(start + at, min(_AT_ONCE, extent[1] - at)), crc32)
    if crc32 != extent[3] & 0xFFFFFFFF:
        raise BadImageError(_CRC_MISMATCH)


def _check_method(extent: Extent) -> None:
    """Refuse a member that is encrypted, or compressed in a way that is not read."""
    method = extent[3] >> 32
    if method & _ENCRYPTED:
        raise BadImageError("encrypted in the archive; make it without a password")
    if method not in (_STORED, _DEFLATED):
        name = _METHODS.get(method, f"method {method}")
        raise BadImageError(f"compressed by {name} in the archive; make it with deflate")


def _inflate(file: Content, start: int, stored: int, nbytes: int) -> bytes:
    """Decompress a member, never beyond its stated size."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    pieces = []
    room = nbytes + 1  # one more byte shows that a member is longer than stated
    stop = start + stored
    while start < stop and not inflater.eof:
        piece = file.read(start, min(_AT_ONCE, stop - start))
        start += len(piece)
        try:
            pieces.append(inflater.decompress(piece, room))
        except zlib.error as error:
            raise BadImageError(f"damaged in the archive: {error}") from error
        room -= len(pieces[-1])
        if not room:
            raise BadImageError(f"decompresses to more than {nbytes:,} bytes, its stated size")
    return b"".join(pieces)
