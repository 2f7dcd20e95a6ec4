"""The main suite: one step of every rule on every size, all contenders."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .case import Arena, memory_needed
from .harness import Effort, measure, summary
from .peers import ENGINE, LIMIT, contenders
from .rules import RULES, BenchRule
from .sizes import SIZES, Size

Filter = Callable[[BenchRule, Size], bool]


def available_memory() -> int:
    """Bytes that can be had without swapping; a guess where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            kilobytes = next(line.split()[1] for line in file if line.startswith("MemAvailable"))
        return 1024 * int(kilobytes)
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def cell(arena: Arena, rule: BenchRule, effort: Effort, threads: int, leave_out: Sequence[str] = ()) -> dict[str, Any]:
    """Measures all contenders of one rule on one size."""
    gc.collect()  # optimizers of the cell before sit in reference cycles, each with states of its own
    found, missing = contenders(arena.case(rule, threads=threads), leave_out)
    stream = next((c.run for c in found if c.name == LIMIT), None)
    outcome = measure(found, effort, (lambda: stream(1)) if stream else lambda: None, always=(ENGINE, LIMIT))
    size = arena.size
    head = {"rule": rule.name, "size": size.name, "elements": size.elements, "tensors": size.tensors}
    head["bytes"] = rule.bytes_per_element * size.elements
    return head | {"missing": missing} | summary(outcome, ENGINE, LIMIT)


def run(
    rules: Sequence[str], sizes: Sequence[str], effort: Effort, threads: int, compiles: Filter
) -> Iterator[dict[str, Any]]:
    """The cells one by one; a size for which memory is short gives a cell {size, skipped} instead."""
    for name in sizes:
        size = SIZES[name]
        needed, free = memory_needed(size), available_memory()
        if needed > free:
            yield {"size": name, "skipped": f"needs {needed / 1e9:.1f} GB of memory; {free / 1e9:.1f} GB are free"}
            continue
        arena = Arena(size)
        for rule in map(RULES.__getitem__, rules):
            yield cell(arena, rule, effort, threads, () if compiles(rule, size) else ("torch.compile",))
