"""Owns the writer's lock of a run folder, DIR/search.lock. The process that writes holds it until it ends in any way.

It works on one machine, by POSIX flock. It also tells a run that goes on from one that was killed.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

from ..errors import StoreError
from .place import LOCK, check_plain

_CAREFULLY = os.O_NOFOLLOW | os.O_NONBLOCK  # does not follow a link and does not wait at a pipe


def take(folder: Path) -> int:
    """Takes the lock and returns it; it is held until it is released. Raises StoreError when another process has it,
    and OSError when it cannot be had at all."""
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | _CAREFULLY, 0o644)
    try:
        check_plain(folder / LOCK, os.fstat(handle))  # comes before anything is written to it
        for last in (False, False, True):  # a reader that asks whether the run goes on holds the lock for a moment
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if last:
                    digits = "".join(c for c in os.read(handle, 32).decode("ascii", "ignore") if c.isdigit())
                    raise StoreError(
                        f"{folder} is in use by another nos-search, process {digits or '?'}; wait or stop it"
                    ) from None
                time.sleep(0.05)
        with suppress(OSError):  # the number is for the message above; if the disk is full, the run still goes on
            os.ftruncate(handle, 0)
            os.write(handle, f"{os.getpid()}\n".encode())
    except BaseException:
        os.close(handle)
        raise
    return handle


def release(handle: int | None) -> None:
    if handle is not None:
        os.close(handle)


def held(folder: Path) -> bool:
    """Tells whether some process holds the lock."""
    try:
        handle = os.open(folder / LOCK, os.O_RDONLY | _CAREFULLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False
