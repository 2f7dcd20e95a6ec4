"""Owns the bench of what a trial costs besides proposing, gating and training it: the loop, the store and the executor.

The search runs for real, with the real controller and store, but its children answer at once. Calls of the strategy and
the gates are timed and subtracted from the whole.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..bounds import check_count
from ..errors import SearchError, choose
from ..executor import EXECUTORS, Scorer, Workers, create
from ..rules import CompiledRule
from ..run import RunConfig, Search, versions
from ..store import Store
from ..train.child import Outcome
from .base import BenchResult

_TIMEOUT = 60.0  # seconds for a child that answers at once
_CURVE = {  # of the size that a digits trial leaves
    "sweep": [{"lr": 10.0**k, "steps": 11, "accuracy": 0.123456789} for k in range(-5, 2)],
    "steps": [11, 22, 33],
    "loss": [1.2345678, 0.3456789, 0.2345678],
    "accuracy": [0.5123456, 0.8123456, 0.9123456],
}


def at_once(rule: CompiledRule, seed: int, rung: int) -> Outcome:
    """Scores a rule in no time. The reward depends on the rule, so that the controller has something to do."""
    return Outcome("done", sum(rule.key.encode()) % 997 / 997, 0.1, _CURVE)


def load() -> Scorer:
    return at_once


@dataclass
class _Timed:
    """This wraps methods of an object and adds up the time that is spent in them."""

    seconds: float = 0.0

    def wrap(self, owner: Any, name: str) -> None:
        inner: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **keywords: Any) -> Any:
            start = time.perf_counter()
            try:
                return inner(*args, **keywords)
            finally:
                self.seconds += time.perf_counter() - start

        setattr(owner, name, timed)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--trials", type=int, default=2000, metavar="N", help="trials per row (default 2000)")
    parser.add_argument("--workers", type=int, default=2, metavar="W", help="of fork, loky and ray (default 2)")
    parser.add_argument(
        "--executors", default="inprocess,fork", metavar="A,B", help="default inprocess,fork; or loky, ray"
    )


def run(options: argparse.Namespace, *, note: Callable[[str], None]) -> BenchResult:
    names = options.executors.split(",")
    for name in names:
        if name not in EXECUTORS:
            raise choose("--executors", name, tuple(EXECUTORS))
    check_count("--trials", options.trials)
    check_count("--workers", options.workers)
    torch.set_num_threads(1)
    result = BenchResult(
        f"{options.trials} trials of children that answer at once, ms per trial",
        ["executor", "whole", "ask and tell", "gates", "store", "rest", "overhead", "children"],
        notes=["overhead = whole - ask and tell - gates = loop, store and executor"],
    )
    for name in names:
        note(f"measuring {name}")
        with tempfile.TemporaryDirectory() as folder:
            row = _measure(name, Path(folder) / "run", options.trials, options.workers)
        result.figures[name] = row
        result.rows.append(
            [f"{name} x {options.workers}" if EXECUTORS[name].processes else name]
            + [f"{row[key]:.3f}" for key in ("whole", "strategy", "gates", "store", "rest", "overhead")]
            + [str(row["children"])]
        )
    return result


def _measure(name: str, folder: Path, trials: int, workers: int) -> dict[str, float]:
    config = RunConfig(trials=trials, executor=name, workers=workers if EXECUTORS[name].processes else 1)
    executor = create(name, load, Workers(config.workers, 1, _TIMEOUT), clock=time.perf_counter)
    strategy, gates, store = _Timed(), _Timed(), _Timed()
    with executor, Store.create(folder, config.to_json(), versions()) as run:
        executor.warm_up()
        search = Search(run, config, executor)
        for method in ("ask", "tell", "metrics"):
            strategy.wrap(search.strategy, method)
        for method in ("put", "put_checkpoint", "commit"):
            store.wrap(run, method)
        gates.wrap(search.funnel, "admit")
        gates.wrap(search.funnel, "record")
        start = time.perf_counter()
        search.run()
        whole = time.perf_counter() - start
        done = [trial for trial in run.trials() if trial.told is not None]
    if len(done) != trials:
        raise SearchError(f"bench overhead: {len(done)} of {trials} trials were answered")
    each = 1e3 / trials
    overhead = whole - strategy.seconds - gates.seconds
    return {
        "whole": whole * each,
        "strategy": strategy.seconds * each,
        "gates": gates.seconds * each,
        "store": store.seconds * each,
        "rest": (overhead - store.seconds) * each,
        "overhead": overhead * each,
        "children": sum(trial.status == "done" for trial in done),
    }
