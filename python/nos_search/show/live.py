"""Owns what a user sees on stderr while a search runs. On a terminal it shows progress, what is being trained, the
gates, the throughput and a leaderboard with formulas; elsewhere it prints plain lines. What a trial
costs does not grow with the run."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import TextIO

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from ..escape import line
from ..gate import GATES
from ..run import Search
from ..run.climbing import Reached, climbs, rungs
from ..store import PROMOTION, Score, Trial, answered
from .outlook import Limits, Work, promotions, seconds_left
from .ranking import Ranking

_TOP = 8
_MEAN_WINDOW = 25
_RATE_WINDOW = 200  # trials
_LINE_EVERY = 25  # trials, in plain mode
_SHOWN_FLYING = 6


class Tally:
    """A Tally keeps the numbers of a run up to date, trial by trial. `promoted` has what the rules that were promoted
    have reached on higher rungs, by trial. `families` is as in Ranking."""

    def __init__(self, families: Mapping[int, int]) -> None:
        self.work = Work()
        self.status: Counter[str] = Counter()
        self.stopped: Counter[str] = Counter()
        self.gate_seconds = 0.0
        self.proposed: Counter[int] = Counter()  # by trial: how often its rule was proposed
        self.best = 0.0
        self.recent: deque[float] = deque(maxlen=_MEAN_WINDOW)
        self.promoted: dict[int, list[Reached]] = {}
        self._promotions: list[Score] = []
        self._climbing: dict[int, Trial] = {}
        self.ranking = Ranking(families)

    def add(self, trial: Trial) -> bool:
        """Counts a trial in, and tells whether its reward is the best so far."""
        self.work.answered += 1
        self.status[trial.status] += 1
        for gate, entry in trial.gates.items():
            self.gate_seconds += entry["seconds"]
            self.stopped[gate] += not entry["passed"]
        self.work.seconds += trial.seconds
        if trial.trained:
            self.work.trained += 1
            self.ranking.count(trial)
        self.recent.append(trial.reward or 0.0)
        if trial.status == "duplicate" and trial.duplicate_of is not None:
            self.proposed[trial.duplicate_of] += 1
        if trial.status != "done":
            return False
        better = not len(self.ranking) or (trial.reward or 0.0) > self.best
        self.ranking.place(trial)
        self.best = max(self.best, trial.reward or 0.0)
        return better

    def promote(self, trial: Trial, rung: int, score: Score) -> None:
        """Counts a promotion in, which moves its rule in the leaderboard, and others of its rung."""
        self.promote_many([(trial, rung, score)])

    def promote_many(self, promotions: Iterable[tuple[Trial, int, Score]]) -> None:
        """Counts promotions in, in their order."""
        for trial, rung, score in promotions:
            self.work.promote(rung, score.seconds)
            self._promotions.append(score)
            self._climbing[trial.id] = trial
        before, self.promoted = self.promoted, climbs(self._promotions)
        for number, reached in self.promoted.items():
            if reached != before.get(number) and self.ranking.holds(self._climbing[number]):
                self.ranking.place(self._climbing[number], reached)

    @property
    def mean(self) -> float:
        return sum(self.recent) / len(self.recent) if self.recent else 0.0


class Display:
    """A Display is the Listener that shows a search, and a context manager. `limits` say where the search ends, from
    which the bars and the time left follow.

    `earlier` are the trials of a resumed run in the order of their answers, and `promotions` their scores on higher
    rungs. `families` tells the family of each trial that was trained, as far as the search has come: `Search.families`.
    `clock` gives seconds from any start.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        limits: Limits,
        clock: Callable[[], float],
        earlier: Sequence[Trial] = (),
        promotions: Sequence[Score] = (),
        families: Mapping[int, int] | None = None,
    ) -> None:
        self._stream, self._limits, self._clock, self._start = stream, limits, clock, clock()
        self.tally = Tally({} if families is None else families)
        by_id = {trial.id: trial for trial in earlier}
        for trial in earlier:
            self.tally.add(trial)
        self.tally.promote_many((by_id[score.budget["trial"]], score.budget["rung"], score) for score in promotions)
        self._before = self.tally.work.total_seconds
        self._times: deque[tuple[float, int]] = deque([(self._start, self.tally.work.trained)], maxlen=_RATE_WINDOW)
        self._flying: dict[int, tuple[Trial, int, float]] = {}
        self._live: Live | None = None
        if stream.isatty():
            self._progress = Progress(TextColumn("{task.description:10}"), BarColumn(), MofNCompleteColumn())
            self._bars = {name: self._progress.add_task(name, total=None) for name in self._amounts()}
            self._advance()
            self._live = Live(console=Console(file=stream), refresh_per_second=4, get_renderable=self._picture)

    @classmethod
    def of(cls, search: Search, stream: TextIO, *, clock: Callable[[], float]) -> Display:
        """Returns the display of a search that begins, or goes on."""
        store, config = search.store, search.config
        return cls(
            stream,
            limits=Limits(config.trials, config.children, config.seconds, len(rungs(config)), config.promote_eta),
            clock=clock,
            earlier=answered(store.trials()),
            promotions=store.scores(PROMOTION),
            families=search.families,
        )

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
        # A new dict, as the drawing thread may be reading the old one.
        self._flying = {**self._flying, trial.id: (trial, rung, self._clock())}

    def _landed(self, trial: Trial) -> None:
        self._flying = {number: entry for number, entry in self._flying.items() if number != trial.id}

    def on_promotion(self, trial: Trial, rung: int, score: Score) -> None:
        self._landed(trial)
        self.tally.promote(trial, rung, score)
        if self._live:
            self._advance()
        else:
            self._line(f"trial {trial.id}: rung {rung} ({score.task}) {score.reward or 0.0:.4f}  {trial.rule}")

    def on_trial(self, trial: Trial) -> None:
        self._landed(trial)
        better = self.tally.add(trial)
        self._times.append((self._clock(), self.tally.work.trained))
        if self._live:
            self._advance()
        elif better:
            rate = "" if trial.lr is None else f" at lr {trial.lr:g}"  # an objective may have none
            self._line(f"trial {trial.id}: new best {trial.reward or 0.0:.4f}{rate}  {trial.rule}")
        elif self.tally.work.answered % _LINE_EVERY == 0:
            status = self.tally.status
            self._line(
                f"trial {trial.id}: mean of last {len(self.tally.recent)} {self.tally.mean:.3f}, "
                f"best {self.tally.best:.4f}, trained {self.tally.work.trained} ({self._rate():,.0f}/h), "
                f"duplicates {status['duplicate']}, rejected {status['rejected']}"
            )

    def left(self) -> float | None:
        """Returns about how many seconds the search still takes, promotions included. None means that nothing is known
        yet."""
        elapsed = self._clock() - self._start
        pace = (self.tally.work.total_seconds - self._before) / max(1e-9, elapsed)
        return seconds_left(self.tally.work, self._limits, elapsed=elapsed, pace=pace)

    def _rate(self) -> float:
        """Returns how many children per hour were trained lately."""
        (start, before), (end, after) = self._times[0], self._times[-1]
        return 3600 * (after - before) / max(1e-9, end - start)

    def _line(self, text: str) -> None:
        print(f"[{self._clock() - self._start:7.1f} s] {line(text)}", file=self._stream, flush=True)

    # --- on a terminal ---------------------------------------------------------------------------------------------

    def _picture(self) -> Group:
        return Group(
            self._progress, self._time(), *self._in_training(), self._numbers(), self._gates(), self._leaderboard()
        )

    def _amounts(self) -> dict[str, tuple[float, float | None]]:
        """Returns for each bar how much is done, and of how much, which is None where there is no limit."""
        work, limits = self.tally.work, self._limits
        bars: dict[str, tuple[float, float | None]] = {
            "proposals": (work.answered, limits.trials),
            "children": (work.trained, limits.children),
        }
        if limits.rungs:
            wanted = promotions(work, limits)
            bars["promotions"] = (sum(work.promoted.values()), None if wanted is None else sum(wanted))
        return bars

    def _advance(self) -> None:
        for name, (done, wanted) in self._amounts().items():
            self._progress.update(self._bars[name], completed=done, total=wanted)

    def _time(self) -> Text:
        left = self.left()
        text = f"{_hours(self._clock() - self._start)} so far"
        if left is not None:
            text += f", about {_hours(left)} left" + (", promotions included" if self._limits.rungs else "")
        return Text(text)

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
            f"trained {tally.work.trained}   diverged {tally.status['diverged']}   failed {tally.status['failed']}   "
            f"training {tally.work.total_seconds:.0f} s, gates {tally.gate_seconds:.1f} s"
            + (f"   promoted {len(tally.promoted)}" if tally.promoted else "")
        )

    def _gates(self) -> Text:
        left, steps = self.tally.work.answered, [f"proposed {self.tally.work.answered}"]
        for gate in GATES:
            left -= self.tally.stopped[gate]
            steps.append(f"{gate} {left}")
        return Text(" > ".join(steps), style="cyan")

    def _leaderboard(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
        names = ["#", "reward", *(f"rung {k}" for k in range(1, self._limits.rungs + 1)), "lr", "times", "members"]
        for name in names:
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("rule", overflow="ellipsis")  # words stay whole; one that is wider than the column is cut
        for rank, (trial, members) in enumerate(self.tally.ranking.top(_TOP), start=1):
            lr = "-" if trial.lr is None else f"{trial.lr:g}"
            times = str(1 + self.tally.proposed[trial.id])
            cells = [f"{reached.reward:.4f}" for reached in self.tally.promoted.get(trial.id, ())]
            cells += [""] * (self._limits.rungs - len(cells))
            kin = "-" if members is None else str(members)
            table.add_row(str(rank), f"{trial.reward or 0.0:.4f}", *cells, lr, times, kin, Text(line(trial.rule)))
        return table


def _hours(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
