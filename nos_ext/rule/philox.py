"""Owns the random numbers of `reference` in NumPy: the same Philox4x32-10 draws as csrc/ops/philox.h.

Uniform draws have the engine's bits; Gaussian draws are computed in float64 here and in float32 there, so they agree to
about 1e-6.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]
Draws = npt.NDArray[np.float64]

_MASK: Final = np.uint64(0xFFFFFFFF)
_MULTIPLIERS: Final = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_INCREMENTS: Final = (0x9E3779B9, 0xBB67AE85)
_SHIFT: Final = np.uint64(32)


def words(seed: int, step: int, tensor: int, site: int, count: int) -> Words:
    """Returns the 32-bit words of elements 0 .. count - 1 of one tensor."""
    q = np.arange((count + 3) // 4, dtype=np.uint64)
    c0 = q & _MASK
    c1 = ((q >> _SHIFT) & np.uint64(0xFFFFF)) | np.uint64(site << 20)
    c2 = np.full_like(q, tensor)
    c3 = np.full_like(q, step & 0xFFFFFFFF)
    k0, k1 = seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF
    for _ in range(10):
        a, b = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (b >> _SHIFT) ^ c1 ^ np.uint64(k0),
            b & _MASK,
            (a >> _SHIFT) ^ c3 ^ np.uint64(k1),
            a & _MASK,
        )
        k0, k1 = (k0 + _INCREMENTS[0]) & 0xFFFFFFFF, (k1 + _INCREMENTS[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=1).reshape(-1)[: count + (-count) % 4]


def uniform(w: Words) -> Draws:
    """Makes uniform draws in [0, 1), which are multiples of 2^-24."""
    draws: Draws = (w >> np.uint64(8)).astype(np.float64) * 2.0**-24
    return draws


def normal(w: Words) -> Draws:
    """Makes N(0, 1) draws by Box-Muller. Of a pair of words, the even element gets the cosine and the odd one the
    sine."""
    radius = np.sqrt(-2.0 * np.log(w[0::2].astype(np.float64) * 2.0**-32 + 2.0**-33))
    angle = w[1::2].astype(np.float64) * (2.0 * np.pi * 2.0**-32)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)


_KINDS: Final[Mapping[str, Callable[[Words], Draws]]] = {"uniform": uniform, "normal": normal}


def draw(kind: str, like: Any, seed: int, step: int, tensor: int, site: int) -> Draws:
    """Returns the draws of one kind (table.DRAWS) for a tensor with the shape and strides of the array `like`.

    They are numbered in memory order.
    """
    w = words(seed, step, tensor, site, like.size)
    flat = _KINDS[kind](w)[: like.size]
    order = np.argsort([-abs(s) for s in like.strides], kind="stable")
    shaped: Draws = flat.reshape([like.shape[i] for i in order]).transpose(np.argsort(order))
    return shaped
