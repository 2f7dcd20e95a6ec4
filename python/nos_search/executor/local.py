"""Owns the executor that trains in processes of this machine, which loky starts."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future

import loky
from loky.backend import get_context

import nos_ext

from . import worker
from .base import Loader
from .pool import Handle, WorkerPool
from .worker import Payload, Reply

_START_TIMEOUT = 300.0  # seconds: imports and data


class _Process(Handle):
    """A worker is a loky pool of one process: loky cannot say which job broke a pool, and a broken pool is of no more
    use."""

    def __init__(self, loader: Loader, threads: int) -> None:
        self._pool = loky.ProcessPoolExecutor(
            max_workers=1,
            context=get_context("loky"),
            initializer=worker.start,
            initargs=(loader, threads, nos_ext.__version__, os.getpid()),
            env={"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)},
        )
        self.ready: Future[str] = self._pool.submit(worker.name)

    def submit(self, payload: Payload) -> Future[Reply]:
        future: Future[Reply] = self._pool.submit(worker.run, payload)
        return future

    def kill(self) -> None:
        self._pool.shutdown(wait=False, kill_workers=True)


class Local(WorkerPool):
    """This executor trains in `workers` processes of this machine, each with `threads` torch threads, which are part of
    what decides the bits. The other arguments are those of WorkerPool."""

    def __init__(
        self,
        loader: Loader,
        *,
        workers: int,
        threads: int,
        timeout: float,
        clock: Callable[[], float],
        retries: int = 1,
    ) -> None:
        super().__init__(
            lambda: _Process(loader, threads),
            workers=workers,
            timeout=timeout,
            start_timeout=_START_TIMEOUT,
            retries=retries,
            clock=clock,
        )
