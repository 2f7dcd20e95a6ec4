"""Owns what is read off a run: the leaderboard, the counts of its gates, and the JSON that the command line prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .store import STATUSES, Store, Trial


@dataclass(frozen=True)
class Row:
    """One rule of the leaderboard. trial: where it was first trained. trials: how often it, or a rule equal to it by
    algebra, was proposed; duplicates: those that were not trained, trials - 1."""

    rank: int
    reward: float
    lr: float | None
    rule: str
    trial: int
    trials: int
    duplicates: int


def leaderboard(trials: Sequence[Trial]) -> list[Row]:
    """Rules that were trained to the end, best first; equal rewards in order of discovery."""
    duplicates = Counter(trial.duplicate_of for trial in trials if trial.status == "duplicate")
    done = sorted(
        (trial for trial in trials if trial.status == "done" and trial.reward is not None),
        key=lambda trial: (-(trial.reward or 0.0), trial.id),
    )
    return [
        Row(k + 1, t.reward or 0.0, t.lr, t.rule, t.id, 1 + duplicates[t.id], duplicates[t.id])
        for k, t in enumerate(done)
    ]


def counts(trials: Sequence[Trial]) -> dict[str, int]:
    """Number of trials: all that were answered, those that were trained, and by status."""
    by_status = Counter(trial.status for trial in trials)
    result = {"trials": len(trials) - by_status["running"], "trained": by_status["done"] + by_status["diverged"]}
    return result | {_PLURAL.get(status, status): by_status[status] for status in STATUSES}


_PLURAL = {"duplicate": "duplicates"}


def summary(store: Store, *, top: int | None = None) -> dict[str, Any]:
    """JSON-able description of a run; `top` limits the leaderboard.

    running: trials proposed and not answered; of a run that is not going on, resume takes them up again.
    """
    trials = store.trials()
    rows = leaderboard(trials)
    config = store.config
    return {
        "format": 1,
        "folder": str(store.folder),
        "task": config["task"],
        "strategy": config["strategy"],
        "seed": config["seed"],
        "going_on": store.being_written(),
        **counts(trials),
        "best": asdict(rows[0]) if rows else None,
        "leaderboard": [asdict(row) for row in rows[:top]],
    }
