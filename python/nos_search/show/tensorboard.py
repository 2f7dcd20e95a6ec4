"""Owns the listener that writes a run's numbers for TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import SearchError
from ..escape import line
from ..store import Score, Trial


def summary_writer() -> Any:
    """Returns torch's class. Raises SearchError when the package tensorboard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise SearchError(
            "--tensorboard needs the package; install it with: pip install 'nos-ext[tensorboard]'"
        ) from None
    return SummaryWriter


class TensorBoard:
    """This Listener writes scalars over evaluations: search/reward, search/best, search/trained, gates/<gate> (stopped
    so far) and strategy/<name>. Over trial numbers it writes promotion/rung<k>. Raises SearchError when the package
    tensorboard is not installed."""

    def __init__(self, folder: Path) -> None:
        self._writer: Any = summary_writer()(str(folder))
        self._best, self._trained = 0.0, 0
        self._stopped: dict[str, int] = {}

    def on_start(self, trial: Trial, rung: int) -> None:
        pass

    def on_trial(self, trial: Trial) -> None:
        step = trial.told or 0
        self._best = max(self._best, trial.reward or 0.0)
        self._trained += trial.status in ("done", "diverged")
        if trial.reward is not None:
            self._writer.add_scalar("search/reward", trial.reward, step)
        self._writer.add_scalar("search/best", self._best, step)
        self._writer.add_scalar("search/trained", self._trained, step)
        for gate, entry in trial.gates.items():
            if not entry["passed"]:
                self._stopped[gate] = self._stopped.get(gate, 0) + 1
                self._writer.add_scalar(f"gates/{line(gate)}", self._stopped[gate], step)
        for name, value in trial.metrics.items():
            self._writer.add_scalar(f"strategy/{line(name)}", value, step)

    def on_promotion(self, trial: Trial, rung: int, score: Score) -> None:
        if score.reward is not None:
            self._writer.add_scalar(f"promotion/rung{rung}", score.reward, trial.id)

    def close(self) -> None:
        self._writer.close()
