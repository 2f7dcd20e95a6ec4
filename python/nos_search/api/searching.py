"""Owns the search from Python: arguments become a configuration, and a run goes on in this process until a limit."""

from __future__ import annotations

import difflib
import shutil
import tempfile
import time
import warnings
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import fields
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Final, TextIO

import numpy as np
import torch

from ..errors import SearchError, UsageError, choose
from ..gate import Gates
from ..run import Listener, RunConfig, versions
from ..run.children import Objective, make_executor
from ..run.config import default_space
from ..run.resume import check_limits
from ..run.search import Search
from ..show.live import Display
from ..space import SPACES, SearchSpace, make_space
from ..store import Store
from ..task import Task
from ..task.score import OBJECTIVE
from ..train.default_ladder import DEFAULT
from .run import Run

_DEFAULT_TRIALS: Final = 200
_LIMITS: Final = ("trials", "children", "seconds", "target")
_WORKERS: Final = (
    "command",
    "strategy_options",
    "executor",
    "workers",
    "trial_timeout",
    "ray_address",
    "gpus_per_trial",
    "device",
)


def search(
    task: str | Task | None = None,
    *,
    objective: Objective | None = None,
    out: str | Path | None = None,
    strategy: str = "controller",
    space: str | SearchSpace | Mapping[str, Any] | None = None,
    trials: int | None = None,
    children: int | None = None,
    seconds: float | None = None,
    target: float | None = None,
    seed: int = 1,
    workers: int = 1,
    listeners: Sequence[Listener] = (),
    progress: TextIO | None = None,
    **settings: Any,
) -> Run:
    """Searches for update rules, and returns the run when a limit is reached.

        >>> run = nos_search.search(nos_search.Task.from_arrays(x, y), trials=1000, out="runs/mine")
        >>> run.best(3)

    Args:
        task: what children train on: the name of a task, as "digits" (docs/tasks.md) or "package.module:function", or
            a `Task` of your own. Without it and without `objective`, "charmlp".
        objective: what scores rules instead of a task: a function of a compiled rule, a `nos_ext.Program`, and a seed.
            It returns a number in [0, 1], the higher the better, or NaN where the rule diverged.
        out: a new or empty folder for the run. Without it the run lives in a temporary folder, which goes away with the
            `Run` that is returned. A search that is interrupted keeps it, and a warning says where.
        strategy: what proposes rules: "controller", "evolution", "random" or "optuna". `strategy_options={...}` has its
            options. Or "external": a program of your own, which `command="python my_proposer.py"` starts.
        space: what a rule may be: "nos", "program" or "lion" (docs/search.md), or a space with options of your own.
            Without it, "nos", or for the strategy "external" "text".
        trials, children, seconds, target: limits: of proposals, of trained children, of time, and the reward at which
            the search ends. Where all are left out, 200 trials.
        seed: decides the whole run, if there is one worker.
        workers: how many processes train. A task or an objective of your own is sent to them by cloudpickle.
        listeners: are told of each trial; see `Listener`.
        progress: a stream, such as sys.stderr, that shows how far the search is.
        settings: any other field of `nos_search.run.RunConfig`, as gates, promote, net or train_steps. As with
            `nos-search run` the best rules are promoted, to longer trainings and to other tasks; promote="none" leaves
            that out. For a task of your own there is the longer training alone, and for an objective neither.

    Raises:
        UsageError: an argument has no meaning, which is named with the remedy. Nothing was written.
        SearchError: five trainings in a row could not be run. What was done is in the folder.
    """
    _check_followers("search", listeners, progress)
    if out is not None:
        _check_folder("search: out", out)
    limits: dict[str, Any] = {"trials": trials, "children": children, "seconds": seconds, "target": target}
    if all(limit is None for limit in limits.values()):
        limits["trials"] = _DEFAULT_TRIALS
    settings.setdefault("promote", DEFAULT)
    _check_names(settings, [entry.name for entry in fields(RunConfig) if entry.name not in ("given", "data")], "search")
    if settings.get("gates") is not None:
        settings["gates"] = _gates(settings["gates"])
    if settings.get("data_dir") is not None:
        settings["data_dir"] = str(Path(settings["data_dir"]).resolve())
    chosen = RunConfig(
        **_subject(task, objective),
        strategy=strategy,
        space=_space(space if space is not None else default_space(strategy)),
        **_numbers({"seed": seed, "workers": workers, **limits, **settings}),
    )
    return _begin(chosen, _given(chosen, task, objective), out, listeners, progress)


