"""Owns the friedman task: in which eighth of its range lies a noisy function of ten numbers? There are new examples in
every step.

The function is Friedman's first (Annals of Statistics 19, 1991, p. 37), 10 sin(pi a b) + 20 (c - 1/2)^2 + 10 d + 5 e of
five of the numbers, while the other five say nothing. Its noise has a standard deviation of 1, and the numbers are
uniform on [0, 1], in whole 1024ths, so that every machine makes the same ones. The eighths are equally frequent.

The examples are a pool of 2^18, which is made once from a fixed seed: 2048 steps of 128, and 10 MB.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from .base import Budget, Task
from .rows import Numbers, split, task

INPUTS: Final = 10
CLASSES: Final = 8
_COUNTS = (1 << 18, 4096, 8192)  # to train, to validate and to test
_SEED = 20170806  # RandomState's stream is frozen by NumPy's policy
_STEPS = 1024  # to the unit
_BUDGET = Budget(batch_size=128, sweep_steps=60, train_steps=200)


def function(x: Numbers) -> Numbers:
    """Returns Friedman's function of (n, 10) numbers, without noise."""
    a, b, c, d, e = x[:, :5].T
    found: Numbers = 10 * np.sin(np.pi * a * b) + 20 * (c - 0.5) ** 2 + 10 * d + 5 * e
    return found


def load(data_dir: Path | None) -> Task:
    """Returns the task; data_dir is not used."""
    random = np.random.RandomState(_SEED)
    drawn = [_draw(count, random) for count in _COUNTS]
    limits = np.quantile(drawn[0][1], np.arange(1, CLASSES) / CLASSES)
    # numbers of mean 0 and variance 1
    splits = [split((x - 0.5) * np.sqrt(12.0), np.searchsorted(limits, value)) for x, value in drawn]
    return task("friedman", splits, classes=CLASSES, depth=2, width=64, budget=_BUDGET)


def _draw(count: int, random: np.random.RandomState) -> tuple[Numbers, Numbers]:
    """Returns examples (n, 10) and the noisy values of the function."""
    x = random.randint(_STEPS + 1, size=(count, INPUTS)) / _STEPS
    return x, function(x) + random.standard_normal(count)
