"""Owns the numbers of a run as they come about, for whatever draws them over time (tensorboard.py and others)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Literal

from ..escape import line
from ..store import Score, Trial

Axis = Literal["evaluation", "trial"]  # numbers of answers, or of proposals, from 0


class Scalars(ABC):
    """This Listener has numbers over evaluations: search/reward, search/best, search/trained, gates/<gate> (stopped so
    far) and strategy/<name>. Over trial numbers it has promotion/rung<k>."""

    def __init__(self) -> None:
        self._best, self._trained = 0.0, 0
        self._stopped: dict[str, int] = {}

    @abstractmethod
    def write(self, values: dict[str, float], axis: Axis, step: int) -> None:
        """Writes numbers by name, at a place on an axis."""

    @abstractmethod
    def close(self) -> None:
        """Ends it, with all that was written kept."""

    def on_start(self, trial: Trial, rung: int) -> None:
        return  # a beginning has no numbers

    def recall(self, trials: Iterable[Trial]) -> None:
        """Counts in what a run that goes on had answered before."""
        for trial in trials:
            self._count(trial)

    def _count(self, trial: Trial) -> dict[str, float]:
        """Returns the numbers of those up to this trial."""
        self._best = max(self._best, trial.reward or 0.0)
        self._trained += trial.trained
        values: dict[str, float] = {"search/best": self._best, "search/trained": self._trained}
        for gate, entry in trial.gates.items():
            if not entry["passed"]:
                self._stopped[gate] = self._stopped.get(gate, 0) + 1
                values[f"gates/{line(gate)}"] = self._stopped[gate]
        return values

    def on_trial(self, trial: Trial) -> None:
        values = self._count(trial)
        if trial.reward is not None:
            values["search/reward"] = trial.reward
        values |= {f"strategy/{line(name)}": value for name, value in trial.metrics.items()}
        self.write(values, "evaluation", trial.told or 0)

    def on_promotion(self, trial: Trial, rung: int, score: Score) -> None:
        if score.reward is not None:
            self.write({f"promotion/rung{rung}": score.reward}, "trial", trial.id)
