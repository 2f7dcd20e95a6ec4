"""Owns the conformance tests of executors.

    class TestMine(WorkerExecutorCase):
        def make(self, loader, *, workers, threads, timeout, retries, clock):
            return MyExecutor(loader, ...)

`ExecutorCase` is for all executors; `WorkerExecutorCase` adds what those with processes of their own must survive.
Nothing here depends on how fast the machine is: time, by which a worker is taken for hung, is the tests' own `Clock`.
They are plain asserts and need no fixtures, so the package does not need pytest.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..executor import Answer, Executor, Job, Loader, Scorer
from ..rules import CompiledRule, compile_rule
from ..train.child import Outcome

RULE = "g * exp(sign(g) * sign(m))"
TIMEOUT = 60.0  # seconds of Clock


class Clock:
    """This clock gives seconds. No more than a microsecond passes with every look at it, unless a test says so by
    `pass_timeout`."""

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        self._now += 1e-6
        return self._now

    def pass_timeout(self) -> None:
        """Makes every trial that is under way overdue from now on."""
        self._now += TIMEOUT


@dataclass(frozen=True)
class Fault:
    """This is a picklable Loader of scorers that misbehave by seed. For other seeds they train a little, so that
    threads and bits matter. Attempts and loads leave their marks in `folder`, one file each."""

    folder: str
    raises: Sequence[int] = ()
    diverges: Sequence[int] = ()
    dies: Sequence[int] = ()
    dies_once: Sequence[int] = ()
    hangs: Sequence[int] = ()
    hangs_once: Sequence[int] = ()
    broken: bool = False

    def __call__(self) -> Scorer:
        self._mark("load")
        if self.broken:
            raise OSError("no data here")
        return self._score

    def _mark(self, name: str) -> None:
        handle, _ = tempfile.mkstemp(prefix=f"{name}-", dir=self.folder)
        os.close(handle)

    def marks(self, name: str) -> int:
        return len(list(Path(self.folder).glob(f"{name}-*")))

    def wait_for(self, name: str) -> None:
        """Waits for a mark in this folder, however long it takes."""
        while not self.marks(name):
            time.sleep(0.01)

    def _score(self, rule: CompiledRule, seed: int, rung: int) -> Outcome:
        self._mark(f"job{seed}")
        first = self.marks(f"job{seed}") == 1
        if seed in self.raises:
            raise ValueError(f"seed {seed} is bad")
        if seed in self.diverges:
            return Outcome("diverged", 0.0, None)
        if seed in self.dies or (seed in self.dies_once and first):
            os.kill(os.getpid(), signal.SIGKILL)
        if seed in self.hangs or (seed in self.hangs_once and first):
            while True:
                time.sleep(1)
        return trained(rule, seed, rung)


def trained(rule: CompiledRule, seed: int, rung: int = 0) -> Outcome:
    """Returns an outcome whose bits come from torch and from the engine, after `rung` steps more."""
    import nos_ext

    generator = torch.Generator().manual_seed(seed)
    params = [torch.randn(64, 64, generator=generator)]
    state = nos_ext.init_state(rule.program, params)
    for step in range(1, 4 + rung):
        grads = [params[0] @ params[0].T @ params[0]]
        nos_ext.apply_rule(rule.program, params, grads, state, lr=1e-3, step=step, seed=seed)
    return Outcome("done", float(params[0].double().mean()), 1e-3, {"threads": torch.get_num_threads()})


class ExecutorCase(ABC):
    """Every executor must pass these."""

    @abstractmethod
    def make(
        self, loader: Loader, *, workers: int, threads: int, timeout: float, retries: int, clock: Callable[[], float]
    ) -> Executor:
        """Returns a fresh executor that takes the time from `clock` and looks at it again and again while it waits. One
        without processes of its own calls the loader itself and may ignore the rest."""

    def started(
        self, loader: Loader, *, workers: int = 2, threads: int = 1, retries: int = 1, clock: Clock | None = None
    ) -> Executor:
        """Makes what the tests use: an executor that has their own time."""
        clock = clock or Clock()
        return self.make(loader, workers=workers, threads=threads, timeout=TIMEOUT, retries=retries, clock=clock)

    def answers(self, executor: Executor, seeds: Sequence[int]) -> dict[int, Answer]:
        """Runs one job per seed, numbered from 100 in order, and returns the answers by seed."""
        rule, waiting, got = compile_rule(RULE), list(enumerate(seeds, start=100)), []
        flying = 0
        while waiting or flying:
            while waiting and flying < executor.slots:
                number, seed = waiting.pop(0)
                executor.submit(Job(number, rule, seed))
                flying += 1
            new = executor.wait()
            assert new
            flying -= len(new)
            got += new
        assert sorted(answer.number for answer in got) == list(range(100, 100 + len(seeds)))
        return {seeds[answer.number - 100]: answer for answer in got}

    def test_the_rung_reaches_the_scorer(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            loader, rule = Fault(folder), compile_rule(RULE)
            with self.started(loader, workers=1, retries=0) as executor:
                executor.submit(Job(1, rule, 5, rung=2))
                (answer,) = executor.wait()
        torch.set_num_threads(1)
        assert answer.outcome == trained(rule, 5, 2) != trained(rule, 5)

    def test_outcomes_are_those_of_a_direct_call_bit_for_bit(self) -> None:
        rule = compile_rule(RULE)
        for threads in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                fault = Fault(folder)
                with self.started(fault, threads=threads) as executor:
                    got = self.answers(executor, range(9))
                before = torch.get_num_threads()
                torch.set_num_threads(threads)
                try:
                    for seed, answer in got.items():
                        assert answer.outcome == trained(rule, seed)
                        assert (answer.reason, answer.attempts) == ("", 1)
                        assert answer.seconds > 0
                finally:
                    torch.set_num_threads(before)
                assert 1 <= fault.marks("load") <= 2  # once per worker, not per job

    def test_divergence_is_an_outcome_and_errors_are_reasons(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            fault = Fault(folder, raises=(3, 4), diverges=(5,))
            with self.started(fault) as executor:
                got = self.answers(executor, range(8))
            for seed, answer in got.items():
                if seed in (3, 4):
                    assert answer.outcome is None
                    assert answer.reason == f"ValueError: seed {seed} is bad"
                    assert answer.attempts == 1  # a second attempt would only raise again
                else:
                    assert answer.outcome is not None
                    assert answer.outcome.status == ("diverged" if seed == 5 else "done")

    def test_slots_are_kept(self) -> None:
        rule = compile_rule(RULE)
        with (
            tempfile.TemporaryDirectory() as folder,
            self.started(Fault(folder)) as executor,
        ):
            assert _refused(executor.wait)
            for number in range(executor.slots):
                executor.submit(Job(number, rule, number))
            assert _refused(lambda: executor.submit(Job(99, rule, 99)))
            got: list[Answer] = []
            while len(got) < executor.slots:
                got += executor.wait()
            assert sorted(answer.number for answer in got) == list(range(executor.slots))
            assert _refused(executor.wait)

    def test_what_has_not_begun_is_dropped(self) -> None:
        """Nothing else is: whatever is not dropped is answered."""
        rule = compile_rule(RULE)
        with tempfile.TemporaryDirectory() as folder, self.started(Fault(folder), workers=1) as executor:
            numbers = list(range(executor.slots))
            for number in numbers:
                executor.submit(Job(number, rule, number))
            dropped = executor.drop()
            got: list[Answer] = []
            while len(got) + len(dropped) < len(numbers):
                got += executor.wait()
            assert sorted([*dropped, *(answer.number for answer in got)]) == numbers
            assert _refused(executor.wait)
            assert executor.drop() == []
            self.answers(executor, range(3))  # the slots are free again

    def test_closing_gives_up_jobs(self) -> None:
        rule = compile_rule(RULE)
        with tempfile.TemporaryDirectory() as folder:
            executor = self.started(Fault(folder), workers=1)
            executor.submit(Job(0, rule, 0))
            executor.close()
            executor.close()
            assert _refused(executor.wait)
            assert _refused(lambda: executor.submit(Job(1, rule, 1)))


class WorkerExecutorCase(ExecutorCase):
    """Executors whose workers are other processes must pass these, too."""

    def test_a_killed_worker_is_replaced_and_its_trial_tried_again(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            fault = Fault(folder, dies_once=(2,), dies=(5,))
            with self.started(fault) as executor:
                got = self.answers(executor, range(10))
            for seed, answer in got.items():
                assert answer.attempts == (2 if seed in (2, 5) else 1)
                assert (answer.outcome is None) == (seed == 5)
            assert "worker lost" in got[5].reason
            assert "(2 times)" in got[5].reason
            assert fault.marks("job5") == 2
            assert all(fault.marks(f"job{seed}") == 1 for seed in (0, 1, 3, 4, 6, 7, 8, 9))  # nobody else's

    def test_a_hung_worker_is_replaced_and_its_trial_tried_again(self) -> None:
        rule, clock = compile_rule(RULE), Clock()
        with tempfile.TemporaryDirectory() as folder:
            fault = Fault(folder, hangs_once=(9,))
            with self.started(fault, clock=clock) as executor:
                self.answers(executor, range(2 * executor.slots))  # every worker is there
                executor.submit(Job(9, rule, 9))
                fault.wait_for("job9")
                for seed in (10, 11, 12):  # the other worker goes on, and is not taken for hung
                    executor.submit(Job(seed, rule, seed))
                    (answer,) = executor.wait()
                    assert (answer.number, answer.attempts) == (seed, 1)
                clock.pass_timeout()
                (answer,) = executor.wait()
                assert (answer.number, answer.attempts) == (9, 2)
                assert answer.outcome == trained_with_one_thread(rule, 9)
                assert fault.marks("job9") == 2
                assert all(fault.marks(f"job{seed}") == 1 for seed in (10, 11, 12))

    def test_a_trial_that_hangs_to_the_end_is_a_reason_and_its_worker_replaced(self) -> None:
        rule, clock = compile_rule(RULE), Clock()
        with tempfile.TemporaryDirectory() as folder:
            fault = Fault(folder, hangs=(3,))
            with self.started(fault, workers=1, retries=0, clock=clock) as executor:
                self.answers(executor, range(2))
                executor.submit(Job(3, rule, 3))
                fault.wait_for("job3")
                clock.pass_timeout()
                (answer,) = executor.wait()
                assert (answer.outcome, answer.attempts) == (None, 1)
                assert f"worker hung: no answer within {TIMEOUT:g} s" in answer.reason
                assert answer.seconds >= TIMEOUT
                self.answers(executor, (5, 6))

    def test_a_job_that_waits_for_a_worker_never_begins_once_dropped(self) -> None:
        rule = compile_rule(RULE)
        with tempfile.TemporaryDirectory() as folder:
            fault = Fault(folder, hangs=(9,))
            with self.started(fault, workers=1) as executor:
                executor.submit(Job(0, rule, 9))
                executor.submit(Job(1, rule, 10))
                fault.wait_for("job9")
                assert executor.wait(0.0) == []
                assert executor.drop() == [1]
                assert executor.wait(0.0) == []
            assert fault.marks("job10") == 0

    def test_a_worker_killed_while_idle_costs_nothing(self) -> None:
        rule = compile_rule(RULE)
        with (
            tempfile.TemporaryDirectory() as folder,
            self.started(Fault(folder), workers=1) as executor,
        ):
            executor.submit(Job(0, rule, 0))
            (answer,) = executor.wait()
            host, _, process = answer.worker.partition(":")
            assert host
            os.kill(int(process), signal.SIGKILL)
            executor.submit(Job(1, rule, 1))
            (again,) = executor.wait()
            assert again.outcome == trained_with_one_thread(rule, 1)
            assert again.worker != answer.worker

    def test_data_that_cannot_be_loaded_are_a_reason(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            with self.started(Fault(folder, broken=True), workers=1) as executor:
                got = self.answers(executor, range(2))
            for answer in got.values():
                assert answer.outcome is None
                assert "cannot load its data: OSError: no data here" in answer.reason


def trained_with_one_thread(rule: CompiledRule, seed: int, rung: int = 0) -> Outcome:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return trained(rule, seed, rung)
    finally:
        torch.set_num_threads(before)


def _refused(call: object) -> bool:
    assert callable(call)
    try:
        call()
    except RuntimeError:
        return True
    return False
