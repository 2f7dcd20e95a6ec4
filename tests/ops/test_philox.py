"""Philox4x32-10 against its published vectors, the engine's keying of it, and the statistics of drop and normal."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import nos_ext
from nos_ext import _C

Floats = npt.NDArray[np.float32]
MASK = 0xFFFFFFFF
N = 1 << 20

# kat_vectors of the Random123 distribution: counter, key, result
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((MASK,) * 4, (MASK,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def draw(rule: str, tensors: list[Any], **keywords: Any) -> list[Floats]:
    """The rule's result for float32 arrays of ones, one array per entry of `tensors` (an array, or its length)."""
    grads = [np.ones(t, np.float32) if isinstance(t, int) else t for t in tensors]
    params = [np.zeros_like(g) for g in grads]
    program = nos_ext.compile_rule(f"def f(p, g, *, lr, prob=0.5, std=1.0): return {rule}")
    nos_ext.apply_rule(program, params, grads, {}, lr=0.0, **keywords)
    return params


def element_word(element: int, *, seed: int, step: int, tensor: int, site: int = 0) -> int:
    """The 32-bit word of one element: the keying of philox.h, spelled out again."""
    q = element >> 2
    counter = (q & MASK, (q >> 32) | site << 20, tensor, step & MASK)
    return _C.philox(*counter, seed & MASK, seed >> 32)[element & 3]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_published_vectors(counter: tuple[int, ...], key: tuple[int, ...], words: tuple[int, ...]) -> None:
    assert _C.philox(*counter, *key) == words


@pytest.mark.parametrize("seed", [0, 1, 0xFFFFFFFF, 0x123456789ABCDEF0, 2**64 - 1])
@pytest.mark.parametrize("step", [1, 77, 2**32 - 1])
def test_drop_uses_the_documented_key(seed: int, step: int) -> None:
    prob = 0.375
    for tensor, got in enumerate(draw(f"drop(g, {prob})", [1, 7, 1029], seed=seed, step=step)):
        words = [element_word(i, seed=seed, step=step, tensor=tensor) for i in range(len(got))]
        want = [0.0 if (w >> 8) * 2.0**-24 < prob else 1.0 for w in words]
        np.testing.assert_array_equal(got, want)


def test_key_far_into_a_long_tensor() -> None:
    got = draw("drop(g, 0.5)", [3, 1_000_003], seed=1, step=5)[1]
    for element in [*range(len(got) - 9, len(got)), *np.random.default_rng(0).integers(0, len(got), 500).tolist()]:
        assert (got[element] == 0) == (element_word(element, seed=1, step=5, tensor=1) < 2**31), element


def test_sites_are_told_apart() -> None:
    (got,) = draw("drop(g, 0.5) + 2 * drop(g, 0.5)", [1000], seed=3, step=2)
    words = np.array([[element_word(i, seed=3, step=2, tensor=0, site=s) for i in range(1000)] for s in (0, 1)])
    first, second = np.where(words < 2**31, 0.0, 1.0)
    np.testing.assert_array_equal(got, first + 2 * second)


def test_drop_probabilities_of_nought_and_one() -> None:
    (kept,) = draw("drop(g, prob)", [N], prob=0.0)
    (dropped,) = draw("drop(g, prob)", [N], prob=1.0)
    assert (kept == 1).all()
    assert (dropped == 0).all()


def test_drop_passes_kept_values_on_unchanged_and_writes_plus_nought() -> None:
    x = np.tile(np.array([np.nan, np.inf, -np.inf, -0.0, -3.5, 2.0**-149], np.float32), 1000)
    (got,) = draw("drop(g, 0.5)", [x])
    dropped = draw("drop(g, 0.5)", [np.ones_like(x)])[0] == 0
    assert 0.4 < dropped.mean() < 0.6
    assert (got.view(np.uint32)[dropped] == 0).all()
    np.testing.assert_array_equal(got.view(np.uint32)[~dropped], x.view(np.uint32)[~dropped])


