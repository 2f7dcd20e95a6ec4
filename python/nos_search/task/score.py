"""Owns what a reward says: how the answers of a child on a split become a score in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple


class Measured(NamedTuple):
    """What a child does on a split: the share of targets that it guesses right, and its mean loss in nats. A child that
    has diverged has an accuracy of 0 and a loss of NaN."""

    accuracy: float
    loss: float


DIVERGED: Final = Measured(0.0, math.nan)


@dataclass(frozen=True)
class ScoreKind:
    """A way to score. `label` is its name in prose, and `axis` that of a plot's axis. `reward` says what a trial is
    paid for. `of` computes the score from what was measured, and from the loss in nats of a blind guess, which
    knows how frequent each class is and nothing else."""

    label: str
    axis: str
    reward: str
    of: Callable[[Measured, float], float]


def _saved(measured: Measured, blind: float) -> float:
    return max(0.0, 1 - measured.loss / blind) if blind > 0 else 0.0


def _not_measured(measured: Measured, blind: float) -> float:
    raise TypeError("an objective is not computed from what a child was measured at")


SCORES: Final[dict[str, ScoreKind]] = {
    "accuracy": ScoreKind(
        "accuracy",
        "accuracy (share of examples)",
        "the validation accuracy of its child",
        lambda measured, blind: measured.accuracy,
    ),
    "bits-saved": ScoreKind(
        "bits saved",
        "bits saved (share of those of a blind guess)",
        "the share of bits that its child saves on validation data, of those that a guess by frequency alone costs",
        _saved,
    ),
}
OBJECTIVE: Final = "objective"  # the score of a run whose rewards a user's own function gives
# All scores that a run may have, for those who show them.
SHOWN: Final[dict[str, ScoreKind]] = {
    **SCORES,
    OBJECTIVE: ScoreKind("objective", "objective", "what the run's own function returns", _not_measured),
}
ACCURACY: Final = "accuracy"  # the score of every curve that has none of its own


def scores(curve: Mapping[str, Any]) -> Sequence[float]:
    """Returns the scores of a learning curve, point by point: its "score", or its "accuracy" where it has none."""
    found: Sequence[float] = curve.get("score", curve.get("accuracy", []))
    return found


def bits(nats: float) -> float:
    return nats / math.log(2)
