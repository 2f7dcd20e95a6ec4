"""Owns the statistics of prove: pure functions of numbers, which know nothing of rules or trainings.

Differences are paired: two rules with equal seeds start from the same weights and see the same batches, so what the
seed does to both of them cancels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..train.evaluate import quantile

ALPHA: Final = 0.05  # the level of every test
SMALLEST: Final = 1e-4  # of a score; a seed deviation below this counts as this much
LARGEST: Final = 10.0  # seed deviations; a difference beyond that counts as this much
ALIKE: Final = 1e-9  # of a difference; values that lie this close differ by roundings
FEW: Final = 5  # cells; with fewer of them a t test sees next to nothing


@dataclass(frozen=True)
class Paired:
    """The test of the hypothesis that a mean difference is 0.

    `half` is the half width of the 95 % Student t interval of the mean, and `p` the two-sided p-value. Both are None
    where nothing can be said.
    """

    mean: float
    half: float | None
    p: float | None


def paired(differences: Sequence[float] | NDArray[np.float64], freedom: int | None = None) -> Paired:
    """Returns Student's t test of differences by seed. Nothing can be said of fewer than two.

    Where all of them are 0, p is 1. Where they are equal and not 0, that is no proof of silence: they were cut off at
    LARGEST, or scores are shares of few examples, and a tie is likely by chance. Such differences say nothing of their
    noise, and there is no test, unless they are in deviations of a seed, which were estimated with so many degrees of
    `freedom`. Then their noise is known from the unit: a difference of two scores that have a deviation of 1 each has
    one of sqrt(2), and so has at most its mean over cells, which may share all of their noise. With that in place of
    the deviation among them, a difference of LARGEST is still told from 0, and one of a single step is not.
    """
    values = np.asarray(differences, dtype=np.float64)
    count, mean = len(values), float(values.mean())
    if count < 2:
        return Paired(mean, None, None)
    spread = float(values.std(ddof=1))
    if alike(values):
        mean, spread = float(values[0]), math.sqrt(2)  # the mean of equal values may differ from them by a rounding
        if abs(mean) <= ALIKE:
            return Paired(mean, 0.0, 1.0)
        if freedom is None:
            return Paired(mean, None, None)
    else:
        freedom = count - 1
    from scipy.special import stdtr  # type: ignore[import-untyped]

    error = spread / math.sqrt(count)
    return Paired(mean, quantile(freedom, 1 - ALPHA) * error, float(2 * stdtr(freedom, -abs(mean) / error)))


def alike(values: Sequence[float] | NDArray[np.float64]) -> bool:
    """Tells whether all values are equal, but for roundings."""
    return bool(np.ptp(np.asarray(values, dtype=np.float64)) <= ALIKE)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Returns p-values that are corrected for their number by Holm's step-down method, in the order given.

    With these, all hypotheses whose value is below a level may be rejected, and the chance that any of them is true is
    below that level. A None is no test, does not count, and stays None.
    """
    tested = sorted((p, k) for k, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, k) in enumerate(tested):
        highest = max(highest, min(1.0, (len(tested) - rank) * p))
        corrected[k] = highest
    return corrected


def interquartile_mean(values: Sequence[float]) -> float:
    """Returns the mean of the middle half of the values; of a value that lies on a quartile only a share counts."""
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    cut = len(ordered) / 4
    index = np.arange(len(ordered))
    inside = np.clip(np.minimum(index + 1, len(ordered) - cut) - np.maximum(index, cut), 0.0, 1.0)
    return float((ordered * inside).sum() / inside.sum())


def steps_to(target: float, steps: Sequence[int], scores: Sequence[float]) -> float | None:
    """Returns after how many steps a curve first reaches the target, on straight lines between its points, or None if
    it never does. What was before the first point is not known, so it is not earlier than that."""
    before: tuple[int, float] | None = None
    for step, score in zip(steps, scores, strict=True):
        if score >= target:
            if before is None or score == before[1]:
                return float(step)
            return before[0] + (step - before[0]) * (target - before[1]) / (score - before[1])
        before = step, score
    return None


def pooled_deviation(groups: Sequence[Sequence[float] | NDArray[np.float64]]) -> float:
    """Returns the standard deviation within groups, each of which has a mean of its own, but at least SMALLEST.

    The groups are contenders, and the values scores of their seeds in one cell.
    """
    arrays = [np.asarray(group, dtype=np.float64) for group in groups if len(group) > 1]
    freedom = sum(len(group) - 1 for group in arrays)
    if not freedom:
        return SMALLEST
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in arrays)
    return max(SMALLEST, math.sqrt(squares / freedom))


def freedom_of(groups: Sequence[Sequence[float] | NDArray[np.float64]]) -> int:
    """Returns the degrees of freedom that the pooled deviation of these groups has, but at least 1. Where that is not
    above SMALLEST, groups that do not vary may be so by chance, and many of them tell no more than one does."""
    found = [len(group) - 1 for group in groups if len(group) > 1]
    if not found:
        return 1
    return sum(found) if pooled_deviation(groups) > SMALLEST else max(found)


def standardised(differences: NDArray[np.float64], deviation: float) -> NDArray[np.float64]:
    """Returns differences in units of a seed deviation, at most LARGEST of them: where a rule fails it must weigh, but
    not drown all that it does elsewhere."""
    return np.clip(differences / deviation, -LARGEST, LARGEST)


def agreed(means: Sequence[float] | NDArray[np.float64]) -> int:
    """Returns 1 where the mean differences of cells agree that a rule is better, -1 where they agree that it is worse,
    and else 0.

    Seeds cannot tell luck in tuning, which is drawn once for a cell, from merit; cells can. Their mean must differ from
    0 in that direction by Student's t test, one-sided at ALPHA. Fewer than FEW cells are too few for that, and all of
    them must lie on that side.
    """
    values = np.asarray(means, dtype=np.float64)
    lowest, highest = values.min(), values.max()
    if len(values) < FEW or lowest == highest:
        return int(lowest > 0) - int(highest < 0)
    from scipy.special import stdtr

    t = float(values.mean() / values.std(ddof=1)) * math.sqrt(len(values))
    return int(math.copysign(1, t)) if stdtr(len(values) - 1, -abs(t)) <= ALPHA else 0
