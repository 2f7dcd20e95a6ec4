"""Owns the walk from a rule to a simpler one, reduction by reduction, as long as trainings show no loss.

Every candidate is compared with the rule that was given, and not with the one before it in the chain: small losses of
many steps would add up unseen, each below the margin, and the chain would drift. So what is found out about a candidate
also holds for all of the walk, and none is trained twice.

The reductions of a rule are tried from the simplest on, and the first that shows no loss (loss.py) is the next rule.
The walk chooses by scores on validation data. It makes many comparisons, and one that passes may have been lucky. So in
the end the rules of the chain are trained once more with seeds that the walk has not seen and scored on test data, the
last rule first, and the first of them that shows no loss there is the result.

The margin lets a rule be a little worse, and a rule of the chain may be better than the one that was given. So those
before the result are trained with these seeds, too, and one that beats the result there is told of. It is not the
result: it was found by looking at several, and it is larger.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import SearchError
from ..rules import CompiledRule
from ..train.child import Outcome
from . import loss
from .loss import Difference
from .reduce import key_of, reductions

# Scores a rule with some seeds: the outcomes by task, in the order of the seeds.
Measure = Callable[[CompiledRule, Sequence[int]], Mapping[str, Sequence[Outcome]]]


@dataclass(frozen=True)
class Step:
    """A rule of the chain, or one that was tried. `removed` says what it lacks of the rule before it. `scores` are
    means over the seeds, and `differences` those to the given rule, both by task; a rule that is equal to the one
    before it by algebra has that one's. The given rule has no differences."""

    rule: CompiledRule
    removed: str
    scores: Mapping[str, float]
    differences: Mapping[str, Difference] = field(default_factory=dict)


@dataclass(frozen=True)
class Better:
    """A step of the chain, by its number, that beats the result with fresh seeds on test data. `differences` are its
    scores minus those of the result, by task."""

    number: int
    rule: CompiledRule
    scores: Mapping[str, float]
    differences: Mapping[str, Difference]


@dataclass(frozen=True)
class Chain:
    """What a walk has found. `steps` are the given rule and those after it, each simpler than the one before. `margins`
    are by task, of the walk and of the confirmation. `refused` are the candidates that showed a loss or might have one.
    `confirmed` are the steps as they were trained again, the last of the chain first; `result` is the simplest rule
    that showed no loss both times. `better` are the steps before it that beat it, the simplest first."""

    steps: Sequence[Step]
    refused: Sequence[Step]
    margins: Mapping[str, float]
    confirmed: Sequence[Step]
    final_margins: Mapping[str, float]
    result: CompiledRule
    better: Sequence[Better] = ()


