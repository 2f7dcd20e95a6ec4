"""Owns the question whether the children that train at once have room in this machine's memory.

A worker holds one child for each rate of a sweep from the sweep's start, each with activations for its whole batch. Of
own kernels the sizes are known before anything is trained; torch allocates as it goes, and nothing is said of it here.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path

from ..errors import UsageError
from ..task.base import Task
from .child import ScoringProtocol
from .engine import kind_of
from .native import NativeTraining, new_child

_CONTAINER = Path("/sys/fs/cgroup/memory.max")  # bytes that the container may have, or the word "max"


def machine_memory() -> float:
    """Returns the bytes of memory of this machine, or of the container that this process is in. It is infinite where
    the system does not say."""
    names = getattr(os, "sysconf_names", {})
    known = "SC_PHYS_PAGES" in names and "SC_PAGE_SIZE" in names
    whole = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")) if known else math.inf
    try:
        return min(whole, float(_CONTAINER.read_text(encoding="ascii")))
    except (OSError, ValueError):
        return whole


def check_room(tasks: Iterable[Task], protocol: ScoringProtocol, sweeps: int, option: str) -> None:
    """Raises UsageError where so many sweeps at once have more children than memory holds. `option` asked for them. A
    rule's states come on top, so what passes may still be too much."""
    memory, count = machine_memory(), sweeps * len(protocol.learning_rates)
    for task in tasks:
        if kind_of(protocol.engine, task) is not NativeTraining:
            continue
        size = new_child(task).memory
        if count * size > memory:
            fit = int(memory // (len(protocol.learning_rates) * size))
            fewer = f"at most {fit} of them" if fit else "a smaller --net or --width"
            raise UsageError(
                f"{option} {sweeps}: {count} children of {task.name} take {_megabytes(count * size)} at once, and this "
                f"machine has {_megabytes(memory)}; choose {fewer}"
            )


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.0f} MB"
