"""Owns the list of tasks by name. A new task is one file with a `load` and one row here."""

from __future__ import annotations

from pathlib import Path

from ..errors import UsageError, choose
from . import digits, fashion
from .base import Loader, Task

TASKS: dict[str, Loader] = {"digits": digits.load, "fashion": fashion.load}


def load(name: str, *, data_dir: Path | None = None, argument: str = "--task") -> Task:
    """The task of that name. UsageError for an unknown name (of `argument`) or a data folder that is not there."""
    if name not in TASKS:
        raise choose(argument, name, tuple(TASKS))
    if data_dir is not None and not data_dir.is_dir():
        raise UsageError(f"--data-dir {data_dir} is not a folder; leave it out for the data that come with the package")
    return TASKS[name](data_dir)
