"""Real processes: killed with SIGKILL, interrupted with SIGINT, and gone on: one process to the unbroken run's very bits,
several workers to a complete run whose rewards are those of one process."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
from pathlib import Path

import pytest

from nos_search.cli import main
from nos_search.errors import SearchError
from nos_search.rules import compile_rule
from nos_search.run.children import LoadChild
from nos_search.run.config import RunConfig
from nos_search.store import Store
from tests.waiting import HUNG, wait_until

from .conftest import command, environment, table

pytestmark = pytest.mark.slow

TRIALS = 18
# long trainings: there must be time to kill the process before it is done
RUN = ["run", "--task", "digits", "--trials", TRIALS, "--seed", 7]
RUN += ["--sweep-steps", 4, "--train-steps", 1500, "--width", 4]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert here(*RUN, "--out", folder) == 0
    return table(folder)


def here(*args: object) -> int:
    """The command in this process, where nothing is to be killed."""
    return main([*map(str, args)])


def start_until(folder: Path, trials: int, args: list[object]) -> subprocess.Popen[str]:
    """Starts a search and returns once so many trials are answered."""
    process = subprocess.Popen(
        command(*args), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )

    def reached() -> bool:
        try:
            with Store.open(folder) as store:
                return sum(trial.told is not None for trial in store.trials()) >= trials
        except (SearchError, sqlite3.Error):  # not made yet
            return False

    wait_until(reached, process=process)
    return process


def test_kill_and_resume(tmp_path: Path, whole: list[object]) -> None:
    folder = tmp_path / "run"
    args: list[object] = [*RUN, "--out", folder]
    for trials in (3, 8):
        process = start_until(folder, trials, args)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        with Store.open(folder) as store:
            assert trials <= sum(trial.told is not None for trial in store.trials()) < TRIALS
        assert main(["show", str(folder)]) == 0
        args = ["resume", folder]
    assert here("resume", folder) == 0
    assert table(folder) == whole


def test_interrupt_and_resume(tmp_path: Path, whole: list[object]) -> None:
    folder = tmp_path / "run"
    process = start_until(folder, 4, [*RUN, "--out", folder])
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=HUNG)
    assert process.returncode == 130
    assert f"continue with: nos-search resume {folder}" in err
    assert "Traceback" not in err
    assert "trials " in out
    with Store.open(folder) as store:
        assert not store.being_written()
    assert here("resume", folder) == 0
    assert table(folder) == whole


def test_an_interrupt_does_not_wait_for_trainings_in_threads(tmp_path: Path) -> None:
    """Each of these would take hours."""
    args: list[object] = [
        "evaluate",
        "adam",
        "sgd",
        "--tasks",
        "teacher",
        "--seeds",
        1,
        "--threads",
        2,
        "--sweep-steps",
        1,
    ]
    process = subprocess.Popen(
        command(*args, "--train-steps", 1_000_000_000),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert "evaluating adam" in process.stderr.readline()
    assert "evaluating sgd" in process.stderr.readline()  # so the first has been begun
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=HUNG)
    assert process.returncode == 130
    assert err.endswith("nos-search evaluate: interrupted\n")


# --- several workers -------------------------------------------------------------------------------------------------


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def workers(folder: Path) -> set[int]:
    """Processes that trained something."""
    with Store.open(folder) as store:
        return {int(trial.worker.partition(":")[2]) for trial in store.trials() if trial.worker}


def check_complete(folder: Path, wanted: int) -> None:
    """So many trials answered, each once, in one order; rewards are what this process gets for the same rules."""
    with Store.open(folder) as store:
        trials = store.trials()
        config = RunConfig.from_json(store.config)
    done = sorted((trial for trial in trials if trial.told is not None), key=lambda trial: trial.told or 0)
    assert [trial.told for trial in done] == list(range(len(done)))
    assert len(done) == wanted
    assert [trial.id for trial in trials] == list(range(len(trials)))
    trained = [trial for trial in done if trial.status in ("done", "diverged")]
    assert len({trial.key for trial in trained}) == len(trained)
    score = LoadChild(config.to_json())()
    for trial in trained[::6]:
        outcome = score(compile_rule(trial.rule), trial.seed, 0)
        assert (outcome.status, outcome.reward, outcome.lr) == (trial.status, trial.reward, trial.lr)
        assert outcome.curve == trial.curve


def test_workers_killed_search_killed_search_interrupted(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start_until(folder, 1, [*RUN, "--trials", 2000, "--out", folder, "--workers", 2])
    wait_until(lambda: workers(folder), process=process)
    (victim, *_) = workers(folder)
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: len(workers(folder) - {victim}) >= 2, process=process)
    process.kill()
    process.communicate()
    orphans = workers(folder)
    with Store.open(folder) as store:
        answered = [trial for trial in store.trials() if trial.told is not None]
    wait_until(lambda: not any(map(alive, orphans)))

    process = start_until(folder, len(answered) + 4, ["resume", folder])
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=HUNG)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert not any(map(alive, workers(folder)))

    with Store.open(folder) as store:
        wanted = 4 + sum(trial.told is not None for trial in store.trials())
    assert here("resume", folder, "--workers", 1, "--executor", "inprocess", "--trials", wanted) == 0
    with Store.open(folder) as store:
        assert [trial for trial in store.trials() if trial in answered] == answered  # nothing was lost or done again
    check_complete(folder, wanted)
