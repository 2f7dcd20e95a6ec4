"""Owns a run's memory: one SQLite file, DIR/search.db, written so that a killed run goes on where it was.

`meta` has the config, the versions and the state of the run as JSON. `trial` has one row per proposed rule. `score` has
trainings that are no trial of the search, such as the known optimizers that a report shows. `checkpoint` has the
strategy's state after so many answers (codec.py), and `seal` the checksums (seal.py). The rows say when each rule was
asked for and in which order the answers came, so the state after any later answer is had by telling a restored strategy
what came after its checkpoint (run/resume.py); a checkpoint is half a megabyte and is not written with every trial.

Rows wait in memory until commit(); the search commits answers in groups (run/search.py), and tells nobody before. A
killed process loses nothing that was committed: that is what SQLite's write-ahead log with synchronous=NORMAL gives.
A power cut may lose the last commits, never the file; what is lost is a tail, and resume proposes and trains it again.
FULL would wait for the disk at every commit and save that tail.

What is read is what was written, or a StoreError: every row is checked against its checksum, every table against its
own, every value against schema.py. Whoever writes has checked the whole file before. The file is known by its
application id, its format by user_version. Older formats are read as they are, and brought to the present one when they
are opened for writing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import StoreError, UsageError
from ..escape import line, shell
from ..space import make_space
from . import codec, layout, lock, place, relations, schema, wal
from .connection import Connection, damaged, writable
from .place import FILE
from .records import Score, Trial
from .tables import COLUMNS, Tables

_PATIENCE = 60.0  # seconds; backups and browsers of SQLite files hold a lock for less time


class Store:
    """A store is an open run folder. It is a context manager; there is one writer, and any number of readers.

    `config` and `versions` are as they were given to create(). Every method raises StoreError, one line that ends in
    the remedy, when the file cannot be read or written or is damaged.
    """

    def __init__(self, folder: Path, tables: Tables, handle: int | None) -> None:
        self.folder = folder
        self._tables = tables
        self._lock = handle
        self._waiting: dict[int, list[Any]] = {}  # rows of trials to write with the next commit, by id
        # What check() has read, until a trial is put: reading all of a long run takes many seconds.
        self._checked: list[Trial] | None = None
        self.config: dict[str, Any] = {}
        self.versions: dict[str, str] = {}

    @classmethod
    def create(
        cls, folder: Path, config: Mapping[str, Any], versions: Mapping[str, str], *, patience: float = _PATIENCE
    ) -> Store:
        """Begins a new run in `folder`. Raises UsageError when that is neither absent nor empty, and StoreError when it
        has a run that cannot be continued."""
        try:
            full = folder.is_dir() and any(folder.iterdir())
        except OSError as error:
            raise UsageError(f"--out {line(folder)} cannot be made: {error.strerror}; choose another folder") from None
        if full:
            run = (folder / FILE).exists()
            if run:  # that a resume would refuse, as one that was killed at its begin, is an error of its own
                cls.open(folder, patience=patience).close()
            remedy = f"continue it with: nos-search resume {shell(folder)}" if run else "choose an empty or new folder"
            raise UsageError(f"--out {line(folder)} {'already holds a run' if run else 'is not empty'}; {remedy}")
        _check_settings(config, versions)
        made = not folder.exists()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle = lock.take(folder)
        except OSError as error:
            raise UsageError(f"--out {line(folder)} cannot be made: {error.strerror}; choose another folder") from None
        try:
            db = Connection(folder / FILE, "rwc", patience=patience, begun=False)
            db.execute("PRAGMA journal_mode = WAL")
            db.begin(layout.steps(0))
            store = cls(folder, Tables(db, layout.FORMAT), handle)
            for name, value in (("config", dict(config)), ("versions", dict(versions)), ("state", "running")):
                store._tables.put("meta", (name, json.dumps(value)))
            store.commit()
            db.begun = True
        except BaseException:
            lock.release(handle)
            _remove(folder, whole=made)
            raise
        store.config, store.versions = dict(config), dict(versions)
        return store

    @classmethod
    def open(cls, folder: Path, *, write: bool = False, patience: float = _PATIENCE) -> Store:
        """Opens an existing run. Raises UsageError when there is none, and StoreError when it is foreign, too new,
        damaged or in use.

        One process at a time may open it with `write`; the whole file is checked, and brought to the present format,
        before. Another program that has the file locked is waited for up to `patience` seconds.
        """
        path = folder / FILE
        if not os.path.lexists(path):
            if os.path.lexists(folder) and not folder.is_dir():
                raise UsageError(f"run folder {line(folder)} is a file or a broken link; name the folder of a run")
            what = f"holds no run ({FILE} is missing)" if folder.is_dir() else "does not exist"
            raise UsageError(f"run folder {line(folder)} {what}; start one with: nos-search run --out {shell(folder)}")
        place.check(folder)
        handle = _lock_for_writing(folder) if write else None
        try:
            db = Connection(path, "rw" if write else "ro", patience=patience)
            try:
                store = cls(folder, Tables(db, layout.version_of(db)), handle)
                if not write:
                    store._check_log()
                store._read_meta()
                if write:
                    store.check()
                    # Our files have this mode already. In another one SQLite would make journals.
                    db.execute("PRAGMA journal_mode = WAL")
                    store._tables.upgrade()
            except BaseException:
                db.close()
                raise
            return store
        except BaseException:
            lock.release(handle)
            raise

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._tables.db.close()
        lock.release(self._lock)
        self._lock = None

    # --- writing ---------------------------------------------------------------------------------------------------

    def set_config(self, config: Mapping[str, Any]) -> None:
        """Replaces the configuration, when a resumed run has new limits. Raises UsageError for one that could not be
        read back."""
        _check_settings(config, self.versions)
        self.config = dict(config)
        self._tables.put("meta", ("config", json.dumps(self.config)))
        self.commit()

    def set_state(self, state: str) -> None:
        """Records what has become of the run, which is one of records.STATES. It persists after commit()."""
        self._tables.put("meta", ("state", json.dumps(state)))

    def put(self, trial: Trial) -> None:
        """Writes a trial, which may be there already. It persists, and readers see it, after commit(). Raises
        ValueError for one that could not be read back (schema.py)."""
        self._checked = None
        self._waiting[trial.id] = schema.row(trial)  # most are put twice before a commit, asked and answered

    def _write(self) -> None:
        """Brings the trials that wait into the transaction."""
        for row in self._waiting.values():
            self._tables.put("trial", row)
        self._waiting = {}

    def put_checkpoint(self, state: dict[str, Any], *, told: int) -> None:
        """Writes the strategy's state after `told` answers, in place of the one before. It persists after commit()."""
        self._tables.put("checkpoint", (1, told, codec.pack(state)))

    def put_score(self, score: Score) -> None:
        """Writes a score in place of an equal training's, and commits. Raises ValueError as put() does."""
        self._tables.put("score", schema.row(score))
        self.commit()

    def commit(self) -> None:
        """Commits all that was put since the last commit, or nothing of it: a process that is killed afterwards loses
        none of it. Raises StoreError also when the folder was removed or renamed."""
        self._write()
        self._tables.commit()

    def rollback(self) -> None:
        """Forgets what was put since the last commit(). It never fails."""
        self._waiting = {}
        self._tables.rollback()

    # --- reading ---------------------------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """Returns what has become of the run. It is "running"; "finished", at a limit; "interrupted", by Ctrl-C;
        "failed", by an error; or "stopped": it was killed, or was made by a release that did not record this."""
        recorded = dict(self._tables.rows("meta", COLUMNS["meta"])).get("state", '"running"')
        state: str = json.loads(recorded)
        return state if state != "running" else "running" if self.being_written() else "stopped"

    def trials(self) -> list[Trial]:
        """Returns all trials by id."""
        if self._checked is not None:
            return list(self._checked)
        self._write()
        trials = []
        for values in self._records("trial", schema.TRIAL):
            if self._tables.version == 1:
                told = None if values["status"] == "running" else values["id"]
                values |= {"batch": values["id"], "asked": values["id"], "told": told}
            trials.append(Trial(**{**values, "tokens": tuple(values["tokens"])}))
        self._refuse(relations.trials_fault(trials, make_space(self.config["space"]).holds))
        return trials

    def scores(self, purpose: str) -> list[Score]:
        """Returns the scores of a purpose, in the order in which they were written."""
        if self._tables.version == 1:
            return []
        scores = [Score(**values) for values in self._records("score", schema.SCORE)]
        self._refuse(relations.scores_fault(scores))
        return [score for score in scores if score.purpose == purpose]

    def checkpoint(self) -> tuple[dict[str, Any], int] | None:
        """Returns the strategy's state and how many answers it knows, or None when there is no checkpoint yet."""
        rows = self._tables.rows("checkpoint", COLUMNS["checkpoint"])
        if not rows:
            return None
        (_, told, state), *more = rows
        if more or type(told) is not int or told < 0 or not isinstance(state, bytes):
            raise self._damaged("checkpoint: a row is not what it may be")
        return codec.unpack(state), told

    def being_written(self) -> bool:
        """Tells whether some process, this one included, has the run open for writing."""
        return self._lock is not None or lock.held(self.folder)

    # --- checking --------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Reads the whole file. Raises StoreError, which names the first thing that is wrong with it."""
        self._tables.check(self._read_all)

    def _read_all(self) -> None:
        self._checked = None
        trials = self.trials()
        told = sum(trial.told is not None for trial in trials)
        self.scores("")
        found = self.checkpoint()
        if found is not None and found[1] > told:
            raise self._damaged(f"checkpoint after {found[1]} answers of {told}")
        if self._lock is not None:  # else another process may put trials meanwhile
            self._checked = trials

    def _check_log(self) -> None:
        log = self.folder / f"{FILE}-wal"
        # While the run goes on, the end of the log is being written.
        if not self.being_written() and not wal.whole(log) and not self.being_written():
            raise StoreError(
                f"{log} is damaged, and with it the last commits; what was written before them is taken up by: "
                f"nos-search resume {shell(self.folder)}"
            )

    def _read_meta(self) -> None:
        meta = dict(self._tables.rows("meta", COLUMNS["meta"]))
        try:
            self.config, self.versions = json.loads(meta["config"]), json.loads(meta["versions"])
            state = json.loads(meta.get("state", '"running"'))
        except (KeyError, TypeError, ValueError, RecursionError):
            raise self._damaged("its configuration cannot be read") from None
        self._refuse(schema.config_fault(self.config, self.versions))
        self._refuse(schema.fault({"state": schema.STATE}, {"state": state}))

    def _records(self, table: str, kinds: Mapping[str, schema.ValueKind]) -> Iterator[dict[str, Any]]:
        """Yields the rows of a table by name, with JSON decoded and each value as it may be."""
        names = layout.columns(kinds, self._tables.version)
        for row in self._tables.rows(table, names):
            try:
                values = {n: json.loads(v) if kinds[n].sql == "JSON" else v for n, v in zip(names, row, strict=True)}
            except (TypeError, ValueError, RecursionError):
                raise self._damaged(f"{table} {ascii(row[0])[:60]} is not JSON where it should be") from None
            self._refuse(schema.fault(kinds, values), f"{table} {ascii(row[0])[:60]}: ")
            yield values

    def _refuse(self, wrong: str, where: str = "") -> None:
        if wrong:
            raise self._damaged(where + wrong)

    def _damaged(self, what: str) -> StoreError:
        return damaged(self._tables.db.path, what)


def _check_settings(config: Mapping[str, Any], versions: Mapping[str, str]) -> None:
    wrong = schema.config_fault(json.loads(json.dumps(dict(config))), dict(versions))
    if wrong:
        raise UsageError(f"{wrong}; choose a value that can be stored")


def _lock_for_writing(folder: Path) -> int:
    try:
        handle = lock.take(folder)
    except OSError as error:
        why = str(error.strerror)
    else:
        if writable(folder, folder / FILE):
            return handle
        lock.release(handle)
        why = "it is read-only"
    raise StoreError(
        f"run folder {folder} cannot be written: {why}; make it writable, or copy it and go on with the copy"
    )


def _remove(folder: Path, *, whole: bool) -> None:
    """Takes back a folder that could not be filled."""
    with suppress(OSError):
        for name in place.FILES:
            (folder / name).unlink(missing_ok=True)
        if whole:
            folder.rmdir()
