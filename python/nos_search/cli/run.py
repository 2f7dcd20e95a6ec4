"""Owns the command run, which begins a new search in a new folder."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UsageError, choose
from ..gate import Gates
from ..run import RunConfig, versions
from ..run.config import default_space
from ..store import Store
from .search import WORKERS, given, open_executor, print_result, read_options, search
from .space import space_of
from .training import fetch, sweep_of

_DEFAULT_TRIALS = 200


def call(args: argparse.Namespace) -> int:
    config = _config(args)
    task = config.make_task()
    config = config.in_force(task)
    with (  # what cannot be had is said before there is a folder
        open_executor(args, config, task) as executor,
        Store.create(Path(args.out), config.to_json(), versions()) as store,
    ):
        status = search(store, config, executor, logs=args.log)
    print_result(Path(args.out), json=args.json)
    return status


def _config(args: argparse.Namespace) -> RunConfig:
    trials = args.trials
    if all(limit is None for limit in (trials, args.children, args.seconds, args.target)):
        trials = _DEFAULT_TRIALS
    fetch(args, [args.task])
    return RunConfig(
        task=args.task,
        strategy=args.strategy,
        strategy_options=read_options(args.strategy_option),
        command=args.command,
        space=space_of(args, default_space(args.strategy)).config(),
        gates=_gates(args.gate).to_json(),
        sweep=sweep_of(args, [args.task], "--task"),
        engine=args.engine,
        score=args.score,
        protocol=args.protocol,
        rung_score=args.score,
        net=args.net,
        width=args.width,
        sweep_steps=args.sweep_steps,
        train_steps=args.train_steps,
        data_dir=str(Path(args.data_dir).resolve()) if args.data_dir else None,
        promote=args.promote,
        promote_eta=args.promote_eta,
        promote_decay=args.promote_decay,
        seed=args.seed,
        batch=args.batch,
        threads=args.threads,
        trials=trials,
        children=args.children,
        seconds=args.seconds,
        target=args.target,
        **given(args, WORKERS),
    )


_GATES = {"descent": "descent=0", "screen": "screen=0.05", "steps": "steps=200", "family": "family=0.001"}


def _gates(pairs: Sequence[str]) -> Gates:
    values: dict[str, Any] = Gates().to_json()
    for pair in pairs:
        name, _, value = pair.partition("=")
        if name not in values:
            raise choose("--gate", name, tuple(values))
        try:
            values[name] = None if value == "off" and name != "steps" else json.loads(value)
        except ValueError:
            values[name] = value
        if not isinstance(values[name], int if name == "steps" else (int, float, type(None))) or values[name] is True:
            wanted = "steps=N with a whole number" if name == "steps" else f"{name}=NUMBER or {name}=off"
            raise UsageError(f"--gate {pair!r} is not {wanted}, for example {_GATES[name]}")
    return Gates.from_json(values)
