"""Owns a run's memory: one SQLite file, DIR/search.db, written so that a killed run goes on where it was.

`meta`: config and versions as JSON. `trial`: one row per proposed rule. `score`: trainings that are no trial of the
search, such as the known optimizers that a report shows. `checkpoint`: the strategy's state after so many answers
(codec.py). The rows say when each rule was asked for and in which order the answers came, so the state after any later
answer is had by telling a restored strategy what came after its checkpoint (resume.py); a checkpoint is half a megabyte
and is not written with every trial.

What a crash may lose: SQLite's write-ahead log with synchronous=NORMAL survives a killed process whole. A power cut may
lose the last commits, never the file; what is lost is a tail, and resume proposes and trains it again. FULL would wait
for the disk at every commit and save that tail.

The file is known by its application id, its format by user_version. Format 1 (no `score`, fewer columns) is read as
it is, and brought to format 2 when opened for writing. DIR/search.lock is locked by the process that writes.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from .codec import pack, unpack
from .errors import StoreError, UsageError

FILE = "search.db"
LOCK = "search.lock"
FORMAT = 2
_APPLICATION = 0x4E4F5331  # "NOS1"
STATUSES = ("running", "done", "diverged", "rejected", "duplicate", "failed")
_FORMAT_1 = f"""
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE trial (
  id INTEGER PRIMARY KEY,      -- counts proposals from 0
  tokens TEXT NOT NULL,        -- JSON list of ints
  rule TEXT NOT NULL,          -- rule text
  key TEXT NOT NULL,           -- canonical form
  status TEXT NOT NULL CHECK (status IN {STATUSES}),
  reward REAL,                 -- validation accuracy; 0 when diverged or rejected
  lr REAL,
  seed INTEGER NOT NULL,       -- of the child
  duplicate_of INTEGER REFERENCES trial (id),
  reason TEXT NOT NULL,        -- why rejected or failed
  started REAL NOT NULL,       -- seconds since 1970
  seconds REAL NOT NULL,       -- in training
  curve TEXT NOT NULL,         -- JSON, see train/child.py
  metrics TEXT NOT NULL        -- JSON, of the strategy after this trial
);
CREATE INDEX trial_key ON trial (key);
CREATE TABLE checkpoint (id INTEGER PRIMARY KEY CHECK (id = 1), trials INTEGER NOT NULL, state BLOB NOT NULL);
PRAGMA application_id = {_APPLICATION};
"""
_FORMAT_2 = """
ALTER TABLE trial ADD COLUMN gates TEXT NOT NULL DEFAULT '{}';       -- JSON: gate -> {"passed", "seconds"}, in order
ALTER TABLE trial ADD COLUMN fingerprint TEXT NOT NULL DEFAULT '';   -- functional key
ALTER TABLE trial ADD COLUMN batch INTEGER;                          -- id of the first trial asked for in one call
ALTER TABLE trial ADD COLUMN asked INTEGER;                          -- answers that had been told before that call
ALTER TABLE trial ADD COLUMN told INTEGER;                           -- place among the answers from 0; NULL: none yet
ALTER TABLE trial ADD COLUMN attempts INTEGER NOT NULL DEFAULT 1;    -- trainings begun, lost workers included
ALTER TABLE trial ADD COLUMN worker TEXT NOT NULL DEFAULT '';        -- where it was trained
UPDATE trial SET batch = id, asked = id, told = CASE status WHEN 'running' THEN NULL ELSE id END;
CREATE UNIQUE INDEX trial_told ON trial (told) WHERE told IS NOT NULL;
CREATE TABLE score (
  purpose TEXT NOT NULL,       -- what asked for it: "baseline" ...
  name TEXT NOT NULL,          -- of the rule: a library name, or its text
  key TEXT NOT NULL,           -- canonical form
  task TEXT NOT NULL,
  seed INTEGER NOT NULL,
  budget TEXT NOT NULL,        -- JSON: what else decided the result
  status TEXT NOT NULL,
  reward REAL,
  lr REAL,
  test REAL,
  curve TEXT NOT NULL,         -- JSON
  seconds REAL NOT NULL,
  PRIMARY KEY (purpose, name, task, seed, budget)
);
PRAGMA user_version = 2;
"""


@dataclass(frozen=True)
class Trial:
    """One row of the store; fields as in its schema."""

    id: int
    tokens: tuple[int, ...]
    rule: str
    key: str
    seed: int
    status: str = "running"
    reward: float | None = None
    lr: float | None = None
    duplicate_of: int | None = None
    reason: str = ""
    started: float = 0.0
    seconds: float = 0.0
    curve: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    gates: dict[str, dict[str, Any]] = field(default_factory=dict)
    fingerprint: str = ""
    batch: int | None = None
    asked: int | None = None
    told: int | None = None
    attempts: int = 1
    worker: str = ""

    def repeatable(self) -> Trial:
        """This trial without its times and places: equal in equal runs."""
        gates = {name: {**entry, "seconds": 0.0} for name, entry in self.gates.items()}
        return replace(self, started=0.0, seconds=0.0, gates=gates, attempts=1, worker="")


@dataclass(frozen=True)
class Score:
    """A training that is no trial; fields as in the schema."""

    purpose: str
    name: str
    key: str
    task: str
    seed: int
    budget: dict[str, Any]
    status: str
    reward: float | None = None
    lr: float | None = None
    test: float | None = None
    curve: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


_COLUMNS = tuple(entry.name for entry in fields(Trial))
_SCORE_COLUMNS = tuple(entry.name for entry in fields(Score))
_UPSERT = (
    f"INSERT INTO trial ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))}) "
    + "ON CONFLICT (id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS)
)
_PUT_SCORE = (
    f"INSERT OR REPLACE INTO score ({', '.join(_SCORE_COLUMNS)}) VALUES ({', '.join('?' * len(_SCORE_COLUMNS))})"
)


class Store:
    """An open run folder. Use as a context manager; one writer, any number of readers."""

    def __init__(self, folder: Path, connection: sqlite3.Connection, lock: int | None) -> None:
        self.folder = folder
        self._db = connection
        self._lock = lock
        meta = dict(connection.execute("SELECT name, value FROM meta"))
        self.config: dict[str, Any] = json.loads(meta["config"])
        self.versions: dict[str, str] = json.loads(meta["versions"])

    @classmethod
    def create(cls, folder: Path, config: Mapping[str, Any], versions: Mapping[str, str]) -> Store:
        """A new run in `folder`, which must be absent or empty (UsageError)."""
        if folder.is_dir() and any(folder.iterdir()):
            run = (folder / FILE).exists()
            remedy = f"continue it with: nos-search resume {folder}" if run else "choose an empty or new folder"
            raise UsageError(f"--out {folder} {'already holds a run' if run else 'is not empty'}; {remedy}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = _take_lock(folder)
        except OSError as error:
            raise UsageError(f"--out {folder} cannot be made: {error.strerror}; choose another folder") from None
        db = _connect(folder / FILE, "rwc")
        db.execute("PRAGMA journal_mode = WAL")
        meta = {"config": json.dumps(dict(config)), "versions": json.dumps(dict(versions))}
        inserts = "".join(
            f"INSERT INTO meta VALUES ('{k}', '{v.replace(chr(39), chr(39) * 2)}');" for k, v in meta.items()
        )
        db.executescript(f"BEGIN;{_FORMAT_1}{_FORMAT_2}{inserts}COMMIT;")
        return cls(folder, db, lock)

    @classmethod
    def open(cls, folder: Path, *, write: bool = False) -> Store:
        """An existing run. UsageError when there is none; StoreError when it is foreign, too new, damaged or in use."""
        path = folder / FILE
        if not path.is_file():
            what = "does not exist" if not folder.exists() else f"holds no run ({FILE} is missing)"
            raise UsageError(f"run folder {folder} {what}; start one with: nos-search run --out {folder}")
        lock = _take_lock(folder) if write else None
        try:
            db = _connect(path, "rw" if write else "ro")
            application = db.execute("PRAGMA application_id").fetchone()[0]
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
                raise StoreError(
                    f"{path} is empty: the run was stopped before it began; remove the folder and run again"
                )
            if application != _APPLICATION:
                raise StoreError(f"{path} is an SQLite file of another program, not a run of nos-search")
            if version > FORMAT:
                raise StoreError(f"{path} has format {version}, this release reads up to {FORMAT}; upgrade nos-ext")
            if write and version == 1:
                db.executescript(f"BEGIN;{_FORMAT_2}COMMIT;")
            return cls(folder, db, lock)
        except sqlite3.DatabaseError as error:
            _release(lock)
            raise StoreError(f"{path} is not a run of nos-search, or is damaged: {error}") from None
        except StoreError:
            _release(lock)
            raise

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._db.close()
        _release(self._lock)
        self._lock = None

    # --- writing ---------------------------------------------------------------------------------------------------

    def set_config(self, config: Mapping[str, Any]) -> None:
        """Replaces the configuration (new limits of a resumed run)."""
        self.config = dict(config)
        with self._db:
            self._db.execute("UPDATE meta SET value = ? WHERE name = 'config'", (json.dumps(self.config),))

    def put(self, trial: Trial) -> None:
        """Writes a trial, new or again. It lasts, and readers see it, after commit()."""
        self._db.execute(_UPSERT, _row(trial, _COLUMNS))

    def put_checkpoint(self, state: dict[str, Any], *, told: int) -> None:
        """Writes the strategy's state after `told` answers, in place of the one before; lasts after commit()."""
        self._db.execute("INSERT OR REPLACE INTO checkpoint VALUES (1, ?, ?)", (told, pack(state)))

    def put_score(self, score: Score) -> None:
        """Writes a score in place of an equal training's."""
        with self._db:
            self._db.execute(_PUT_SCORE, _row(score, _SCORE_COLUMNS))

    def commit(self) -> None:
        """Makes what was put last, all or nothing."""
        self._db.commit()

    def rollback(self) -> None:
        """Forgets what was put since the last commit()."""
        self._db.rollback()

    # --- reading ---------------------------------------------------------------------------------------------------

    def trials(self) -> list[Trial]:
        """All trials by id."""
        present = {row[1] for row in self._db.execute("PRAGMA table_info(trial)")}  # format 1 has fewer
        names = [name for name in _COLUMNS if name in present]
        rows = self._db.execute(f"SELECT {', '.join(names)} FROM trial ORDER BY id")
        trials = [Trial(**_values(names, row)) for row in rows]
        if "told" not in present:
            trials = [replace(t, batch=t.id, asked=t.id, told=None if t.status == "running" else t.id) for t in trials]
        return trials

    def scores(self, purpose: str) -> list[Score]:
        """The scores of a purpose, in order of writing."""
        if not self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'score'").fetchone():
            return []
        names = ", ".join(_SCORE_COLUMNS)
        rows = self._db.execute(f"SELECT {names} FROM score WHERE purpose = ? ORDER BY rowid", (purpose,))
        return [Score(**_values(_SCORE_COLUMNS, row)) for row in rows]

    def checkpoint(self) -> tuple[dict[str, Any], int] | None:
        """The strategy's state and how many answers it knows; None when there is no checkpoint yet."""
        row = self._db.execute("SELECT state, trials FROM checkpoint").fetchone()
        return (unpack(row[0]), int(row[1])) if row else None

    def being_written(self) -> bool:
        """Whether some process, this one included, has the run open for writing."""
        if self._lock is not None:
            return True
        try:
            handle = os.open(self.folder / LOCK, os.O_RDONLY)
        except OSError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(handle)
        return False


