"""The shipped conformance suite on every executor, and whole searches on them."""

from __future__ import annotations

import select
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import nos_ext
from nos_search import nursery
from nos_search.cli import main
from nos_search.errors import UsageError
from nos_search.executor import EXECUTORS, Executor, InProcess, Job, Loader, Workers, create, hatchery
from nos_search.executor.forked import Forked
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
from tests.waiting import HUNG, wait_until


class TestInProcess(ExecutorCase):
    def make(
        self, loader: Loader, *, workers: int, threads: int, timeout: float, retries: int, clock: Callable[[], float]
    ) -> Executor:
        return InProcess(loader(), threads=threads, clock=clock)


@pytest.mark.slow
@pytest.mark.exhaustive
class TestLocal(WorkerExecutorCase):
    def make(
        self, loader: Loader, *, workers: int, threads: int, timeout: float, retries: int, clock: Callable[[], float]
    ) -> Executor:
        return Local(loader, workers=workers, threads=threads, timeout=timeout, retries=retries, clock=clock)


@pytest.mark.slow
def test_local_workers_in_short() -> None:
    """One death, one job that hangs, one error: what the suite tries one by one, each with workers of its own."""
    rule, clock = compile_rule(RULE), Clock()
    with tempfile.TemporaryDirectory() as folder:
        fault = Fault(folder, raises=(1,), dies_once=(2,), hangs_once=(3,))
        with Local(fault, workers=1, threads=1, timeout=TIMEOUT, retries=1, clock=clock) as executor:
            got = []
            for number in range(5):
                executor.submit(Job(number, rule, number, rung=number))
                if number == 3:
                    fault.wait_for("job3")
                    clock.pass_timeout()
                got += executor.wait()
    assert [answer.number for answer in got] == [0, 1, 2, 3, 4]
    assert [answer.attempts for answer in got] == [1, 1, 2, 2, 1]
    assert (got[1].outcome, got[1].reason) == (None, "ValueError: seed 1 is bad")
    assert len({answer.worker for answer in got}) == 3
    for answer in (got[0], *got[2:]):
        assert answer.outcome == trained_with_one_thread(rule, answer.number, rung=answer.number)


needs_fork = pytest.mark.skipif(not nursery.AVAILABLE, reason="no fork of a process with torch here")


