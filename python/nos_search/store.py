"""Owns a run's memory: one SQLite file, DIR/search.db, written so that a killed run goes on where it was.

Format 1. `meta`: config and versions as JSON. `trial`: one row per proposed rule. `checkpoint`: the strategy's state
after the last answered trial (codec.py); it is replaced in the same transaction that answers a trial, so the two
always agree. A run killed at any moment therefore loses at most the trial in flight, which the restored strategy
proposes again. The file is known by its application id, its format by user_version. DIR/search.lock is locked by the
process that writes.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from .codec import pack, unpack
from .errors import StoreError, UsageError

FILE = "search.db"
LOCK = "search.lock"
FORMAT = 1
_APPLICATION = 0x4E4F5331  # "NOS1"
STATUSES = ("running", "done", "diverged", "rejected", "duplicate", "failed")
_SCHEMA = f"""
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE trial (
  id INTEGER PRIMARY KEY,      -- counts proposals from 0
  tokens TEXT NOT NULL,        -- JSON list of ints
  rule TEXT NOT NULL,          -- the update u as rule text
  key TEXT NOT NULL,           -- canonical form
  status TEXT NOT NULL CHECK (status IN {STATUSES}),
  reward REAL,                 -- validation accuracy; 0 when diverged or rejected
  lr REAL,
  seed INTEGER NOT NULL,       -- of the child
  duplicate_of INTEGER REFERENCES trial (id),
  reason TEXT NOT NULL,        -- why rejected or failed
  started REAL NOT NULL,       -- seconds since 1970
  seconds REAL NOT NULL,
  curve TEXT NOT NULL,         -- JSON, see train/child.py
  metrics TEXT NOT NULL        -- JSON, of the strategy after this trial
);
CREATE INDEX trial_key ON trial (key);
CREATE TABLE checkpoint (id INTEGER PRIMARY KEY CHECK (id = 1), trials INTEGER NOT NULL, state BLOB NOT NULL);
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {FORMAT};
"""
_COLUMNS = [
    "id",
    "tokens",
    "rule",
    "key",
    "status",
    "reward",
    "lr",
    "seed",
    "duplicate_of",
    "reason",
    "started",
    "seconds",
    "curve",
    "metrics",
]


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

    def repeatable(self) -> Trial:
        """This trial without its times: equal in equal runs."""
        kept = {name: value for name, value in self.metrics.items() if not name.startswith("seconds.")}
        return replace(self, started=0.0, seconds=0.0, metrics=kept)


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
        db.executescript(f"BEGIN;{_SCHEMA}{inserts}COMMIT;")
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

    def begin(self, trial: Trial) -> None:
        """Notes that a trial is in flight."""
        with self._db:
            self._write(trial)

    def finish(self, trial: Trial, state: dict[str, Any]) -> None:
        """Writes an answered trial and the strategy's state after it, both or neither."""
        blob = pack(state)
        with self._db:
            self._write(trial)
            self._db.execute("INSERT OR REPLACE INTO checkpoint VALUES (1, ?, ?)", (trial.id + 1, blob))

    def drop_running(self) -> int:
        """Forgets trials in flight (of a run that was interrupted or killed); returns how many."""
        with self._db:
            return self._db.execute("DELETE FROM trial WHERE status = 'running'").rowcount

    def _write(self, trial: Trial) -> None:
        values = [getattr(trial, name) for name in _COLUMNS]
        row = [json.dumps(v, allow_nan=False) if isinstance(v, (dict, tuple)) else v for v in values]
        marks = ", ".join("?" * len(row))
        self._db.execute(f"INSERT OR REPLACE INTO trial ({', '.join(_COLUMNS)}) VALUES ({marks})", row)

    # --- reading ---------------------------------------------------------------------------------------------------

    def trials(self) -> list[Trial]:
        """All trials by id."""
        trials = []
        for row in self._db.execute(f"SELECT {', '.join(_COLUMNS)} FROM trial ORDER BY id"):
            values = dict(zip(_COLUMNS, row, strict=True))
            values.update({name: json.loads(values[name]) for name in ("tokens", "curve", "metrics")})
            trials.append(Trial(**{**values, "tokens": tuple(values["tokens"])}))
        return trials

    def checkpoint(self) -> dict[str, Any] | None:
        """The strategy's state after the last answered trial; None before the first."""
        row = self._db.execute("SELECT state FROM checkpoint").fetchone()
        return unpack(row[0]) if row else None


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    db = sqlite3.connect(f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=10.0)
    db.execute("PRAGMA synchronous = FULL")
    return db


def _take_lock(folder: Path) -> int:
    """The writer's lock, held until closed or the process ends in any way. Works on one machine (POSIX flock)."""
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.read(handle, 32).decode(errors="replace").strip()
        os.close(handle)
        raise StoreError(f"{folder} is in use by another nos-search, process {owner or '?'}; wait or stop it") from None
    os.ftruncate(handle, 0)
    os.write(handle, f"{os.getpid()}\n".encode())
    return handle


def _release(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)
