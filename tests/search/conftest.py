"""Shared parts of the search tests: a stub executor that trains nothing, small configurations, and the real command."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nos_search import nursery
from nos_search.executor import Answer, Executor, Job
from nos_search.run.config import RunConfig, versions
from nos_search.run.search import Search
from nos_search.space import Tokens
from nos_search.store import Store, Trial
from nos_search.strategy.policy import Policy
from nos_search.train.child import Outcome
from tests import fresh
from tests.waiting import HUNG

torch.set_num_threads(1)  # the tests' tensors are small, and bits depend on the number

NURSERY = "import torch, nos_search.executor.hatchery, nos_search.run.children"  # of what a nursery begins with
SMALL = {"sweep_steps": 4, "train_steps": 6, "width": 4}


def stub_outcome(key: str) -> Outcome:
    """A made-up outcome that depends on the rule's canonical form only; one rule in eight diverges."""
    number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big")
    if number % 8 == 0:
        return Outcome("diverged", 0.0, None, {"sweep": []})
    reward = (number >> 8) / 2**24
    return Outcome("done", reward, 0.1, {"sweep": [], "steps": [1], "loss": [1.0], "accuracy": [reward]})


class StubExecutor(Executor):
    """Answers from stub_outcome, one job after the other. jobs: every job ever taken. fault(job): may raise, or give
    the reason of a failure."""

    slots = 1

    def __init__(self, fault: Callable[[Job], str | None] = lambda job: None, slots: int = 1) -> None:
        self.jobs: list[Job] = []
        self.fault = fault
        self.slots = slots
        self._held: list[Job] = []

    def submit(self, job: Job) -> None:
        assert len(self._held) < self.slots
        self.jobs.append(job)
        self._held.append(job)

    def wait(self, seconds: float = math.inf) -> list[Answer]:
        job = self._held.pop(0)
        reason = self.fault(job)
        outcome = stub_outcome(job.rule.key + "'" * job.rung)
        return [Answer(job.number, None if reason else outcome, reason or "", 0.25)]

    def drop(self) -> list[int]:
        waiting, self._held = self._held[1:], self._held[:1]
        return [job.number for job in waiting]

    def close(self) -> None:
        self._held.clear()


class Clock:
    """A clock that goes forward by `tick` seconds whenever it is read."""

    def __init__(self, tick: float = 1.0) -> None:
        self.now, self.tick = 0.0, tick

    def __call__(self) -> float:
        self.now += self.tick
        return self.now


def repeatable(trial: Trial) -> Trial:
    """The trial without its times and places: equal in equal runs."""
    gates = {name: {**entry, "seconds": 0.0} for name, entry in trial.gates.items()}
    return replace(trial, started=0.0, seconds=0.0, gates=gates, attempts=1, worker="")


def evaluated(policy: Policy, strings: Sequence[Tokens]) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability and entropy of each string under a controller's policy, (n,) each."""
    batch = policy.batch(strings)
    log_p = policy.distributions(batch)
    return policy.log_prob(log_p, batch), policy.entropy(log_p, batch)


def stub_search(folder: Path, config: RunConfig, executor: Executor) -> str:
    """Runs or continues a search in `folder` with a stub executor; returns why it stopped."""
    clock = Clock()
    exists = (folder / "search.db").exists()
    with Store.open(folder, write=True) if exists else Store.create(folder, config.to_json(), versions()) as store:
        return Search(store, config, executor, clock=clock, wall=clock).run()


def table(folder: Path) -> list[Any]:
    """All of a run that equal runs have in common, the strategy's state included."""
    from nos_search.store.codec import pack

    with Store.open(folder) as store:
        checkpoint = store.checkpoint()
        trials = [repeatable(trial) for trial in store.trials()]
        promotions = [replace(score, seconds=0.0) for score in store.scores("promotion")]
        return [trials, promotions, (pack(checkpoint[0]), checkpoint[1]) if checkpoint else None]


def environment() -> dict[str, str]:
    """For subprocesses: the packages come from where this process found them."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "nos_search", *map(str, args)]


def nos_search(*args: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The real command in a process of its own."""
    return subprocess.run(command(*args), capture_output=True, text=True, env=environment(), cwd=cwd, timeout=HUNG)


class Forking:
    """Stands for the module subprocess in nos_search.nursery: a nursery begins in a fork of a process that has imported what
    it imports, and what it does from then on is its own."""

    DEVNULL, TimeoutExpired = subprocess.DEVNULL, subprocess.TimeoutExpired

    @staticmethod
    def Popen(
        command: Sequence[str],
        *,
        pass_fds: Sequence[int],
        env: Mapping[str, str],
        start_new_session: bool,
        **streams: int,
    ) -> fresh.Process:
        assert command[:2] == [sys.executable, "-c"]
        assert streams == {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        home = fresh.home(NURSERY, env)
        with open(os.devnull, "r+") as nothing:
            return home.start(
                command[2],
                command[3:],
                env,
                streams=[nothing.fileno(), nothing.fileno(), 2],
                pass_fds=pass_fds,
                session=start_new_session,
            )


@pytest.fixture(autouse=True, scope="session")
def nurseries_are_forked() -> Iterator[None]:
    """Spares each nursery its imports. Those of the commands that tests start as processes begin from nothing."""
    with pytest.MonkeyPatch.context() as patched:
        if nursery.AVAILABLE:
            patched.setattr(nursery, "subprocess", Forking)
        yield


@pytest.fixture
def nurseries_begin_from_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nursery, "subprocess", subprocess)


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished small run on real data, for tests that only read. 40 trials, about 5 s."""
    from nos_search.cli import main

    folder = tmp_path_factory.mktemp("runs") / "small"
    small = ["--sweep-steps", "4", "--train-steps", "6", "--width", "4", "--promote", "none"]
    assert main(["run", "--task", "digits", "--trials", "40", "--seed", "3", "--out", str(folder), *small]) == 0
    return folder
