"""Owns how a contender is tuned and then trained: the same for a rule and for every baseline, whatever it is.

Learning rates lie on a lattice of seven steps a decade, each a factor of 1.39. Every training that tuning asks for is a
whole one, whose learning rate falls as in those that count, is scored on validation data, and has the tuning seed,
which no training that counts has.

1. In the first cell of the task (smallest size, shortest horizon) point 0 of the rule's space (space.py) is trained at
   the decades 1e-5 ... 10. Around the best of them the rate is searched by two steps, then by one, and further as long
   as the best lies at the edge.
2. Each further point of the space is searched in the same way around the rate that was best for point 0. The best of
   all goes on: its constants and its weight decay are those of the rule on this task.
3. In each cell of the task its rate is searched again, by one step, from there.
4. In each cell it is trained at the best rate once for each seed that counts, and scored on test data.

A generator says which trainings it wants next and is sent their outcomes, so that those of all contenders and tasks can
be done side by side, in rounds.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from ..rules import CompiledRule
from ..train.child import Outcome
from .space import Space

STEPS: Final = 7  # of the lattice, in a decade
DECADES: Final = range(-5 * STEPS, STEPS + 1, STEPS)
LOWEST, HIGHEST = -8 * STEPS, 4 * STEPS  # rates of 1e-8 to 1e4
_Out = TypeVar("_Out")


def rate_of(number: int) -> float:
    """Returns a learning rate of the lattice. Number 0 is 1."""
    return float(10.0 ** (number / STEPS))


@dataclass(frozen=True)
class Ask:
    """A training that is wanted: a rule, a cell by its number, the number of a learning rate, and a seed. It is one
    that counts, with a curve and a score on test data, or one for tuning."""

    rule: CompiledRule
    cell: int
    rate: int
    seed: int
    counts: bool


Asking = Generator[list[Ask], list[Outcome], _Out]


@dataclass(frozen=True)
class Tuned:
    """What tuning has found for a contender in a cell: the point of its space, the number of its learning rate, which
    is None where it diverges at all of them, the validation score there, and one outcome for each seed that counts."""

    point: int
    rate: int | None
    validation: float
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True)
class Plan:
    """How many `points` of a space are tried, the tuning seed, and the `seeds` that count."""

    points: int
    seed: int
    seeds: tuple[int, ...]


def together(generators: Sequence[Asking[_Out]]) -> Asking[list[_Out]]:
    """Runs several of them side by side: what they want at one time is asked for at once."""
    results: dict[int, Any] = {}
    wanted: dict[int, list[Ask]] = {}

    def advance(k: int, outcomes: list[Outcome] | None) -> None:
        try:
            wanted[k] = next(generators[k]) if outcomes is None else generators[k].send(outcomes)
        except StopIteration as stop:
            results[k] = stop.value

    for k in range(len(generators)):
        advance(k, None)
    while wanted:
        held, wanted = wanted, {}
        outcomes = yield [ask for asks in held.values() for ask in asks]
        taken = 0
        for k, asks in held.items():
            advance(k, outcomes[taken : taken + len(asks)])
            taken += len(asks)
    return [results[k] for k in range(len(generators))]


def contend(space: Space, cells: Sequence[int], plan: Plan) -> Asking[list[Tuned]]:
    """Tunes a rule on one task, whose cells these are, the first of them to tune its constants in, and trains it."""
    first = yield from _Search(space.rule, cells[0], plan.seed).run(None)
    start = None if first is None else first.rate
    others = [_Search(space.point(k), cells[0], plan.seed).run(start) for k in range(1, plan.points)]
    found = [first, *(yield from together(others))]
    best = min(range(len(found)), key=lambda k: _rank(found[k]))
    chosen = found[best]
    if chosen is None:
        gone = Tuned(0, None, 0.0, (Outcome("diverged", 0.0, None),) * len(plan.seeds))
        return [gone] * len(cells)
    rule = space.point(best)
    return (yield from together([_in_cell(rule, best, chosen.rate, cell, plan) for cell in cells]))


def _in_cell(rule: CompiledRule, point: int, start: int, cell: int, plan: Plan) -> Asking[Tuned]:
    search = _Search(rule, cell, plan.seed)
    best = yield from search.around(start, 1)
    if best is None:
        return Tuned(point, None, 0.0, (Outcome("diverged", 0.0, None),) * len(plan.seeds))
    outcomes = yield [Ask(rule, cell, best.rate, seed, counts=True) for seed in plan.seeds]
    return Tuned(point, best.rate, best.score, tuple(outcomes))


@dataclass(frozen=True)
class _Best:
    """The best rate so far, by `rank`: the score, and where it is equal the loss and the lower rate."""

    rate: int
    score: float
    loss: float

    @property
    def rank(self) -> tuple[float, float, int]:
        return -self.score, self.loss, self.rate


class _Search:
    """A search for the best learning rate of a rule in a cell."""

    def __init__(self, rule: CompiledRule, cell: int, seed: int) -> None:
        self._rule, self._cell, self._seed = rule, cell, seed
        self._known: dict[int, _Best | None] = {}

    def run(self, start: int | None) -> Asking[_Best | None]:
        """Searches by two steps and then by one, around `start` or around the best decade."""
        if start is None:
            yield from self._try(DECADES)
        else:
            yield from self.around(start, 2)
        best = self._best()
        for step in (2, 1):
            best = None if best is None else (yield from self.around(best.rate, step))
        return best

    def around(self, start: int, step: int) -> Asking[_Best | None]:
        """Walks from `start` to a rate that is better than those a step above and below it. Where it has diverged at
        all of these, the decades are tried first."""
        yield from self._try((start - step, start, start + step))
        if self._best() is None:
            yield from self._try(DECADES)
        while (best := self._best()) is not None:
            sides = (best.rate - step, best.rate + step)
            if not self._new(sides):
                break
            yield from self._try(sides)
        return best

    def _best(self) -> _Best | None:
        return min(self._known.values(), key=_rank, default=None)

    def _new(self, rates: Sequence[int]) -> list[int]:
        return [rate for rate in rates if rate not in self._known and LOWEST <= rate <= HIGHEST]

    def _try(self, rates: Sequence[int]) -> Asking[None]:
        new = self._new(rates)
        if not new:
            return
        outcomes = yield [Ask(self._rule, self._cell, rate, self._seed, counts=False) for rate in new]
        for rate, outcome in zip(new, outcomes, strict=True):
            dead = outcome.status == "diverged"
            self._known[rate] = None if dead else _Best(rate, outcome.reward, outcome.curve["val_loss"][-1])


def _rank(best: _Best | None) -> tuple[float, ...]:
    """Returns the rank of what has diverged, too, which is behind every other."""
    return (math.inf,) if best is None else best.rank