def load(folder: str | Path) -> Run:
    """Returns the run in a folder, of `search` or of the command `nos-search run`.

    Raises:
        UsageError: there is none.
        StoreError: it is foreign, damaged, or of a later version.
    """
    _check_folder("load: folder", folder)
    with Store.open(Path(folder)):
        return Run(Path(folder), resume=_resume)


def _check_folder(argument: str, given: object) -> None:
    """Raises UsageError for what names no folder."""
    if not isinstance(given, (str, PathLike)) or isinstance(fspath(given), bytes):
        raise UsageError(
            f"{argument} is {given!r}, a {type(given).__name__}; give the name of a folder as text or Path"
        )
    if not str(given):
        raise UsageError(f"{argument} is empty; name a folder{', or leave it out' * argument.endswith('out')}")


def _subject(task: str | Task | None, objective: Objective | None) -> dict[str, Any]:
    """Returns the settings that say what rules are scored on."""
    if objective is not None:
        if task is not None:
            raise UsageError("search: task and objective are both given; name one of them, as both score rules")
        if not callable(objective):
            raise UsageError(f"search: objective is a {type(objective).__name__}; give a function of (program, seed)")
        name = getattr(objective, "__name__", type(objective).__name__)
        return {"task": _word(name, "objective"), "given": "objective", "score": OBJECTIVE}
    if isinstance(task, Task):
        return {"task": _word(task.name, "task"), "given": "task"}
    if task is not None and not isinstance(task, str):
        raise UsageError(
            f"search: task is a {type(task).__name__}; give the name of a task or a nos_search.Task, or an objective="
        )
    return {} if task is None else {"task": task}


def _word(name: str, instead: str) -> str:
    """Returns a name that a store can hold."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "_" for c in name)[:100]
    return kept if kept[:1].isalpha() or kept[:1] == "_" else f"{instead}_{kept}"


def _space(space: str | SearchSpace | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(space, SearchSpace):
        return dict(space.config())
    if isinstance(space, str):
        if space not in SPACES:
            raise choose("search: space", space, tuple(SPACES))
        return dict(SPACES[space]().config())
    if not isinstance(space, Mapping):
        raise UsageError(f"search: space is a {type(space).__name__}; give its name, or a space of nos_search.space")
    try:
        return dict(make_space(space).config())
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        said = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise UsageError(f"search: space {ascii(dict(space))[:60]} describes none: {said}; give its name") from None


def _gates(gates: Any) -> dict[str, Any]:
    if isinstance(gates, Gates):
        return gates.to_json()
    if not isinstance(gates, Mapping):
        raise UsageError(
            f"search: gates is a {type(gates).__name__}; give a dict of thresholds, as {Gates().to_json()}"
        )
    _check_names(gates, tuple(Gates().to_json()), "search: gates")
    for name, value in gates.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float, np.number))):
            raise UsageError(f"search: gate {name} is {ascii(value)[:60]}; give a number, or None for no such gate")
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in gates.items()}


def _numbers(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings with Python's numbers in the place of NumPy's, which a run folder does not hold."""
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in settings.items()}


