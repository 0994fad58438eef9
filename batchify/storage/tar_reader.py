"""List and read the members of a TAR archive.

Headers are read here and not by `tarfile`. For a hostile archive, it reads names of any size into
memory (GNU's, and pax headers). In Pythons that batchify supports, it loops forever over a negative
size (CVE-2025-8194) or for hours over a crafted header (CVE-2024-6232). Formats: POSIX.1,
pax and ustar; GNU tar's manual, "Basic Tar Format".
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from typing import NamedTuple

from batchify.storage.source import HARD_LINK, KINDS, SPARSE, Content, Extent, Member, check_size

BLOCK = 512
_END = bytes(BLOCK)
_LOW = bytes(range(128))

_METADATA_NBYTES = 1 << 20
"""Limit for a header of names and attributes, far beyond that of any file system."""

_FILES = b"\x0007"
_NO_DATA = b"123456"

_REASONS = {
    b"1": HARD_LINK,
    b"2": KINDS[stat.S_IFLNK],
    b"3": KINDS[stat.S_IFCHR],
    b"4": KINDS[stat.S_IFBLK],
    b"6": KINDS[stat.S_IFIFO],
    b"S": SPARSE,
    b"M": "part of a file that begins in another archive",
}
"""Type -> why it is not taken."""

_OCTAL = re.compile(rb"[ \0]*([0-7]*)[ \0]*")


class _Header(NamedTuple):
    """The fields of a header that say where things are."""

    name: bytes
    nbytes: int
    type: bytes


def is_header(block: bytes) -> bool:
    """Return whether a block is the header of a member."""
    if len(block) != BLOCK or block == _END:
        return False
    told = _octal(block[148:156])
    others = block[:148] + block[156:]
    total = sum(others) + 8 * ord(" ")
    # Some old writers took bytes for signed numbers.
    return told in (total, total - 256 * len(others.translate(None, _LOW)))


def is_empty(path: bytes) -> bool:
    """Return whether a file is empty, or begins with zeros as an archive without members."""
    if not os.path.isfile(path):
        return False  # a FIFO would wait for its writer
    with open(path, "rb") as file:
        return not file.read(BLOCK).strip(b"\0")


def list_members(file: Content) -> Iterator[Member]:
    """Yield the members of an archive, in its order.

    An extent is (offset of the content, bytes).

    Raises
    ------
    DatasetError
        If the archive is damaged or incomplete.
    """
    offset = 0
    long_name: bytes | None = None
    pax: dict[bytes, bytes] = {}
    while True:
        if offset + BLOCK > file.nbytes:
            raise file.damaged("the blocks of zeros that end an archive are missing")
        block = file.read(offset, BLOCK)
        if block == _END:
            return
        if not is_header(block):
            raise file.damaged(f"there is no header at byte {offset:,}")
        header = _parse(file, block)
        offset += BLOCK
        if header.type in b"LKxXg":
            content = _metadata(file, offset, header)
            if header.type == b"L":
                long_name = content.partition(b"\0")[0]
            elif header.type in b"xX":
                pax = _pax_records(file, content)
            elif header.type == b"g":
                _check_global(file, _pax_records(file, content))
            offset += _blocks(header.nbytes)
            continue
        if header.type == b"S":
            offset = _after_map(file, block, offset)
        name, nbytes = _said(file, header, long_name, pax)
        stop = offset if header.type in _NO_DATA else offset + _blocks(nbytes)
        if stop > file.nbytes:
            raise file.damaged("it ends within a member")
        if header.type != b"V":  # the label of the archive
            yield _member(header, name, offset, nbytes, pax)
        offset, long_name, pax = stop, None, {}


def read_member(file: Content, extent: Extent, max_nbytes: int) -> bytes:
    """Return the content of a member.

    Raises
    ------
    BadImageError
        If it is empty or too large.
    """
    offset, nbytes = extent
    check_size(nbytes, max_nbytes)
    return file.read(offset, nbytes)


def _parse(file: Content, block: bytes) -> _Header:
    name = block[:100].partition(b"\0")[0]
    if block[257:263] == b"ustar\0":  # GNU writes something else there
        prefix = block[345:500].partition(b"\0")[0]
        name = prefix + b"/" + name if prefix else name
    return _Header(name, _size(file, block[124:136]), block[156:157])


def _size(file: Content, field: bytes) -> int:
    """Return a size: octal digits, or a binary number if it is too large for them."""
    nbytes = int.from_bytes(field[1:], "big") if field[0] == 0x80 else _octal(field)
    if nbytes is None or nbytes > file.nbytes:
        raise file.damaged("it has a member with an impossible size")
    return nbytes


def _octal(field: bytes) -> int | None:
    found = _OCTAL.match(field)
    # Anything may follow a NUL.
    if found is None or (found.end() < len(field) and b"\0" not in field[: found.end()]):
        return None
    return int(found[1] or b"0", 8)


def _blocks(nbytes: int) -> int:
    return -(-nbytes // BLOCK) * BLOCK


def _metadata(file: Content, offset: int, header: _Header) -> bytes:
    """Return the content of a header of names and attributes."""
    if header.nbytes > _METADATA_NBYTES:
        raise file.damaged(f"it has a header of {header.nbytes:,} bytes")
    return file.read(offset, header.nbytes)


def _pax_records(file: Content, data: bytes) -> dict[bytes, bytes]:
    """Return the records of a pax header: ``LENGTH KEY=VALUE\\n`` each."""
    records = {}
    at = 0
    while at < len(data):
        digits, space, _ = data[at : at + 20].partition(b" ")
        end = at + int(digits) if space and digits.isdigit() else at
        record = data[at + len(digits) + 1 : end]
        key, equals, value = record[:-1].partition(b"=")
        if not equals or end > len(data) or record[-1:] != b"\n":
            raise file.damaged("it has an invalid pax header")
        records[key] = value
        at = end
    return records


def _check_global(file: Content, records: dict[bytes, bytes]) -> None:
    """Refuse a header for all members that gives the name or size of each."""
    for key in records:
        if key in (b"path", b"size") or key.startswith(b"GNU.sparse."):
            raise file.refused("it gives all members the same name or size; create it again")


def _said(
    file: Content, header: _Header, long_name: bytes | None, pax: dict[bytes, bytes]
) -> tuple[bytes, int]:
    """Return name and size of a member; headers before its own override them."""
    name = header.name if long_name is None else long_name
    name = pax.get(b"GNU.sparse.name", pax.get(b"path", name))
    size = pax.get(b"size")
    if size is None:
        return name, header.nbytes
    if not size.isdigit() or len(size) > 20 or int(size) > file.nbytes:
        raise file.damaged("it has a member with an impossible size")
    return name, int(size)


def _after_map(file: Content, block: bytes, offset: int) -> int:
    """Return where the content of a sparse file begins: after the blocks that map it."""
    more = block[482]
    while more:
        more = file.read(offset, BLOCK)[504]
        offset += BLOCK
    return offset


def _member(
    header: _Header, name: bytes, offset: int, nbytes: int, pax: dict[bytes, bytes]
) -> Member:
    if any(key.startswith(b"GNU.sparse.") for key in pax):
        return Member(name, reason=SPARSE)
    if header.type in b"5D" or (header.type in _FILES and name.endswith(b"/")):
        return Member(name if name.endswith(b"/") else name + b"/")
    if header.type in _FILES:
        return Member(name, (offset, nbytes))
    return Member(name, reason=_REASONS.get(header.type, "not a regular file"))


class TarFile:
    """An open archive whose members are at places: the offset of the content, and its bytes."""

    def __init__(self, file: Content) -> None:
        self._file = file

    def read(self, place: Extent, max_nbytes: int) -> bytes:
        """Return the content of a member; see `read_member`."""
        return read_member(self._file, place, max_nbytes)

    def size(self, place: Extent) -> int:
        """Return the bytes of a member."""
        return place[1]

    def close(self) -> None:
        """Nothing else is open."""
