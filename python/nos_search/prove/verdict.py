"""Owns the verdicts of prove: what the scores of all contenders say of a rule, on each task, in each family, over all.

The replicates are seeds. For each seed a rule has the mean, over the cells that are asked about, of its differences to
a baseline in units of the cell's seed deviation, and Student's t says whether the mean over seeds is 0.

- On a task or in a family a rule is "better" if it is so against every baseline, and the cells there agree
  (statistics.agree). That takes the largest p-value of all baselines and no correction for their number, for it is an
  intersection-union test; but Holm's for the number of tasks (or families). It is "worse" if it is so against one
  baseline, corrected for all tasks (or families) and baselines together.
- Over all it is "better" if it is so against every baseline, corrected for the number of rules only, if its cells
  agree, and if it is worse in no family. It is "worse" if it is so against one baseline, corrected for
  rules and baselines together.
- All else is "no difference shown", which is not the same as no difference.

A training that diverged has a score of 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from .statistics import ALPHA, Paired, agree, holm, interquartile_mean, paired, pooled_deviation, standardised

Verdict = Literal["better", "no difference shown", "worse"]
BETTER: Final = "better"
WORSE: Final = "worse"
NOTHING: Final = "no difference shown"

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Against:
    """A rule against one baseline on some cells: the test of its mean difference in seed deviations, and its p-value
    after correction. `corrected` is None where there was no test."""

    test: Paired
    corrected: float | None

    @property
    def sign(self) -> int:
        """Returns 1 or -1 where the difference is shown, and else 0."""
        if self.corrected is None or self.corrected > ALPHA:
            return 0
        return 1 if self.test.mean > 0 else -1


@dataclass(frozen=True)
class Judged:
    """What is said of a rule on a task, in a family or over all. `against` has one entry for each baseline."""

    verdict: Verdict
    against: tuple[Against, ...]


@dataclass(frozen=True)
class Judgement(Judged):
    """What is said of a rule over all, with what is said on each task and in each family by name.

    `agree` tells for each baseline whether the cells agree that the rule is better, and `quartiles` has the
    interquartile mean over tasks of the difference in seed deviations.
    """

    agree: tuple[bool, ...]
    quartiles: tuple[float, ...]
    tasks: dict[str, Judged]
    families: dict[str, Judged]


@dataclass(frozen=True)
class Scores:
    """The scores of all contenders, (contenders, cells, seeds), 0 where `diverged`, which has the same shape. `tasks`
    and `families` have the name of each cell's."""

    values: Array
    diverged: NDArray[np.bool_]
    tasks: tuple[str, ...]
    families: tuple[str, ...]

    def deviations(self) -> Array:
        """Returns the seed deviation of each cell, pooled over contenders. What diverged has no part in it: that is an
        event of another kind."""
        pairs = zip(self.values.swapaxes(0, 1), self.diverged.swapaxes(0, 1), strict=True)
        return np.array(
            [pooled_deviation([row[~gone] for row, gone in zip(rows, died, strict=True)]) for rows, died in pairs]
        )

    def differences(self, rule: int, baseline: int, deviations: Array) -> Array:
        """Returns the differences in seed deviations, (cells, seeds)."""
        gaps = self.values[rule] - self.values[baseline]
        return np.stack([standardised(gap, deviation) for gap, deviation in zip(gaps, deviations, strict=True)])


def judge(scores: Scores, rules: Sequence[int], baselines: Sequence[int]) -> list[Judgement]:
    """Returns the judgement on each rule. Rules and baselines are numbers of contenders; one may be both."""
    deviations = scores.deviations()
    gaps = [np.stack([scores.differences(rule, base, deviations) for base in baselines]) for rule in rules]
    overall = [[paired(each) for each in gap.mean(1)] for gap in gaps]
    # "better" takes the largest p-value of a rule, so only the number of rules is corrected for
    largest = holm([_largest(tests) for tests in overall])
    one_by_one = holm([test.p for tests in overall for test in tests])
    found = []
    for k, (gap, tests) in enumerate(zip(gaps, overall, strict=True)):
        corrected = one_by_one[k * len(baselines) : (k + 1) * len(baselines)]
        against = tuple(map(Against, tests, corrected))
        families = _units(gap, scores.families)
        tasks = _units(gap, scores.tasks)
        agreed = tuple(agree(each.mean(1)) for each in gap)
        p = largest[k]
        better = _all_above(p, tests) and all(agreed)
        spoiled = any(family.verdict == WORSE for family in families.values())
        verdict: Verdict = NOTHING
        if any(each.sign < 0 for each in against):
            verdict = WORSE
        elif better and not spoiled:
            verdict = BETTER
        means = [[unit.against[b].test.mean for unit in tasks.values()] for b in range(len(baselines))]
        found.append(Judgement(verdict, against, agreed, tuple(map(interquartile_mean, means)), tasks, families))
    return found


def _all_above(p: float | None, tests: Sequence[Paired]) -> bool:
    return p is not None and p <= ALPHA and all(test.mean > 0 for test in tests)


def _largest(tests: Sequence[Paired]) -> float | None:
    found = [test.p for test in tests]
    return None if None in found else max(p for p in found if p is not None)


def _units(gap: Array, names: Sequence[str]) -> dict[str, Judged]:
    """Judges a rule on the cells of each name. `gap` is (baselines, cells, seeds)."""
    units = list(dict.fromkeys(names))
    parts = [gap[:, [name == unit for name in names]] for unit in units]
    tests = [[paired(each) for each in part.mean(1)] for part in parts]
    corrected = iter(holm([test.p for row in tests for test in row]))
    largest = holm([_largest(row) for row in tests])
    found = {}
    for unit, part, row, p in zip(units, parts, tests, largest, strict=True):
        against = tuple(Against(test, next(corrected)) for test in row)
        verdict: Verdict = NOTHING
        if any(each.sign < 0 for each in against):
            verdict = WORSE
        elif _all_above(p, row) and all(agree(each.mean(1)) for each in part):
            verdict = BETTER
        found[unit] = Judged(verdict, against)
    return found
