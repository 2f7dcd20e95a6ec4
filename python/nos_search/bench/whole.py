"""Owns the measure of a whole search with an engine: how many rules it trains in an hour, with the controller, the
gates, the store and the sweep in its time."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..run import RunConfig, Search, versions
from ..run.children import make_executor
from ..store import Store
from ..task import Task
from ..train.child import LEARNING_RATES
from ..train.engine import Engine

_LONGEST = 0.5  # of the time: a child that takes more of it is not trained but reckoned
_FINE = 4  # rates that the sweep adds to LEARNING_RATES


@dataclass(frozen=True)
class Pace:
    """How fast a search goes: `rules` counts those that were trained, an hour. It is `reckoned` from the time of a step
    where one child would take too long."""

    rules: float
    reckoned: bool


def pace(task: Task, engine: Engine, *, seconds: float, step_ms: float, note: Callable[[str], None]) -> Pace:
    """Searches for about so many seconds on one core with what `run` does by default, but for promotions. `step_ms`
    is the time of a step by this engine."""
    child = steps_of_a_child(task) * step_ms / 1e3
    if child > _LONGEST * seconds:
        return Pace(3600 / child, reckoned=True)
    config = RunConfig(task=task.name, engine=engine, seconds=seconds, threads=1)
    note(f"searching with --engine {engine} for {seconds:g} s")
    with (
        tempfile.TemporaryDirectory() as folder,
        make_executor(config, task, clock=time.perf_counter) as executor,
        Store.create(Path(folder) / "run", config.to_json(), versions()) as store,
    ):
        search = Search(store, config, executor)
        start = time.perf_counter()
        search.run()
        spent = time.perf_counter() - start
        trained = sum(trial.trained for trial in store.trials())
    return Pace(3600 * trained / spent, reckoned=False)


def steps_of_a_child(task: Task) -> float:
    """Returns about how many steps the default protocol takes for a rule that diverges nowhere: half of the rates stop
    after a quarter, a quarter of them after half."""
    sweep, rates = task.budget.sweep_steps, len(LEARNING_RATES)
    return sweep * (rates * 0.5 + _FINE) + task.budget.train_steps