_JSON = ("tokens", "curve", "metrics", "gates", "budget")


def _row(record: Trial | Score, names: Sequence[str]) -> list[Any]:
    return [
        json.dumps(value, allow_nan=False) if name in _JSON else value
        for name, value in ((name, getattr(record, name)) for name in names)
    ]


def _values(names: Sequence[str], row: Sequence[Any]) -> dict[str, Any]:
    values = {name: json.loads(value) if name in _JSON else value for name, value in zip(names, row, strict=True)}
    if "tokens" in values:
        values["tokens"] = tuple(values["tokens"])
    return values


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    db = sqlite3.connect(f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=10.0)
    db.execute("PRAGMA synchronous = NORMAL")
    return db


def _take_lock(folder: Path) -> int:
    """The writer's lock, held until closed or the process ends in any way. Works on one machine (POSIX flock)."""
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    for last in (False, False, True):  # a reader that looks whether the run goes on holds it for a moment
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError:
            if last:
                owner = os.read(handle, 32).decode(errors="replace").strip() or "?"
                os.close(handle)
                raise StoreError(
                    f"{folder} is in use by another nos-search, process {owner}; wait or stop it"
                ) from None
            time.sleep(0.05)
    os.ftruncate(handle, 0)
    os.write(handle, f"{os.getpid()}\n".encode())
    return handle


def _release(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)
