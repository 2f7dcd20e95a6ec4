"""Owns what run and resume have in common: they search with a display, and say how to go on when they stop."""

from __future__ import annotations

import argparse
import json
import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from ..errors import UsageError, choose
from ..escape import shell
from ..executor import Executor
from ..run import RunConfig, Search
from ..run.children import make_executor
from ..show.leaderboard import summary
from ..show.live import Display
from ..show.loggers import LOGGERS
from ..store import Store, answered, files
from ..task import Task
from .output import note, progress
from .summary import print_summary

WORKERS = ("executor", "workers", "trial_timeout", "ray_address", "gpus_per_trial", "device")
_SHOWN = 10
_REASONS = {
    "trials": "all trials done",
    "children": "all children trained",
    "seconds": "time is up",
    "target": "target reached",
    "interrupted": "interrupted, the trials in flight were given up",
}
_MORE = {"trials": " --trials N", "children": " --children N", "seconds": " --seconds S", "target": " --target R"}


def given(args: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """Returns the options that the user gave. For the others a new run takes its configuration's defaults, and resume
    takes what was stored."""
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def read_options(pairs: Sequence[str]) -> dict[str, Any]:
    """Reads --strategy-option, as often as it was given."""
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals and value):
            raise UsageError(f"--strategy-option {pair!r} is not NAME=VALUE, for example lr=0.01")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return options


def open_executor(args: argparse.Namespace, config: RunConfig, task: Task) -> Executor:
    """Returns the executor that the configuration asks for. What --log needs is looked for as well."""
    for name in args.log:
        if name not in LOGGERS:
            raise choose("--log", name, tuple(LOGGERS))
        LOGGERS[name].check()
    return make_executor(config, task, clock=time.perf_counter)


def search(store: Store, config: RunConfig, executor: Executor, *, logs: Sequence[str]) -> int:
    """Searches until a limit or Ctrl-C, and returns the exit status."""
    # A shell that starts us in the background may have told us to ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(config.torch_threads)
    places = {
        name: files.inside(store.folder, name, remedy=f"remove it, or search without --log {name}") for name in logs
    }
    run = Search(store, config, executor)
    if run.strangers:
        note(
            f"note: {run.strangers} of the last trials would not be proposed again by these versions on this "
            "machine; their results are kept and learned from"
        )
    one = config.executor_name == "inprocess"
    note(
        f"{'resuming' if run.begun else 'searching'}: task {config.task}, {config.strategy}, seed {config.seed}, "
        f"{'in this process' if one else f'{config.workers} {config.executor_name} workers'}, {store.folder}"
    )
    status = 0
    with ExitStack() as stack:
        display = stack.enter_context(Display.of(run, progress(), clock=time.perf_counter))
        loggers = [LOGGERS[name].make(Path(place), config.to_json()) for name, place in places.items()]
        for logger in loggers:
            stack.callback(logger.close)
            logger.recall(answered(store.trials()))
        run.listeners = [display, *loggers]
        try:
            reason = run.run()
        except KeyboardInterrupt:
            reason, status = "interrupted", 130
    more = f"nos-search resume {shell(store.folder)}{_MORE.get(reason, '')}"
    note(f"stopped: {_REASONS[reason]}; continue with: {more}")
    return status


def print_result(folder: Path, *, json: bool) -> None:
    """Prints the leaderboard after a search."""
    with Store.open(folder) as store:
        data = summary(store)
    print_summary(data, top=_SHOWN, json=json)