@pytest.mark.parametrize("prob", [0.001, 0.1, 0.3, 0.5, 0.9])
def test_drop_frequency(prob: float) -> None:
    (got,) = draw("drop(g, prob)", [N], prob=prob, seed=5)
    sigma = math.sqrt(N * prob * (1 - prob))
    assert abs(np.count_nonzero(got == 0) - N * prob) < 4.5 * sigma


def reference_normals(n: int, **key: int) -> npt.NDArray[np.float64]:
    """Box-Muller in float64 on the engine's words: elements 2j and 2j + 1 share words 2j and 2j + 1."""
    words = np.array([element_word(i, **key) for i in range(n)], np.float64).reshape(-1, 2)
    radius = np.sqrt(-2 * np.log(words[:, 0] * 2.0**-32 + 2.0**-33))
    angle = 2 * math.pi * words[:, 1] * 2.0**-32
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).reshape(-1)


def test_normal_is_box_muller_of_the_documented_words() -> None:
    for tensor, got in enumerate(draw("normal(1.0)", [20, 65_536], seed=2**40 + 9, step=6)):
        want = reference_normals(len(got), seed=2**40 + 9, step=6, tensor=tensor)
        radius = np.repeat(np.hypot(want[0::2], want[1::2]), 2)
        bound = 2.0**-21 * radius + np.minimum(2.0**-23 / radius, 2.0**-11)  # docs/numerics.md
        assert (np.abs(got - want) <= bound).all()


def test_normal_scales_by_std_and_ignores_the_chunking() -> None:
    (one,) = draw("normal(1.0)", [4099], seed=8)
    (scaled,) = draw("normal(std)", [4099], seed=8, std=0.37)
    np.testing.assert_array_equal(scaled, one * np.float32(0.37))
    (head,) = draw("normal(1.0)", [1001], seed=8)
    np.testing.assert_array_equal(head, one[:1001])


def test_normal_distribution() -> None:
    (got,) = draw("normal(1.0)", [N], seed=12)
    x = got.astype(np.float64)
    assert np.isfinite(x).all()
    assert np.abs(x).max() < 6.77
    assert abs(x.mean()) < 4.5 / math.sqrt(N)
    assert abs(x.var() - 1) < 4.5 * math.sqrt(2 / N)
    assert abs((x**3).mean()) < 4.5 * math.sqrt(15 / N)
    assert abs((x**4).mean() - 3) < 4.5 * math.sqrt(96 / N)
    # Kolmogorov-Smirnov on a thinned sample; 1.95 / sqrt(n) is the 0.1 % point
    part = np.sort(x[::16])
    cdf = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in part])
    steps = np.arange(len(part) + 1) / len(part)
    assert max(np.abs(cdf - steps[1:]).max(), np.abs(cdf - steps[:-1]).max()) < 1.95 / math.sqrt(len(part))
    # tails: the number of |x| > 3 and > 4
    for limit in (3, 4):
        p = math.erfc(limit / math.sqrt(2))
        assert abs(np.count_nonzero(np.abs(x) > limit) - N * p) < 4.5 * math.sqrt(N * p)


def test_draws_are_independent() -> None:
    """Of neighbours, of lanes, and of everything that enters the key. A correlation of n draws has deviation n^-1/2."""
    base, other_tensor = draw("normal(1.0)", [N, N], seed=4, step=9)
    others = {
        "tensor": other_tensor,
        "step": draw("normal(1.0)", [N], seed=4, step=10)[0],
        "seed, low half": draw("normal(1.0)", [N], seed=5, step=9)[0],
        "seed, high half": draw("normal(1.0)", [N], seed=4 + 2**32, step=9)[0],
        "site": draw("normal(1.0) * 0 + normal(1.0)", [N], seed=4, step=9)[0],
        "square, neighbour lane": np.square(base).reshape(-1, 2)[:, ::-1].reshape(-1) - 1,
        **{f"lag {k}": np.roll(base, k) for k in (1, 2, 3, 4, 128, 4096)},
    }
    for name, other in others.items():
        first = np.square(base) - 1 if name.startswith("square") else base
        correlation = float(np.corrcoef(first.astype(np.float64), other.astype(np.float64))[0, 1])
        assert abs(correlation) < 4.5 / math.sqrt(N / 2), name
