"""Owns the contract of what runs children: jobs go in, answers come out, in any order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from ..rules import Rule
from ..train.child import Outcome


@dataclass(frozen=True)
class Job:
    """A child to train. number: of its trial. seed: of the child."""

    number: int
    rule: Rule
    seed: int


@dataclass(frozen=True)
class Answer:
    """What became of a job: an outcome, or None and the reason when it could not be run.

    seconds: its time in training.
    """

    number: int
    outcome: Outcome | None
    reason: str
    seconds: float


class Executor(ABC):
    """slots: how many jobs it can hold. A rule that diverges is an outcome, not a failure."""

    slots: int

    @abstractmethod
    def submit(self, job: Job) -> None:
        """Takes a job; there must be a free slot."""

    @abstractmethod
    def wait(self) -> list[Answer]:
        """At least one answer of a submitted job; blocks until there is one."""

    @abstractmethod
    def close(self) -> None:
        """Gives up all jobs and frees what the executor holds."""
