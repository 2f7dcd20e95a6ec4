"""Owns a proof: which contenders train in which cells, what that will cost, and what comes of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np

from ..executor import Executor
from ..rules import CompiledRule, compile_rule
from ..run.trainings import TaskRecipe
from ..task import Task
from ..train.decay import Decay
from ..train.engine import Engine, kind_for
from ..train.seeds import derive_seed
from ..train.training import Training
from .cells import Cell, cells_of
from .families import family_of
from .space import Space
from .trials import POINTS, Books, LoadCells, ScoreCells, carry_out
from .tuning import Plan, Tuned, contend, together
from .verdict import Scores

# How many trainings a search for a rate takes, for an estimate. A walk that goes on and one that stops early make up
# for each other.
_FIRST, _FURTHER, _AGAIN = 12, 6, 4
_TIMED: Final = 0.05  # seconds of steps to measure
_MEASURED: Final = "adam"


@dataclass(frozen=True)
class Contender:
    """A rule that takes part, by the name that the user gave it, with the space of its constants."""

    name: str
    rule: CompiledRule
    space: Space

    @classmethod
    def of(cls, rule: CompiledRule) -> Contender:
        return cls(rule.label, rule, Space.of(rule))


@dataclass(frozen=True)
class Protocol:
    """What decides a proof besides its contenders. `tasks` are as `recipes` load them.

    There are `tuning` points of each space, and `seeds` trainings that count in each cell. All seeds are derived from
    `seed`; that for tuning is none of those that count.
    """

    recipes: tuple[TaskRecipe, ...]
    tasks: tuple[Task, ...]
    sizes: tuple[str, ...]
    horizons: tuple[int, ...]
    seeds: int
    tuning: int
    decay: Decay
    engine: Engine
    seed: int

    @cached_property
    def cells(self) -> list[Cell]:
        return cells_of(len(self.tasks), self.sizes, self.horizons)

    @cached_property
    def loader(self) -> LoadCells:
        return LoadCells(self.recipes, tuple(self.cells), self.engine, self.decay)

    @cached_property
    def scorer(self) -> ScoreCells:
        """Raises UsageError where a task has no network of a size."""
        return self.loader.of(self.tasks)

    @cached_property
    def plan(self) -> Plan:
        counting = tuple(derive_seed(self.seed, "prove", k) for k in range(self.seeds))
        return Plan(self.tuning, derive_seed(self.seed, "prove tuning"), counting)

    def numbers(self, task: int) -> list[int]:
        """Returns the numbers of a task's cells."""
        return [k for k, cell in enumerate(self.cells) if cell.task == task]

    def label(self, cell: int) -> str:
        return self.cells[cell].label(self.tasks[self.cells[cell].task])

    def books(self, folder: str | None, common: Mapping[str, Any], versions: Mapping[str, str]) -> Books:
        """Returns what is finished already. `common` has what decides every training besides the protocol."""
        return Books(folder, self.scorer, [self.label(k) for k in range(len(self.cells))], common, versions)


@dataclass(frozen=True)
class Found:
    """What a proof has found: for each contender, in order, what was tuned and trained in each cell."""

    contenders: Sequence[Contender]
    protocol: Protocol
    tuned: Sequence[Sequence[Tuned]]

    @cached_property
    def scores(self) -> Scores:
        outcomes = [[cell.outcomes for cell in row] for row in self.tuned]
        values = [[[each.test or 0.0 for each in cell] for cell in row] for row in outcomes]
        died = [[[each.status == "diverged" for each in cell] for cell in row] for row in outcomes]
        names = tuple(self.protocol.tasks[cell.task].name for cell in self.protocol.cells)
        return Scores(np.array(values), np.array(died), names, tuple(map(family_of, names)))


def prove(
    contenders: Sequence[Contender],
    protocol: Protocol,
    books: Books,
    executor: Executor,
    *,
    progress: Callable[[int, int], None],
) -> Found:
    """Tunes and trains all contenders on all tasks. `progress` is told how many trainings are done, and how many are
    left of those that were asked for at once."""
    tasks = range(len(protocol.tasks))
    pairs = [(contender, protocol.numbers(task)) for contender in contenders for task in tasks]
    asking = together([contend(contender.space, cells, protocol.plan) for contender, cells in pairs])
    tuned: list[list[Tuned]] = carry_out(asking, books, executor, progress=progress)
    rows = [[each for task in tasks for each in tuned[k * len(tasks) + task]] for k in range(len(contenders))]
    return Found(contenders, protocol, rows)


# --- what it will cost -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """How many trainings a proof has, about, and the seconds that one core needs for them."""

    trainings: int
    seconds: float

    def without(self, finished: int) -> Cost:
        """Returns what is left when so many trainings, of average cost, are finished."""
        left = max(0, self.trainings - finished)
        return Cost(left, self.seconds * left / self.trainings)


def cost(
    contenders: Sequence[Contender], protocol: Protocol, *, clock: Callable[[], float] = time.perf_counter
) -> Cost:
    """Estimates the cost from steps that are taken here: for each task at each size a few, with Adam, and with every
    rule that orthogonalizes."""
    times: dict[tuple[int, str, str], tuple[float, float]] = {}
    trainings, seconds = 0, 0.0
    for number, cell in enumerate(protocol.cells):
        task = protocol.scorer.tasks[number]
        for contender in contenders:
            matrices = kind_for(protocol.engine, task, contender.rule) is not kind_for(protocol.engine, task, _adam())
            rule = contender.rule if matrices else _adam()
            key = (cell.task, cell.size, rule.text)
            if key not in times:
                times[key] = _time(rule, task, protocol.engine, clock)
            step, look = times[key]
            tuning = _FIRST + _FURTHER * (protocol.tuning - 1) if number == protocol.numbers(cell.task)[0] else _AGAIN
            trainings += tuning + protocol.seeds
            each = step * task.budget.train_steps
            seconds += tuning * (each + look) + protocol.seeds * (each + (POINTS + 1) * look)
    return Cost(trainings, seconds)


def _adam() -> CompiledRule:
    return compile_rule(_MEASURED)


def _time(rule: CompiledRule, task: Task, engine: Engine, clock: Callable[[], float]) -> tuple[float, float]:
    """Returns the seconds of a step, and of a look at the validation data."""
    training = kind_for(engine, task, rule)(rule, task, lr=1e-3, total_steps=10**6, seed=0)
    training.run(2)  # what happens once is over
    steps = 1
    while (taken := _run(training, steps, clock)) < _TIMED:
        steps *= 2
    step = taken / steps
    start = clock()
    training.measure(task.val)
    return step, clock() - start


def _run(training: Training, steps: int, clock: Callable[[], float]) -> float:
    """Returns the seconds that so many steps take."""
    start = clock()
    training.run(training.step + steps)
    return clock() - start


def describe(contenders: Sequence[Contender]) -> dict[str, Any]:
    """Returns the spaces of all contenders as JSON."""
    return {contender.name: contender.space.describe() for contender in contenders}
