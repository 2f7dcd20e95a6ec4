"""Real processes: killed with SIGKILL, interrupted with SIGINT, and gone on to the unbroken run's very bits."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from nos_search.errors import SearchError
from nos_search.store import Store

from .conftest import command, environment, nos_search, table

pytestmark = pytest.mark.slow

TRIALS = 60
RUN = ["run", "--trials", TRIALS, "--seed", 7, "--sweep-steps", 4, "--train-steps", 30, "--width", 4]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    folder = tmp_path_factory.mktemp("whole") / "run"
    done = nos_search(*RUN, "--out", folder)
    assert done.returncode == 0, done.stderr
    return table(folder)


def start_until(folder: Path, trials: int, args: list[object]) -> subprocess.Popen[str]:
    """Starts a search and returns once so many trials are answered."""
    process = subprocess.Popen(
        command(*args), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        try:
            with Store.open(folder) as store:
                if len(store.trials()) >= trials:
                    return process
        except (SearchError, sqlite3.Error):  # not made yet
            pass
        time.sleep(0.01)
    raise AssertionError("the search did not get going")


def test_kill_and_resume(tmp_path: Path, whole: list[object]) -> None:
    folder = tmp_path / "run"
    args: list[object] = [*RUN, "--out", folder]
    for trials in (9, 27):
        process = start_until(folder, trials, args)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        with Store.open(folder) as store:
            assert trials - 1 <= len(store.trials()) < TRIALS
        shown = nos_search("show", folder)
        assert shown.returncode == 0, shown.stderr
        args = ["resume", folder]
    done = nos_search("resume", folder)
    assert done.returncode == 0, done.stderr
    assert table(folder) == whole


def test_interrupt_and_resume(tmp_path: Path, whole: list[object]) -> None:
    folder = tmp_path / "run"
    process = start_until(folder, 12, [*RUN, "--out", folder])
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert f"continue with: nos-search resume {folder}" in err
    assert "Traceback" not in err
    assert "trials " in out
    with Store.open(folder) as store:
        assert all(trial.status != "running" for trial in store.trials())
    assert nos_search("resume", folder).returncode == 0
    assert table(folder) == whole
