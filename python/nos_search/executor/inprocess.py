"""Owns the executor that trains one child at a time in the calling process. Its runs are equal bit for bit."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..task import Task
from ..train.child import Protocol, score
from .base import Answer, Executor, Job


class InProcess(Executor):
    """Sets torch's number of threads for the process, because the bits of a training depend on it.

    clock: seconds from any start, such as time.perf_counter; only for reporting.
    """

    slots = 1

    def __init__(self, task: Task, protocol: Protocol, *, threads: int, clock: Callable[[], float]) -> None:
        self._task, self._protocol, self._clock = task, protocol, clock
        self._job: Job | None = None
        torch.set_num_threads(threads)

    def submit(self, job: Job) -> None:
        if self._job is not None:
            raise RuntimeError(f"job {job.number}: the only slot is taken by job {self._job.number}; call wait() first")
        self._job = job

    def wait(self) -> list[Answer]:
        job = self._job
        if job is None:
            raise RuntimeError("wait: nothing was submitted")
        start = self._clock()
        outcome, reason = None, ""
        try:
            outcome = score(job.rule, self._task, self._protocol, seed=job.seed)
        except (RuntimeError, ValueError, TypeError, MemoryError) as error:  # one bad rule must not end a long search
            reason = f"{type(error).__name__}: {error}"
        self._job = None
        return [Answer(job.number, outcome, reason, self._clock() - start)]

    def close(self) -> None:
        self._job = None
