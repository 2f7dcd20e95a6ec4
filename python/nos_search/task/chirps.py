"""Owns the chirps task: which of ten waveforms is a noisy signal of 64 numbers? There are new signals in every step.

A signal has a frequency, a phase, a place in time, an amplitude and noise of its own, all drawn, so that the class is
in its shape alone: a tone, a chirp that rises or falls, a square, a sawtooth or a triangle wave, a tone whose amplitude
or frequency swings, one that comes in a burst, one that is struck and dies away.

The signals are a pool of 2^17, which is made once from a fixed seed: 2048 steps of 64 (a longer training begins a
second pass), and 34 MB. They are whole numbers of 64ths, so that every machine makes the same ones, whatever its sine
does in the last digit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .base import Budget, Task
from .rows import Classes, Numbers, pool, task

_LENGTH = 64
_COUNTS = (1 << 17, 4096, 8192)  # to train, to validate and to test
_BLOCK = 1 << 13  # signals that are made at a time
_SEED = 20170806  # RandomState's stream is frozen by NumPy's policy
_FREQUENCY = (3.0, 6.0)  # cycles in a signal, from and to
_AMPLITUDE = (0.8, 1.6)  # so that the numbers are about 1 in size
_NOISE = 0.6  # standard deviation
_STEPS = 64  # to the unit
_BUDGET = Budget(batch_size=64, sweep_steps=60, train_steps=200)


@dataclass(frozen=True)
class Draws:
    """What is drawn for each of n signals, (n, 1) each: the frequency in cycles, the phase in cycles, the place in time
    from 0 to 1, and the amplitude."""

    frequency: Numbers
    phase: Numbers
    place: Numbers
    amplitude: Numbers

    @classmethod
    def of(cls, random: np.random.RandomState, count: int) -> Draws:
        limits = (_FREQUENCY, (0.0, 1.0), (0.0, 1.0), _AMPLITUDE)
        return cls(*(random.uniform(low, high, (count, 1)) for low, high in limits))

    def of_rows(self, rows: NDArray[np.bool_]) -> Draws:
        return Draws(self.frequency[rows], self.phase[rows], self.place[rows], self.amplitude[rows])


def _sine(cycles: Numbers) -> Numbers:
    found: Numbers = np.sin(2 * np.pi * cycles)
    return found


def _saw(cycles: Numbers) -> Numbers:
    return 2 * (cycles - np.floor(cycles)) - 1


def _tone(d: Draws, t: Numbers) -> Numbers:
    return _sine(d.frequency * t + d.phase)


# Every waveform has the values -1 to 1 at the times t, (64,) numbers from 0 to 1.
WAVES: Final[dict[str, Callable[[Draws, Numbers], Numbers]]] = {
    "tone": _tone,
    "rising": lambda d, t: _sine(d.frequency * (0.5 + 0.5 * t) * t + d.phase),
    "falling": lambda d, t: _sine(d.frequency * (1.5 - 0.5 * t) * t + d.phase),
    "square": lambda d, t: np.sign(_tone(d, t)),
    "sawtooth": lambda d, t: _saw(d.frequency * t + d.phase),
    "triangle": lambda d, t: 2 * np.abs(_saw(d.frequency * t + d.phase)) - 1,
    "swelling": lambda d, t: _tone(d, t) * (0.5 + 0.5 * _sine(2 * t + d.place)),
    "warbling": lambda d, t: _sine(d.frequency * t + d.phase + 0.4 * _sine(2 * t + d.place)),
    "burst": lambda d, t: _tone(d, t) * np.exp(-0.5 * ((t - 0.2 - 0.6 * d.place) / 0.1) ** 2),
    "struck": lambda d, t: _tone(d, t) * np.exp(-5 * (t - 0.6 * d.place)) * (t >= 0.6 * d.place),
}


def signals(classes: Classes, random: np.random.RandomState) -> Numbers:
    """Draws one signal for each class number."""
    draws = Draws.of(random, len(classes))
    found = _NOISE * random.standard_normal((len(classes), _LENGTH))
    t = np.arange(_LENGTH) / _LENGTH
    for number, wave in enumerate(WAVES.values()):
        rows = classes == number
        chosen = draws.of_rows(rows)
        found[rows] += chosen.amplitude * wave(chosen, t)
    rounded: Numbers = np.round(_STEPS * found) / _STEPS
    return rounded


def load(data_dir: Path | None) -> Task:
    """Returns the task; data_dir is not used."""
    random = np.random.RandomState(_SEED)

    def make(_: int, size: int) -> tuple[Numbers, Classes]:
        classes = random.randint(len(WAVES), size=size).astype(np.int64)
        return signals(classes, random), classes

    splits = [pool(count, _LENGTH, make, block=_BLOCK) for count in _COUNTS]
    return task("chirps", splits, classes=len(WAVES), depth=2, width=128, budget=_BUDGET)
