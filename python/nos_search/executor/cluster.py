"""Owns the executor that trains on a Ray cluster: each worker is one actor with its share of CPUs and GPUs.

Ray places the actors and sets CUDA_VISIBLE_DEVICES for fractions of a GPU. Every machine of the cluster needs the same
nos_ext installed; a worker with another version answers every job with that fault.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import nos_ext

from ..errors import SearchError, UsageError
from .base import Loader
from .pool import Handle, WorkerPool
from .worker import Payload, Reply, Worker

_START_TIMEOUT = 1800.0  # seconds: an autoscaler may have to bring up a machine first


class _Actor(Handle):
    def __init__(self, ray: Any, loader: Loader, threads: int, gpus: float) -> None:
        self._ray = ray
        # Ray must not restart an actor by itself: the pool does so, since it knows which job was lost.
        remote = ray.remote(Worker).options(num_cpus=threads, num_gpus=gpus, max_restarts=0, max_task_retries=0)
        self._actor = remote.remote(loader, threads, nos_ext.__version__)
        self.ready: Future[str] = self._actor.name.remote().future()

    def submit(self, payload: Payload) -> Future[Reply]:
        future: Future[Reply] = self._actor.run.remote(payload).future()
        return future

    def kill(self) -> None:
        if self._ray.is_initialized():
            self._ray.kill(self._actor, no_restart=True)


class Cluster(WorkerPool):
    """This executor trains on the Ray cluster at `address`: "auto" finds the one of this machine, and None starts Ray
    on this machine alone. A Ray that is connected already is used and left as it is.

    Each worker gets `gpus` GPUs, which may be a fraction. Raises SearchError when Ray is not installed or cannot be
    reached, and UsageError when the cluster cannot hold even one worker.
    """

    def __init__(
        self,
        loader: Loader,
        *,
        workers: int,
        threads: int,
        gpus: float,
        address: str | None,
        timeout: float,
        clock: Callable[[], float],
        retries: int = 1,
    ) -> None:
        try:
            import ray
        except ImportError:
            raise SearchError("--executor ray needs Ray; install it with: pip install 'nos-ext[ray]'") from None
        self._ray: Any = ray
        self._mine = not ray.is_initialized()
        if self._mine:
            try:
                local = {"num_cpus": workers * threads, "include_dashboard": False} if address is None else {}
                ray.init(address or "local", log_to_driver=False, logging_level="ERROR", **local)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise SearchError(f"--ray-address {address}: no Ray cluster there ({error}); see ray status") from None
        have = ray.cluster_resources()
        for name, wanted in (("CPU", threads), ("GPU", gpus)):
            if have.get(name, 0.0) < wanted:
                what = "--threads" if name == "CPU" else "--gpus-per-trial"
                self._leave()
                raise UsageError(f"{what} {wanted:g}: the Ray cluster has {have.get(name, 0.0):g} {name}s")
        super().__init__(
            lambda: _Actor(ray, loader, threads, gpus),
            workers=workers,
            timeout=timeout,
            start_timeout=_START_TIMEOUT,
            retries=retries,
            clock=clock,
        )

    def close(self) -> None:
        super().close()
        self._leave()

    def _leave(self) -> None:
        if self._mine and self._ray.is_initialized():
            self._ray.shutdown()
