"""Owns the comparison of rules over several seeds, by mean and confidence interval of their scores on validation and
test data.

Each run has its own learning-rate sweep, so a comparison is between tuned rules. Equal seeds mean equal first weights
and equal batches for every rule, which makes differences between rules less noisy than the rules' own spreads.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from ..rules import CompiledRule
from ..task import Task
from ..task.score import ACCURACY
from .child import Outcome, ScoringProtocol, score

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Comparison:
    """One rule on one task over `seeds` runs. It has means, standard deviations (n - 1; 0 for one seed) and half widths
    of the 95 % Student t interval (None for one seed) of scores in [0, 1], which are of the kind `score`
    (task/score.py); a diverged run counts as 0.

    `loss` is the mean validation loss in nats of the runs that did not diverge, or None if all did. `lrs` are the
    learning rates that each run's sweep chose, None if all diverged. `vals` and `tests` are the scores of each run.
    `difference` has the mean, and the half width of the interval, of the test score minus the baseline's on the same
    seed.
    """

    rule: str
    task: str
    seeds: int
    val_mean: float
    val_std: float
    val_ci: float | None
    test_mean: float
    test_std: float
    test_ci: float | None
    diverged: int
    loss: float | None
    lrs: tuple[float | None, ...]
    vals: tuple[float, ...]
    tests: tuple[float, ...]
    difference: tuple[float, float | None] | None = None
    score: str = ACCURACY

    def against(self, baseline: Comparison) -> Comparison:
        """Returns the comparison with the difference to a baseline that was run on the same seeds."""
        gaps = [mine - other for mine, other in zip(self.tests, baseline.tests, strict=True)]
        return replace(self, difference=(statistics.fmean(gaps), half_width(gaps)))


def half_width(values: Sequence[float], confidence: float = CONFIDENCE) -> float | None:
    """Returns the half width of the two-sided Student t interval of the mean, of 95 % if nothing else is said, or None
    for fewer than two values."""
    if len(values) < 2:
        return None
    return quantile(len(values) - 1, confidence) * statistics.stdev(values) / math.sqrt(len(values))


@cache
def quantile(freedom: int, confidence: float) -> float:
    """Returns how many standard errors half a two-sided Student t interval has."""
    from scipy.special import stdtrit  # type: ignore[import-untyped]

    return float(stdtrit(freedom, (1 + confidence) / 2))


def summarise(rule: str, task: str, outcomes: Sequence[Outcome], *, score: str = ACCURACY) -> Comparison:
    """Returns the comparison that several outcomes of one rule on one task make. `score` is the task's."""
    val = [outcome.reward for outcome in outcomes]
    test = [outcome.test or 0.0 for outcome in outcomes]
    losses = [outcome.curve["val_loss"][-1] for outcome in outcomes if outcome.status == "done"]
    return Comparison(
        rule,
        task,
        len(outcomes),
        statistics.fmean(val),
        statistics.stdev(val) if len(val) > 1 else 0.0,
        half_width(val),
        statistics.fmean(test),
        statistics.stdev(test) if len(test) > 1 else 0.0,
        half_width(test),
        sum(outcome.status == "diverged" for outcome in outcomes),
        statistics.fmean(losses) if losses else None,
        tuple(outcome.lr for outcome in outcomes),
        tuple(val),
        tuple(test),
        score=score,
    )


def compare(rule: CompiledRule, task: Task, protocol: ScoringProtocol, *, seeds: Sequence[int]) -> Comparison:
    """Scores the rule once per seed; the sweep is repeated each time, so its choice is part of the spread."""
    outcomes = [score(rule, task, protocol, seed=seed, test=True) for seed in seeds]
    return summarise(rule.label, task.name, outcomes, score=task.score)
