"""Owns the oracle of the random words of stochastic rounding."""

from __future__ import annotations

from nos_ext import _C


def word(seed: int, step: int, tensor: int, output: int, element: int) -> int:
    """The random word of one element, by the page of the documentation."""
    q, lane = divmod(element, 512)
    counter = (q & 0xFFFFFFFF, (q >> 32) & 0xFFFF | output << 16 | 4095 << 20, tensor, step)
    factor, start, *_ = _C.philox(*counter, seed & 0xFFFFFFFF, seed >> 32)
    h = lane * 0x9E3779B9 & 0xFFFFFFFF
    return ((h ^ h >> 15) * (factor | 1) + start) & 0xFFFFFFFF