def simplify(
    rule: CompiledRule,
    measure: Measure,
    *,
    seeds: Sequence[int],
    fresh: Sequence[int],
    margin: float | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> Chain:
    """Returns the chain from `rule` to the simplest one that shows no loss.

    The walk compares on `seeds`, three at least, and the confirmation on `fresh` ones. `margin` is in units of the
    score; None takes half the standard deviation between the seeds of the given rule. `note` is told of the progress.
    """
    walk = _Walk(rule, measure, seeds, margin, note)
    walk.run()
    again = _Again(walk.steps, measure, fresh)
    final, number = again.confirm(margin, note)
    result = walk.steps[number].rule
    return Chain(walk.steps, walk.refused, walk.margins, again.steps, final, result, again.better(number, note))


class _Walk:
    """A walk is a chain that grows, with all that was tried on the way."""

    def __init__(
        self,
        rule: CompiledRule,
        measure: Measure,
        seeds: Sequence[int],
        margin: float | None,
        note: Callable[[str], None],
    ) -> None:
        self._measure, self._seeds, self._note = measure, seeds, note
        note(f"training the given rule: {rule.label}")
        self._given = {task: _validation(found) for task, found in measure(rule, seeds).items()}
        for task, scores in self._given.items():
            if not any(scores):
                raise SearchError(f"{rule.label} scores 0 on {task} with every seed; there is nothing to keep")
        self.margins = _margins(self._given, margin)
        self.steps = [Step(rule, "", _means(self._given))]
        self.refused: list[Step] = []
        self._tried: set[str] = set()

    def run(self) -> None:
        while (step := self._next()) is not None:
            self.steps.append(step)
            self._note(f"step {len(self.steps) - 1}: {step.rule.label}   ({step.removed})")

    def _next(self) -> Step | None:
        now = self.steps[-1]
        found, key = reductions(now.rule), key_of(now.rule)
        for each in found:
            if each.key == key:
                return Step(each.rule, each.removed, now.scores, now.differences)
        for each in found:
            if each.key in self._tried:
                continue
            self._tried.add(each.key)
            fits, step = self._race(each.rule, each.removed)
            if fits:
                return step
            self.refused.append(step)
            shown = ", ".join(f"{task} {d.mean:+.4f} ± {d.half:.4f}" for task, d in step.differences.items())
            seeds = max(each.seeds for each in step.differences.values())
            self._note(f"kept after {seeds} seeds: {step.removed}   ({shown})")
        return None

    def _race(self, rule: CompiledRule, removed: str) -> tuple[bool, Step]:
        """Trains a candidate with more and more seeds, until it is given up or all of them have been used."""
        scores: dict[str, list[float]] = {task: [] for task in self._given}
        done, alive = 0, True
        for count in loss.stages(len(self._seeds)):
            for task, found in self._measure(rule, self._seeds[done:count]).items():
                scores[task] += _validation(found)
            done = count
            gaps = {task: loss.gaps(scores[task], given) for task, given in self._given.items()}
            alive = not any(loss.hopeless(gaps[task], self.margins[task]) for task in gaps)
            if not alive:
                break
        fits = alive and all(loss.shows_no_loss(gaps[task], self.margins[task]) for task in gaps)
        return fits, Step(rule, removed, _means(scores), {task: loss.difference(gaps[task]) for task in gaps})


class _Again:
    """The chain once more: its steps with fresh seeds on test data. `steps` are those that were asked for loss."""

    def __init__(self, chain: Sequence[Step], measure: Measure, seeds: Sequence[int]) -> None:
        self._chain, self._measure, self._seeds = chain, measure, seeds
        self._tests: dict[int, dict[str, list[float]]] = {}
        self.steps: list[Step] = []

    def confirm(self, margin: float | None, note: Callable[[str], None]) -> tuple[dict[str, float], int]:
        """Goes from the last step back to the first that shows no loss. Returns the margins, and its number, which is 0
        for the given rule."""
        if len(self._chain) == 1:
            return {}, 0
        note("training the given rule with fresh seeds, and the chain from its end")
        margins = _margins(self._scores(0), margin)
        for number in reversed(range(1, len(self._chain))):
            gaps = self._gaps(number, 0)
            found = {task: loss.difference(each) for task, each in gaps.items()}
            step = self._chain[number]
            self.steps.append(Step(step.rule, step.removed, _means(self._scores(number)), found))
            if all(loss.shows_no_loss(gaps[task], margins[task]) for task in gaps):
                return margins, number
        return margins, 0

    def better(self, result: int, note: Callable[[str], None]) -> list[Better]:
        """Returns the steps before the result that beat it, the simplest first."""
        if result > 1:
            note(f"training the steps before step {result} with fresh seeds, as one may be better")
        found = []
        for number in reversed(range(result)):
            gaps = {task: loss.difference(each) for task, each in self._gaps(number, result).items()}
            if loss.beats(gaps.values()):
                found.append(Better(number, self._chain[number].rule, _means(self._scores(number)), gaps))
        return found

    def _scores(self, number: int) -> dict[str, list[float]]:
        if number not in self._tests:
            outcomes = self._measure(self._chain[number].rule, self._seeds)
            self._tests[number] = {task: _test(found) for task, found in outcomes.items()}
        return self._tests[number]

    def _gaps(self, number: int, other: int) -> dict[str, list[float]]:
        theirs = self._scores(other)
        return {task: loss.gaps(mine, theirs[task]) for task, mine in self._scores(number).items()}


def _validation(outcomes: Sequence[Outcome]) -> list[float]:
    return [outcome.reward for outcome in outcomes]


def _test(outcomes: Sequence[Outcome]) -> list[float]:
    return [outcome.test or 0.0 for outcome in outcomes]


def _margins(scores: Mapping[str, Sequence[float]], margin: float | None) -> dict[str, float]:
    return {task: loss.margin_of(found) if margin is None else margin for task, found in scores.items()}


def _means(scores: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {task: statistics.fmean(found) for task, found in scores.items()}
