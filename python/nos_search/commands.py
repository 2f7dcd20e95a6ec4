"""Owns the commands run, resume, show, report and bench. Results go to stdout, progress and notes to stderr."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from . import baselines
from . import report as report_page
from .bench import BENCHES, load_bench
from .children import make_executor
from .climbing import climbed
from .commands_rules import space_of
from .commands_train import fetch
from .config import RunConfig, versions
from .errors import UsageError, choose
from .executor import Executor
from .gate import Gates
from .live import Display
from .loop import Search
from .output import note, number, print_json, table
from .results import summary
from .store import Store
from .task import Task
from .tensorboard import TensorBoard, summary_writer

_DEFAULT_TRIALS = 200
_SHOWN = 10
_WORKERS = ("executor", "workers", "trial_timeout", "ray_address", "gpus_per_trial", "device")
_REASONS = {
    "trials": "all trials done",
    "children": "all children trained",
    "seconds": "time is up",
    "target": "target reached",
    "interrupted": "interrupted, the trials in flight were given up",
}
_MORE = {"trials": " --trials N", "children": " --children N", "target": " --target R"}


# --- run, resume -----------------------------------------------------------------------------------------------------


def run(args: argparse.Namespace) -> int:
    trials = args.trials
    if all(limit is None for limit in (trials, args.children, args.seconds, args.target)):
        trials = _DEFAULT_TRIALS
    fetch(args, [args.task])
    config = RunConfig(
        task=args.task,
        strategy=args.strategy,
        strategy_options=_options(args.strategy_option),
        space=space_of(args).config(),
        gates=_gates(args.gate).to_json(),
        sweep=args.sweep,
        net=args.net,
        width=args.width,
        sweep_steps=args.sweep_steps,
        train_steps=args.train_steps,
        data_dir=str(Path(args.data_dir).resolve()) if args.data_dir else None,
        promote=args.promote,
        promote_eta=args.promote_eta,
        seed=args.seed,
        batch=args.batch,
        threads=args.threads,
        trials=trials,
        children=args.children,
        seconds=args.seconds,
        target=args.target,
        **_given(args, _WORKERS),
    )
    task = config.make_task()
    config = replace(  # the values in force, should a later release change a default
        config,
        strategy_options=config.make_strategy().options(),
        net=str(task.spec),
        width=task.width,
        sweep_steps=task.budget.sweep_steps,
        train_steps=task.budget.train_steps,
    )
    with (  # what cannot be had is said before there is a folder
        _executor(args, config, task) as executor,
        Store.create(Path(args.out), config.to_json(), versions()) as store,
    ):
        status = _search(store, config, executor, board=args.tensorboard)
    return _after(Path(args.out), status, as_json=args.json)


def resume(args: argparse.Namespace) -> int:
    with Store.open(Path(args.folder), write=True) as store:
        config = RunConfig.from_json(store.config)
        config = replace(config, **_given(args, (*_WORKERS, "trials", "children", "seconds", "target")))
        done = len([trial for trial in store.trials() if trial.status != "running"])
        if args.trials is not None and args.trials < done:
            raise UsageError(f"--trials {args.trials}: {store.folder} has {done} trials already; name a higher number")
        changed = [f"{k} {store.versions.get(k)} -> {v}" for k, v in versions().items() if store.versions.get(k) != v]
        if changed:
            note(f"note: this run began with other versions ({', '.join(changed)}); it may not repeat bit for bit")
        task = config.make_task()
        with _executor(args, config, task) as executor:
            store.set_config(config.to_json())
            status = _search(store, config, executor, board=args.tensorboard)
    return _after(Path(args.folder), status, as_json=args.json)


def _given(args: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """The options that the user gave; a run has its configuration's defaults for the others, resume what was stored."""
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def _executor(args: argparse.Namespace, config: RunConfig, task: Task) -> Executor:
    if args.tensorboard:
        summary_writer()
    return make_executor(config, task, clock=time.perf_counter)


