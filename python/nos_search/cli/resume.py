"""Owns the command resume: a search goes on where it was."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from ..config import RunConfig, versions
from ..errors import UsageError
from ..output import note
from ..store import Store
from .search import WORKERS, given, open_executor, print_result, search


def call(args: argparse.Namespace) -> int:
    with Store.open(Path(args.folder), write=True) as store:
        config = RunConfig.from_json(store.config)
        config = replace(config, **given(args, (*WORKERS, "trials", "children", "seconds", "target")))
        done = len([trial for trial in store.trials() if trial.status != "running"])
        if args.trials is not None and args.trials < done:
            raise UsageError(f"--trials {args.trials}: {store.folder} has {done} trials already; name a higher number")
        changed = [f"{k} {store.versions.get(k)} -> {v}" for k, v in versions().items() if store.versions.get(k) != v]
        if changed:
            note(f"note: this run began with other versions ({', '.join(changed)}); it may not repeat bit for bit")
        task = config.make_task()
        with open_executor(args, config, task) as executor:
            store.set_config(config.to_json())
            status = search(store, config, executor, board=args.tensorboard)
    print_result(Path(args.folder), json=args.json)
    return status
