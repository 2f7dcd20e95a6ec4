"""Owns a run as a Python program sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

import nos_ext
from nos_ext.optim import RuleOptimizer

from ..errors import UsageError
from ..rules import CompiledRule, parse_stored_rule
from ..run import Listener
from ..run.children import Objective
from ..show import exported, report
from ..show.leaderboard import Row, best_rows, summary
from ..store import Store, Trial, files
from ..task import Task

_Resume = Callable[..., None]


class Run:
    """A Run is a search in its folder, going on, interrupted or finished. It reads the folder anew each time it is
    asked.

    Fields:
        folder: where the run is, as a path that is right after os.chdir(), too.
    """

    def __init__(self, folder: Path, *, resume: _Resume) -> None:
        self.folder = folder.absolute()
        self._resume = resume

    def __repr__(self) -> str:
        data = self.summary()
        best = f", best {data['best']['reward']:.4f}: {data['best']['rule']}" if data["best"] else ""
        return f"<Run {data['state']}, {data['trained']} rules trained on {data['task']}{best}, in {self.folder}>"

    def best(self, k: int = 10) -> list[Row]:
        """Returns the k best rules, as `nos-search show` ranks them. A Row has `rank`, `rule` (its text), `reward`,
        `lr` (the rate that won) and more."""
        if _whole("best: k", k) < 1:
            raise UsageError(f"best: k is {k}; ask for 1 rule or more")
        with self._store() as store:
            return best_rows(store)[:k]

    def trials(self) -> list[Trial]:
        """Returns every proposal in order, those without an answer included."""
        with self._store() as store:
            return store.trials()

    def summary(self) -> dict[str, Any]:
        """Returns what `nos-search show --json` prints: task, state, counts of trials, and the leaderboard."""
        with self._store() as store:
            return summary(store)

    def program(self, rank: int = 1) -> nos_ext.Program:
        """Returns the rule of that rank, compiled for `nos_ext.apply_rule`."""
        return self._rule(rank)[1].program

    def optimizer(
        self, params: Iterable[Any], *, rank: int = 1, lr: float | None = None, **options: Any
    ) -> RuleOptimizer:
        """Returns a torch optimizer of the rule of that rank. `lr` is the rate that won the run's sweep, where there is
        one. `options` are those of `nos_ext.optim.RuleOptimizer`."""
        row, rule = self._rule(rank)
        rate = row.lr if lr is None else lr
        if rate is None:
            raise UsageError("optimizer: this run's objective chose no learning rate; give lr=")
        return RuleOptimizer(params, rule.program, rate, **options)

    def report(self, path: str | Path | None = None) -> Path:
        """Writes one self-contained HTML page about the run, and returns its path. Where none is given, it is
        report.html in the run's folder. Known optimizers stand beside the found rules if `nos-search report` trained
        them before."""
        where = str(path) if path is not None else files.inside(self.folder, "report.html", remedy="give another path")
        files.check_place("path", where)
        with self._store() as store:
            page = report.render(store, diagnoses=True)
        files.write("path", where, page)
        return Path(where)

    def export(self, rank: int = 1) -> str:
        """Returns the source of a stand-alone torch optimizer for the rule of that rank. Its default learning rate is
        the one that won."""
        with self._store() as store:
            return exported.source_of_rank(store, _whole("rank", rank))

    def resume(
        self,
        *,
        task: Task | None = None,
        objective: Objective | None = None,
        listeners: Sequence[Listener] = (),
        progress: TextIO | None = None,
        **settings: Any,
    ) -> Run:
        """Goes on with the run until a limit is reached, and returns it.

            >>> nos_search.load("runs/mine").resume(task=task, trials=2000)

        Args:
            task, objective: what was given to `search`, where it was no name. A folder does not hold it.
            listeners, progress: see `search`.
            settings: new limits (trials, children, seconds, target), and who trains (workers, executor, trial_timeout,
                device ...). A run of the strategy "external" needs its `command` again, and
                `strategy_options={"timeout": seconds}` says how long that may be silent.

        Raises:
            UsageError: an argument has no meaning, or the task or objective is missing.
            StoreError: another process is writing the run, or the folder is damaged.
        """
        self._resume(self, task, objective, listeners, progress, settings)
        return self

    def _rule(self, rank: int) -> tuple[Row, CompiledRule]:
        with self._store() as store:
            row = exported.row_of_rank(store, _whole("rank", rank))
        return row, parse_stored_rule(row.rule, self.folder, row.trial)

    def _store(self) -> Store:
        return Store.open(self.folder)


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise UsageError(f"{name} is {ascii(value)[:60]}, a {type(value).__name__}; give a whole number")
    return int(value)
