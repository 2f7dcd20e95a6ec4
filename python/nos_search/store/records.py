"""Owns what a run's store holds, as plain records: a trial of the search, and a training that is no trial of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

STATUSES = ("running", "done", "diverged", "rejected", "duplicate", "failed")
SCORE_STATUSES = ("done", "diverged", "failed")
# Of a run. "running" is also what a killed run leaves behind; Store.state tells the two apart.
STATES = ("running", "finished", "interrupted", "failed")


@dataclass(frozen=True)
class Trial:
    """A trial is one proposed rule and what became of it. layout.py says what each field is, and schema.py what it may
    be."""

    id: int
    tokens: tuple[int, ...]
    rule: str
    key: str
    seed: int
    status: str = "running"
    reward: float | None = None
    lr: float | None = None
    duplicate_of: int | None = None
    reason: str = ""
    started: float = 0.0
    seconds: float = 0.0
    curve: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    gates: dict[str, dict[str, Any]] = field(default_factory=dict)
    fingerprint: str = ""
    batch: int | None = None
    asked: int | None = None
    told: int | None = None
    attempts: int = 1
    worker: str = ""
    family: int | None = None

    @property
    def trained(self) -> bool:
        """Tells whether its child was trained, well or not."""
        return self.status in ("done", "diverged")


def answered(trials: Iterable[Trial]) -> list[Trial]:
    """Returns those that were answered, in the order of their answers."""
    order = ((trial.told, trial) for trial in trials if trial.told is not None)
    return [trial for _, trial in sorted(order, key=lambda entry: entry[0])]


@dataclass(frozen=True)
class Score:
    """A score is a training that is no trial: of a known optimizer, or of a promoted rule. Its fields are those of
    layout.py."""

    purpose: str
    name: str
    key: str
    task: str
    seed: int
    budget: dict[str, Any]
    status: str
    reward: float | None = None
    lr: float | None = None
    test: float | None = None
    curve: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
