"""Owns the learning-rate decays as plain functions, which give the factor of the learning rate at a step from 0 on.

The formulas and defaults of the linear cosine decays are TensorFlow's. Works without torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from .. import _C
from .._numbers import positive

Factor = Callable[[int], float]

_STEEPEST = 20  # power of a step number that is a finite float


def linear_cosine(
    decay_steps: float,
    num_periods: float = 0.5,
    alpha: float = 0.0,
    beta: float = 0.001,
    noise: Factor = lambda step: 0.0,
) -> Factor:
    """Returns (alpha + linear + noise) * cosine + beta, held from `decay_steps` on."""
    positive("decay_steps", decay_steps)
    positive("num_periods", num_periods)

    def factor(step: int) -> float:
        done = min(step, decay_steps)
        linear = (decay_steps - done) / decay_steps
        cosine = 0.5 * (1.0 + math.cos(2.0 * math.pi * num_periods * done / decay_steps))
        return (alpha + linear + noise(min(step, math.floor(decay_steps)))) * cosine + beta

    return factor


def gaussian(initial_variance: float = 1.0, variance_decay: float = 0.55, seed: int = 0) -> Factor:
    """Returns normal numbers of variance initial_variance / (1 + step) ** variance_decay, drawn from (seed, step)
    alone."""
    if not initial_variance >= 0:
        raise ValueError(f"initial_variance is {initial_variance!r}; pass a number that is not negative")
    if not abs(variance_decay) <= _STEEPEST:
        raise ValueError(f"variance_decay is {variance_decay!r}; pass a number from -{_STEEPEST} to {_STEEPEST}")
    if not isinstance(seed, int) or not 0 <= seed < 2**64:
        raise ValueError(f"seed is {seed!r}; pass an integer from 0 to 2**64 - 1")

    def noise(step: int) -> float:
        a, b, _, _ = _C.philox(step & 0xFFFFFFFF, step >> 32, 0, 0, seed & 0xFFFFFFFF, seed >> 32)
        radius = math.sqrt(-2.0 * math.log((a + 0.5) / 2.0**32))
        std = math.sqrt(initial_variance / (1.0 + step) ** variance_decay)
        return std * radius * math.cos(2.0 * math.pi * (b + 0.5) / 2.0**32)

    return noise


def cosine(decay_steps: float, alpha: float = 0.0) -> Factor:
    """Returns half a cosine from 1 to alpha, held from `decay_steps` on."""
    positive("decay_steps", decay_steps)

    def factor(step: int) -> float:
        done = min(step, decay_steps)
        return (1.0 - alpha) * 0.5 * (1.0 + math.cos(math.pi * done / decay_steps)) + alpha

    return factor


def stepwise(step_size: int, gamma: float = 0.1) -> Factor:
    """Returns gamma ** (number of whole step_sizes so far)."""
    positive("step_size", step_size)

    def factor(step: int) -> float:
        return float(gamma ** (step // step_size))

    return factor
