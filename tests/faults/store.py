"""What can happen to a run's file, done to a copy of it, and what a reader may then say: the same, or one clear line.

`python -m tests.faults` does it a thousand times; the tests of the search do it less often.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nos_search.errors import SearchError, StoreError
from nos_search.show.leaderboard import summary
from nos_search.store import Store
from nos_search.store.seal import seal, signed
from nos_search.store.tables import COLUMNS

FILES = ("search.db", "search.db-wal")


def seen(folder: Path) -> dict[str, Any]:
    """All that a reader sees of a run, the folder's name apart."""
    with Store.open(folder) as store:
        checkpoint = store.checkpoint()
        known = None if checkpoint is None else checkpoint[1]
        told = {"config": store.config, "versions": store.versions, "known": known, **summary(store), "folder": ""}
        told["trials_of_the_run"] = [asdict(trial) for trial in store.trials()]
        told["scores"] = [asdict(s) for purpose in ("baseline", "promotion") for s in store.scores(purpose)]
        return told


def checked(folder: Path, want: dict[str, Any]) -> str:
    """Reads a run that was tampered with: "same" or "refused". AssertionError for anything else."""
    try:
        got = seen(folder)
    except SearchError as error:
        assert_one_line(error)
        return "refused"
    assert got == want, "a damaged file was read as another run"
    return "same"


def assert_one_line(error: SearchError) -> None:
    """Plain, on one line, and it says what to do."""
    text = str(error)
    assert text.isprintable(), ascii(text)
    assert ";" in text or ": nos-search " in text, text
    assert len(text) < 600, text


def copy_of(folder: Path, to: Path) -> Path:
    """A copy of the run as it lies there: of a killed run, with its log."""
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    for name in FILES:
        if (folder / name).exists():
            shutil.copyfile(folder / name, to / name)
    return to


def flip_bits(folder: Path, scratch: Path, count: int, *, seed: int, file: str = FILES[0]) -> Counter[str]:
    """Flips one bit at a time at random offsets of a file of the run; counts what the reader said, and what whoever
    would write said ("opened", or "kept" when the file was refused and left alone)."""
    draw, want, said = random.Random(seed), seen(folder), Counter[str]()
    size = (folder / file).stat().st_size
    for _ in range(count):
        path = copy_of(folder, scratch / "flipped") / file
        data = bytearray(path.read_bytes())
        data[draw.randrange(size)] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        answer = checked(path.parent, want)
        said[answer] += 1
        if file == FILES[0]:
            said[_opened(path.parent, want)] += 1
    return said


def _opened(folder: Path, want: dict[str, Any]) -> str:
    before = (folder / FILES[0]).read_bytes()
    try:
        Store.open(folder, write=True).close()
    except StoreError as error:
        assert_one_line(error)
        assert (folder / FILES[0]).read_bytes() == before, "a file that was refused was written to"
        return "kept"
    assert seen(folder) == want
    return "opened"


def forge(folder: Path, table: str, changes: dict[str, Any], where: str = "1") -> None:
    """Changes values of a run's file as somebody would who knows its checksums and makes them anew."""
    db = sqlite3.connect(folder / FILES[0])
    try:
        sets = ", ".join(f"{name} = ?" for name in changes)
        db.execute("PRAGMA ignore_check_constraints = ON")
        db.execute(
            f"UPDATE {table} SET {sets} WHERE rowid = (SELECT min(rowid) FROM {table} WHERE {where})",
            [*changes.values()],
        )
        total, rows = 0, db.execute(f"SELECT rowid, {', '.join(COLUMNS[table])} FROM {table}").fetchall()
        for number, *row in rows:
            sealed = seal(table, row)
            db.execute(f"UPDATE {table} SET seal = ? WHERE rowid = ?", (sealed, number))
            total += sealed
        db.execute("UPDATE seal SET rows = ?, total = ? WHERE part = ?", (len(rows), signed(total), table))
        db.commit()
    finally:
        db.close()
