"""Owns the contract of what runs children: jobs go in, answers come out, in any order.

`nos_search.testing.executor` ships the conformance test. Whatever the executor, an outcome is the same, bit for bit,
for the same rule, seed and number of torch threads on machines of one kind.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from ..rules import CompiledRule
from ..train.child import Outcome

# Scores a rule with a seed on a rung, of which rung 0 is the search's own task. If it raises, the job has no outcome.
Scorer = Callable[[CompiledRule, int, int], Outcome]
# Loads the data and makes a scorer. It is called once in each worker, and must be picklable if workers are processes.
Loader = Callable[[], Scorer]


@dataclass(frozen=True)
class Job:
    """A job is a child to train. `number` is that of its trial and `seed` is the child's. `rung` is 0 for the search's
    own task, or the rung to which the rule has been promoted."""

    number: int
    rule: CompiledRule
    seed: int
    rung: int = 0


@dataclass(frozen=True)
class Answer:
    """An answer says what became of a job: it has an outcome, or None and the `reason` why the job could not be run.

    `seconds` is the time that the training took. `attempts` says how often it was begun, which is more than once when a
    worker was lost. `worker` names the worker that trained it and is "" for this process.
    """

    number: int
    outcome: Outcome | None
    reason: str
    seconds: float
    attempts: int = 1
    worker: str = ""


class Executor(ABC):
    """An executor takes jobs and gives back answers. It is a context manager; whoever does not use it as one calls
    close().

    It holds up to `slots` jobs. Where there are workers, these are more than can be trained at once: the jobs that wait
    keep a worker from being idle while the search thinks. A rule that diverges is an outcome, not a failure.
    """

    slots: int

    @abstractmethod
    def submit(self, job: Job) -> None:
        """Takes a job. Raises RuntimeError when there is no free slot or the executor is closed."""

    @abstractmethod
    def wait(self, seconds: float = math.inf) -> list[Answer]:
        """Blocks until a submitted job is answered, and returns one answer or more, or none when `seconds` are over
        before. An executor that trains within this call finishes its job first. Raises RuntimeError when no job is
        held."""

    @abstractmethod
    def drop(self) -> list[int]:
        """Gives up the jobs that no worker has begun, and returns their numbers. They will not be answered."""

    def warm_up(self) -> None:
        """Blocks until the workers have started and loaded their data. It need not be called before submit()."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Gives up all jobs and frees what the executor holds. It may be called again."""

    def __enter__(self) -> Executor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
