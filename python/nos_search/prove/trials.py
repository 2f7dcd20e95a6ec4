"""Owns the way of a training that a proof wants to an executor and back: what a job's number says, the scorer, and the
record of what is finished."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from ..executor import Executor
from ..rules import CompiledRule
from ..run.trainings import TaskRecipe, Wanted, run_all
from ..store.record import Record
from ..task import Task
from ..train.child import Outcome, train
from ..train.decay import Decay
from ..train.engine import Engine, engine_of, kind_for
from .cells import Cell
from .tuning import HIGHEST, LOWEST, Ask, Asking, rate_of

POINTS: Final = 10  # of the curve of a training that counts
_RATES: Final = HIGHEST - LOWEST + 1
_COMMAND: Final = "prove"
PROOF: Final = "proof.json"  # in the folder of --out, beside the files of trainings


class Rung(NamedTuple):
    """What the rung of a job stands for: a cell and the number of a learning rate, and whether the training counts."""

    cell: int
    rate: int
    counts: bool

    @property
    def number(self) -> int:
        return (self.cell * _RATES + self.rate - LOWEST) * 2 + self.counts

    @classmethod
    def of(cls, number: int) -> Rung:
        cell, rate = divmod(number // 2, _RATES)
        return cls(cell, rate + LOWEST, bool(number % 2))


@dataclass(frozen=True)
class ScoreCells:
    """This is a Scorer over cells, with one task for each."""

    tasks: tuple[Task, ...]
    engine: Engine
    decay: Decay

    def __call__(self, rule: CompiledRule, seed: int, rung: int) -> Outcome:
        cell, rate, counts = Rung.of(rung)
        task = self.tasks[cell]
        return train(
            rule,
            task,
            lr=rate_of(rate),
            seed=seed,
            test=counts,
            kind=kind_for(self.engine, task, rule),
            decay=self.decay,
            points=POINTS if counts else 1,
        )


@dataclass(frozen=True)
class LoadCells:
    """This is a Loader, by which a worker process gets what it needs."""

    recipes: tuple[TaskRecipe, ...]
    cells: tuple[Cell, ...]
    engine: Engine
    decay: Decay

    def __call__(self) -> ScoreCells:
        return self.of([recipe.load() for recipe in self.recipes])

    def of(self, tasks: Sequence[Task]) -> ScoreCells:
        """Returns the scorer where the tasks are loaded already."""
        return ScoreCells(tuple(cell.of(tasks[cell.task]) for cell in self.cells), self.engine, self.decay)


class Books:
    """The finished trainings of a proof. With a folder they are kept there, in one file for each cell."""

    def __init__(
        self,
        folder: str | None,
        scorer: ScoreCells,
        labels: Sequence[str],
        common: Mapping[str, Any],
        versions: Mapping[str, str],
    ) -> None:
        """`labels` name the cells of the scorer. `common` has what decides every training."""
        self._records = []
        self._labels = labels
        for label, task in zip(labels, scorer.tasks, strict=True):
            path = None if folder is None else str(Path(folder) / f"{label.replace(' ', '-').replace('/', '-')}.json")
            settings = {
                "net": str(task.spec),
                "steps": task.budget.train_steps,
                "score": task.score,
                **({"augment": True} if task.augment else {}),  # records that are older have none
                "engine": engine_of(scorer.engine, [task]),
            }
            self._records.append(Record(path, common, {label: settings}, versions, command=_COMMAND))
        self.finished = sum(record.finished for record in self._records)
        self.changed = list(dict.fromkeys(change for record in self._records for change in record.changed))

    def count(self, rules: Collection[str]) -> int:
        """Returns how many trainings of rules with these texts are finished."""
        return sum(record.count(rules) for record in self._records)

    def get(self, ask: Ask) -> Outcome | None:
        return self._records[ask.cell].get(self._labels[ask.cell], ask.rule.text, ask.seed, ask.rate)

    def add(self, ask: Ask, outcome: Outcome) -> None:
        self._records[ask.cell].add(self._labels[ask.cell], ask.rule.text, ask.seed, outcome, ask.rate)


def carry_out(asking: Asking[Any], books: Books, executor: Executor, *, progress: Callable[[int, int], None]) -> Any:
    """Does what a generator wants, round by round, and returns what it returns. `progress` is told after each training
    how many are done, and how many of the round are left."""
    outcomes: list[Outcome] | None = None
    done = 0
    while True:
        try:
            asks = next(asking) if outcomes is None else asking.send(outcomes)
        except StopIteration as stop:
            return stop.value
        missing = {_key(wanted): (wanted, ask) for ask in asks if books.get(ask) is None for wanted in [_wanted(ask)]}
        left = len(missing)
        trainings = [wanted for wanted, _ in missing.values()]
        for wanted, outcome in run_all(executor, trainings, started=lambda wanted: None):
            books.add(missing[_key(wanted)][1], outcome)
            done, left = done + 1, left - 1
            progress(done, left)
        outcomes = []
        for ask in asks:
            found = books.get(ask)
            assert found is not None
            outcomes.append(found)


def _key(wanted: Wanted) -> tuple[str, int, int]:
    return wanted.rule.text, wanted.task, wanted.seed


def _wanted(ask: Ask) -> Wanted:
    return Wanted(ask.rule, Rung(ask.cell, ask.rate, ask.counts).number, ask.seed)
