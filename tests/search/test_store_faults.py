"""Damage, full disks, locks, read-only folders: the same table or one clear line, and nothing that was found is lost."""

from __future__ import annotations

import math
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from nos_search.errors import SearchError, StoreError
from nos_search.executor import Job
from nos_search.show.leaderboard import summary
from nos_search.store import Store, connection, wal
from tests.faults import store as faults
from tests.faults.readonly import NotPossibleError, read_only

from .conftest import Clock, StubExecutor, stub_search, table
from .test_loop import LADDER, config


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    stub_search(folder, config(trials=90, **LADDER), StubExecutor())
    return folder


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a process that is killed at its sixtieth child leaves behind: its last commits are in the log."""
    folder = tmp_path_factory.mktemp("killed")

    def fault(job: Job) -> None:
        if len(executor.jobs) == 60:
            faults.copy_of(folder / "run", folder / "copy")
            raise KeyboardInterrupt

    executor = StubExecutor(fault)
    with pytest.raises(KeyboardInterrupt):
        stub_search(folder / "run", config(trials=90, **LADDER), executor)
    assert (folder / "copy" / "search.db-wal").stat().st_size > 0
    return folder / "copy"


# --- damage ----------------------------------------------------------------------------------------------------------


def test_flipped_bits(run: Path, tmp_path: Path) -> None:
    said = faults.flip_bits(run, tmp_path, 60, seed=1)
    assert said["refused"] > 20
    assert said["kept"] >= said["refused"]  # whoever would write looks at the whole file


def test_flipped_bits_in_the_log_of_a_killed_run(killed: Path, tmp_path: Path) -> None:
    said = faults.flip_bits(killed, tmp_path, 60, seed=2, file="search.db-wal")
    assert said["refused"] > 20


def test_a_damaged_log_is_said_and_resume_goes_on_before_it(run: Path, killed: Path, tmp_path: Path) -> None:
    folder = faults.copy_of(killed, tmp_path / "run")
    path = folder / "search.db-wal"
    assert wal.whole(path)
    data = bytearray(path.read_bytes())
    data[len(data) * 2 // 3] ^= 4
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"db-wal is damaged, and with it the last commits; .*nos-search resume"):
        Store.open(folder)
    stub_search(folder, config(trials=90, **LADDER), StubExecutor())
    assert table(folder) == table(run)


def test_a_log_of_a_killed_run_is_whole_at_any_length(killed: Path, tmp_path: Path) -> None:
    """Cut off anywhere, as a write that was not finished: that commit never was."""
    data = (killed / "search.db-wal").read_bytes()
    path = tmp_path / "log"
    assert wal.whole(path)
    for length in (0, 10, 32, 33, 60, 32 + 24 + 4096 - 1, len(data) - 1):
        path.write_bytes(data[:length])
        assert wal.whole(path)
    path.write_bytes(data + data[32:])  # the log was begun anew, and what is behind its end is older
    assert not wal.whole(path)
    older = bytearray(data[32 : 32 + 24 + 4096])
    older[8:16] = b"anything"
    path.write_bytes(data + older)
    assert wal.whole(path)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("DELETE FROM trial WHERE id = (SELECT max(id) FROM trial)", "trial: rows are missing"),
        ("DELETE FROM score", "score: rows are missing"),
        ("DELETE FROM checkpoint", "checkpoint: rows are missing"),
        ("DELETE FROM meta WHERE name = 'state'", "meta: rows are missing"),
        ("DELETE FROM seal WHERE part = 'trial'", "trial: rows are missing"),
        ("UPDATE trial SET reward = 0.99 WHERE id = 40", "trial: row 40 does not fit its checksum"),
        ("UPDATE trial SET told = 1000 WHERE id = 40", "trial: row 40 does not fit its checksum"),
        ("UPDATE trial SET seal = seal + 1 WHERE id = 40", "trial: row 40 does not fit its checksum"),
        ("UPDATE trial SET rule = x'00ff' WHERE id = 40", "trial: row 40 does not fit its checksum"),
        ("UPDATE score SET reward = 0.99", "score: row 'promotion' does not fit its checksum"),
        ("UPDATE checkpoint SET trials = 1", "checkpoint: row 1 does not fit its checksum"),
        ("UPDATE meta SET value = '{}' WHERE name = 'versions'", "meta: row 'versions' does not fit its checksum"),
        ("DROP TABLE score", "table score is missing"),
        ("ALTER TABLE trial RENAME COLUMN reward TO prize", "no such column: reward"),
    ],
)
def test_rows_that_changed_or_vanished(run: Path, tmp_path: Path, statement: str, message: str) -> None:
    folder = faults.copy_of(run, tmp_path / "run")
    with closing(sqlite3.connect(folder / "search.db")) as db:
        db.execute(statement)
        db.commit()
    before = (folder / "search.db").read_bytes()
    for reading in (lambda: faults.seen(folder), lambda: Store.open(folder, write=True)):
        with pytest.raises(StoreError, match=message) as caught:
            reading()
        faults.assert_one_line(caught.value)
    assert (folder / "search.db").read_bytes() == before


def test_an_index_that_is_damaged_is_made_anew(run: Path, tmp_path: Path) -> None:
    """It holds nothing that the rows do not; a night's search is not given up for it."""
    folder, want = faults.copy_of(run, tmp_path / "run"), faults.seen(run)
    with closing(sqlite3.connect(folder / "search.db")) as db:
        ((root,),) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'trial_told'")
        ((size,),) = db.execute("PRAGMA page_size")
    data = bytearray((folder / "search.db").read_bytes())
    data[root * size - 1] ^= 1  # of an entry's key
    (folder / "search.db").write_bytes(data)
    with closing(sqlite3.connect(folder / "search.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() != [("ok",)]
    Store.open(folder, write=True).close()
    with closing(sqlite3.connect(folder / "search.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert faults.seen(folder) == want


def test_a_row_of_an_earlier_moment_is_noticed(run: Path, tmp_path: Path) -> None:
    """As of a page that was not written: the row is right by itself, and not what the run last said."""
    folder = faults.copy_of(run, tmp_path / "run")
    with closing(sqlite3.connect(folder / "search.db")) as db:
        old = db.execute("SELECT * FROM trial WHERE id = 40").fetchone()
    with Store.open(folder, write=True) as store:
        trial = store.trials()[40]
        store.put(replace(trial, seconds=99.0))
        store.commit()
    with closing(sqlite3.connect(folder / "search.db")) as db:
        db.execute(f"REPLACE INTO trial VALUES ({', '.join('?' * len(old))})", old)
        db.commit()
    with pytest.raises(StoreError, match="trial: rows are missing, or older than the others"):
        faults.seen(folder)


def test_format_2_is_read_and_gets_checksums_from_whoever_writes(run: Path, tmp_path: Path) -> None:
    folder, want = faults.copy_of(run, tmp_path / "run"), faults.seen(run)
    want["trials_of_the_run"] = [trial | {"family": None} for trial in want["trials_of_the_run"]]  # until a resume
    with closing(sqlite3.connect(folder / "search.db")) as db:
        for part in ("meta", "trial", "score", "checkpoint"):
            db.execute(f"ALTER TABLE {part} DROP COLUMN seal")
        db.execute("ALTER TABLE trial DROP COLUMN family")
        db.executescript("DROP TABLE seal; DELETE FROM meta WHERE name = 'state'; PRAGMA user_version = 2;")
    assert faults.seen(folder) == {**want, "state": "stopped"}
    with Store.open(folder) as store:
        assert store._tables.version == 2
    Store.open(folder, write=True).close()
    assert faults.seen(folder) == {**want, "state": "stopped"}
    with closing(sqlite3.connect(folder / "search.db")) as db:
        db.execute("UPDATE trial SET reward = 0.99 WHERE id = 40")
        db.commit()
    with pytest.raises(StoreError, match="row 40 does not fit its checksum"):
        faults.seen(folder)


# --- errors of SQLite in the middle of a run -------------------------------------------------------------------------


def run_until(folder: Path, accident: Callable[[], None], *, patience: float = 60.0) -> None:
    """A search to which something happens at its fortieth child."""

    def fault(job: Job) -> None:
        if len(executor.jobs) == 40:
            accident()

    chosen, executor = config(trials=90, **LADDER), StubExecutor(fault)
    from nos_search.run.config import versions
    from nos_search.run.search import Search

    with Store.create(folder, chosen.to_json(), versions(), patience=patience) as store:
        Search(store, chosen, executor, clock=Clock(), wall=Clock()).run()


def goes_on(folder: Path, whole: Path) -> None:
    """What was found before the accident is there, and resume comes to the unbroken run's very table."""
    with Store.open(folder) as store:
        answered = [trial for trial in store.trials() if trial.told is not None]
        assert store.state == "stopped"
    assert len(answered) >= 25
    executor = StubExecutor()
    stub_search(folder, config(trials=90, **LADDER), executor)
    assert table(folder) == table(whole)
    assert len(executor.jobs) < 60  # no child that was committed is trained again


def test_a_full_disk_ends_the_run_with_one_line_and_resume_goes_on(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[connection.Connection] = []
    make = connection.Connection.__init__

    def remember(self: connection.Connection, *args: object, **keywords: object) -> None:
        make(self, *args, **keywords)  # type: ignore[arg-type]
        opened.append(self)

    monkeypatch.setattr(connection.Connection, "__init__", remember)

    def fill() -> None:
        ((pages,),) = opened[0].execute("PRAGMA page_count")
        opened[0].execute(f"PRAGMA max_page_count = {pages}")

    with pytest.raises(StoreError, match="the disk is full; make room, then go on with: nos-search resume") as caught:
        run_until(tmp_path / "run", fill)
    faults.assert_one_line(caught.value)
    goes_on(tmp_path / "run", run)


@contextmanager
def locked(folder: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(folder / "search.db", isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other


def test_a_lock_that_is_not_given_back_ends_the_run_with_one_line(run: Path, tmp_path: Path) -> None:
    folder, held = tmp_path / "run", []

    def lock() -> None:
        held.append(locked(folder))
        held[0].__enter__()

    with pytest.raises(StoreError, match=r"another program has it locked for 0\.2 s; end that, then go on") as caught:
        run_until(folder, lock, patience=0.2)
    faults.assert_one_line(caught.value)
    held[0].__exit__(None, None, None)
    goes_on(folder, run)


def test_a_lock_that_is_given_back_is_waited_for(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, pauses, held = tmp_path / "run", [], []

    def lock() -> None:
        held.append(locked(folder))
        held.append(held[0].__enter__())

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            held[1].execute("ROLLBACK")

    monkeypatch.setattr(connection.time, "sleep", pause)
    run_until(folder, lock, patience=1e9)
    assert len(pauses) == 3
    assert table(folder) == table(run)


def test_a_folder_that_is_renamed_or_removed_is_noticed(run: Path, tmp_path: Path) -> None:
    message = "was removed or renamed while it was in use; if it has a new name, go on with: nos-search resume NEW-NAME"
    with pytest.raises(StoreError, match=message):
        run_until(tmp_path / "run", lambda: (tmp_path / "run").rename(tmp_path / "new") and None)
    goes_on(tmp_path / "new", run)
    with pytest.raises(StoreError, match=message):
        run_until(tmp_path / "gone", lambda: shutil.rmtree(tmp_path / "gone"))
    assert not (tmp_path / "gone").exists()


def test_a_run_that_cannot_begin_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nos_search.store.layout.steps", lambda version: "CREATE TABLE meta (name TEXT);\n")
    with pytest.raises(StoreError):
        Store.create(tmp_path / "run", config().to_json(), {})
    assert not (tmp_path / "run").exists()


# --- outcomes that cannot be stored ----------------------------------------------------------------------------------


def test_an_outcome_that_could_not_be_read_back_is_a_failed_trial(tmp_path: Path) -> None:
    class Wrong(StubExecutor):
        def wait(self, seconds: float = math.inf) -> list[object]:
            (answer,) = super().wait()
            job = self.jobs[-1]
            if job.number % 5 == 0 and answer.outcome is not None:
                wrong = {"reward": 1.5} if job.number % 2 else {"curve": {"steps": [1], "accuracy": [float("nan")]}}
                answer = replace(answer, outcome=replace(answer.outcome, **wrong))
            return [answer]

    stub_search(tmp_path / "run", config(**LADDER), Wrong())
    with Store.open(tmp_path / "run") as store:
        reasons = {trial.reason.partition(" {")[0] for trial in store.trials() if trial.status == "failed"}
        promoted = [score.curve["reason"] for score in store.scores("promotion") if score.status == "failed"]
    assert "the outcome cannot be stored: reward 1.5 is not a number from 0 to 1, or nothing" in reasons
    assert "the outcome cannot be stored: curve" in reasons
    assert all(reason.startswith("the outcome cannot be stored: ") for reason in promoted)


# --- what a run says of itself ---------------------------------------------------------------------------------------


def test_states(run: Path, killed: Path, tmp_path: Path) -> None:
    with Store.open(run) as store:
        assert store.state == "finished"
    with Store.open(faults.copy_of(killed, tmp_path / "killed")) as store:
        data = summary(store)
    assert (data["state"], data["going_on"], data["running"]) == ("stopped", False, 0)
    assert data["interrupted"] > 0

    seen: list[dict[str, object]] = []

    def stop(job: Job) -> None:
        if job.number > 20:
            with Store.open(tmp_path / "run") as store:
                seen.append(summary(store))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stub_search(tmp_path / "run", config(), StubExecutor(stop))
    with Store.open(tmp_path / "run") as store:
        data = summary(store)
    assert (seen[0]["state"], seen[0]["going_on"], seen[0]["interrupted"]) == ("running", True, 0)
    assert (data["state"], data["going_on"], data["running"]) == ("interrupted", False, 0)
    assert data["interrupted"] == seen[0]["running"] > 0

    with pytest.raises(SearchError, match="5 trainings in a row"):
        stub_search(tmp_path / "run", config(), StubExecutor(lambda job: "no disk"))
    with Store.open(tmp_path / "run") as store:
        assert store.state == "failed"


# --- read-only folders -----------------------------------------------------------------------------------------------


@contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    try:
        with read_only(folder):
            yield
    except NotPossibleError as error:
        pytest.skip(f"no folder can be made read-only here: {error}")


@pytest.mark.parametrize("kind", ["run", "killed"])
def test_read_only_folders_are_read_and_not_resumed(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Of a killed run, the last commits are only in its log, beside which SQLite would make a file."""
    source: Path = request.getfixturevalue(kind)
    folder, want = faults.copy_of(source, tmp_path / "copy"), faults.seen(faults.copy_of(source, tmp_path / "other"))
    with unwritable(folder):
        names = sorted(path.name for path in folder.iterdir())
        assert faults.seen(folder) == want
        with pytest.raises(StoreError, match=r"cannot be written: .*; make it writable, or copy it") as caught:
            Store.open(folder, write=True)
        faults.assert_one_line(caught.value)
        assert sorted(path.name for path in folder.iterdir()) == names
    assert faults.seen(folder) == want
    if kind == "killed":
        assert want["state"] == "stopped"
