"""Owns the way in which contenders are timed against each other.

All contenders run in one process, in turn: A B C A B C ... Clock rate, memory bandwidth and neighbours of a machine drift
by far more than what is to be seen, so times of separate runs do not compare; the ratio of two samples of one round does.
Every figure is a median, over the rounds, of such ratios.

A sample is a number of calls that lasts `min_sample` or longer. Before each sample an untimed stream passes over the same
arrays, so that every contender finds the caches in the same state. Rounds come in batches; a batch during which other
processes used more than `MAX_FOREIGN` of a core is dropped. Contenders that are far slower than the fastest run once per
batch, as their samples would take all the time there is.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from .case import Contender
from .load import ForeignLoad

MAX_FOREIGN: Final = 0.15  # cores
SLOW: Final = 4.0  # times the fastest contender
SLOW_SECONDS: Final = 2e-3  # below this nobody is slow


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure one cell. Times in seconds.

    It ends after `batches` clean batches, or once `budget` is used and two batches are done; extra time of `patience`
    budgets is spent only while there are not two clean ones.
    """

    min_sample: float = 200e-6
    min_batch: float = 0.3
    batches: int = 5
    budget: float = 6.0
    patience: float = 2.0


FULL: Final = Effort()
QUICK: Final = Effort(min_batch=0.15, batches=2, budget=0.5, patience=1.0)


@dataclass(slots=True)
class Measured:
    """Samples of one contender: seconds per call, by round number."""

    contender: Contender
    repeat: int
    samples: dict[int, float] = field(default_factory=dict)

    def ratios_to(self, other: Measured) -> list[float]:
        """own time / other's time in the rounds that have both."""
        return [t / other.samples[r] for r, t in self.samples.items() if r in other.samples]


@dataclass(slots=True)
class Outcome:
    """What one cell measured. `noisy`: no batch was quiet, so the least disturbed ones were kept."""

    measured: list[Measured]
    batches: int
    kept: int
    foreign: float
    noisy: bool

    def of(self, name: str) -> Measured | None:
        return next((m for m in self.measured if m.contender.name == name), None)


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """First quartile, median, third quartile."""
    if len(values) < 2:
        return (values[0],) * 3
    q1, q2, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return q1, q2, q3


def _seconds(run: Callable[[int], None], n: int) -> float:
    start = time.perf_counter_ns()
    run(n)
    return (time.perf_counter_ns() - start) * 1e-9


def calibrate(contender: Contender, min_sample: float) -> Measured:
    """Warms the contender up and finds how many calls make one sample."""
    best = min(_seconds(contender.run, 1) for _ in range(2))
    repeat = 1
    while best * repeat < min_sample:
        repeat = max(repeat + 1, int(1.3 * min_sample / best))
        best = min(best, _seconds(contender.run, repeat) / repeat)
    return Measured(contender, repeat, {-1: best})


def measure(contenders: Sequence[Contender], effort: Effort, between: Callable[[], object] = lambda: None) -> Outcome:
    """Times all contenders against each other; `between` runs before each sample."""
    measured = [calibrate(c, effort.min_sample) for c in contenders]
    guess = [m.samples.pop(-1) for m in measured]
    limit = max(SLOW_SECONDS, SLOW * min(guess))
    fast = [m for m, seconds in zip(measured, guess, strict=True) if seconds <= limit]
    batches: list[tuple[float, list[int]]] = []  # foreign load, its rounds
    start, number = time.perf_counter(), 0

    def clean() -> int:
        return sum(load <= MAX_FOREIGN for load, _ in batches)

    collecting = gc.isenabled()
    gc.disable()
    try:
        while clean() < effort.batches:
            spent = time.perf_counter() - start
            if spent > effort.budget and len(batches) >= 2:
                if clean() >= 2 or spent > effort.budget * (1 + effort.patience):
                    break
            watch, began, rounds = ForeignLoad(), time.perf_counter(), []
            while not rounds or time.perf_counter() - began < effort.min_batch:
                for m in fast if rounds else measured:
                    between()
                    m.samples[number] = _seconds(m.contender.run, m.repeat) / m.repeat
                rounds.append(number)
                number += 1
            batches.append((watch.cores(), rounds))
    finally:
        if collecting:
            gc.enable()
    return _keep(measured, batches)


def _keep(measured: list[Measured], batches: list[tuple[float, list[int]]]) -> Outcome:
    quiet = [b for b in batches if b[0] <= MAX_FOREIGN]
    kept = quiet or sorted(batches, key=lambda b: b[0])[:2]
    rounds = {r for _, numbers in kept for r in numbers}
    for m in measured:
        m.samples = {r: t for r, t in m.samples.items() if r in rounds}
    return Outcome(measured, len(batches), len(kept), statistics.median(load for load, _ in kept), noisy=not quiet)


def summary(outcome: Outcome, engine: str, limit: str | None = None) -> dict[str, Any]:
    """JSON of an outcome. Per contender: time of a call, its ratio to the engine, and the part of the limit it reaches."""
    rows: dict[str, Any] = {}
    base, floor = outcome.of(engine), outcome.of(limit) if limit else None
    for m in outcome.measured:
        q1, median, q3 = quartiles(list(m.samples.values()))
        row: dict[str, Any] = {"us": median * 1e6, "us_q1": q1 * 1e6, "us_q3": q3 * 1e6, "samples": len(m.samples)}
        row |= {"peer": m.contender.peer, "repeat": m.repeat}
        if base is not None:
            row["ratio_q1"], row["ratio"], row["ratio_q3"] = quartiles(m.ratios_to(base))
        if floor is not None:
            row["of_limit"] = 1 / quartiles(m.ratios_to(floor))[1]
        if m.contender.build_seconds is not None:
            row["build_seconds"] = m.contender.build_seconds
        rows[m.contender.name] = row
    head = {"batches": outcome.batches, "kept": outcome.kept, "foreign": outcome.foreign, "noisy": outcome.noisy}
    return head | {"contenders": rows}
