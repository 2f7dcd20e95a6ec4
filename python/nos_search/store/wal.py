"""Owns the question whether SQLite's write-ahead log is whole. Its layout is in
https://www.sqlite.org/fileformat2.html#walformat

SQLite itself takes a damaged frame for the end of the log: all commits from there on would silently be gone.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

_MAGIC = 0x377F0682  # its last bit says that checksums are over big-endian words
_HEADER, _FRAME = struct.Struct(">8I"), struct.Struct(">6I")
_MASK = 2**32 - 1


def whole(path: Path) -> bool:
    """Tells whether every frame of the log is as it was written. A log that is not there, or not yet begun, is whole;
    so is one that ends in part of a frame: its commit never was."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return True
    if len(data) < _HEADER.size:
        return True
    magic, _, page, _, salt1, salt2, *stated = _HEADER.unpack_from(data)
    big = bool(magic & 1)
    sums = _checksum(data[:24], (0, 0), big)
    if magic & ~1 != _MAGIC or list(sums) != stated:
        return False
    size, ours = _FRAME.size + page, (salt1, salt2)
    starts = range(_HEADER.size, len(data) - size + 1, size)
    for start in starts:
        number, _, first, second, *stated = _FRAME.unpack_from(data, start)
        if first != salt1 and second != salt2:  # it was left over when the log was begun anew
            return not any(_FRAME.unpack_from(data, later)[2:4] == ours for later in range(start, starts.stop, size))
        sums = _checksum(data[start : start + 8], sums, big)
        sums = _checksum(data[start + _FRAME.size : start + size], sums, big)
        if (first, second) != ours or list(sums) != stated or not number:
            return False
    return True


def _checksum(data: bytes, sums: tuple[int, int], big: bool) -> tuple[int, int]:
    first, second = sums
    words = memoryview(data).cast("I")
    if big != (sys.byteorder == "big"):
        words = memoryview(b"".join(word.to_bytes(4, "big" if big else "little") for word in words)).cast("I")
    for k in range(0, len(words), 2):
        first = (first + words[k] + second) & _MASK
        second = (second + words[k + 1] + first) & _MASK
    return first, second
