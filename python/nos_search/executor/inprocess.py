"""Owns the executor that trains one child at a time in the calling process. Its runs are equal bit for bit."""

from __future__ import annotations

from collections.abc import Callable

import torch

from .base import Answer, Executor, Job, Scorer
from .worker import attempt


class InProcess(Executor):
    """This executor trains in the calling process. It sets torch's number of threads for the whole process, because the
    bits of a training depend on it.

    `clock` gives seconds from any start, as time.perf_counter does; they are only reported.
    """

    slots = 1

    def __init__(self, scorer: Scorer, *, threads: int, clock: Callable[[], float]) -> None:
        self._scorer, self._clock = scorer, clock
        self._job: Job | None = None
        self._closed = False
        torch.set_num_threads(threads)

    def submit(self, job: Job) -> None:
        if self._closed or self._job is not None:
            raise RuntimeError(f"job {job.number}: the executor is closed, or its only slot is taken; call wait()")
        self._job = job

    def wait(self) -> list[Answer]:
        job = self._job
        if job is None:
            raise RuntimeError("wait: no job is held")
        outcome, reason, seconds = attempt(self._scorer, job.rule, job.seed, job.rung, self._clock)
        self._job = None
        return [Answer(job.number, outcome, reason, seconds)]

    def close(self) -> None:
        self._job, self._closed = None, True
