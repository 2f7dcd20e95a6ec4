"""Owns the way in which contenders are timed against each other.

All contenders run in one process, in turn: A B C A B C ... Clock rate, memory bandwidth and neighbours of a machine
drift by far more than what is to be seen, so times of separate runs do not compare; the ratio of two samples of one
round does. Every ratio reported is a median of such ratios over the rounds.

A sample is a number of calls that lasts `min_sample` or longer. Before each sample an untimed stream passes over the
same arrays, so that every contender finds the caches in the same state. Rounds come in batches; a batch during which
other processes used more than MAX_FOREIGN cores is dropped. Contenders that are far slower than the fastest run less
often, as their samples would take all the time there is (Tier).
"""

from __future__ import annotations

import enum
import gc
import statistics
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from .case import Contender
from .load import ForeignLoad

MAX_FOREIGN: Final = 0.15  # cores
WARM_UP: Final = -1  # number of the round in which contenders were warmed up; never quiet
MAX_REPEAT: Final = 1_000_000  # calls of one sample


class Tier(enum.Enum):
    """In which rounds a contender takes part."""

    EVERY = "every round"
    BATCH = "the first round of each batch"
    ONCE = "the first round"
    NEVER = "none: its call while warming up is its sample"

    @staticmethod
    def of(seconds: float, fastest: float) -> Tier:
        """By the time of a call. Up to 2 ms nobody is slow."""
        if seconds > 3:
            return Tier.NEVER
        if seconds > max(0.3, 8 * fastest):
            return Tier.ONCE
        return Tier.BATCH if seconds > max(2e-3, 4 * fastest) else Tier.EVERY

    def joins(self, batch: int, round_of_batch: int) -> bool:
        if round_of_batch:
            return self is Tier.EVERY
        return self in (Tier.EVERY, Tier.BATCH) or (self is Tier.ONCE and batch == 0)


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure one cell. Times in seconds.

    It ends after `batches` quiet batches, or once `budget` is used and there are two quiet ones. Without two quiet ones
    it goes on for `patience` further budgets.
    """

    min_sample: float = 200e-6
    min_batch: float = 0.3
    batches: int = 5
    budget: float = 6.0
    patience: float = 1.0


FULL: Final = Effort()
QUICK: Final = Effort(min_batch=0.15, batches=2, budget=0.5)


@dataclass(slots=True)
class Measured:
    """Samples of one contender: seconds per call, by round number."""

    contender: Contender
    repeat: int
    tier: Tier
    samples: dict[int, float] = field(default_factory=dict)

    def rounds(self, quiet: Collection[int]) -> list[int]:
        """Its quiet rounds; all of them if it has no quiet one."""
        return [r for r in self.samples if r in quiet] or list(self.samples)


@dataclass(slots=True)
class Outcome:
    """What one cell measured.

    quiet: the rounds to look at. noisy: no batch was quiet; then these are the rounds of the two least disturbed ones.
    """

    measured: list[Measured]
    quiet: set[int]
    batches: int
    kept: int
    foreign: float
    noisy: bool

    def of(self, name: str | None) -> Measured | None:
        return next((m for m in self.measured if m.contender.name == name), None)

    def times(self, m: Measured) -> list[float]:
        return [m.samples[r] for r in m.rounds(self.quiet)]

    def ratios(self, m: Measured, base: Measured) -> list[float]:
        """Time of m / time of base, round by round; base takes part in every round."""
        return [m.samples[r] / base.samples[r] for r in m.rounds(self.quiet)]


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


def calibrate(run: Callable[[int], None], min_sample: float) -> tuple[int, float]:
    """Warms a contender up. The number of calls that make one sample, and seconds per call."""
    best = _seconds(run, 1)
    if best < 0.05 or best > 0.3:  # the first call of a slow one may pay for memory, and its tier goes by this time
        best = min(best, _seconds(run, 1))
    repeat = 1
    while best * repeat < min_sample and repeat < MAX_REPEAT:
        repeat = max(repeat + 1, int(1.3 * min_sample / best))
        best = min(best, _seconds(run, repeat) / repeat)
    return repeat, best


def measure(
    contenders: Sequence[Contender],
    effort: Effort,
    between: Callable[[], object] = lambda: None,
    always: Collection[str] = (),
) -> Outcome:
    """Times all contenders against each other.

    Args:
        contenders: in the order of a round.
        effort: how long.
        between: runs before each sample, untimed.
        always: names of contenders that take part in every round, however slow: the ones that others are compared with.
    """
    found = [calibrate(c.run, effort.min_sample) for c in contenders]
    fastest = min(seconds for _, seconds in found)
    measured = [
        Measured(c, repeat, Tier.EVERY if c.name in always else Tier.of(seconds, fastest), {WARM_UP: seconds})
        for c, (repeat, seconds) in zip(contenders, found, strict=True)
    ]
    batches: list[tuple[float, list[int]]] = []  # foreign load, its rounds
    start, number = time.perf_counter(), 0
    collecting = gc.isenabled()
    gc.disable()
    try:
        while not _enough(batches, time.perf_counter() - start, effort):
            watch, began = ForeignLoad(), time.perf_counter()
            rounds: list[int] = []
            while not rounds or time.perf_counter() - began < effort.min_batch:
                for m in measured:
                    if m.tier.joins(len(batches), len(rounds)):
                        between()
                        m.samples[number] = _seconds(m.contender.run, m.repeat) / m.repeat
                rounds.append(number)
                number += 1
            batches.append((watch.cores(), rounds))
    finally:
        if collecting:
            gc.enable()
    return _outcome(measured, batches)


def _enough(batches: Sequence[tuple[float, list[int]]], spent: float, effort: Effort) -> bool:
    quiet = sum(load <= MAX_FOREIGN for load, _ in batches)
    if quiet >= effort.batches:
        return True
    allowed = effort.budget * (1 if quiet >= 2 else 1 + effort.patience)
    return spent > allowed and len(batches) >= 2


def _outcome(measured: list[Measured], batches: list[tuple[float, list[int]]]) -> Outcome:
    quiet = [b for b in batches if b[0] <= MAX_FOREIGN]
    kept = quiet or sorted(batches, key=lambda b: b[0])[:2]
    rounds = {r for _, numbers in kept for r in numbers}
    foreign = statistics.median(load for load, _ in kept)
    return Outcome(measured, rounds, len(batches), len(kept), foreign, noisy=not quiet)


def summary(outcome: Outcome, engine: str, limit: str | None = None) -> dict[str, Any]:
    """JSON of an outcome. Per contender: time of a call, its ratio to the engine, the part of the limit it reaches."""
    rows: dict[str, Any] = {}
    base, floor = outcome.of(engine), outcome.of(limit)
    for m in outcome.measured:
        times = outcome.times(m)
        q1, median, q3 = quartiles(times)
        row: dict[str, Any] = {"us": median * 1e6, "us_q1": q1 * 1e6, "us_q3": q3 * 1e6}
        row |= {"samples": len(times), "repeat": m.repeat, "peer": m.contender.peer}
        if base is not None:
            row["ratio_q1"], row["ratio"], row["ratio_q3"] = quartiles(outcome.ratios(m, base))
        if floor is not None:
            row["of_limit"] = 1 / quartiles(outcome.ratios(m, floor))[1]
        if m.contender.build_seconds is not None:
            row["build_seconds"] = m.contender.build_seconds
        rows[m.contender.name] = row
    head = {"batches": outcome.batches, "kept": outcome.kept, "foreign": outcome.foreign, "noisy": outcome.noisy}
    return head | {"contenders": rows}
