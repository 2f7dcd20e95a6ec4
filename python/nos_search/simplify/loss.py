"""Owns the question whether one rule is as good as another, by their scores on equal seeds: what a loss is, when none
is shown to be there, and when it is not worth looking on.

The test is one of non-inferiority. Its margin says which loss in score is too small to care for. A rule shows no loss
if the lower end of the 95 % interval of its paired differences, over all seeds, is not below minus the margin. That is
decided once, after the last seed, so looking early makes it no easier to pass. It may fail early: after some of the
seeds, a rule is given up if the upper end of an 80 % interval is below minus the margin. That may be bad luck
of a rule that is as good, and then the result is less simple than it could be, but not worse.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..train.evaluate import half_width

_GIVE_UP = 0.80  # confidence of the interval that ends a race
_SHARE = 0.5  # of the deviation of the seeds, the margin where the user names none
_FIRST = 3  # seeds after which a candidate may be given up for the first time


@dataclass(frozen=True)
class Difference:
    """The mean difference in score of a rule to another one on the same seeds, with the half width of its 95 % Student
    t interval, and how many seeds there were."""

    mean: float
    half: float
    seeds: int

    @property
    def low(self) -> float:
        return self.mean - self.half

    @property
    def high(self) -> float:
        return self.mean + self.half


def gaps(mine: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Returns my scores minus theirs, for as many seeds as I have."""
    return [a - b for a, b in zip(mine, theirs, strict=False)]


def difference(found: Sequence[float]) -> Difference:
    half = half_width(found)
    assert half is not None  # two seeds or more
    return Difference(statistics.fmean(found), half, len(found))


def margin_of(scores: Sequence[float]) -> float:
    """Returns the margin for a rule with these scores: half the standard deviation between its seeds. A loss of so
    much is seen in no single training."""
    return _SHARE * statistics.stdev(scores)


def shows_no_loss(found: Sequence[float], margin: float) -> bool:
    """Tells whether the differences of all seeds exclude a loss above the margin."""
    return difference(found).low >= -margin


def beats(found: Iterable[Difference]) -> bool:
    """Tells whether a rule with these differences, one for each task, is better than the other one: by more than the
    interval on one of the tasks, and not worse by more than that on any."""
    each = list(found)
    return any(gap.low > 0 for gap in each) and not any(gap.high < 0 for gap in each)


def hopeless(found: Sequence[float], margin: float) -> bool:
    """Tells whether the differences so far make it unlikely that all seeds will show no loss."""
    half = half_width(found, _GIVE_UP)
    return half is not None and statistics.fmean(found) + half < -margin


def stages(seeds: int) -> list[int]:
    """Returns the numbers of seeds after which a candidate is looked at: 3, then twice as many, and at last all."""
    counts = []
    count = _FIRST
    while count < seeds:
        counts.append(count)
        count *= 2
    return [*counts, seeds]
