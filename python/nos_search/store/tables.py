"""Owns the rows of a store under their checksums (seal.py): each gets one when it is written, and is checked when it is
read."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from . import layout, schema
from .connection import Connection, damaged
from .seal import seal, signed

# The columns of each table, and those that tell its rows apart.
COLUMNS: dict[str, tuple[str, ...]] = {
    "meta": ("name", "value"),
    "trial": tuple(schema.TRIAL),
    "score": tuple(schema.SCORE),
    "checkpoint": ("id", "trials", "state"),
}
_KEYS = {
    "meta": ("name",),
    "trial": ("id",),
    "score": ("purpose", "name", "task", "seed", "budget"),
    "checkpoint": ("id",),
}


class Tables:
    """These are the tables of an open file of a format. Only files of the present format can be written to."""

    def __init__(self, db: Connection, version: int) -> None:
        self.db, self.version = db, version
        # Rows and checksum of each table that was written to since commit().
        self._totals: dict[str, tuple[int, int]] = {}

    def put(self, table: str, values: Sequence[Any]) -> None:
        """Writes a row with its checksum, in place of the row of equal key, and counts it among its table's."""
        if not self.db.in_transaction:
            self._totals = {}
            self.db.begin()
        find, write = _statements(table)
        row = dict(zip(COLUMNS[table], values, strict=True))
        before = self.db.execute(find, [row[key] for key in _KEYS[table]])
        if table not in self._totals:
            ((rows, total),) = self.db.execute("SELECT rows, total FROM seal WHERE part = ?", (table,))
        else:
            rows, total = self._totals[table]
        sealed = seal(table, values)
        self.db.execute(write, [*values, sealed])
        self._totals[table] = (rows - len(before) + 1, signed(total - sum(old for (old,) in before) + sealed))

    def _write_totals(self) -> None:
        for table, (rows, total) in self._totals.items():
            self.db.execute("UPDATE seal SET rows = ?, total = ? WHERE part = ?", (rows, total, table))

    def commit(self) -> None:
        """Commits all that was put since the last commit, or nothing of it."""
        if self.db.in_transaction:
            self._write_totals()
            self.db.commit()

    def rollback(self) -> None:
        """Forgets what was put since the last commit(). It never fails."""
        self.db.rollback()
        self._totals = {}

    def rows(self, table: str, names: Sequence[str]) -> list[tuple[Any, ...]]:
        """Returns all rows of a table in the order in which they were written. Each fits its checksum, and none is
        missing."""
        columns = ", ".join(names)
        if self.version < layout.SEALED:
            return self.db.execute(f"SELECT {columns} FROM {table} ORDER BY rowid")
        with self._one_moment():
            found = self.db.execute(f"SELECT {columns}, seal FROM {table} ORDER BY rowid")
            stated = self.db.execute("SELECT rows, total FROM seal WHERE part = ?", (table,))
        total, rows = 0, []
        for *row, sealed in found:
            try:
                right = seal(table, row) == sealed
            except TypeError:  # a row has a value of a type that is never written
                right = False
            if not right:
                raise damaged(self.db.path, f"{table}: row {ascii(row[0])[:60]} does not fit its checksum")
            total += sealed
            rows.append(tuple(row))
        if stated != [(len(rows), signed(total))]:
            raise damaged(self.db.path, f"{table}: rows are missing, or older than the others")
        return rows

    @contextmanager
    def _one_moment(self) -> Iterator[None]:
        """Makes what is read inside be of one moment, though another process writes. Of what this process has put, it
        is all."""
        if self.db.in_transaction:
            self._write_totals()
            yield
            return
        self.db.execute("BEGIN")
        try:
            yield
        finally:
            self.db.rollback()

    def check(self, read: Callable[[], None]) -> None:
        """Makes SQLite check the whole file, after `read` has checked all rows.

        Where only SQLite finds a fault, it is in an index, which holds nothing that the rows do not. The index is made
        anew. If all is well then, that is committed; if not, the file is left as it was.
        """
        read()
        fault = self._fault()
        if fault and self.version >= layout.SEALED:
            try:
                self.db.begin("REINDEX;")
                read()
                still = self._fault()
                if not still:
                    return self.commit()
            except sqlite3.IntegrityError:  # two rows have equal keys, so no index can be made
                pass
            finally:
                self.rollback()
        if fault:
            raise damaged(self.db.path, fault)
        return None

    def _fault(self) -> str:
        said = self.db.execute("PRAGMA integrity_check(1)")
        return "" if said == [("ok",)] else " ".join(str(said[0][0]).split())

    def upgrade(self) -> None:
        """Brings a file of an older format to the present one, wholly or not at all."""
        if self.version == layout.FORMAT:
            return
        self.db.begin(layout.steps(self.version))
        for table, names in COLUMNS.items():
            rows = self.db.execute(f"SELECT rowid, {', '.join(names)} FROM {table}")
            seals = [(seal(table, row), number) for number, *row in rows]
            for entry in seals:
                self.db.execute(f"UPDATE {table} SET seal = ? WHERE rowid = ?", entry)
            self._totals[table] = (len(seals), signed(sum(sealed for sealed, _ in seals)))
        self.commit()
        self.version = layout.FORMAT


@cache
def _statements(table: str) -> tuple[str, str]:
    """Returns how a row's checksum is found by its key, and how the row is written."""
    keys, names = _KEYS[table], (*COLUMNS[table], "seal")
    find = f"SELECT seal FROM {table} WHERE " + " AND ".join(f"{key} = ?" for key in keys)
    write = (
        f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))}) "
        f"ON CONFLICT ({', '.join(keys)}) DO UPDATE SET " + ", ".join(f"{name} = excluded.{name}" for name in names)
    )
    return find, write
