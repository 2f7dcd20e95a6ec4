"""Stochastic rounding of bfloat16 and float16 results: to the bit as docs/numerics.md says, and right on average."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch

import nos_ext
from nos_ext import _C

from ..reference.random_words import word

HALVES = [torch.bfloat16, torch.float16]
SET = nos_ext.compile_rule("def set_to(p, g, *, lr):\n    return lr * g\n")
TWO = nos_ext.compile_rule("def two(p, g, m, v, *, lr):\n    return lr * g, lr * g, lr * g\n")
POWERSIGN = nos_ext.compile_rule(
    "def powersign(p, g, m, *, lr, beta=0.9):\n"
    "    m = beta * m + (1 - beta) * g\n"
    "    return p - lr * exp(sign(g) * sign(m)) * g, m\n"
)


@pytest.fixture(autouse=True)
def restore_tuning() -> Iterator[None]:
    yield
    _C.set_tuning()


def rounded(values: torch.Tensor, dtype: torch.dtype, *, seed: int = 0, step: int = 1, index: int = 0) -> torch.Tensor:
    """fp32 `values` as the engine rounds them to `dtype`."""
    out = torch.zeros(values.shape, dtype=dtype)
    nos_ext.apply_rule(
        SET, [out], [values], [], lr=1.0, seed=seed, step=step, tensor_index=index, stochastic_rounding=True
    )
    return out


def spacing(x: float, dtype: torch.dtype) -> float:
    """Distance of the neighbours of x that `dtype` has, as if its range were unlimited above."""
    bits, lowest = (8, -133) if dtype == torch.bfloat16 else (11, -24)
    return 2.0 ** max(math.frexp(x)[1] - bits, lowest)


def expected(x: float, w: int, dtype: torch.dtype) -> float:
    """x rounded in float64, in which all of this is exact."""
    ulp = spacing(x, dtype)
    lower = math.floor(abs(x) / ulp) * ulp
    fraction = (abs(x) - lower) / ulp
    if dtype == torch.float16 and abs(x) < 2.0**-14:
        up = w >> 1 < math.floor(fraction * 2**31)
    else:
        unit = 2**16 if dtype == torch.bfloat16 else 2**13
        up = fraction * unit + (w >> (32 - int(math.log2(unit)))) >= unit
    out = lower + ulp * up
    limit = 2.0**128 if dtype == torch.bfloat16 else 2.0**16
    return math.copysign(math.inf if out >= limit else out, x)


def samples() -> torch.Tensor:
    """fp32 numbers of every size, those where formats end among them."""
    make = np.random.default_rng(0)
    anywhere = make.integers(0, 2**32, 1500, dtype=np.uint32).view(np.float32)
    halves = np.ldexp(make.uniform(-2, 2, 1500), make.integers(-30, 17, 1500)).astype(np.float32)
    edges = [0.0, -0.0, 65504, 65519, 65520, 65535.99, 65536, 3.38e38, 3.4e38, 2.0**-14, 2.0**-24, 2.0**-25, 2.0**-149]
    values = np.concatenate([anywhere[np.isfinite(anywhere)], halves, edges, np.negative(edges)]).astype(np.float32)
    return torch.from_numpy(values)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_to_the_bit(dtype: torch.dtype) -> None:
    values = samples()
    seed, step, index = 0x123456789ABCDEF, 7, 3
    found = rounded(values, dtype, seed=seed, step=step, index=index)
    for i, x in enumerate(values.tolist()):
        wanted = expected(x, word(seed, step, index, 0, i), dtype)
        assert (float(found[i]), math.copysign(1, found[i])) == (wanted, math.copysign(1, wanted)), (i, x)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_what_the_format_holds_is_exact(dtype: torch.dtype) -> None:
    """All 2^16 numbers of the format, infinities and NaN among them, whatever is drawn."""
    every = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(dtype)
    for seed in range(4):
        found = rounded(every.float(), dtype, seed=seed)
        nan = every.isnan()
        assert torch.equal(found.view(torch.int16)[~nan], every.view(torch.int16)[~nan])
        assert found.isnan()[nan].all()


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("x", [1.001, -1.001, 3.14159, 1e-3, 1.3e-5, 2.1e-7, -3e-8, 123.456])
def test_unbiased(dtype: torch.dtype, x: float) -> None:
    """The mean over elements, steps and seeds is x, within 5 standard errors."""
    n = 4096
    x = float(torch.tensor(x))
    found = torch.stack([rounded(torch.full((n,), x), dtype, seed=s, step=1 + s % 3).double() for s in range(24)])
    ulp = spacing(x, dtype)
    fraction = abs(x) / ulp - math.floor(abs(x) / ulp)
    error = ulp * math.sqrt(fraction * (1 - fraction) / found.numel())
    assert abs(found.mean().item() - x) <= 5 * error
    assert set(((found.abs() - math.floor(abs(x) / ulp) * ulp) / ulp).unique().tolist()) <= {0.0, 1.0}
    per_seed = found.mean(dim=1)
    assert (per_seed - x).abs().max() <= 6 * error * math.sqrt(24)  # no seed is off


def test_draws_differ_between_outputs_steps_and_tensors() -> None:
    values = torch.full((4096,), 1.0 + 2.0**-8)  # half-way: a fair coin

    def up(t: torch.Tensor) -> torch.Tensor:
        return t > 1

    params, first, second = ([torch.zeros(4096, dtype=torch.bfloat16) for _ in range(2)] for _ in range(3))
    nos_ext.apply_rule(TWO, params, [values, values], [first, second], lr=1.0, stochastic_rounding=True)
    other_step = rounded(values, torch.bfloat16, step=2)
    other_seed = rounded(values, torch.bfloat16, seed=1)
    coins = [up(t) for t in (*params, *first, *second, other_step, other_seed)]
    for i, a in enumerate(coins):
        for b in coins[:i]:
            assert 0.45 < (a == b).double().mean() < 0.55
    for i in range(20):
        assert bool(up(second[1])[i]) == (word(0, 1, 1, 2, i) >> 31 == 1)


def test_words_are_random_enough() -> None:
    """In the words of many blocks the upper 16 bits are uniform, and neighbours, blocks, outputs and steps independent, as
    far as averages over 2^16 of them show it."""
    n = 256
    words = np.array(
        [
            [[word(7, step, 1, k, 256 * b + i) for i in range(n)] for b in range(64)]
            for step, k in ((1, 1), (1, 2), (2, 1), (3, 0))
        ]
    )
    u = (words >> 16) / 2**16 + 2.0**-17 - 0.5
    count = u[0].size
    assert (np.abs(u.mean((1, 2))) < 5 / math.sqrt(12 * count)).all()
    for bit in range(16, 32):
        assert abs((words >> bit & 1).mean() - 0.5) < 5 * 0.5 / math.sqrt(words.size)
    corr = [np.mean(u[..., :-lag] * u[..., lag:]) * 12 for lag in (1, 2, 3, 7, 64)]
    corr += [np.mean(u[:, :-1] * u[:, 1:]) * 12, *(np.mean(u[0] * u[k]) * 12 for k in (1, 2, 3))]
    assert max(map(abs, corr)) < 5 / math.sqrt(count)
    histogram = np.bincount((words >> 24).ravel(), minlength=256)
    expected = words.size / 256
    assert ((histogram - expected) ** 2 / expected).sum() < 255 + 5 * math.sqrt(2 * 255)
    low, high = (u < 0).mean(2), (np.abs(u) < 0.25).mean(2)  # per block: not one of them is lopsided
    assert max(np.abs(low - 0.5).max(), np.abs(high - 0.5).max()) < 6 * 0.5 / math.sqrt(n)


@pytest.mark.parametrize("chance", [0.5, 0.25, 0.1, 0.01])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_words_of_a_block_are_as_good_as_independent(dtype: torch.dtype, chance: float) -> None:
    """How many elements of a block are rounded up has the mean, variance and fourth moment of a binomial variable.

    Independent pairs would give the first two. Words with a relation, such as those of an arithmetic progression, would
    not give the fourth.
    """
    blocks, n = 4000, 512
    ulp = spacing(1.0, dtype)
    chance = round(chance * 2**13) / 2**13
    found = rounded(torch.full((blocks * n,), 1.0 + chance * ulp), dtype, seed=3).double()
    for size in (n, n // 2, 16):
        count = (found.view(blocks, n)[:, :size] > 1).double().sum(1)
        variance = size * chance * (1 - chance)
        z = (count - size * chance) / math.sqrt(variance)
        fourth = 3 + (1 - 6 * chance * (1 - chance)) / variance
        assert abs(z.mean()) < 5 / math.sqrt(blocks)
        assert abs((z**2).mean() - 1) < 5 * math.sqrt((fourth - 1) / blocks)
        assert abs((z**4).mean() - fourth) < 5 * math.sqrt(105 * max(1, fourth / 3) ** 4 / blocks)


def test_differences_of_lanes_end_in_few_zeros() -> None:
    """On this rests that the upper halves of any two words of a block are independent (docs/numerics.md)."""
    h = np.arange(512, dtype=np.uint32) * np.uint32(0x9E3779B9)
    h ^= h >> np.uint32(15)
    differences = (h[:, None] - h[None, :])[np.triu_indices(512, 1)].astype(np.int64)
    assert (differences & -differences).max() <= 2**16


def test_wide_results_are_not_touched() -> None:
    make = torch.Generator().manual_seed(1)
    for dtype in (torch.float32, torch.float64):
        p, g, m = (torch.randn(600, generator=make, dtype=dtype) for _ in range(3))
        q, n = p.clone(), m.clone()
        nos_ext.apply_rule(POWERSIGN, [p], [g], [[m]], lr=0.1, stochastic_rounding=True)
        nos_ext.apply_rule(POWERSIGN, [q], [g], [[n]], lr=0.1)
        assert torch.equal(p, q)
        assert torch.equal(m, n)


def test_small_updates_add_up() -> None:
    """What the option is for: updates below half a spacing are lost when rounding to nearest."""
    rule = nos_ext.compile_rule("def sgd(p, g, *, lr):\n    return p - lr * g\n")
    lost, kept = (torch.ones(2000, dtype=torch.bfloat16) for _ in range(2))
    grad = torch.full((2000,), -1.0)
    for step in range(1, 201):
        nos_ext.apply_rule(rule, [lost], [grad], [], lr=1e-3, step=step)
        nos_ext.apply_rule(rule, [kept], [grad], [], lr=1e-3, step=step, stochastic_rounding=True)
    assert torch.equal(lost, torch.ones(2000, dtype=torch.bfloat16))
    assert kept.double().mean().item() == pytest.approx(1.2, abs=2e-3)
