"""Owns the verdicts of prove: what the scores of all contenders say of a rule, on each task, in each family, over all.

The replicates are seeds. For each seed a rule has the mean, over the cells that are asked about, of its differences to
a baseline in units of the cell's seed deviation, and Student's t says whether the mean over seeds is 0.

- Against one baseline a rule is better or worse if that mean differs from 0 after correction and the cells agree on the
  direction (statistics.agreed).
- On a task or in a family it is "better" if it is so against every baseline. That takes the largest p-value of all
  baselines and no correction for their number, for it is an intersection-union test; but Holm's for the number of tasks
  (or families). It is "worse" if it is so against one baseline, corrected for all tasks (or families) and baselines
  together.
- Over all it is "better" if it is so against every baseline, corrected for the number of rules only, and worse in no
  family. It is "worse" if it is so against one baseline, corrected for rules and baselines together; there cells that
  disagree do not matter where it is worse than that baseline on a whole task or in a family.
- All else is "no difference shown", which is not the same as no difference.

A training that diverged has a score of 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from .statistics import (
    ALPHA,
    Paired,
    agreed,
    freedom_of,
    holm,
    interquartile_mean,
    paired,
    pooled_deviation,
    standardised,
)

Verdict = Literal["better", "no difference shown", "worse"]
BETTER: Final = "better"
WORSE: Final = "worse"
NOTHING: Final = "no difference shown"

Array = NDArray[np.float64]
Freedoms = NDArray[np.int_]


@dataclass(frozen=True)
class Against:
    """A rule against one baseline on some cells: the test of its mean difference in seed deviations, its p-value after
    correction, which is None where there was no test, and the verdict. `agreed` is 1 or -1 where the cells agree that
    the rule is better or worse, and else 0."""

    test: Paired
    corrected: float | None
    agreed: int
    verdict: Verdict

    @classmethod
    def of(cls, test: Paired, corrected: float | None, cells: Array) -> Against:
        """Judges by the test and the mean differences of cells."""
        agreement = agreed(cells)
        verdict: Verdict = NOTHING
        if corrected is not None and corrected <= ALPHA and agreement * test.mean > 0:
            verdict = BETTER if agreement > 0 else WORSE
        return cls(test, corrected, agreement, verdict)

    @property
    def below(self) -> bool:
        """Whether the mean difference is below 0 after correction, whatever the cells say."""
        return self.corrected is not None and self.corrected <= ALPHA and self.test.mean < 0


@dataclass(frozen=True)
class Judged:
    """What is said of a rule on a task, in a family or over all. `against` has one entry for each baseline."""

    verdict: Verdict
    against: tuple[Against, ...]


@dataclass(frozen=True)
class Judgement(Judged):
    """What is said of a rule over all, with what is said on each task and in each family by name. `quartiles` has for
    each baseline the interquartile mean over tasks of the difference in seed deviations."""

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
        """Returns the seed deviation of each cell, pooled over contenders."""
        return np.array([pooled_deviation(groups) for groups in self._trained()])

    def freedoms(self) -> Freedoms:
        """Returns with how many degrees of freedom the deviation of each cell is known."""
        return np.array([freedom_of(groups) for groups in self._trained()])

    def _trained(self) -> Iterator[list[Array]]:
        """Yields for each cell the scores of each contender, without what diverged: that is an event of another kind,
        and has no part in the noise."""
        for rows, died in zip(self.values.swapaxes(0, 1), self.diverged.swapaxes(0, 1), strict=True):
            yield [row[~gone] for row, gone in zip(rows, died, strict=True)]

    def differences(self, rule: int, baseline: int, deviations: Array) -> Array:
        """Returns the differences in seed deviations, (cells, seeds)."""
        gaps = self.values[rule] - self.values[baseline]
        return np.stack([standardised(gap, deviation) for gap, deviation in zip(gaps, deviations, strict=True)])


def judge(scores: Scores, rules: Sequence[int], baselines: Sequence[int]) -> list[Judgement]:
    """Returns the judgement on each rule. Rules and baselines are numbers of contenders; one may be both."""
    deviations, freedoms = scores.deviations(), scores.freedoms()
    gaps = [np.stack([scores.differences(rule, base, deviations) for base in baselines]) for rule in rules]
    found = []
    for gap, judged in zip(gaps, _judged(gaps, [freedoms] * len(gaps)), strict=True):
        tasks, families = (_units(gap, freedoms, names) for names in (scores.tasks, scores.families))
        units = (*tasks.values(), *families.values())
        against = tuple(
            replace(each, verdict=WORSE) if each.below and any(u.against[b].verdict == WORSE for u in units) else each
            for b, each in enumerate(judged.against)
        )
        verdict = judged.verdict
        if any(each.verdict == WORSE for each in against):
            verdict = WORSE
        elif verdict == BETTER and any(family.verdict == WORSE for family in families.values()):
            verdict = NOTHING
        means = [[task.against[b].test.mean for task in tasks.values()] for b in range(len(baselines))]
        quartiles = tuple(map(interquartile_mean, means))
        found.append(Judgement(verdict, against, quartiles, tasks, families))
    return found


def _units(gap: Array, freedoms: Freedoms, names: Sequence[str]) -> dict[str, Judged]:
    """Judges a rule on the cells of each name. `gap` is (baselines, cells, seeds), and `freedoms` is (cells)."""
    units = list(dict.fromkeys(names))
    cells = [np.array([name == unit for name in names]) for unit in units]
    found = _judged([gap[:, mine] for mine in cells], [freedoms[mine] for mine in cells])
    return dict(zip(units, found, strict=True))


def _judged(gaps: Sequence[Array], freedoms: Sequence[Freedoms]) -> list[Judged]:
    """Judges each of several sets of differences, (baselines, cells, seeds), corrected for their number. A mean over
    cells is known as well as the worst of them."""
    pairs = zip(gaps, freedoms, strict=True)
    tests = [[paired(each, int(freedom.min())) for each in gap.mean(1)] for gap, freedom in pairs]
    corrected = iter(holm([test.p for row in tests for test in row]))
    largest = holm([_largest(row) for row in tests])
    found = []
    for gap, row, p in zip(gaps, tests, largest, strict=True):
        against = tuple(Against.of(test, next(corrected), each.mean(1)) for test, each in zip(row, gap, strict=True))
        verdict: Verdict = NOTHING
        if any(each.verdict == WORSE for each in against):
            verdict = WORSE
        elif p is not None and p <= ALPHA and all(each.test.mean > 0 and each.agreed > 0 for each in against):
            verdict = BETTER
        found.append(Judged(verdict, against))
    return found


def _largest(tests: Sequence[Paired]) -> float | None:
    found = [test.p for test in tests]
    return None if None in found else max(p for p in found if p is not None)
