"""The shipped conformance suite on every executor, and whole searches on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from nos_search.errors import UsageError
from nos_search.executor import Executor, InProcess, Loader
from nos_search.executor.local import Local
from nos_search.testing.executor import TIMEOUT, Clock, ExecutorCase, WorkerExecutorCase


class TestInProcess(ExecutorCase):
    def make(
        self, loader: Loader, *, workers: int, threads: int, timeout: float, retries: int, clock: Callable[[], float]
    ) -> Executor:
        return InProcess(loader(), threads=threads, clock=clock)


@pytest.mark.slow
class TestLocal(WorkerExecutorCase):
    def make(
        self, loader: Loader, *, workers: int, threads: int, timeout: float, retries: int, clock: Callable[[], float]
    ) -> Executor:
        return Local(loader, workers=workers, threads=threads, timeout=timeout, retries=retries, clock=clock)


@pytest.fixture(scope="module")
def ray() -> Iterator[object]:
    """A Ray cluster of this machine with two workers."""
    module = pytest.importorskip("ray")
    module.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield module
    module.shutdown()


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
class TestCluster(WorkerExecutorCase):
    def make(
        self, loader: Loader, *, workers: int, threads: int, timeout: float, retries: int, clock: Callable[[], float]
    ) -> Executor:
        from nos_search.executor.cluster import Cluster

        return Cluster(
            loader,
            workers=min(workers, 2 // threads),  # the cluster has two CPUs
            threads=threads,
            gpus=0.0,
            address=None,
            timeout=timeout,
            retries=retries,
            clock=clock,
        )

    def test_what_the_cluster_lacks_is_said_at_once(self, tmp_path: object) -> None:
        from nos_search.executor.cluster import Cluster

        with pytest.raises(UsageError, match=r"--gpus-per-trial 0.25: the Ray cluster has 0 GPUs"):
            Cluster(lambda: None, workers=1, threads=1, gpus=0.25, address=None, timeout=TIMEOUT, clock=Clock())  # type: ignore[arg-type, return-value]
        with pytest.raises(UsageError, match=r"--threads 3: the Ray cluster has 2 CPUs"):
            Cluster(lambda: None, workers=1, threads=3, gpus=0.0, address=None, timeout=TIMEOUT, clock=Clock())  # type: ignore[arg-type, return-value]
