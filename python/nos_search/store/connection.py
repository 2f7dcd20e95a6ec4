"""Owns the connection to SQLite: how a store is opened, and what SQLite's errors mean. Each becomes a StoreError of one
line that ends in the remedy."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ..errors import StoreError
from ..escape import shell

_T = TypeVar("_T")
_PAUSE = 0.05  # seconds between two tries
_CANNOT_OPEN = ("unable to open", "readonly")  # reading needs files beside the database, and these cannot be made
# Maps what SQLite says to what the user can do. Any other error means that the file is damaged.
_REMEDIES = {
    "disk is full": "the disk is full; make room, then {then}",
    "locked": "another program has it locked for {patience:g} s; end that, then {then}",
    "readonly": "it cannot be written; copy {folder} to a place where you may write, and use the copy",
    "unable to open": "it cannot be opened; check the permissions of {folder}",
    "disk I/O error": "the disk failed or a limit on file sizes was met (disk I/O error); see to that, then {then}",
}


class Connection:
    """This is one connection to DIR/search.db. Only begin() begins transactions.

    While another program has the file locked, it tries again for `patience` seconds. `begun` tells whether the run has
    rows that are there for resume when something fails.
    """

    def __init__(self, path: Path, mode: str, *, patience: float, begun: bool = True) -> None:
        self.path, self._patience, self.begun = path, patience, begun
        self._place: tuple[int, int] | None = None
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        self._db = self.guard(lambda: self._open(path, mode))
        self._place = _place(path)

    def _open(self, path: Path, mode: str) -> sqlite3.Connection:
        db = sqlite3.connect(f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=0.0, isolation_level=None)
        try:
            db.execute("PRAGMA trusted_schema = OFF")
            db.execute("PRAGMA cell_size_check = ON")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            db.close()
            if mode == "ro" and any(words in str(error) for words in _CANNOT_OPEN):
                return self._open_where_nothing_can_be_made(path)
            raise
        return db

    def _open_where_nothing_can_be_made(self, path: Path) -> sqlite3.Connection:
        """Opens a file in a folder that cannot be written. Commits that are still in the log are seen through a
        copy."""
        log = path.with_name(f"{path.name}-wal")
        if not log.exists() or not log.stat().st_size:
            return self._open(path, "ro&immutable=1")
        self._copy = tempfile.TemporaryDirectory(prefix="nos-search-")
        for file in (path, log):
            shutil.copyfile(file, Path(self._copy.name) / file.name)
        return self._open(Path(self._copy.name) / path.name, "rw")

    def guard(self, call: Callable[[], _T]) -> _T:
        """Returns what `call` returns, and repeats it while the file is locked. Raises StoreError for what SQLite
        cannot do."""
        end = time.monotonic() + self._patience
        while True:
            try:
                return call()
            except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
                raise  # this is a defect of this package
            except sqlite3.DatabaseError as error:
                if "locked" not in str(error) or time.monotonic() >= end:
                    raise self.error(str(error)) from None
                time.sleep(_PAUSE)
            except UnicodeDecodeError:  # sqlite3's message names something in the file that is not text
                raise self.error("its tables have no names") from None
            except OSError as error:
                raise StoreError(
                    f"{self.path} cannot be read where it is ({error.strerror}); copy {self.path.parent} elsewhere"
                ) from None

    def error(self, said: str) -> StoreError:
        """Returns what SQLite's words mean for whoever started the command."""
        if self._moved():
            return self._gone()
        for words, remedy in _REMEDIES.items():
            if words in said:
                folder = self.path.parent
                then = f"go on with: nos-search resume {shell(folder)}" if self.begun else "start the run again"
                remedy = remedy.format(folder=folder, then=then, patience=self._patience)
                return StoreError(f"{self.path}: {remedy}")
        return damaged(self.path, said)

    def execute(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Executes a statement and returns all rows of its result."""
        return self.guard(lambda: self._db.execute(sql, values).fetchall())

    def begin(self, statements: str = "") -> None:
        """Opens a transaction for writing, and executes statements in it."""
        self.execute("BEGIN IMMEDIATE")
        for statement in _split(statements):
            self.execute(statement)

    def commit(self) -> None:
        """Ends the transaction. Raises StoreError when the file is no longer where it was: nobody would find what is in
        it."""
        self.execute("COMMIT")
        if self._moved():
            raise self._gone()

    def _moved(self) -> bool:
        return self._place is not None and _place(self.path) != self._place

    def _gone(self) -> StoreError:
        folder = self.path.parent
        return StoreError(
            f"run folder {folder} was removed or renamed while it was in use; if it has a new name, go on with: "
            "nos-search resume NEW-NAME"
        )

    @property
    def in_transaction(self) -> bool:
        return self._db.in_transaction

    def rollback(self) -> None:
        """Undoes the transaction. It never fails: what cannot be undone here is undone by whoever opens the file
        next."""
        if self._db.in_transaction:
            try:
                self._db.execute("ROLLBACK")
            except sqlite3.Error:
                return

    def close(self) -> None:
        self._db.close()
        if self._copy is not None:
            self._copy.cleanup()


def damaged(path: Path, what: str) -> StoreError:
    """Returns the error for a file whose content cannot be trusted. `what` says why in words, which may come from the
    file."""
    return StoreError(
        f"{path} is damaged, or is not a run of nos-search: {what}; restore the folder from a copy, or start a new run"
    )


def writable(folder: Path, file: Path) -> bool:
    """Tells whether a run folder and its file can be written."""
    return os.access(folder, os.W_OK) and os.access(file, os.W_OK)


def _place(path: Path) -> tuple[int, int] | None:
    """Returns what tells this file from another one of the same name, or None when there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _split(statements: str) -> list[str]:
    """Returns the statements of a script, one by one."""
    found, part = [], ""
    for line in statements.splitlines(keepends=True):
        part += line
        if sqlite3.complete_statement(part):
            found.append(part)
            part = ""
    return found
