"""Owns the way from a run's configuration to what trains its children: the scorer, and the executor that holds it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

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


@dataclass(frozen=True)
class LoadChild:
    """This is a picklable Loader, by which a worker loads the task itself, once. `config` is a RunConfig as JSON."""

    config: dict[str, Any]

    def __call__(self) -> Scorer:
        config = RunConfig.from_json(self.config)
        return scorer(config, config.make_task())


def scorer(config: RunConfig, task: Task) -> ChildScorer:
    """Returns the scorer that the configuration asks for, with its data on its device. Raises UsageError for a ladder
    that cannot be read or loaded, and for a device that this process does not have."""
    ladder, device = config.make_ladder(task), check_device(config.device_name)
    if ladder is not None:
        ladder = ladder.to(device)
    return ChildScorer(task.to(device), config.make_protocol(), ladder)


def make_executor(config: RunConfig, task: Task, *, clock: Callable[[], float]) -> Executor:
    """Returns the executor that the configuration asks for. `task` is loaded already, for trainings in this process.
    Raises UsageError for workers whose children have no room on this machine."""
    check_trains(config.engine, [task])  # a run may be resumed on another machine
    name, loader = config.executor_name, _loader(config, task)
    if not EXECUTORS[name].cluster:
        check_room([task], config.make_protocol(), config.workers, "--workers")
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
    return LoadChild(config.to_json())
