"""Owns the list of executors by name, and how one is made.

A new executor is one file, one row here, and one case of `nos_search.testing.executor` in the tests. An executor's
module is imported only when one is made, because it may need a package that is not installed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..errors import UsageError, choose
from ..nursery import AVAILABLE
from .base import Executor, Loader
from .inprocess import InProcess


@dataclass(frozen=True)
class Workers:
    """These are the workers that an executor is asked for, whichever it is.

    There are `count` processes with `threads` torch threads each; the threads are part of what decides the bits. A
    worker that has not answered within `timeout` seconds is taken for hung. On a cluster each worker gets `gpus` GPUs,
    which may be a fraction, and `address` says where the cluster is; None starts one on this machine.
    """

    count: int
    threads: int
    timeout: float
    gpus: float = 0.0
    address: str | None = None


@dataclass(frozen=True)
class ExecutorEntry:
    """An executor in the list. `make` returns one that is ready for jobs.

    With `processes` its workers are processes of their own: there may be several, and the loader must be picklable.
    With `cluster` they may be on other machines, so it takes an address and shares of GPUs.
    """

    make: Callable[[Loader, Workers, Callable[[], float]], Executor]
    processes: bool = True
    cluster: bool = False


def _inprocess(loader: Loader, workers: Workers, clock: Callable[[], float]) -> Executor:
    return InProcess(loader(), threads=workers.threads, clock=clock)


def _loky(loader: Loader, workers: Workers, clock: Callable[[], float]) -> Executor:
    from .local import Local

    return Local(loader, workers=workers.count, threads=workers.threads, timeout=workers.timeout, clock=clock)


def _fork(loader: Loader, workers: Workers, clock: Callable[[], float]) -> Executor:
    from .forked import Forked

    return Forked(loader, workers=workers.count, threads=workers.threads, timeout=workers.timeout, clock=clock)


def _ray(loader: Loader, workers: Workers, clock: Callable[[], float]) -> Executor:
    from .cluster import Cluster

    return Cluster(
        loader,
        workers=workers.count,
        threads=workers.threads,
        gpus=workers.gpus,
        address=workers.address,
        timeout=workers.timeout,
        clock=clock,
    )


EXECUTORS: dict[str, ExecutorEntry] = {
    "inprocess": ExecutorEntry(_inprocess, processes=False),
    "fork": ExecutorEntry(_fork),
    "loky": ExecutorEntry(_loky),
    "ray": ExecutorEntry(_ray, cluster=True),
}


def several(device: str) -> str:
    """Returns the executor for several workers where the user names none. A process that has the GPU cannot be
    forked."""
    return "fork" if AVAILABLE and device == "cpu" else "loky"


def create(name: str, loader: Loader, workers: Workers, *, clock: Callable[[], float]) -> Executor:
    """Returns the executor of that name. Raises UsageError for a name that is not in the list."""
    if name not in EXECUTORS:
        raise choose("--executor", name, tuple(EXECUTORS))
    if name == "fork" and not AVAILABLE:
        raise UsageError("--executor fork: this system cannot fork a process that has imported torch; use loky")
    return EXECUTORS[name].make(loader, workers, clock)
