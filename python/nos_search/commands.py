"""Owns the commands about runs: run, resume, show, report. Results go to stdout, progress and notes to stderr."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import report as report_page
from .commands_rules import space_of
from .config import RunConfig, versions
from .errors import UsageError, choose
from .executor import InProcess
from .gate import Gates
from .live import Display
from .loop import Search
from .output import note, number, print_json, table
from .results import summary
from .store import Store
from .task import Task

_DEFAULT_TRIALS = 200
_SHOWN = 10
_REASONS = {
    "trials": "all trials done",
    "seconds": "time is up",
    "target": "target reached",
    "interrupted": "interrupted, the trial in flight was given up",
}
_MORE = {"trials": " --trials N", "seconds": "", "target": " --target R", "interrupted": ""}


# --- run, resume -----------------------------------------------------------------------------------------------------


def run(args: argparse.Namespace) -> int:
    trials = args.trials
    if trials is None and args.seconds is None and args.target is None:
        trials = _DEFAULT_TRIALS
    config = RunConfig(
        task=args.task,
        strategy=args.strategy,
        strategy_options=_options(args.strategy_option),
        space=space_of(args).config(),
        gates=_gates(args.gate).to_json(),
        sweep=args.sweep,
        width=args.width,
        sweep_steps=args.sweep_steps,
        train_steps=args.train_steps,
        data_dir=str(Path(args.data_dir).resolve()) if args.data_dir else None,
        seed=args.seed,
        workers=args.workers,
        threads=args.threads,
        trials=trials,
        seconds=args.seconds,
        target=args.target,
    )
    task = config.make_task()
    config = replace(  # the values in force, should a later release change a default
        config,
        strategy_options=config.make_strategy().options(),
        width=task.width,
        sweep_steps=task.budget.sweep_steps,
        train_steps=task.budget.train_steps,
    )
    with Store.create(Path(args.out), config.to_json(), versions()) as store:
        return _search(store, config, task, args)


def resume(args: argparse.Namespace) -> int:
    with Store.open(Path(args.folder), write=True) as store:
        config = RunConfig.from_json(store.config)
        if args.trials is not None:
            config = replace(config, trials=args.trials)
        if args.seconds is not None:
            config = replace(config, seconds=args.seconds)
        if args.target is not None:
            config = replace(config, target=args.target)
        done = len([trial for trial in store.trials() if trial.status != "running"])
        if args.trials is not None and args.trials < done:
            raise UsageError(f"--trials {args.trials}: {store.folder} has {done} trials already; name a higher number")
        changed = [f"{k} {store.versions.get(k)} -> {v}" for k, v in versions().items() if store.versions.get(k) != v]
        if changed:
            note(f"note: this run began with other versions ({', '.join(changed)}); it may not repeat bit for bit")
        task = config.make_task()
        store.set_config(config.to_json())
        return _search(store, config, task, args)


def _search(store: Store, config: RunConfig, task: Task, args: argparse.Namespace) -> int:
    # A shell that starts us in the background may have told us to ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    executor = InProcess(task, config.make_protocol(), threads=config.threads, clock=time.perf_counter)
    search = Search(store, config, executor)
    earlier = [trial for trial in store.trials() if trial.status != "running"]
    note(
        f"{'resuming' if earlier else 'searching'}: task {config.task}, {config.strategy}, seed {config.seed}, "
        f"{store.folder}"
    )
    status = 0
    with Display(sys.stderr, trials=config.trials, earlier=earlier, clock=time.perf_counter) as display:
        search.listener = display
        try:
            reason = search.run()
        except KeyboardInterrupt:
            reason, status = "interrupted", 130
    note(f"stopped: {_REASONS[reason]}; continue with: nos-search resume {store.folder}{_MORE[reason]}")
    _print_summary(summary(store), top=_SHOWN, as_json=args.json)
    return status


def _options(pairs: Sequence[str]) -> dict[str, Any]:
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
            raise UsageError(f"--gate {pair!r} is not NAME=NUMBER or NAME=off, for example {name}=0")
    return Gates.from_json(values)


# --- show, report ----------------------------------------------------------------------------------------------------


def show(args: argparse.Namespace) -> int:
    if args.top < 1:
        raise UsageError(f"--top {args.top} is below 1")
    with Store.open(Path(args.folder)) as store:
        _print_summary(summary(store), top=args.top, as_json=args.json)
    return 0


def _print_summary(data: dict[str, Any], *, top: int, as_json: bool) -> None:
    if as_json:
        return print_json(data)
    print(
        f"{data['folder']}: task {data['task']}, {data['strategy']}, seed {data['seed']}\n"
        f"trials {data['trials']}: trained {data['trained']} (diverged {data['diverged']}), "
        f"duplicates {data['duplicates']}, rejected {data['rejected']}, failed {data['failed']}"
        + (f", in flight {data['running']}" if data["running"] else "")
    )
    rows = [
        [
            str(row["rank"]),
            f"{row['reward']:.4f}",
            number(row["lr"]),
            str(row["trials"]),
            str(row["duplicates"]),
            row["rule"],
        ]
        for row in data["leaderboard"][:top]
    ]
    if rows:
        print(table(["rank", "reward", "lr", "trials", "duplicates", "rule"], rows))
    else:
        print("no rule has been trained to the end yet")
    return None


def report(args: argparse.Namespace) -> int:
    path = Path(args.out) if args.out else Path(args.folder) / "report.html"
    with Store.open(Path(args.folder)) as store:
        try:
            report_page.write(store, path)
        except OSError as error:
            raise UsageError(f"--out {path} cannot be written: {error.strerror}; choose another file") from None
    print(path)
    return 0
