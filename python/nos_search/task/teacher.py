"""Owns the teacher task: to guess the classes that a random network draws. There are new examples in every step, so
nothing can be learned by heart, and what is measured is how fast a rule learns.

An example is 32 independent normal numbers. The teacher, a perceptron with two hidden layers of 64 ReLU units
and random weights, makes of them the probabilities of ten classes, and the class is drawn from these. The child sees
the same numbers in scales that fall as 1, 1/2, ... 1/32: features in one unit of measurement, of which the small ones
matter as much. A child that has become the teacher saves 0.67 of the bits, and none can save more; the rest is the
draw. (A teacher of one layer of 32 is learned to the end in ten times the steps, by every rule that learns at all.)

The examples are a pool of 2^18, which is made once from a fixed seed: enough for 4096 steps of 64 (a longer training
begins a second pass), and 36 MB.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .base import Budget, Task
from .rows import Classes, Numbers, pool, task

_INPUTS, _HIDDEN, _CLASSES = 32, 64, 10
_SHARPNESS = 4.0  # standard deviation of the teacher's logits over examples
_COUNTS = (1 << 18, 4096, 8192)  # to train, to validate and to test
_BLOCK = 1 << 14  # examples that are made at a time
_SEED = 20170806  # of teacher and examples; RandomState's stream is frozen by NumPy's policy
_BUDGET = Budget(batch_size=64, sweep_steps=60, train_steps=300)


class Teacher:
    """A random network. Its logits have mean 0 and a standard deviation of _SHARPNESS, over `random` examples."""

    def __init__(self, random: np.random.RandomState) -> None:
        self._layers = [
            (random.standard_normal((inputs, _HIDDEN)) * np.sqrt(2 / inputs), random.standard_normal(_HIDDEN) / 2)
            for inputs in (_INPUTS, _HIDDEN)
        ]
        self._out = random.standard_normal((_HIDDEN, _CLASSES)) / np.sqrt(_HIDDEN)
        self._mean, self._scale = np.zeros(_CLASSES), 1.0
        logits = self.logits(random.standard_normal((_BLOCK, _INPUTS)))
        self._mean, self._scale = logits.mean(0), _SHARPNESS / (logits - logits.mean(0)).std()

    def logits(self, numbers: Numbers) -> Numbers:
        for matrix, bias in self._layers:
            numbers = np.maximum(numbers @ matrix + bias, 0)
        raw: Numbers = numbers @ self._out
        return (raw - self._mean) * self._scale


def load(data_dir: Path | None) -> Task:
    """Returns the task; data_dir is not used."""
    random = np.random.RandomState(_SEED)
    teacher = Teacher(random)
    scales = 1 / np.arange(1.0, _INPUTS + 1)
    scales /= np.sqrt(np.mean(scales**2))

    def make(_: int, size: int) -> tuple[Numbers, Classes]:
        numbers = random.standard_normal((size, _INPUTS))
        # the class of the largest sum with Gumbel noise is drawn from the softmax
        classes = (teacher.logits(numbers) + random.gumbel(size=(size, _CLASSES))).argmax(1)
        return numbers * scales, classes

    splits = [pool(count, _INPUTS, make, block=_BLOCK) for count in _COUNTS]
    return task("teacher", splits, classes=_CLASSES, depth=2, width=64, budget=_BUDGET)
