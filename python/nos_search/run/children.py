"""Owns the way from a run's configuration to what trains its children: the scorer, and the executor that holds it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import nos_ext

from ..executor import EXECUTORS, Executor, Loader, Scorer, Workers, create
from ..rules import CompiledRule
from ..task import Task
from ..train.child import Outcome, ScoringProtocol, score
from ..train.device import check_device
from ..train.engine import check_trains
from ..train.promotion import Promotion, promote
from ..train.room import check_room
from .config import RunConfig


@dataclass(frozen=True)
class ChildScorer:
    """This scores rules by training the task's child, or the children of a rung of the ladder."""

    task: Task
    protocol: ScoringProtocol
    ladder: Promotion | None = None

    def __call__(self, rule: CompiledRule, seed: int, rung: int) -> Outcome:
        if rung == 0:
            return score(rule, self.task, self.protocol, seed=seed)
        if self.ladder is None:
            raise ValueError(f"rung {rung}: this run has no ladder (--promote)")
        return promote(rule, self.ladder, rung, seed=seed)


# Scores a program with a seed by a number in [0, 1]; NaN where the rule diverged.
Objective = Callable[[nos_ext.Program, int], float]


@dataclass(frozen=True)
class ObjectiveScorer:
    """This scores rules by a user's own function, which trains what it likes."""

    objective: Objective

    def __call__(self, rule: CompiledRule, seed: int, rung: int) -> Outcome:
        found = self.objective(rule.program, seed)
        try:
            reward = float(found)
        except (TypeError, ValueError):
            kind = type(found).__name__
            raise TypeError(f"the objective returned a {kind}; let it return a number in [0, 1]") from None
        if math.isnan(reward):
            return Outcome("diverged", 0.0, None)
        if not 0 <= reward <= 1:
            raise ValueError(f"the objective returned {reward:g}; let it return a number in [0, 1], or NaN")
        return Outcome("done", reward, None)


@dataclass(frozen=True)
class LoadChild:
    """This is a picklable Loader, by which a worker loads the task itself, once. `config` is a RunConfig as JSON."""

    config: dict[str, Any]

    def __call__(self) -> Scorer:
        config = RunConfig.from_json(self.config)
        return scorer(config, config.make_task())


@dataclass(frozen=True)
class LoadGiven:
    """This is a Loader that brings along what a Python program gave: a task of its own, or an objective."""

    config: dict[str, Any]
    given: Task | Objective

    def __call__(self) -> Scorer:
        if not isinstance(self.given, Task):
            return ObjectiveScorer(self.given)
        return scorer(RunConfig.from_json(self.config), self.given)


def scorer(config: RunConfig, task: Task) -> ChildScorer:
    """Returns the scorer that the configuration asks for, with its data on its device. Raises UsageError for a ladder
    that cannot be read or loaded, and for a device that this process does not have."""
    ladder, device = config.make_ladder(task), check_device(config.device_name)
    if ladder is not None:
        ladder = ladder.to(device)
    return ChildScorer(task.to(device), config.make_protocol(), ladder)


def make_executor(config: RunConfig, task: Task | Objective, *, clock: Callable[[], float]) -> Executor:
    """Returns the executor that the configuration asks for. `task` is loaded already, for trainings in this process, or
    it is the function that scores rules instead.
    Raises UsageError for workers whose children have no room on this machine."""
    name = config.executor_name
    if isinstance(task, Task):
        check_trains(config.engine, [task])  # a run may be resumed on another machine
        loader = _loader(config, task)
        if not EXECUTORS[name].cluster:
            check_room([task], config.make_protocol(), config.workers, "--workers")
    else:
        loader = LoadGiven(config.to_json(), task)
    workers = Workers(
        config.workers,
        config.torch_threads,
        config.trial_timeout,
        gpus=config.gpus_per_trial,
        address=config.ray_address,
    )
    return create(name, loader, workers, clock=clock)


def _loader(config: RunConfig, task: Task) -> Loader:
    """Returns what gives each worker its scorer. What cannot be had is said here, and not by each worker."""
    entry = EXECUTORS[config.executor_name]
    if not entry.processes:
        return partial(scorer, config, task)
    config.make_ladder(task)
    if not entry.cluster:
        check_device(config.device_name)
    return LoadChild(config.to_json()) if config.given is None else LoadGiven(config.to_json(), task)
