"""Owns the choice of what trains a child: the kernels of nos_ext, or torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import nos_ext

from ..errors import choose
from ..rules import CompiledRule
from ..task.base import Task
from .matrices import MatrixTraining, NativeMatrixTraining
from .native import NativeTraining, check_kernels, why_not
from .training import Training

Engine = Literal["auto", "native", "torch"]
ENGINES: tuple[Engine, ...] = ("auto", "native", "torch")


def check_engine(name: str) -> None:
    """Raises UsageError for a name that is no engine."""
    if name not in ENGINES:
        raise choose("--engine", name, ENGINES)


def engine_of(engine: Engine, tasks: Sequence[Task]) -> Engine:
    """Returns the engine that "auto" comes to on this machine, where it is the same for all these tasks."""
    found: set[Engine] = {"native" if kind_of(engine, task) is NativeTraining else "torch" for task in tasks}
    return found.pop() if engine == "auto" and len(found) == 1 else engine


def check_trains(engine: Engine, tasks: Sequence[Task]) -> None:
    """Raises UsageError where the engine was named and cannot train the children of these tasks on this machine."""
    for task in tasks if engine == "native" else ():
        check_kernels(task)


def kind_of(engine: Engine, task: Task) -> type[Training]:
    """Returns what trains the child of this task. "auto" is "native" where the kernels can, and else "torch"."""
    if engine == "native" or (engine == "auto" and why_not(task) is None):
        return NativeTraining
    return Training


def kind_for(engine: Engine, task: Task, rule: CompiledRule) -> type[Training]:
    """Returns what trains the child of this task with a rule that may orthogonalize."""
    kind = kind_of(engine, task)
    if not isinstance(rule.program, nos_ext.MatrixProgram):
        return kind
    return NativeMatrixTraining if kind is NativeTraining else MatrixTraining
