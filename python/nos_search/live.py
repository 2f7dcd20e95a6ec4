"""Owns what a user sees while a search runs: a live leaderboard on a terminal, plain lines elsewhere. All on stderr."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from .results import counts, leaderboard
from .store import Trial

_TOP = 8
_MEAN_WINDOW = 25
_LINE_EVERY = 25  # trials, in plain mode


def _tail(recent: Sequence[float]) -> float:
    return sum(recent) / len(recent) if recent else 0.0


class Display:
    """A Listener and context manager. earlier: trials of a resumed run. clock: seconds from any start."""

    def __init__(
        self, stream: TextIO, *, trials: int | None, earlier: Sequence[Trial], clock: Callable[[], float]
    ) -> None:
        self._stream, self._clock, self._start = stream, clock, clock()
        self._trials = list(earlier)
        self._wanted = trials
        self._recent: deque[float] = deque((t.reward or 0.0 for t in earlier[-_MEAN_WINDOW:]), maxlen=_MEAN_WINDOW)
        self._best = max((t.reward or 0.0 for t in earlier), default=0.0)
        self._live: Live | None = None
        if stream.isatty():
            columns = (
                TextColumn("search"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            self._progress = Progress(*columns)
            self._bar = self._progress.add_task("search", total=trials, completed=len(self._trials))
            self._live = Live(console=Console(file=stream), refresh_per_second=4, get_renderable=self._picture)

    def __enter__(self) -> Display:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def on_start(self, trial: Trial) -> None:
        pass

    def on_trial(self, trial: Trial) -> None:
        reward = trial.reward or 0.0
        self._trials.append(trial)
        self._recent.append(reward)
        better = reward > self._best
        self._best = max(self._best, reward)
        if self._live:
            self._progress.update(self._bar, completed=len(self._trials))
        elif better:
            self._line(f"trial {trial.id}: new best {reward:.4f} at lr {trial.lr:g}  {trial.rule}")
        elif len(self._trials) % _LINE_EVERY == 0:
            total = counts(self._trials)
            self._line(
                f"trial {trial.id}: mean of last {len(self._recent)} {_tail(self._recent):.3f}, best {self._best:.4f}, "
                f"trained {total['trained']}, duplicates {total['duplicates']}, rejected {total['rejected']}"
            )

    def _line(self, text: str) -> None:
        print(f"[{self._clock() - self._start:7.1f} s] {text}", file=self._stream, flush=True)

    def _picture(self) -> Group:
        total = counts(self._trials)
        table = Table(title_justify="left", expand=False)
        for name, justify in (
            ("#", "right"),
            ("reward", "right"),
            ("lr", "right"),
            ("rule", "left"),
            ("proposed", "right"),
        ):
            table.add_column(name, justify="right" if justify == "right" else "left", no_wrap=name != "rule")
        for row in leaderboard(self._trials)[:_TOP]:
            table.add_row(str(row.rank), f"{row.reward:.4f}", f"{row.lr:g}", row.rule, str(row.trials))
        line = (
            f"mean of last {len(self._recent)}: {_tail(self._recent):.3f}   trained {total['trained']}   "
            f"diverged {total['diverged']}   duplicates {total['duplicates']}   rejected {total['rejected']}"
        )
        return Group(self._progress, line, table)