@pytest.mark.slow
@needs_fork
class TestForked(WorkerExecutorCase):
    def make(
        self, loader: Loader, *, workers: int, threads: int, timeout: float, retries: int, clock: Callable[[], float]
    ) -> Executor:
        return Forked(loader, workers=workers, threads=threads, timeout=timeout, retries=retries, clock=clock)

    def test_data_are_loaded_once_for_all_workers(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            fault = Fault(folder, dies_once=(2, 3))
            with self.started(fault) as executor:
                got = self.answers(executor, range(8))
            assert len({answer.worker for answer in got.values()}) > 2
            assert fault.marks("load") == 1

    def test_no_process_is_left(self) -> None:
        with tempfile.TemporaryDirectory() as folder, self.started(Fault(folder)) as executor:
            assert isinstance(executor, Forked)
            workers = {int(answer.worker.partition(":")[2]) for answer in self.answers(executor, range(6)).values()}
            assert executor._home is not None
            workers.add(executor._home._process.pid)
        assert not [process for process in workers if Path(f"/proc/{process}").exists()]

    def test_a_lost_nursery_is_replaced(self) -> None:
        rule = compile_rule(RULE)
        with tempfile.TemporaryDirectory() as folder, self.started(Fault(folder), workers=1, retries=1) as executor:
            assert isinstance(executor, Forked)
            worker = int(self.answers(executor, (1,))[1].worker.partition(":")[2])
            assert executor._home is not None
            executor._home._process.kill()
            wait_until(lambda: not Path(f"/proc/{worker}").exists())  # it leaves with the nursery
            executor.submit(Job(2, rule, 2))
            (answer,) = executor.wait()
            assert answer.outcome == trained_with_one_thread(rule, 2)

    @pytest.mark.usefixtures("nurseries_begin_from_nothing")
    def test_what_lies_in_the_working_directory_is_not_imported(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("queue", "select", "torch"):
            (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')")
        monkeypatch.chdir(tmp_path)
        with tempfile.TemporaryDirectory() as folder, self.started(Fault(folder), workers=1) as executor:
            assert self.answers(executor, (1,))[1].outcome is not None

    @pytest.mark.usefixtures("nurseries_begin_from_nothing")
    def test_what_was_prepared_for_other_threads_ends(self) -> None:
        nursery.prepare(1)
        (prepared,) = nursery._prepared
        taken = nursery.take(2)
        assert prepared._process.poll() is not None
        taken.close()

    @pytest.mark.parametrize("answered", [False, True])
    def test_a_nursery_whose_search_is_killed_says_nothing(
        self, answered: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        home = nursery.Nursery(1)
        home.furnish(cloudpickle.dumps((Fault(str(tmp_path)), 1, nos_ext.__version__)))
        home.hatch()[1].close()
        process, mine, theirs = home._process, *socket.socketpair()
        if not answered:
            process.send_signal(signal.SIGSTOP)
        socket.send_fds(home._control, [b"w"], [theirs.fileno()])
        if answered:
            select.select([home._control], [], [])
        home._control.close()  # as when the search is killed, with an answer to come or unread
        process.send_signal(signal.SIGCONT)
        assert process.wait(HUNG) == 0
        mine.close(), theirs.close()
        assert capfd.readouterr().err == ""


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
    cases = {"inprocess": TestInProcess, "fork": TestForked, "loky": TestLocal, "ray": TestCluster}
    assert set(cases) == set(EXECUTORS)
    for name, case in cases.items():
        assert issubclass(case, WorkerExecutorCase) == EXECUTORS[name].processes


@pytest.mark.parametrize(
    "name",
    [
        "inprocess",
        pytest.param("fork", marks=[pytest.mark.slow, needs_fork]),
        pytest.param("loky", marks=pytest.mark.slow),
        pytest.param("ray", marks=pytest.mark.slow),
    ],
)
def test_what_is_made_by_name_trains(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if EXECUTORS[name].cluster:
        request.getfixturevalue("ray")
    rule = compile_rule(RULE)
    with create(name, Fault(str(tmp_path)), Workers(1, 1, TIMEOUT), clock=Clock()) as executor:
        executor.submit(Job(4, rule, 7))
        (answer,) = executor.wait()
    assert (answer.number, answer.outcome) == (4, trained_with_one_thread(rule, 7))


class Narrow(socket.socket):
    """A socket that gives at most 7 bytes at once, as one of Linux gives at most 2 GiB."""

    def recv(self, length: int, flags: int = 0) -> bytes:
        return super().recv(min(length, 7), flags)

    def recv_into(self, buffer: Any, length: int = 0, flags: int = 0) -> int:
        return super().recv_into(buffer, min(length or len(buffer), 7), flags)


def test_what_workers_start_with_may_be_longer_than_a_receive(monkeypatch: pytest.MonkeyPatch) -> None:
    """The nursery reads on until all is there, and ends only where nothing more comes."""

    def ended(status: int) -> None:
        raise SystemExit(status)

    monkeypatch.setattr(hatchery.os, "_exit", ended)
    data = bytes(range(100))
    mine, theirs = socket.socketpair()
    with mine, Narrow(fileno=theirs.detach()) as control:
        sender = threading.Thread(target=lambda: [mine.sendall(data[k : k + 3]) for k in range(0, 100, 3)])
        sender.start()
        assert hatchery._read(control, 60) == data[:60]
        assert hatchery._read(control, 0) == b""
        assert hatchery._read(control, 40) == data[60:]
        sender.join()
        mine.sendall(b"the beginning")
        mine.close()
        with pytest.raises(SystemExit):
            hatchery._read(control, 100)


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="--executor 'slurm' is not known; choose one of: inprocess, fork, loky, ray"):
        create("slurm", Fault("."), Workers(1, 1, TIMEOUT), clock=Clock())


@pytest.mark.parametrize(
    ("options", "forks"),
    [
        (["--workers", "2"], True),
        (["--workers", "2", "--executor", "fork", "--device", "cpu"], True),
        ([], False),
        (["--workers", "2", "--executor", "loky"], False),
        (["--workers", "2", "--device", "cuda"], False),
        (["--workers", "2", "--threads", "-5"], False),
    ],
)
def test_workers_are_prepared_where_they_will_be_forked(
    options: list[str], forks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[int] = []
    monkeypatch.setattr(nursery, "prepare", prepared.append)
    assert main(["run", "--task", "none", *options, "--out", str(tmp_path / "run")]) == 2
    assert prepared == [1] * forks
