"""Owns the list of tasks by name. A new task is one file with a `load` and one row here."""

from __future__ import annotations

from pathlib import Path

from ..errors import UsageError, choose
from . import (
    autoencoder,
    charlm,
    charmlp,
    chirps,
    cifar10,
    digits,
    fashion,
    mnist1d,
    patch10,
    spanish,
    tabular,
    teacher,
    translate,
)
from .base import Task, TaskLoader

TASKS: dict[str, TaskLoader] = {
    "charmlp": charmlp.load,
    "teacher": teacher.load,
    "mnist1d": mnist1d.load,
    "digits": digits.load,
    "fashion": fashion.load,
    "fashion14": fashion.load_small,
    "fashion-full": fashion.load_full,
    "patch10": patch10.load,
    "cifar10": cifar10.load,
    "charlm": charlm.load,
    "translate": translate.load,
    "chirps": chirps.load,
    "spanish": spanish.load,
    "spanishlm": spanish.load_model,
    "tabular": tabular.load,
    "autoencoder": autoencoder.load,
}


def load(name: str, *, data_dir: Path | None = None, argument: str = "--task") -> Task:
    """Returns the task of that name. `data_dir` has its data, or folders named after tasks, each with the data of that
    task; a task without such a folder beside others then uses what comes with the package.

    Raises UsageError for an unknown name (of `argument`) or a data folder that is not there.
    """
    if name not in TASKS:
        raise choose(argument, name, tuple(TASKS))
    if data_dir is not None and not data_dir.is_dir():
        raise UsageError(f"--data-dir {data_dir} is not a folder; leave it out for the data that come with the package")
    if data_dir is not None and any((data_dir / task).is_dir() for task in TASKS):
        data_dir = data_dir / name if (data_dir / name).is_dir() else None
    return TASKS[name](data_dir)