def _check_followers(where: str, listeners: Any, progress: Any) -> None:
    """Raises UsageError for listeners that cannot be told of a trial, and for what is no stream: the search would end
    at its first answer."""
    if not isinstance(listeners, Sequence):
        raise UsageError(f"{where}: listeners is a {type(listeners).__name__}; give a list of them")
    for listener in listeners:
        for name in ("on_start", "on_trial", "on_promotion"):
            if not callable(getattr(listener, name, None)):
                raise UsageError(
                    f"{where}: a listener, a {type(listener).__name__}, has no method {name}; see Listener"
                )
    if progress is not None and not (hasattr(progress, "write") and hasattr(progress, "isatty")):
        raise UsageError(f"{where}: progress is a {type(progress).__name__}; give a stream, such as sys.stderr")
    if getattr(progress, "closed", False):
        raise UsageError(f"{where}: progress is a stream that is closed; give one that is open")


def _check_names(given: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it takes {', '.join(known)}"
            raise UsageError(f"{where} has no argument {name!r}; {hint}")


def _given(config: RunConfig, task: str | Task | None, objective: Objective | None) -> Task | Objective:
    """Returns what rules are scored by: a task that is loaded, or a function."""
    if objective is not None:
        return objective
    return config.adapted(task) if isinstance(task, Task) else config.make_task()


def _begin(
    config: RunConfig,
    scored_by: Task | Objective,
    out: str | Path | None,
    listeners: Sequence[Listener],
    progress: TextIO | None,
) -> Run:
    config = config.in_force(scored_by if isinstance(scored_by, Task) else None)
    with _own_threads(), make_executor(config, scored_by, clock=time.perf_counter) as executor:
        if out is not None:
            with Store.create(Path(out), config.to_json(), versions()) as store:
                _go(store, config, executor, listeners, progress)
            return Run(Path(out), resume=_resume)
        folder = Path(tempfile.mkdtemp(prefix="nos-search-"))
        try:
            with Store.create(folder, config.to_json(), versions()) as store:
                _go(store, config, executor, listeners, progress)
        except BaseException:
            _keep_or_remove(folder)
            raise
    run = Run(folder, resume=_resume)
    weakref.finalize(run, shutil.rmtree, folder, ignore_errors=True)
    return run


def _keep_or_remove(folder: Path) -> None:
    """Keeps the temporary folder of a search that was interrupted or failed, if there is something in it."""
    with suppress(SearchError), Store.open(folder) as store:
        trained = sum(trial.trained for trial in store.trials())
        if trained:
            warnings.warn(
                f"the search stopped after {trained} trained rules, which are kept: nos_search.load({str(folder)!r})",
                stacklevel=4,
            )
            return
    shutil.rmtree(folder, ignore_errors=True)


def _resume(
    run: Run,
    task: Task | None,
    objective: Objective | None,
    listeners: Sequence[Listener],
    progress: TextIO | None,
    settings: dict[str, Any],
) -> None:
    _check_names(settings, (*_LIMITS, *_WORKERS), "resume")
    _check_followers("resume", listeners, progress)
    with Store.open(run.folder, write=True) as store:
        stored = RunConfig.from_json(store.config)
        needed = {"task": task, "objective": objective}
        for name, value in needed.items():
            if (stored.given == name) != (value is not None):
                want = (
                    f"give {stored.given}=..., which a folder does not hold" if stored.given else f"leave {name}= out"
                )
                raise UsageError(f"resume: the run's {stored.given or 'task'} is {stored.task!r}; {want}")
        config = stored.going_on(run.folder, **_numbers(settings))
        check_limits(store, settings)
        scored_by = _given(config, task, objective)
        if isinstance(scored_by, Task):
            config.check_same(scored_by)
        with _own_threads(), make_executor(config, scored_by, clock=time.perf_counter) as executor:
            store.set_config(config.to_json())
            _go(store, config, executor, listeners, progress)


def _go(store: Store, config: RunConfig, executor: Any, listeners: Sequence[Listener], progress: TextIO | None) -> None:
    torch.set_num_threads(config.torch_threads)
    with ExitStack() as stack:
        search = Search(store, config, executor, listeners=listeners)
        if progress is not None:
            display = stack.enter_context(Display.of(search, progress, clock=time.perf_counter))
            search.listeners = [*listeners, display]
        search.run()


@contextmanager
def _own_threads() -> Iterator[None]:
    """Gives torch back the number of threads that the caller has set, whatever is set for the trainings."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
