"""Owns the executor that trains in the calling process. With one child at a time its runs are equal bit for bit."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait

import torch

from ..train.side import pool
from .base import Answer, Executor, Job, Scorer
from .worker import Reply, attempt


class InProcess(Executor):
    """This executor trains in the calling process. It sets torch's number of threads for the whole process, because the
    bits of a training by torch depend on it.

    With `together` above 1 it trains so many children at once, in threads; that is for trainings by own kernels.
    `clock` gives seconds from any start, as time.perf_counter does; they are only reported.
    """

    def __init__(self, scorer: Scorer, *, threads: int, clock: Callable[[], float], together: int = 1) -> None:
        self.slots = together
        self._scorer, self._clock = scorer, clock
        self._jobs: list[Job] = []  # with one slot: the job that wait() is going to train
        self._flying: dict[Future[Reply], Job] = {}
        self._closed = False
        torch.set_num_threads(threads)

    def submit(self, job: Job) -> None:
        if self._closed or len(self._jobs) + len(self._flying) >= self.slots:
            slots = "its only slot is" if self.slots == 1 else f"all {self.slots} slots are"
            raise RuntimeError(f"job {job.number}: the executor is closed, or {slots} taken; call wait()")
        if self.slots == 1:
            self._jobs.append(job)
        else:
            self._flying[pool(self.slots).submit(self._train, job)] = job

    def _train(self, job: Job) -> Reply:
        return attempt(self._scorer, job.rule, job.seed, job.rung, self._clock)

    def wait(self, seconds: float = math.inf) -> list[Answer]:
        if self._jobs:
            job = self._jobs[0]
            reply = self._train(job)
            self._jobs.clear()
            return [_answer(job, reply)]
        if not self._flying:
            raise RuntimeError("wait: no job is held")
        done, _ = wait(self._flying, None if seconds == math.inf else seconds, return_when=FIRST_COMPLETED)
        return [_answer(self._flying.pop(future), future.result()) for future in done]

    def drop(self) -> list[int]:
        idle = [future for future in self._flying if future.cancel()]
        dropped = [*self._jobs, *(self._flying.pop(future) for future in idle)]
        self._jobs.clear()
        return [job.number for job in dropped]

    def close(self) -> None:
        for future in self._flying:
            future.cancel()
        self._jobs, self._flying, self._closed = [], {}, True


def _answer(job: Job, reply: Reply) -> Answer:
    return Answer(job.number, reply.outcome, reply.reason, reply.seconds)
