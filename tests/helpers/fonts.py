"""Fonts that have the characters of a test."""

from __future__ import annotations

import struct
from importlib.resources import files
from itertools import accumulate
from pathlib import Path


def make_font(path: Path, characters: str, *, kind: int = 12, collection: bool = False) -> Path:
    """Write a font that shows each of these characters as some letter; return its path.

    It is the bundled font with another table of characters, of format 4 or 12.
    """
    data = files("batchify.reporting").joinpath("NotoSans-subset.ttf").read_bytes()
    (count,) = struct.unpack_from(">H", data, 4)
    tables = {}
    for tag, _, offset, length in struct.iter_unpack(">4s3I", data[12 : 12 + 16 * count]):
        tables[tag] = data[offset : offset + length]
    tables[b"cmap"] = _character_map(sorted(map(ord, characters)), kind)
    start = 16 if collection else 0
    first = start + 12 + 16 * count
    padded = [table + bytes(-len(table) % 4) for table in tables.values()]
    offsets = accumulate(map(len, padded), initial=first)
    entries = [
        struct.pack(">4s3I", tag, 0, offset, len(table))
        for (tag, table), offset in zip(tables.items(), offsets, strict=False)
    ]
    head = struct.pack(">4s3I", b"ttcf", 0x10000, 1, 16) if collection else b""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join([head, data[:12], *entries, *padded]))
    return path


def _character_map(codes: list[int], kind: int) -> bytes:
    glyphs = [40 + n for n in range(len(codes))]
    if kind == 12:
        groups = [
            struct.pack(">3I", code, code, glyph) for code, glyph in zip(codes, glyphs, strict=True)
        ]
        size = 16 + 12 * len(groups)
        table = struct.pack(">HHIII", 12, 0, size, 0, len(groups)) + b"".join(groups)
        return struct.pack(">HHHHI", 0, 1, 3, 10, 12) + table
    # Two segments: from the first to the last character by a list of glyphs, and the end.
    listed = [dict(zip(codes, glyphs, strict=True)).get(code, 0)
              for code in range(codes[0], codes[-1] + 1)]  # fmt: skip
    ends, starts, deltas, offsets = (codes[-1], 0xFFFF), (codes[0], 0xFFFF), (0, 1), (4, 0)
    fields = [0, 4, 4, 1, 0, *ends, 0, *starts, *deltas, *offsets, *listed]
    table = struct.pack(f">{2 + len(fields)}H", 4, 4 + 2 * len(fields), *fields)
    return struct.pack(">HHHHI", 0, 1, 3, 1, 12) + table
