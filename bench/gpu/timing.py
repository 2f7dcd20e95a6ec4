"""Owns how contenders are timed on a device: in turn, between two events, several calls a sample.

The time of a call is that of a stream of such calls: what a training loop sees, whether the device or the host limits
it. Beside it stands the time that the host needs to hand a call over. On a CPU both are wall time (the dry run).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch

from ..case import Contender
from ..harness import quartiles

MIN_SAMPLE: Final = 2e-3  # seconds; below, the events' own resolution (0.5 us) and launch jitter show
MOST_CALLS: Final = 200
ROUNDS: Final = 15


def synchronize(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def sample(
    run: Callable[[int], None], calls: int, device: str, clock: Callable[[], float] = time.perf_counter
) -> tuple[float, float]:
    """(seconds per call, seconds of the host per call)."""
    if device == "cpu":
        begin = clock()
        run(calls)
        seconds = (clock() - begin) / calls
        return seconds, seconds
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    first.record()
    begin = clock()
    run(calls)
    host = clock() - begin
    last.record()
    torch.cuda.synchronize()
    return first.elapsed_time(last) * 1e-3 / calls, host / calls


def measure(
    contenders: Sequence[Contender],
    base: str,
    device: str,
    budget: float,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, dict[str, Any]]:
    """A row per contender: us and its quartiles, host_us, ratio to `base` (median over rounds). budget in seconds of
    the clock."""
    calls: dict[str, int] = {}
    for c in contenders:
        sample(c.run, 2, device, clock)  # first calls allocate, upload, compile
        seconds, _ = sample(c.run, 2, device, clock)
        calls[c.name] = max(1, min(MOST_CALLS, round(MIN_SAMPLE / seconds) if seconds > 0 else MOST_CALLS))
    taken: dict[str, list[tuple[float, float]]] = {c.name: [] for c in contenders}
    begin, rounds = clock(), 0
    while rounds < 3 or (rounds < ROUNDS and clock() - begin < budget):
        for c in contenders:
            taken[c.name].append(sample(c.run, calls[c.name], device, clock))
        rounds += 1
    rows: dict[str, dict[str, Any]] = {}
    for c in contenders:
        q1, median, q3 = quartiles([s for s, _ in taken[c.name]])
        row: dict[str, Any] = {"us": median * 1e6, "us_q1": q1 * 1e6, "us_q3": q3 * 1e6, "peer": c.peer}
        row["host_us"] = quartiles([h for _, h in taken[c.name]])[1] * 1e6
        if base in taken:
            row["ratio"] = quartiles([a[0] / b[0] for a, b in zip(taken[c.name], taken[base], strict=True)])[1]
        if c.build_seconds is not None:
            row["build_seconds"] = c.build_seconds
        rows[c.name] = row
    return rows
