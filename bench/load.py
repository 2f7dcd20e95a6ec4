"""Owns the watch over the machine: how much of it other processes used while something was measured."""

from __future__ import annotations

import os
import resource
import time

_TICK = os.sysconf("SC_CLK_TCK")  # per second; /proc/stat counts in ticks


def _busy_seconds() -> float | None:
    """CPU time of all processes since boot, with what the hypervisor took; None where /proc/stat is not to be had."""
    try:
        with open("/proc/stat", encoding="ascii") as file:
            fields = [int(x) for x in file.readline().split()[1:9]]
    except (OSError, ValueError):
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields
    return (user + nice + system + irq + softirq + steal) / _TICK


def _own_seconds() -> float:
    own = resource.getrusage(resource.RUSAGE_SELF)
    return own.ru_utime + own.ru_stime


class ForeignLoad:
    """Cores that others kept busy since this object was made. Ticks are coarse: watch for 0.2 s and more."""

    def __init__(self) -> None:
        self._wall, self._busy, self._own = time.perf_counter(), _busy_seconds(), _own_seconds()

    def cores(self) -> float:
        """0 where the machine cannot be watched."""
        busy = _busy_seconds()
        if busy is None or self._busy is None:
            return 0.0
        foreign = (busy - self._busy) - (_own_seconds() - self._own)
        return max(0.0, foreign / max(time.perf_counter() - self._wall, 1e-9))
