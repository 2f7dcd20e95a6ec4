"""The shipped conformance suite on every executor, and whole searches on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nos_search.errors import UsageError
from nos_search.executor import EXECUTORS, Executor, InProcess, Job, Loader, Workers, create
from nos_search.executor.local import Local
from nos_search.rules import compile_rule
from nos_search.testing.executor import (
    RULE,
    TIMEOUT,
    Clock,
    ExecutorCase,
    Fault,
    WorkerExecutorCase,
    trained_with_one_thread,
)


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


def test_every_registered_executor_has_a_case() -> None:
    cases = {"inprocess": TestInProcess, "loky": TestLocal, "ray": TestCluster}
    assert set(cases) == set(EXECUTORS)
    for name, case in cases.items():
        assert issubclass(case, WorkerExecutorCase) == EXECUTORS[name].processes


@pytest.mark.parametrize(
    "name", ["inprocess", pytest.param("loky", marks=pytest.mark.slow), pytest.param("ray", marks=pytest.mark.slow)]
)
def test_what_is_made_by_name_trains(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if EXECUTORS[name].cluster:
        request.getfixturevalue("ray")
    rule = compile_rule(RULE)
    with create(name, Fault(str(tmp_path)), Workers(1, 1, TIMEOUT), clock=Clock()) as executor:
        executor.submit(Job(4, rule, 7))
        (answer,) = executor.wait()
    assert (answer.number, answer.outcome) == (4, trained_with_one_thread(rule, 7))


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="--executor 'slurm' is not known; choose one of: inprocess, loky, ray"):
        create("slurm", Fault("."), Workers(1, 1, TIMEOUT), clock=Clock())
