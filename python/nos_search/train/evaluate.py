"""Owns the comparison of rules over several seeds: mean and confidence interval of validation and test accuracy.

Each run has its own learning-rate sweep, so a comparison is between tuned rules. Equal seeds mean equal first weights
and equal batches for every rule, which makes differences between rules less noisy than the rules' own spreads.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import SearchError
from ..executor import Executor, InProcess, Job
from ..rules import Rule
from ..task import Task, load
from .child import Outcome, Protocol, score

CONFIDENCE = 0.95
_PATIENCE = 1e8  # seconds, three years: how long a training may take is the user's choice


@dataclass(frozen=True)
class Comparison:
    """One rule on one task over `seeds` runs. Means, standard deviations (n - 1; 0 for one seed) and half widths of the
    95 % Student t interval (None for one seed) of accuracies in [0, 1]; a diverged run counts as 0.

    loss: mean validation loss in nats of the runs that did not diverge, None if all did. lrs: the learning rate that
    each run's sweep chose, None if all diverged. vals, tests: accuracy of each run. difference: mean, and half width of
    the interval, of test accuracy minus the baseline's on the same seed.
    """

    rule: str
    task: str
    seeds: int
    val_mean: float
    val_std: float
    val_ci: float | None
    test_mean: float
    test_std: float
    test_ci: float | None
    diverged: int
    loss: float | None
    lrs: tuple[float | None, ...]
    vals: tuple[float, ...]
    tests: tuple[float, ...]
    difference: tuple[float, float | None] | None = None

    def against(self, baseline: Comparison) -> Comparison:
        """With the difference to a baseline that was run on the same seeds."""
        gaps = [mine - other for mine, other in zip(self.tests, baseline.tests, strict=True)]
        return replace(self, difference=(statistics.fmean(gaps), half_width(gaps)))


def half_width(values: Sequence[float]) -> float | None:
    """Half width of the two-sided 95 % Student t interval of the mean; None for fewer than two values."""
    if len(values) < 2:
        return None
    from scipy.special import stdtrit  # type: ignore[import-untyped]

    quantile = float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2))
    return quantile * statistics.stdev(values) / math.sqrt(len(values))


def summarise(rule: str, task: str, outcomes: Sequence[Outcome]) -> Comparison:
    """The comparison that several outcomes of one rule on one task make."""
    val = [outcome.reward for outcome in outcomes]
    test = [outcome.test or 0.0 for outcome in outcomes]
    losses = [outcome.curve["val_loss"][-1] for outcome in outcomes if outcome.status == "done"]
    return Comparison(
        rule,
        task,
        len(outcomes),
        statistics.fmean(val),
        statistics.stdev(val) if len(val) > 1 else 0.0,
        half_width(val),
        statistics.fmean(test),
        statistics.stdev(test) if len(test) > 1 else 0.0,
        half_width(test),
        sum(outcome.status == "diverged" for outcome in outcomes),
        statistics.fmean(losses) if losses else None,
        tuple(outcome.lr for outcome in outcomes),
        tuple(val),
        tuple(test),
    )


def compare(rule: Rule, task: Task, protocol: Protocol, *, seeds: Sequence[int]) -> Comparison:
    """Scores the rule once per seed; the sweep is repeated each time, so its choice is part of the spread."""
    outcomes = [score(rule, task, protocol, seed=seed, test=True) for seed in seeds]
    return summarise(rule.label, task.name, outcomes)


# --- many of them, in several processes ------------------------------------------------------------------------------


@dataclass(frozen=True)
class TaskRecipe:
    """How to load a task; travels to worker processes. options: of Task.with_options. argument: that named it."""

    name: str
    data_dir: Path | None = None
    options: tuple[tuple[str, Any], ...] = ()
    device: str = "cpu"
    argument: str = "--tasks"

    def load(self) -> Task:
        task = load(self.name, data_dir=self.data_dir, argument=self.argument).with_options(**dict(self.options))
        return task.to(self.device)


@dataclass(frozen=True)
class ScoreTasks:
    """A Scorer of the executors over several tasks: a job's `rung` is the number of its task."""

    tasks: tuple[Task, ...]
    protocol: Protocol

    def __call__(self, rule: Rule, seed: int, rung: int) -> Outcome:
        return score(rule, self.tasks[rung], self.protocol, seed=seed, test=True)


@dataclass(frozen=True)
class LoadTasks:
    """A Loader of the executors: what a worker process needs to score rules on these tasks."""

    recipes: tuple[TaskRecipe, ...]
    protocol: Protocol

    def __call__(self) -> ScoreTasks:
        return ScoreTasks(tuple(recipe.load() for recipe in self.recipes), self.protocol)


def make_executor(
    loader: LoadTasks, tasks: Sequence[Task], *, workers: int, threads: int, clock: Callable[[], float]
) -> Executor:
    """Who trains: this process, which has loaded the tasks already, or `workers` others with equal results."""
    if workers == 1:
        return InProcess(ScoreTasks(tuple(tasks), loader.protocol), threads=threads, clock=clock)
    from ..executor.local import Local

    return Local(loader, workers=workers, threads=threads, timeout=_PATIENCE, clock=clock)


@dataclass(frozen=True)
class Wanted:
    """A training to do: a rule, the number of its task, and a seed."""

    rule: Rule
    task: int
    seed: int


def run_all(
    executor: Executor, wanted: Iterable[Wanted], *, started: Callable[[Wanted], None]
) -> Iterator[tuple[Wanted, Outcome]]:
    """Each training with its outcome, in the order in which they end. started: is told when one is handed over.

    SearchError when one cannot be run; its message says which and why.
    """
    waiting, held = deque(enumerate(wanted)), dict[int, Wanted]()
    while waiting or held:
        while waiting and len(held) < executor.slots:
            number, each = waiting.popleft()
            started(each)
            held[number] = each
            executor.submit(Job(number, each.rule, each.seed, each.task))
        for answer in executor.wait():
            each = held.pop(answer.number)
            if answer.outcome is None:
                raise SearchError(f"{each.rule.label}: seed {each.seed} could not be trained: {answer.reason}")
            yield each, answer.outcome
