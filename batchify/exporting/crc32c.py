"""CRC-32C (Castagnoli) in NumPy: several lanes of a message at once, then joined.

A checksum is linear: that of a message is the checksum of its beginning, shifted by the length of
the rest, combined by XOR with that of the rest.
https://www.rfc-editor.org/rfc/rfc3720#appendix-B.4
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

_POLYNOMIAL = 0x82F63B78
_LANE = 256
"""Bytes per lane; each step takes one byte of all lanes."""


@cache
def _tables() -> tuple[NDArray[np.uint32], list[int]]:
    """Return what a byte adds to a checksum, as an array and as a list."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table, table.tolist()


@cache
def _shift_tables(power: int) -> NDArray[np.uint32]:
    """Return how 2**power lanes of zeros change a checksum: a table for each of its bytes."""
    if power == 0:
        table, _ = _tables()
        bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
        for _ in range(_LANE):
            bits = table[bits & 0xFF] ^ bits >> 8
    else:
        bits = _shifted(np.uint32(1) << np.arange(32, dtype=np.uint32), power - 1)
        bits = _shifted(bits, power - 1)
    found = np.zeros((4, 256), np.uint32)
    for byte in range(4):
        for bit in range(8):
            found[byte, np.arange(256) >> bit & 1 == 1] ^= bits[8 * byte + bit]
    return found


def _shifted(crcs: NDArray[np.uint32], power: int) -> NDArray[np.uint32]:
    tables = _shift_tables(power)
    found: NDArray[np.uint32] = (
        tables[0, crcs & 0xFF]
        ^ tables[1, crcs >> 8 & 0xFF]
        ^ tables[2, crcs >> 16 & 0xFF]
        ^ tables[3, crcs >> 24]
    )
    return found


def crc32c(data: bytes) -> int:
    """Return the CRC-32C of some bytes."""
    array, steps = _tables()
    head = len(data) % _LANE  # the first lane is shorter, so that all others are whole
    crc = 0xFFFFFFFF
    for byte in data[:head]:
        crc = steps[(crc ^ byte) & 0xFF] ^ crc >> 8
    lanes = np.frombuffer(data, np.uint8, offset=head).reshape(-1, _LANE).T
    count = lanes.shape[1]
    if not count:
        return crc ^ 0xFFFFFFFF
    crcs = np.zeros(count, np.uint32)
    crcs[0] = crc
    for row in np.ascontiguousarray(lanes):
        crcs = array[(crcs ^ row) & 0xFF] ^ crcs >> 8
    power = 0
    while len(crcs) > 1:  # join neighbors, from the end, until there is one
        if len(crcs) % 2:
            crcs = np.concatenate([np.zeros(1, np.uint32), crcs])
        crcs = _shifted(crcs[::2], power) ^ crcs[1::2]
        power += 1
    return int(crcs[0]) ^ 0xFFFFFFFF
