"""Owns the tables of a store as SQL. Each format is what it added to the one before, so that old files are brought up
to date by the statements that new ones are made of.

Format 2 added scores and the order of questions and answers, format 3 the checksums (seal.py), and format 4 the
families.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import StoreError
from .connection import Connection, damaged
from .records import STATUSES

FORMAT = 4
SEALED = 3  # the first format whose rows have checksums
APPLICATION = 0x4E4F5331  # "NOS1", by which the file is known
_FORMAT_1 = f"""
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE trial (
  id INTEGER PRIMARY KEY,      -- counts proposals from 0
  tokens TEXT NOT NULL,        -- JSON list of ints
  rule TEXT NOT NULL,          -- rule text
  key TEXT NOT NULL,           -- canonical form
  status TEXT NOT NULL CHECK (status IN {STATUSES}),
  reward REAL,                 -- the score that the configuration names (task/score.py); 0 when diverged or rejected
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
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = 1;
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
  purpose TEXT NOT NULL,       -- what asked for it: "baseline" or "promotion"
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
_FORMAT_3 = """
ALTER TABLE meta ADD COLUMN seal INTEGER NOT NULL DEFAULT 0;         -- checksum of the row's other columns
ALTER TABLE trial ADD COLUMN seal INTEGER NOT NULL DEFAULT 0;
ALTER TABLE score ADD COLUMN seal INTEGER NOT NULL DEFAULT 0;
ALTER TABLE checkpoint ADD COLUMN seal INTEGER NOT NULL DEFAULT 0;
CREATE TABLE seal (
  part TEXT PRIMARY KEY,       -- name of a table
  rows INTEGER NOT NULL,       -- that it has
  total INTEGER NOT NULL       -- sum of their checksums, modulo 2^64, signed
);
INSERT INTO seal VALUES ('meta', 0, 0), ('trial', 0, 0), ('score', 0, 0), ('checkpoint', 0, 0);
PRAGMA user_version = 3;
"""
_FORMAT_4 = """
ALTER TABLE trial ADD COLUMN family INTEGER;                         -- the first of it; NULL: not trained, or older
PRAGMA user_version = 4;
"""
_NEW_IN_FORMAT_2 = ("gates", "fingerprint", "batch", "asked", "told", "attempts", "worker")  # columns of trial
_NEW_IN_FORMAT_4 = ("family",)
_STEPS = (_FORMAT_1, _FORMAT_2, _FORMAT_3, _FORMAT_4)
_TABLES = ({"meta", "trial", "checkpoint"}, {"score"}, {"seal"}, set[str]())  # the tables that came with each format


def steps(version: int) -> str:
    """Returns the statements that bring a file of a format to FORMAT; from 0, those that make a new one."""
    return "".join(_STEPS[version:])


def tables(version: int) -> set[str]:
    """Returns the tables that a file of a format has."""
    return set().union(*_TABLES[:version])


def columns(names: Iterable[str], version: int) -> list[str]:
    """Returns those of the columns of `trial` or `score` that a file of a format has."""
    missing = (_NEW_IN_FORMAT_2 if version < 2 else ()) + (_NEW_IN_FORMAT_4 if version < 4 else ())
    return [name for name in names if name not in missing]


def version_of(db: Connection) -> int:
    """Returns the file's format. Raises StoreError when it is not a run's, or its tables are not those of its
    format."""
    path = db.path
    ((application,),), ((version,),) = db.execute("PRAGMA application_id"), db.execute("PRAGMA user_version")
    entries = db.execute("SELECT type, name, sql FROM sqlite_master")
    if not entries and not application:
        raise StoreError(f"{path} is empty: the run was stopped before it began; remove the folder and run again")
    if application != APPLICATION:
        raise StoreError(
            f"{path} is an SQLite file of another program, not a run of nos-search, or its first page is damaged; "
            "restore the folder from a copy, or choose another folder"
        )
    if version > FORMAT:
        raise StoreError(f"{path} has format {version}, this release reads up to {FORMAT}; upgrade nos-ext")
    names = {name for _, name, _ in entries}
    missing = sorted(tables(version) - names)
    if missing or version < 1 or (version < SEALED and "seal" in names):
        raise damaged(
            path, f"table {missing[0]} is missing" if missing else f"its tables are not those of format {version}"
        )
    for kind, name, sql in entries:  # refuses whatever computes when it is read or written
        plain = kind == "index" or (kind == "table" and str(sql).startswith("CREATE TABLE"))
        if not plain or any(column[6] for column in db.execute("SELECT * FROM pragma_table_xinfo(?)", (name,))):
            raise damaged(path, f"{ascii(name)[:60]} is not a plain table")
    return int(version)
