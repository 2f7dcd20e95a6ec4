"""Owns trainings that belong to no search: an executor trains rules on tasks with seeds, as `evaluate` wants them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import SearchError, UsageError, choose
from ..executor import EXECUTORS, Executor, InProcess, Job, Loader, Scorer, Workers, create, several
from ..rules import CompiledRule
from ..task import Task, load
from ..train.child import Outcome, ScoringProtocol, score
from ..train.engine import kind_of
from ..train.native import NativeTraining
from ..train.protocols import paper
from ..train.room import check_room

_PATIENCE = 1e8  # seconds, three years: how long a training may take is the user's choice


@dataclass(frozen=True)
class TaskRecipe:
    """A recipe says how to load a task, and travels to worker processes. `options` are those of Task.with_options;
    `argument` is the option that named the task. With `paper` the child is the paper's (train/protocols.py). With
    `augment` images are augmented (train/augment.py); a task that has none is as it is."""

    name: str
    data_dir: Path | None = None
    options: tuple[tuple[str, Any], ...] = ()
    device: str = "cpu"
    argument: str = "--tasks"
    paper: bool = False
    augment: bool = False

    def load(self) -> Task:
        task = load(self.name, data_dir=self.data_dir, argument=self.argument)
        if self.paper:
            task = paper(task)
        augment = self.augment and task.has_pictures
        return task.with_options(**dict(self.options), augment=augment).to(self.device)


@dataclass(frozen=True)
class ScoreTasks:
    """This is a Scorer over several tasks: a job's `rung` is the number of its task."""

    tasks: tuple[Task, ...]
    protocol: ScoringProtocol

    def __call__(self, rule: CompiledRule, seed: int, rung: int) -> Outcome:
        return score(rule, self.tasks[rung], self.protocol, seed=seed, test=True)


@dataclass(frozen=True)
class LoadTasks:
    """This is a Loader, by which a worker process gets what it needs to score rules on these tasks."""

    recipes: tuple[TaskRecipe, ...]
    protocol: ScoringProtocol

    def __call__(self) -> ScoreTasks:
        return ScoreTasks(tuple(recipe.load() for recipe in self.recipes), self.protocol)


def make_tasks_executor(
    loader: LoadTasks, tasks: Sequence[Task], *, workers: int, threads: int, clock: Callable[[], float]
) -> Executor:
    """Returns what trains: this process, which has loaded the tasks already, or `workers` others with equal results.
    `threads` are torch's. Trainings by own kernels go on in this process side by side, each with its own rule or
    seed. Raises UsageError where those that go on at once have no room."""
    protocol, together = loader.protocol, loader.protocol.threads

    def here() -> Scorer:
        return ScoreTasks(tuple(tasks), protocol)

    if workers > 1:
        check_room(tasks, protocol, workers, "--workers")
        device = loader.recipes[0].device
        return make_executor(loader, here, device=device, workers=workers, threads=threads, clock=clock)
    if together > 1 and all(kind_of(protocol.engine, task) is NativeTraining for task in tasks):
        check_room(tasks, protocol, together, "--threads")
        scorer = ScoreTasks(tuple(tasks), replace(protocol, threads=1))
        return InProcess(scorer, threads=threads, clock=clock, together=together)
    return InProcess(here(), threads=threads, clock=clock)


def make_executor(
    loader: Loader,
    here: Callable[[], Scorer],
    *,
    device: str,
    workers: int,
    threads: int,
    clock: Callable[[], float],
    name: str | None = None,
) -> Executor:
    """Returns the executor of that name, by default the one for so many workers. `here` gives what trains in this
    process, where that is it, and `loader` what trains in others. `threads` are torch's."""
    name = check_executor(name, device=device, workers=workers)
    if not EXECUTORS[name].processes:
        return InProcess(here(), threads=threads, clock=clock)
    return create(name, loader, Workers(workers, threads, _PATIENCE), clock=clock)


def check_executor(name: str | None, *, device: str, workers: int) -> str:
    """Returns the name of the executor that is meant. Raises UsageError where there is none, or not with so many
    workers."""
    if name is None:
        name = several(device) if workers > 1 else "inprocess"
    if name not in EXECUTORS:
        raise choose("--executor", name, tuple(EXECUTORS))
    if workers > 1 and not EXECUTORS[name].processes:
        raise UsageError(f"--workers {workers}: --executor {name} has one process; add --workers 1, or name another")
    return name


@dataclass(frozen=True)
class Wanted:
    """A training to do: its rule, the number of its task, and its seed."""

    rule: CompiledRule
    task: int
    seed: int


def run_all(
    executor: Executor, wanted: Iterable[Wanted], *, started: Callable[[Wanted], None]
) -> Iterator[tuple[Wanted, Outcome]]:
    """Yields each training with its outcome, in the order in which they end. `started` is told when one is handed over.

    Raises SearchError when one cannot be run; its message says which and why. What ended together with it is yielded
    before.
    """
    waiting, held = deque(enumerate(wanted)), dict[int, Wanted]()
    while waiting or held:
        while waiting and len(held) < executor.slots:
            number, each = waiting.popleft()
            started(each)
            held[number] = each
            executor.submit(Job(number, each.rule, each.seed, each.task))
        faults: list[str] = []
        for answer in executor.wait():
            each = held.pop(answer.number)
            if answer.outcome is None:
                faults.append(f"{each.rule.label}: seed {each.seed} could not be trained: {answer.reason}")
            else:
                yield each, answer.outcome
        if faults:
            raise SearchError(faults[0])
