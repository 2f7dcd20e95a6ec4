"""Owns families of rules: rules whose updates differ by less than matters are one family, whatever their formulas are.

Rules are compared by their behaviour, a vector that is made of the updates on a fixed stimulus
(`probe.behaviour_stimulus`). Half the squared distance of two of these is the mean of 1 - cosine over the regimes of
the stimulus, plus a share of the variance of the logarithm of the ratio of their sizes. So a rule times a constant is
the same rule, as it is to a sweep over learning rates, and two rules that answer otherwise to the size of the gradients
are not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..errors import UsageError
from ..space.group import Array
from .probe import BEHAVIOUR_PARTS, behaviour_stimulus

THRESHOLD = 0.001  # distance; docs/search.md has the measurement that it comes from

_WEIGHT = 0.1  # of the variance of log10 of the ratio of sizes
_MOST_DECADES = 6.0  # of a size from the mean of the sizes, either way
_LEAST, _HUGE = 1e-38, float(np.finfo(np.float32).max)
_ROUNDING = 1e-4  # more than the single precision of a product over all families moves a distance


def check_distance(name: str, value: float | None) -> None:
    """Raises UsageError for a threshold under which everything, or not even a rule and itself, would be a family."""
    if value is not None and not 0 < value < 1:
        raise UsageError(f"{name} {value} is outside (0, 1); it is a distance of rules, such as {THRESHOLD}")


def behaviours(updates: Array) -> Array:
    """Returns (n, size) float32 vectors from the (n, size) updates on the behaviour stimulus.

    For each regime the updates of all steps are one unit vector, and all of these together are one. After them come the
    logarithms of what they were divided by, less their mean. A number that is NaN counts as 0 and an infinite one as
    the largest that is finite.
    """
    stimulus = behaviour_stimulus()
    shaped = updates.reshape(len(updates), stimulus.shown, BEHAVIOUR_PARTS, -1).astype(np.float64)
    parts = shaped.transpose(0, 2, 1, 3).reshape(len(updates), BEHAVIOUR_PARTS, -1)
    parts = np.nan_to_num(parts, nan=0.0, posinf=_HUGE, neginf=-_HUGE)
    sizes = np.maximum(np.sqrt((parts * parts).sum(axis=2)), _LEAST)
    units = parts / sizes[:, :, None] / math.sqrt(BEHAVIOUR_PARTS)
    decades = np.log10(sizes)
    decades = np.clip(decades - decades.mean(axis=1, keepdims=True), -_MOST_DECADES, _MOST_DECADES)
    scaled = decades * math.sqrt(2 * _WEIGHT / BEHAVIOUR_PARTS)
    return np.concatenate([units.reshape(len(updates), -1), scaled], axis=1).astype(np.float32)


def distance(first: Array, second: Array) -> Array:
    """Returns the distances of behaviours, over the last axis."""
    difference = np.subtract(first, second, dtype=np.float64)
    return np.asarray(0.5 * (difference * difference).sum(axis=-1))


def _halves(points: Array) -> Array:
    """Returns half the squares of the lengths of points."""
    return np.asarray(0.5 * (points * points).sum(axis=1))


class Families:
    """The families of what was added, one after the other. `threshold` is a distance.

    A family has the number of its first member, which represents it: a rule belongs to the nearest representative that
    is at most `threshold` away (of equals the oldest), and begins a family of its own when there is none. So what is
    found depends on the order in which rules are added, and not on how they are cut into batches; adding the same again
    restores everything.
    """

    def __init__(self, threshold: float = THRESHOLD) -> None:
        self.threshold = threshold
        self._numbers: list[int] = []
        # The representatives, and half the square of the length of each; both grow by doubling.
        self._points, self._halves = np.empty((0, 0), np.float32), np.zeros(1, np.float32)

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, behaviour: Array, number: int) -> int:
        """Adds a rule, and returns the number of its family, which is its own when it is the first."""
        return self.add_many(behaviour[None], [number])[0]

    def add_many(self, behaviours: Array, numbers: Sequence[int]) -> list[int]:
        """Adds many in their order, and returns the number of the family of each."""
        known = len(self._numbers)
        near = self._near(behaviours, self._points[:known], self._halves[:known])
        beside = self._near(behaviours, behaviours, _halves(behaviours)) if len(behaviours) > 1 else [[]]
        near = [first + [known + k for k in more] for first, more in zip(near, beside, strict=True)]
        begun: dict[int, int] = {}  # row of this batch -> its family, where it began one
        found = []
        for row, number in enumerate(numbers):
            # The rows of this batch that came before and began a family, beside the families of before.
            allowed = [k for k in near[row] if k < known or k - known in begun]
            nearest = self._nearest(behaviours[row], allowed, behaviours, known)
            if nearest is None:
                family = begun[row] = number
                self._found(number, behaviours[row])
            else:
                family = self._numbers[nearest] if nearest < known else begun[nearest - known]
            found.append(family)
        return found

    def find(self, behaviours: Array) -> list[int | None]:
        """Returns the number of the family to which each would belong, or None."""
        if not self._numbers:
            return [None] * len(behaviours)
        known = len(self._numbers)
        near = self._near(behaviours, self._points[:known], self._halves[:known])
        found = [
            self._nearest(point, allowed, behaviours, known) for point, allowed in zip(behaviours, near, strict=True)
        ]
        return [None if nearest is None else self._numbers[nearest] for nearest in found]

    def _near(self, points: Array, others: Array, halves: Array) -> list[list[int]]:
        """Returns for each point the rows of `others` that may be within the threshold: those that are not have been
        left out, by one product over all of them in single precision. `halves` are those of `others`."""
        if not len(others):
            return [[] for _ in points]
        close = _halves(points)[:, None] + halves - points @ others.T <= self.threshold + _ROUNDING
        return [np.flatnonzero(row).tolist() for row in close]

    def _nearest(self, point: Array, allowed: Sequence[int], batch: Array, known: int) -> int | None:
        """Returns which of the `allowed` rows is the nearest within the threshold. Each distance is computed by itself,
        so it has the same bits in every batch."""
        best: tuple[float, int] | None = None
        for k in allowed:
            far = float(distance(point, self._points[k] if k < known else batch[k - known]))
            if far <= self.threshold and (best is None or far < best[0]):
                best = far, k
        return None if best is None else best[1]

    def _found(self, number: int, behaviour: Array) -> None:
        """Notes the first member of a family."""
        used = len(self._numbers)
        if used == len(self._points):
            more = np.empty((max(64, 2 * used), len(behaviour)), np.float32)
            more[:used] = self._points if used else 0
            self._points = more
            self._halves = np.resize(self._halves, len(more))
        self._points[used] = behaviour
        self._halves[used] = _halves(behaviour[None])[0]
        self._numbers.append(number)
