"""Owns the search for better constants of a rule, and the question whether they are better.

CMA-ES draws `population` sets of constants in each generation from a normal distribution over the coordinates of
numbers.py, and moves and shapes that by the ranks of the sets. All sets of a generation are trained as one population,
with the same seeds, which no other generation has: so the ranks are by paired scores, and what is lucky with some seeds
does not stay ahead. With several tasks the rank of a set is the mean of its ranks on each.

The winner of a generation is the luckiest of many. So at the end the middle of the distribution and the winners of the
last generations are trained with other, and more, seeds, and the best of these is the choice. It may have been lucky
again, so it is trained once more, with seeds that nothing was chosen by, beside the rule as it was given, and scored on
test data. Only where the interval of the paired differences lies above 0, on every task, it is called better.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nos_ext import RuleError

from ..errors import SearchError
from ..numbers import Constants
from ..rules import CompiledRule
from ..simplify.loss import Difference, difference, gaps
from ..train.child import Outcome
from ..train.ladder import mean_ranks

_SIGMA = 1.0  # of the first distribution, in coordinates: a factor of two either way
FINALISTS = 8  # the middle of the distribution, and winners of so many generations less one

# Scores rules with some seeds, all of them as one population, for a stage of the search that has this name: for each
# rule its outcomes by task, in the order of the seeds.
Scores = Mapping[str, Sequence[Outcome]]
Measure = Callable[[str, Sequence[CompiledRule], Sequence[int]], Sequence[Scores]]


@dataclass(frozen=True)
class Generation:
    """What came of a generation: its winner with the values of its constants, and by task the mean validation score of
    the winner, the median of those of all sets, and that of the given rule, on the seeds of the generation."""

    winner: CompiledRule
    values: Sequence[float]
    best: Mapping[str, float]
    median: Mapping[str, float]
    given: Mapping[str, float]


@dataclass(frozen=True)
class Chosen:
    """A set of constants that came to the end: the rule with it, the values, mean validation scores by task and
    differences to the given rule on equal seeds."""

    rule: CompiledRule
    values: Sequence[float]
    scores: Mapping[str, float]
    differences: Mapping[str, Difference]


@dataclass(frozen=True)
class Tuned:
    """What a search for constants has found. `finalists` are the sets that came to its end, the best first; `given` has
    the scores of the given rule beside them."""

    generations: Sequence[Generation]
    finalists: Sequence[Chosen]
    given: Mapping[str, float]

    @property
    def best(self) -> Chosen:
        return self.finalists[0]


@dataclass(frozen=True)
class Confirmed:
    """The last word: mean test scores of the given and of the tuned rule by task, and the differences between them."""

    given: Mapping[str, float]
    scores: Mapping[str, float]
    differences: Mapping[str, Difference]

    @property
    def better(self) -> bool:
        """Tells whether the interval of the differences lies above 0 on every task."""
        return all(found.low > 0 for found in self.differences.values())


def tune(
    constants: Constants,
    measure: Measure,
    *,
    generations: Sequence[Sequence[int]],
    choice: Sequence[int],
    population: int,
    seed: int,
    note: Callable[[str], None] = lambda text: None,
) -> Tuned:
    """Searches for the best constants of a rule.

    There is a generation for each of `generations`, which has its seeds. `choice` has the seeds with which finalists
    are compared, two at least. `seed` decides the draws. `note` is told of the progress.
    """
    from cmaes import CMA

    cma = CMA(
        np.zeros(len(constants.tuned)),
        _SIGMA,
        bounds=np.array([each.bounds for each in constants.tuned]),
        seed=seed % 2**32,
        population_size=population,
    )
    found: list[Generation] = []
    winners: list[Sequence[float]] = []
    for number, seeds in enumerate(generations, start=1):
        drawn = [cma.ask() for _ in range(population)]
        rules = [_rule(constants, x) for x in drawn]
        scores = _scores(measure(f"generation-{number:02}", [constants.rule, *_made(rules)], seeds))
        given, rest = scores[0], iter(scores[1:])
        means = [_nothing(given) if rule is None else next(rest) for rule in rules]
        if not any(any(each.values()) for each in means):
            raise SearchError(f"{constants.rule.label} scores 0 with all sets of constants; there is nothing to tune")
        ranks = _ranks(means)
        cma.tell([(x, rank) for x, rank in zip(drawn, ranks, strict=True)])
        best, winner = min(((k, rule) for k, rule in enumerate(rules) if rule is not None), key=lambda e: ranks[e[0]])
        winners.append([float(u) for u in drawn[best]])
        median = {task: statistics.median(each[task] for each in means) for task in given}
        found.append(Generation(winner, constants.values(winners[-1]), means[best], median, given))
        note(f"generation {number} of {len(generations)}: {_shown(found[-1])}")
    middle = np.clip(cma.mean, *np.array([each.bounds for each in constants.tuned]).T)
    last = [[float(u) for u in middle], *reversed(winners[-(FINALISTS - 1) :])]
    return Tuned(found, *_choose(constants, last, measure, choice, note))


def _choose(
    constants: Constants,
    places: Sequence[Sequence[float]],
    measure: Measure,
    seeds: Sequence[int],
    note: Callable[[str], None],
) -> tuple[list[Chosen], dict[str, float]]:
    """Returns the finalists, the best first, and the scores of the given rule on the same seeds."""
    sets = {rule.text: (rule, x) for x in places if (rule := _rule(constants, x)) is not None}
    note(f"the middle of the distribution and the last winners: {len(sets)} sets with {len(seeds)} other seeds each")
    outcomes = measure("choice", [constants.rule, *(rule for rule, _ in sets.values())], seeds)
    (given, *means), given_outcomes = _scores(outcomes), outcomes[0]
    chosen = [
        Chosen(rule, constants.values(x), scores, _differences(theirs, given_outcomes, _validation))
        for (rule, x), scores, theirs in zip(sets.values(), means, outcomes[1:], strict=True)
    ]
    ranks = _ranks(means)
    order = sorted(range(len(chosen)), key=lambda k: (ranks[k], k))
    return [chosen[k] for k in order], given


def confirm(given: CompiledRule, tuned: CompiledRule, measure: Measure, seeds: Sequence[int]) -> Confirmed:
    """Compares a tuned rule with the given one on test data. `seeds` are those that nothing was chosen by."""
    theirs, mine = measure("confirmation", [given, tuned], seeds)
    return Confirmed(
        {task: statistics.fmean(map(_test, found)) for task, found in theirs.items()},
        {task: statistics.fmean(map(_test, found)) for task, found in mine.items()},
        _differences(mine, theirs, _test),
    )


def _rule(constants: Constants, x: Sequence[float]) -> CompiledRule | None:
    """Returns the rule with these constants, or None where the language has none such."""
    try:
        return constants.at([float(u) for u in x])
    except RuleError:
        return None


def _made(rules: Sequence[CompiledRule | None]) -> list[CompiledRule]:
    return [rule for rule in rules if rule is not None]


def _scores(outcomes: Sequence[Scores]) -> list[dict[str, float]]:
    """Returns the mean validation scores by task of each rule."""
    return [{task: statistics.fmean(map(_validation, found)) for task, found in each.items()} for each in outcomes]


def _nothing(given: Mapping[str, float]) -> dict[str, float]:
    return dict.fromkeys(given, 0.0)


def _ranks(means: Sequence[Mapping[str, float]]) -> list[float]:
    return mean_ranks([list(each.values()) for each in means])


def _differences(mine: Scores, theirs: Scores, of: Callable[[Outcome], float]) -> dict[str, Difference]:
    return {task: difference(gaps(list(map(of, mine[task])), list(map(of, theirs[task])))) for task in theirs}


def _validation(outcome: Outcome) -> float:
    return outcome.reward


def _test(outcome: Outcome) -> float:
    return outcome.test or 0.0


def _shown(found: Generation) -> str:
    return "; ".join(
        f"{task} best {found.best[task]:.4f}, median {found.median[task]:.4f}, as given {found.given[task]:.4f}"
        for task in found.given
    )
