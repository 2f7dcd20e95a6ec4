"""The codes of quantized states by the page of the documentation, in NumPy: to the bit in fp32, and the bound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

BLOCK = 256
LARGEST = {"int8": 127, "uint8": 255}
Array = np.ndarray[Any, np.dtype[Any]]


def blocks(n: int) -> list[slice]:
    return [slice(i, min(i + BLOCK, n)) for i in range(0, n, BLOCK)]


def decode(codes: Array, scales: Array) -> Array:
    """The numbers that flat codes stand for, in float32."""
    c = codes.astype(np.float32)
    return (c * np.abs(c) * np.repeat(scales, BLOCK)[: len(codes)]).astype(np.float32)


def scale_of(x: Array, dtype: str) -> np.float32:
    """The scale of one block of float32 numbers."""
    if not np.isfinite(x).all() or (dtype == "uint8" and (x < 0).any()):
        return np.float32(np.nan)
    top = np.abs(x).max(initial=np.float32(0))
    if top == 0:
        return np.float32(0)
    return np.maximum(np.float32(top / np.float32(LARGEST[dtype] ** 2)), np.float32(2.0**-126))


def encode(x: Array, dtype: str, words: Sequence[int] | None = None) -> tuple[Array, Array]:
    """Codes and scales of flat float32 numbers. `words` are the random ones of stochastic rounding."""
    codes = np.zeros(len(x), dtype)
    scales = []
    u = np.full(len(x), np.float32(0.5))
    if words is not None:
        signed = np.asarray(words, np.uint32).view(np.int32).astype(np.float32)
        u = signed * np.float32(2.0**-32) + np.float32(0.5)
    for part in blocks(len(x)):
        k = scale_of(x[part], dtype)
        scales.append(k)
        if not k > 0:
            continue
        units = np.abs(x[part]) * (np.float32(1) / k)
        lower = np.floor(np.sqrt(units))
        up = np.minimum(lower, u[part]) * (2 * lower + 1) < units - lower * lower
        code = np.minimum(lower + up, LARGEST[dtype])
        codes[part] = (np.sign(x[part]) * code).astype(dtype)
    return codes, np.array(scales, np.float32)


def bound(x: Array, dtype: str, *, stochastic: bool) -> Array:
    """How far, in float64, the number that is stored for each x may be from it."""
    out = np.zeros(len(x))
    for part in blocks(len(x)):
        size = np.abs(x[part].astype(np.float64))
        k = max(size.max(initial=0.0) / LARGEST[dtype] ** 2, 2.0**-126) * (1 + 2.0**-23)
        spacing = 2 * np.sqrt(size * k) + k
        out[part] = np.where(size < k, k, spacing if stochastic else spacing / 2) + 2.0**-20 * size
        out[part][size == 0] = 0
    return out
