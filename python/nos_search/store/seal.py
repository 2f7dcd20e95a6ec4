"""Owns the checksums of a store: each row has one over all that it holds, and each table has one over its rows.

They find damage (a flipped bit, a page of an older moment, a row that is gone), not forgery: whoever writes a file by
hand can write the checksums, too. What the values may be is checked beside them (schema.py).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

_WRAP = 2**64


def seal(table: str, values: Sequence[Any]) -> int:
    """Returns the checksum of a row, from its values as SQLite gives them back. It has 64 bits and is signed, as
    SQLite's integers are.

    JSON in ASCII is the canonical form: it tells 1 from 1.0 and "1", and does not depend on Python's version.
    """
    plain = [blake2b(v, digest_size=16).hexdigest() if isinstance(v, bytes) else v for v in values]
    return signed(int.from_bytes(blake2b(json.dumps([table, *plain]).encode(), digest_size=8).digest(), "big"))


def signed(number: int) -> int:
    """Returns the number modulo 2^64, from -2^63 to 2^63 - 1.

    A table's checksum is the sum of its rows': it does not depend on their order, and is kept up to date row by row.
    """
    return (number + _WRAP // 2) % _WRAP - _WRAP // 2
