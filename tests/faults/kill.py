"""Runs of the real command that are killed, or whose disk is full, and what resume makes of them."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

from nos_search.errors import SearchError
from nos_search.store import Store, Trial
from tests.search.conftest import command, environment, table
from tests.waiting import HUNG, wait_until

from .store import checked, copy_of, seen

# Random search proposes the same rules whatever came of the earlier ones, and however many workers train.
RUN: list[object] = ["run", "--task", "digits", "--trials", 240, "--strategy", "random", "--seed", 7]
RUN += ["--sweep-steps", 4, "--train-steps", 1000, "--width", 4, "--batch", 8, "--promote", "none"]


def start(*args: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*args), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finished(run: list[object], folder: Path) -> None:
    """A run of the real command to its end."""
    done = start(*run, "--out", folder)
    _, err = done.communicate(timeout=HUNG)
    assert done.returncode == 0, err


def answered(folder: Path) -> int:
    """How many trials were answered; -1 while there is no store yet."""
    try:
        with Store.open(folder) as store:
            return sum(trial.told is not None for trial in store.trials())
    except SearchError:
        return -1


def going(process: subprocess.Popen[str], folder: Path, more_than: int) -> bool:
    """Waits until the run has got further; False when it came to its end instead."""
    wait_until(lambda: answered(folder) > more_than or process.poll() is not None)
    if process.poll() is None:
        return True
    assert process.returncode == 0, process.stderr.read() if process.stderr else ""
    return False


def with_a_log(folder: Path) -> Path:
    """A run that was killed: its last commits are in the write-ahead log."""
    process = start(*RUN, "--out", folder / "run")
    assert going(process, folder / "run", 20)
    process.kill()
    process.communicate()
    return copy_of(folder / "run", folder / "copy")


def at_random(folder: Path, whole: Path, kills: int, workers: int, *, seed: int) -> str:
    """Kills a run again and again, at random moments after it has got further; then lets it come to its end.

    One worker: the unbroken run's very table. Several: answers come in another order, so that each rule has the reward
    of the unbroken run, and nothing that was committed is lost or done again.
    """
    draw = random.Random(seed)
    args: list[object] = [*RUN, "--out", folder, "--workers", workers]
    kept: dict[int, Trial] = {}
    done = 0
    while done < kills:
        done += 1
        process = start(*args)
        before = max(0, answered(folder)) - 1 if folder.exists() else -1
        if not going(process, folder, before):
            break
        time.sleep(draw.expovariate(20.0))
        process.kill()
        process.communicate()
        args = ["resume", folder]
        if process.returncode != -signal.SIGKILL:
            break  # it was quicker
        kept = {trial.id: trial for trial in _answers(folder)}
        checked(copy_of(folder, folder.with_name("seen")), seen(folder))
    last = start("resume", folder)
    _, err = last.communicate(timeout=HUNG)
    assert last.returncode == 0, err
    ends = {trial.id: trial for trial in _answers(folder)}
    assert all(ends[number] == trial for number, trial in kept.items()), "an answer was lost, or made again"
    if workers == 1:
        assert table(folder) == table(whole), "another table than the unbroken run's"
        return f"killed {done} times, the unbroken run's table"
    rewards = {trial.key: trial.reward for trial in _answers(whole) if trial.status in ("done", "diverged")}
    common = [trial for trial in ends.values() if trial.status in ("done", "diverged") and trial.key in rewards]
    assert len(ends) == 240
    assert sorted(trial.told or 0 for trial in ends.values()) == list(range(240))
    assert len(common) > len(rewards) * 0.9
    assert all(trial.reward == rewards[trial.key] for trial in common), "a rule has another reward"
    return f"killed {done} times, the unbroken run's rewards of {len(common)} rules"


def _answers(folder: Path) -> list[Trial]:
    with Store.open(folder) as store:
        return [trial for trial in store.trials() if trial.told is not None]


def full_disk(disk: Path, whole: Path, scratch: Path) -> str:
    """A run on a disk that is too small for it stops with one line; in a place with room it comes to its end."""
    process = start(*RUN, "--out", disk / "run")
    _, err = process.communicate(timeout=HUNG)
    assert process.returncode == 1, (process.returncode, err)
    assert "Traceback" not in err, err
    (line,) = [line for line in err.splitlines() if line.startswith("nos-search run: ")]
    assert "make room, then go on with: nos-search resume" in line, line
    count = answered(disk / "run")
    assert count > 0
    shutil.copytree(disk / "run", scratch / "roomy")
    last = start("resume", scratch / "roomy")
    _, err = last.communicate(timeout=HUNG)
    assert last.returncode == 0, err
    assert table(scratch / "roomy") == table(whole)
    return f"stopped after {count} trials with one line, went on elsewhere to the unbroken run's table"