def _search(store: Store, config: RunConfig, executor: Executor, *, board: bool) -> int:
    # A shell that starts us in the background may have told us to ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(config.threads)
    search = Search(store, config, executor)
    if search.strangers:
        note(
            f"note: {search.strangers} of the last trials would not be proposed again by these versions on this "
            "machine; their results are kept and learned from"
        )
    earlier = sorted((trial for trial in store.trials() if trial.told is not None), key=lambda trial: trial.told or 0)
    one = config.executor_name == "inprocess"
    note(
        f"{'resuming' if earlier else 'searching'}: task {config.task}, {config.strategy}, seed {config.seed}, "
        f"{'in this process' if one else f'{config.workers} {config.executor_name} workers'}, {store.folder}"
    )
    status = 0
    tensorboard = TensorBoard(store.folder / "tensorboard") if board else None
    with Display(
        sys.stderr,
        trials=config.trials,
        children=config.children,
        earlier=earlier,
        promoted=climbed(store),
        clock=time.perf_counter,
    ) as display:
        search.listeners = [display, tensorboard] if tensorboard else [display]
        try:
            reason = search.run()
        except KeyboardInterrupt:
            reason, status = "interrupted", 130
        finally:
            if tensorboard:
                tensorboard.close()
    note(f"stopped: {_REASONS[reason]}; continue with: nos-search resume {store.folder}{_MORE.get(reason, '')}")
    return status


def _after(folder: Path, status: int, *, as_json: bool) -> int:
    with Store.open(folder) as store:
        _print_summary(summary(store), top=_SHOWN, as_json=as_json)
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
        + (f", in flight {data['running']}" if data["running"] and data["going_on"] else "")
    )
    higher = data["rungs"]
    rows = [
        [
            str(row["rank"]),
            f"{row['reward']:.4f}",
            *(f"{reward:.4f}" for reward in row["promoted"]),
            *[""] * (len(higher) - len(row["promoted"])),
            number(row["lr"]),
            str(row["trials"]),
            str(row["duplicates"]),
            row["rule"],
        ]
        for row in data["leaderboard"][:top]
    ]
    if rows:
        print(table(["rank", "reward", *higher, "lr", "trials", "duplicates", "rule"], rows))
    else:
        print("no rule has been trained to the end yet")
    return None


def report(args: argparse.Namespace) -> int:
    folder = Path(args.folder)
    path = Path(args.out) if args.out else folder / "report.html"
    if args.out and not path.parent.is_dir():  # before anything is trained for the page
        raise UsageError(f"--out {path} cannot be written: there is no folder {path.parent}; make it or choose another")
    with Store.open(folder) as store:
        going_on = store.being_written()
    if going_on and not args.no_baselines:
        note("note: the run goes on; known optimizers that were not trained yet are left out")
    # Written to the store, so that the next report need not train them again.
    with Store.open(folder, write=not going_on and not args.no_baselines) as store:
        if not going_on and not args.no_baselines:
            baselines.train_missing(store, note=note)
        try:
            report_page.write(store, path)
        except OSError as error:
            raise UsageError(f"--out {path} cannot be written: {error.strerror}; choose another file") from None
    print(path)
    return 0


# --- bench -----------------------------------------------------------------------------------------------------------


def bench(args: argparse.Namespace) -> int:
    if args.name is None:
        print("\n".join(f"{name:12} {about}" for name, (_, about) in BENCHES.items()))
        return 0
    if args.name not in BENCHES:
        raise choose("bench", args.name, tuple(BENCHES))
    chosen = load_bench(args.name)
    parser = argparse.ArgumentParser(prog=f"nos-search bench {args.name}", description=BENCHES[args.name][1])
    parser.add_argument("--json", action="store_true", help="print JSON")
    chosen.arguments(parser)
    options = parser.parse_args(args.rest)
    result = chosen.run(options)
    if options.json:
        print_json({"format": 1, "bench": args.name, "versions": versions(), **asdict(result)})
        return 0
    print(f"{result.title}\n{table(result.columns, result.rows)}")
    for line in result.notes:
        print(line)
    return 0
