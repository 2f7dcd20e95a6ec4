"""Owns seeds: each purpose has one of its own, and all are derived from one number."""

from __future__ import annotations

import hashlib

from ..errors import UsageError


def check_seed(seed: int) -> int:
    """Returns the seed that a user gave as --seed. Raises UsageError when it is negative or has more than 63 bits."""
    if not 0 <= seed < 2**63:
        raise UsageError(f"--seed {seed} is outside 0..2^63-1")
    return seed


def derive_seed(seed: int, *names: object) -> int:
    """Returns a 63-bit seed for one purpose. Seeds of different names are independent."""
    text = ":".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
