"""Owns the comparison of rules over several seeds: mean and spread of validation and test accuracy per rule and task.
Owns the comparison of rules over several seeds: mean and spread of validation and test accuracy per rule and task."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ..rules import Rule
from ..task import Task
from .child import Outcome, Protocol, score


@dataclass(frozen=True)
class Comparison:
    """One rule on one task over `seeds` runs. Means and standard deviations (n - 1; 0 for one seed) of accuracies in
    [0, 1]; a diverged run counts as 0 in both. lrs: the learning rate that each run's sweep chose, None if all
    diverged."""

    rule: str
    task: str
    seeds: int
    val_mean: float
    val_std: float
    test_mean: float
    test_std: float
    diverged: int
    lrs: tuple[float | None, ...]


def compare(rule: Rule, task: Task, protocol: Protocol, *, seeds: Sequence[int]) -> Comparison:
    """Scores the rule once per seed; the sweep is repeated each time, so its choice is part of the spread."""
    outcomes: list[Outcome] = [score(rule, task, protocol, seed=seed, test=True) for seed in seeds]
    val = [outcome.reward for outcome in outcomes]
    test = [outcome.test or 0.0 for outcome in outcomes]
    return Comparison(
        rule.label,
        task.name,
        len(outcomes),
        statistics.fmean(val),
        statistics.stdev(val) if len(val) > 1 else 0.0,
        statistics.fmean(test),
        statistics.stdev(test) if len(test) > 1 else 0.0,
        sum(outcome.status == "diverged" for outcome in outcomes),
        tuple(outcome.lr for outcome in outcomes),
    )
