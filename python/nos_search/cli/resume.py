"""Owns the command resume, by which a search goes on where it was."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from ..errors import UsageError
from ..escape import line, shell
from ..run import RunConfig, versions
from ..run.resume import check_limits
from ..store import Store
from ..task import is_code
from .output import note
from .search import WORKERS, given, open_executor, print_result, read_options, search

_NEW = ("command", "trials", "children", "seconds", "target")


def call(args: argparse.Namespace) -> int:
    with Store.open(Path(args.folder), write=True) as store:
        config = RunConfig.from_json(store.config)
        _check_address(store.folder, config, args)
        _check_code(store.folder, config, args.task)
        new = given(args, (*WORKERS, *_NEW))
        if args.seconds == math.inf:
            new["seconds"] = None
        config = config.going_on(store.folder, strategy_options=read_options(args.strategy_option), **new)
        check_limits(store, new)
        changed = [f"{k} {store.versions.get(k)} -> {v}" for k, v in versions().items() if store.versions.get(k) != v]
        if changed:
            note(f"note: this run began with other versions ({', '.join(changed)}); it may not repeat bit for bit")
        task = config.make_task()
        config.check_same(task)
        with open_executor(args, config, task) as executor:
            store.set_config(config.to_json())
            status = search(store, config, executor, logs=args.log)
    print_result(Path(args.folder), json=args.json)
    return status


def _check_address(folder: Path, config: RunConfig, args: argparse.Namespace) -> None:
    """Raises UsageError when the run would connect to a cluster elsewhere that only its folder names: that machine
    would get the user's code and could send back anything."""
    address = config.ray_address
    if args.ray_address is None and address not in (None, "auto", "local"):
        raise UsageError(
            f"run folder {line(folder)} names the Ray cluster {ascii(address)[:100]}, and may be anyone's; "
            f"if you know the cluster, go on with: nos-search resume {shell(folder)} --ray-address ADDRESS"
        )


def _check_code(folder: Path, config: RunConfig, task: str | None) -> None:
    """Raises UsageError when the run would import code that only its folder names, or when --task names another
    task."""
    if task is not None and task != config.task:
        raise UsageError(f"--task {task}: the run in {line(folder)} is on task {config.task}; leave --task out")
    if task is None and config.given is None and is_code(config.task):
        raise UsageError(
            f"run folder {line(folder)} names the task {config.task}, which is code, and may be anyone's; if you know "
            f"that code, go on with: nos-search resume {shell(folder)} --task {shell(config.task)}"
        )
