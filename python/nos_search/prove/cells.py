"""Owns cells: a cell is a task at one size of its network and one length of training. A proof is made of many.

What counts is the score at the end of a training, whose learning rate falls over the whole of it. A longer training is
therefore another one from its first step on, and no training is looked at half way: rankings flip there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ..bounds import MOST
from ..errors import UsageError, choose
from ..task.base import Task

LONGEST: Final = 1_000_000  # horizon
SIZES: Final = {"s": 0.5, "m": 1.0, "l": 2.0}  # times the width that the task's network has by itself, smallest first


@dataclass(frozen=True)
class Cell:
    """A task, by its number among those of the proof, its size, and its horizon: how many times the task's own
    train_steps a training has."""

    task: int
    size: str
    horizon: int

    def of(self, task: Task) -> Task:
        """Returns the task with the network and the steps of this cell. Raises UsageError where there is no such
        network, or where there are too many steps."""
        width = max(1, round(task.width * SIZES[self.size]))
        steps = self.horizon * task.budget.train_steps
        if steps > MOST["--train-steps"]:
            raise UsageError(
                f"--horizons {self.horizon} makes {steps} steps of the {task.budget.train_steps} of {task.name}, which "
                f"is above {MOST['--train-steps']}; choose a smaller number, or fewer --train-steps"
            )
        return task.with_options(width=width, train_steps=steps)

    def label(self, task: Task) -> str:
        return f"{task.name} {self.size} x{self.horizon}"


def cells_of(count: int, sizes: Sequence[str], horizons: Sequence[int]) -> list[Cell]:
    """Returns the cells of so many tasks: task by task, the smallest size first, and the shortest horizon first, so
    that the first of a task is the one to tune on."""
    return [Cell(task, size, horizon) for task in range(count) for size in sizes for horizon in horizons]


def read_sizes(text: str) -> list[str]:
    """Reads --sizes, in the order of SIZES."""
    names = [part.strip() for part in text.split(",")]
    for name in names:
        if name not in SIZES:
            raise choose("--sizes", name, tuple(SIZES))
    return [name for name in SIZES if name in names]


def read_horizons(text: str) -> list[int]:
    """Reads --horizons, in rising order."""
    found = []
    for part in text.split(","):
        number = part.strip()
        if not number.isascii() or not number.isdecimal() or not 1 <= int(number[:20]) <= LONGEST:
            raise UsageError(
                f"--horizons {number!r} is no whole number from 1 to {LONGEST}; for example --horizons 1,4,10"
            )
        found.append(int(number))
    return sorted(set(found))
