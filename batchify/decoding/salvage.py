"""Decode files that Pillow refuses: PNG with large metadata, and incomplete files."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

from batchify.decoding.pillow_settings import TRUNCATION

_PNG = b"\x89PNG\r\n\x1a\n"
_METADATA = (b"iCCP", b"iTXt", b"tEXt", b"zTXt")


def without_metadata(data: bytes) -> bytes | None:
    """Return a PNG without its texts and its color profile; None if it has none, or is not a PNG.

    Pillow refuses an image whose texts or profile decompress to more than 1 MiB. Its pixels do not
    need them, and nothing is decompressed here.
    """
    if not data.startswith(_PNG):
        return None
    kept, position = [_PNG], len(_PNG)
    while position < len(data):
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        if data[position + 4 : position + 8] not in _METADATA:
            kept.append(data[position:end])
        position = end
    plain = b"".join(kept)
    return plain if len(plain) < len(data) else None


class Content(io.BytesIO):
    """The bytes of a file, and whether a decoder tried to read beyond the end.

    Attributes
    ----------
    is_short : bool
    """

    is_short = False

    def read(self, size: int | None = -1, /) -> bytes:
        """Read some bytes, or all that are left."""
        found = super().read(size)
        if size is not None and len(found) < min(size, 8):
            self.is_short = True
        return found


@contextmanager
def accepting_truncated(content: Content) -> Iterator[None]:
    """Let Pillow decode an incomplete file, in this thread only.

    Raises
    ------
    EOFError
        If the file is not incomplete, but damaged in another way that Pillow now accepts.
    """
    TRUNCATION.accepted = True
    try:
        yield
    finally:
        TRUNCATION.accepted = False
    if not content.is_short:
        raise EOFError
