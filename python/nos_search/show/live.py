"""Owns what a user sees on stderr while a search runs. On a terminal that is progress, what is in training, the gates,
the throughput and a leaderboard with formulas; elsewhere it is plain lines. Its cost does not grow with the run."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ..escape import line
from ..gate import GATES
from ..store import Score, Trial

_TOP = 8
_MEAN_WINDOW = 25
_RATE_WINDOW = 200  # trials
_LINE_EVERY = 25  # trials, in plain mode
_SHOWN_FLYING = 6


class Tally:
    """These numbers of a run are kept up to date trial by trial."""

    def __init__(self) -> None:
        self.answered = 0
        self.status: Counter[str] = Counter()
        self.stopped: Counter[str] = Counter()
        self.gate_seconds = 0.0
        self.training_seconds = 0.0
        self.proposed: Counter[int] = Counter()  # by the trial that was trained
        self.top: list[Trial] = []
        self.recent: deque[float] = deque(maxlen=_MEAN_WINDOW)
        self.promoted: dict[int, list[float]] = {}

    def add(self, trial: Trial) -> bool:
        """Counts a trial in, and tells whether it is the best so far."""
        self.answered += 1
        self.status[trial.status] += 1
        for gate, entry in trial.gates.items():
            self.gate_seconds += entry["seconds"]
            self.stopped[gate] += not entry["passed"]
        self.training_seconds += trial.seconds
        self.recent.append(trial.reward or 0.0)
        if trial.status == "duplicate" and trial.duplicate_of is not None:
            self.proposed[trial.duplicate_of] += 1
        if trial.status != "done":
            return False
        self.top.append(trial)
        self.top.sort(key=lambda t: (-(t.reward or 0.0), t.id))
        del self.top[_TOP:]
        return self.top[0] is trial and (len(self.top) == 1 or (trial.reward or 0.0) > (self.top[1].reward or 0.0))

    @property
    def trained(self) -> int:
        return self.status["done"] + self.status["diverged"]

    @property
    def best(self) -> float:
        return (self.top[0].reward or 0.0) if self.top else 0.0

    @property
    def mean(self) -> float:
        return sum(self.recent) / len(self.recent) if self.recent else 0.0


class Display:
    """This is a Listener and a context manager. `earlier` are the trials of a resumed run in the order of their
    answers, and `promoted` their rewards on higher rungs.

    The bars end at the limits `trials` and `children`. `clock` gives seconds from any start.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        trials: int | None,
        earlier: Sequence[Trial],
        clock: Callable[[], float],
        children: int | None = None,
        promoted: Mapping[int, Sequence[float]] | None = None,
    ) -> None:
        self._stream, self._clock, self._start = stream, clock, clock()
        self.tally = Tally()
        for trial in earlier:
            self.tally.add(trial)
        self.tally.promoted = {number: list(rewards) for number, rewards in (promoted or {}).items()}
        self._times: deque[tuple[float, int]] = deque([(self._start, self.tally.trained)], maxlen=_RATE_WINDOW)
        self._flying: dict[int, tuple[Trial, int, float]] = {}
        self._live: Live | None = None
        if stream.isatty():
            columns = (
                TextColumn("{task.description:9}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            self._progress = Progress(*columns)
            self._bar = self._progress.add_task("proposals", total=trials, completed=self.tally.answered)
            self._children = self._progress.add_task("children", total=children, completed=self.tally.trained)
            self._live = Live(console=Console(file=stream), refresh_per_second=4, get_renderable=self._picture)

    def __enter__(self) -> Display:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._flying = {}
            self._live.stop()

    def on_start(self, trial: Trial, rung: int) -> None:
        self._flying = {**self._flying, trial.id: (trial, rung, self._clock())}  # the drawing thread reads it

    def _landed(self, trial: Trial) -> None:
        self._flying = {number: entry for number, entry in self._flying.items() if number != trial.id}

    def on_promotion(self, trial: Trial, rung: int, score: Score) -> None:
        self._landed(trial)
        self.tally.promoted.setdefault(trial.id, []).append(score.reward or 0.0)
        if not self._live:
            self._line(f"trial {trial.id}: rung {rung} ({score.task}) {score.reward or 0.0:.4f}  {trial.rule}")

    def on_trial(self, trial: Trial) -> None:
        self._landed(trial)
        better = self.tally.add(trial)
        self._times.append((self._clock(), self.tally.trained))
        if self._live:
            self._progress.update(self._bar, completed=self.tally.answered)
            self._progress.update(self._children, completed=self.tally.trained)
        elif better:
            self._line(f"trial {trial.id}: new best {trial.reward or 0.0:.4f} at lr {trial.lr:g}  {trial.rule}")
        elif self.tally.answered % _LINE_EVERY == 0:
            status = self.tally.status
            self._line(
                f"trial {trial.id}: mean of last {len(self.tally.recent)} {self.tally.mean:.3f}, "
                f"best {self.tally.best:.4f}, trained {self.tally.trained} ({self._rate():,.0f}/h), "
                f"duplicates {status['duplicate']}, rejected {status['rejected']}"
            )

    def _rate(self) -> float:
        """Returns how many children per hour were trained lately."""
        (start, before), (end, after) = self._times[0], self._times[-1]
        return 3600 * (after - before) / max(1e-9, end - start)

    def _line(self, text: str) -> None:
        print(f"[{self._clock() - self._start:7.1f} s] {line(text)}", file=self._stream, flush=True)

    # --- on a terminal ---------------------------------------------------------------------------------------------

    def _picture(self) -> Group:
        return Group(self._progress, *self._in_training(), self._numbers(), self._gates(), self._leaderboard())

    def _in_training(self) -> list[Text]:
        now = self._clock()
        flying = list(self._flying.values())
        lines = [
            Text(
                f"  {now - since:6.1f} s  #{trial.id}{f' rung {rung}' if rung else ''}  {line(trial.rule)}",
                overflow="ellipsis",
                no_wrap=True,
                style="dim",
            )
            for trial, rung, since in flying[:_SHOWN_FLYING]
        ]
        if len(flying) > _SHOWN_FLYING:
            lines.append(Text(f"  and {len(flying) - _SHOWN_FLYING} more in training or waiting", style="dim"))
        return lines

    def _numbers(self) -> Text:
        tally = self.tally
        return Text(
            f"{self._rate():,.0f} children/h   mean of last {len(tally.recent)}: {tally.mean:.3f}   "
            f"trained {tally.trained}   diverged {tally.status['diverged']}   failed {tally.status['failed']}   "
            f"training {tally.training_seconds:.0f} s, gates {tally.gate_seconds:.1f} s"
            + (f"   promoted {len(tally.promoted)}" if tally.promoted else "")
        )

    def _gates(self) -> Text:
        left, steps = self.tally.answered, [f"proposed {self.tally.answered}"]
        for gate in GATES:
            left -= self.tally.stopped[gate]
            steps.append(f"{gate} {left}")
        return Text(" > ".join(steps), style="cyan")

    def _leaderboard(self) -> Table:
        table = Table(expand=False)
        for name in ("#", "reward", "lr"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("rule", overflow="fold")
        table.add_column("proposed", justify="right", no_wrap=True)
        if self.tally.promoted:
            table.add_column("higher rungs", no_wrap=True)
        for rank, trial in enumerate(self.tally.top, start=1):
            lr = "-" if trial.lr is None else f"{trial.lr:g}"
            proposed = str(1 + self.tally.proposed[trial.id])
            cells: list[str | Text] = [str(rank), f"{trial.reward or 0.0:.4f}", lr, Text(line(trial.rule)), proposed]
            if self.tally.promoted:
                cells.append(" ".join(f"{reward:.4f}" for reward in self.tally.promoted.get(trial.id, [])))
            table.add_row(*cells)
        return table
