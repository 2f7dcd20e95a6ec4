"""Owns the list of tasks by name. A new task is one file with a `load` and one row here."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from importlib.metadata import entry_points
from inspect import signature
from pathlib import Path
from typing import Any, Final

from ..errors import UsageError, choose
from . import (
    autoencoder,
    charlm,
    charmlp,
    chirps,
    cifar10,
    digits,
    fashion,
    friedman,
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
    "friedman": friedman.load,
    "autoencoder": autoencoder.load,
}
ENTRY_POINTS: Final = "nos_search.tasks"  # the group in which a package offers tasks: a name, and a TaskLoader


def load(name: str, *, data_dir: Path | None = None, argument: str = "--task") -> Task:
    """Returns the task of that name: one of TASKS, one that an installed package offers as an entry point, or that of a
    function of the user's own, written package.module:function. `data_dir` has its data, or folders named after tasks,
    each with the data of that task; a task without such a folder beside others then uses what comes with the package.

    Raises UsageError for an unknown name (of `argument`) or a data folder that is not there.
    """
    loader = TASKS.get(name) or _others(name, argument)
    if data_dir is not None and not data_dir.is_dir():
        raise UsageError(f"--data-dir {data_dir} is not a folder; leave it out for the data that come with the package")
    if data_dir is not None and any((data_dir / task).is_dir() for task in (*TASKS, name)):
        data_dir = data_dir / name if (data_dir / name).is_dir() else None
    return loader(data_dir)


def is_code(name: str) -> bool:
    """Tells whether the name is that of a function, which is imported and called to load the task."""
    return ":" in name


def _others(name: str, argument: str) -> TaskLoader:
    """Returns a loader that is not of this package."""
    if is_code(name):
        module, _, function = name.partition(":")
        if "" not in sys.path:
            sys.path.insert(0, "")  # a module in the present folder, which an installed command does not look for
        return _calling(name, argument, lambda: getattr(import_module(module), function))
    offered = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
    if name not in offered:
        raise choose(argument, name, (*TASKS, *offered, "package.module:function"))
    return _calling(name, argument, offered[name].load)


def _calling(name: str, argument: str, find: Callable[[], Any]) -> TaskLoader:
    def loader(data_dir: Path | None) -> Task:
        try:
            function = find()
        except (ImportError, AttributeError, ValueError, SyntaxError, SystemExit) as error:
            raise UsageError(
                f"{argument} {name!r} cannot be imported: {error}; name an importable package.module:function"
            ) from error
        task = function(*_arguments(function, data_dir, f"{argument} {name!r}")) if callable(function) else function
        if not isinstance(task, Task):
            raise UsageError(f"{argument} {name!r} gave a {type(task).__name__}; let it return a nos_search.Task")
        return replace(task, name=name)

    return loader


def _arguments(function: Callable[..., Any], data_dir: Path | None, where: str) -> tuple[Path | None, ...]:
    """Returns what a function that makes a task is called with: the folder if it takes one, or nothing."""
    for arguments in ((data_dir,), ()):
        try:
            signature(function).bind(*arguments)
        except TypeError:
            continue
        return arguments
    raise UsageError(f"{where} takes {signature(function)}; let it take nothing, or the folder of --data-dir alone")
