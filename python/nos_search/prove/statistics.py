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
FEW: Final = 5  # cells; with fewer of them a t test sees next to nothing


@dataclass(frozen=True)
class Paired:
    """The test of the hypothesis that a mean difference is 0.

    `half` is the half width of the 95 % Student t interval of the mean, and `p` the two-sided p-value. Both are None
    for fewer than two values, of which nothing can be said.
    """

    mean: float
    half: float | None
    p: float | None


def paired(differences: Sequence[float] | NDArray[np.float64]) -> Paired:
    """Returns Student's t test of differences by seed.

    Where all of them are equal there is no noise: p is 1 if they are 0, and 0 if they are not.
    """
    values = np.asarray(differences, dtype=np.float64)
    count, mean = len(values), float(values.mean())
    if count < 2:
        return Paired(mean, None, None)
    if bool((values == values[0]).all()):  # their mean may differ from them by a rounding
        return Paired(float(values[0]), 0.0, 1.0 if values[0] == 0 else 0.0)
    from scipy.special import stdtr  # type: ignore[import-untyped]

    error = float(values.std(ddof=1)) / math.sqrt(count)
    return Paired(mean, quantile(count - 1, 1 - ALPHA) * error, float(2 * stdtr(count - 1, -abs(mean) / error)))


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
