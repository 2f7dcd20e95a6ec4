"""Owns the threads in which several trainings by own kernels go on side by side.

A training keeps no lock while its C++ loop runs, and its bits do not depend on what runs beside it. Trainings by torch
do not come here: torch has threads of its own, and its steps hold Python's lock for most of their time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from ..machine import cores

_T = TypeVar("_T")


def side_by_side(threads: int | None, workers: int) -> int:
    """Returns how many trainings each of so many workers runs at once: `threads`, or as many as leave no core with
    two."""
    return threads or max(1, cores() // workers)


def each(calls: Sequence[Callable[[], _T]], threads: int) -> list[_T]:
    """Returns what each call returns, in order, with so many of them going on at once."""
    if threads == 1 or len(calls) < 2:
        return [call() for call in calls]
    return list(pool(threads).map(lambda call: call(), calls))


@functools.cache
def pool(threads: int) -> ThreadPoolExecutor:
    """Returns the process's threads for so many trainings. Within each, an operation has one thread."""
    return ThreadPoolExecutor(threads, "training", initializer=torch.set_num_threads, initargs=(1,))
