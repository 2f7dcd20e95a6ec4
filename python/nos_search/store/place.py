"""Owns the look at a run folder's files before any of them is opened. Folders travel, and a file may be something else
than it seems: a link through which another file would be written, or a pipe that keeps a reader waiting for ever."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..errors import StoreError
from ..escape import shell

FILE = "search.db"
LOCK = "search.lock"
JOURNAL = f"{FILE}-journal"
FILES = (FILE, f"{FILE}-wal", f"{FILE}-shm", JOURNAL, LOCK)  # all that a store or SQLite opens by name


def check(folder: Path) -> None:
    """Raises StoreError unless each of these files is absent or a plain file of this one name. It also raises it when
    there is a rollback journal: SQLite would obey it, and a journal may name any file of the user's for SQLite to
    delete.

    Runs are written with a log (WAL), never with a journal, save for a moment as they are made.
    """
    for name in FILES:
        path = folder / name
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror}; check the permissions of {folder}") from None
        check_plain(path, found)
        if name == JOURNAL:
            raise StoreError(
                f"{path} does not belong in a run: opening the run would change or delete files as it says; if the run "
                f"was killed as it began, start it again in a new folder, else read it without: rm {shell(path)}"
            )


def check_plain(path: Path, found: os.stat_result) -> None:
    """Raises StoreError when what was found there is a link, a pipe, a device, a folder, or a file that has another
    name, too."""
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:  # 0 means that it was removed at this moment
        links = f"it has {found.st_nlink} names" if stat.S_ISREG(found.st_mode) else "it is a link, pipe or the like"
        raise StoreError(
            f"{path} is not a plain file of its own: {links}; put a copy of what it should be in its "
            "place, or get the folder anew from where it came"
        )
