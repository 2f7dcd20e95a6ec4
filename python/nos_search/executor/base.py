"""Owns the contract of what runs children: jobs go in, answers come out, in any order.

`nos_search.testing.executor` ships the conformance test. Whatever the executor, an outcome is the same, bit for bit,
for the same rule, seed and number of torch threads on machines of one kind.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from ..rules import CompiledRule
from ..train.child import Outcome

# Scores a rule with a seed on a rung: 0 is the search's own task. May raise: then the job has no outcome.
Scorer = Callable[[CompiledRule, int, int], Outcome]
# Makes a scorer, data loaded; called once in each worker. Picklable where there are other processes.
Loader = Callable[[], Scorer]


@dataclass(frozen=True)
class Job:
    """A child to train. number: of its trial. seed: of the child. rung: 0, or what the rule has been promoted to."""

    number: int
    rule: CompiledRule
    seed: int
    rung: int = 0


@dataclass(frozen=True)
class Answer:
    """What became of a job: an outcome, or None and the reason when it could not be run.

    seconds: its time in training. attempts: how often it was begun, because workers were lost. worker: which one
    trained it, "" for this process.
    """

    number: int
    outcome: Outcome | None
    reason: str
    seconds: float
    attempts: int = 1
    worker: str = ""


class Executor(ABC):
    """slots: how many jobs it holds, those included that wait for a worker so that none is ever idle.

    A rule that diverges is an outcome, not a failure. Use as a context manager, or call close().
    """

    slots: int

    @abstractmethod
    def submit(self, job: Job) -> None:
        """Takes a job. RuntimeError when there is no free slot or the executor is closed."""

    @abstractmethod
    def wait(self) -> list[Answer]:
        """At least one answer of a submitted job; blocks until there is one. RuntimeError when no job is held."""

    def warm_up(self) -> None:
        """Blocks until the workers have started and loaded their data. Not needed before submit()."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Gives up all jobs and frees what the executor holds. May be called again."""

    def __enter__(self) -> Executor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
