"""Owns the commands that train without searching: evaluate (rules against each other) and train (one rule)."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from . import plot
from .device import check_device
from .errors import SearchError, UsageError
from .output import note, number, print_json, table
from .results import best_rows
from .rules import parse_rule_argument
from .store import Store
from .task import TASKS
from .task.download import download
from .train.child import Protocol, best_rate, derive_seed
from .train.child import train as train_child
from .train.evaluate import CONFIDENCE, Comparison, TaskRecipe, run_all, summarise

KNOWN = ("sgd", "momentum", "rmsprop", "adam", "adamw", "lion", "powersign", "addsign")


def fetch(args: argparse.Namespace, names: Sequence[str]) -> None:
    """Fetches the data of those tasks if the command line says so."""
    if not args.download:
        if args.download_url:
            raise UsageError("--download-url does nothing without --download")
        return
    if not args.data_dir:
        raise UsageError("--download needs --data-dir, the folder to put the data in")
    for name in names:
        if name in TASKS:
            download(name, Path(args.data_dir), args.download_url)


def recipes(args: argparse.Namespace, names: str, argument: str) -> list[TaskRecipe]:
    """How to load the tasks that a command line names, with the data fetched if it says so."""
    folder = Path(args.data_dir) if args.data_dir else None
    chosen = list(dict.fromkeys(name.strip() for name in names.split(",")))
    fetch(args, chosen)
    options = {
        "net": args.net,
        "width": args.width,
        "sweep_steps": args.sweep_steps,
        "train_steps": args.train_steps,
    }
    return [TaskRecipe(name, folder, tuple(options.items()), check_device(args.device), argument) for name in chosen]


def shown_loss(name: str, nats: float | None) -> str:
    """A mean loss in the unit of its task."""
    if nats is None:
        return "-"
    if name == "bits":
        return f"{nats / math.log(2):.3f} bits"
    if name == "perplexity":
        return f"{math.exp(min(nats, 700.0)):.4g} ppl"
    return f"{nats:.4f} nats"


def _write(path: str, text: str) -> None:
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--plot {path} cannot be written: {error.strerror}; choose another file") from None
    note(f"wrote {path}")


def _check_common(args: argparse.Namespace) -> None:
    if args.threads < 1:
        raise UsageError(f"--threads {args.threads} is below 1")
    if args.plot is not None and not Path(args.plot).resolve().parent.is_dir():
        raise UsageError(f"--plot {args.plot} cannot be written: its folder does not exist; choose another file")


# --- evaluate --------------------------------------------------------------------------------------------------------


def evaluate(args: argparse.Namespace) -> int:
    if args.seeds < 1:
        raise UsageError(f"--seeds {args.seeds} is below 1; 3 or more show the spread")
    if args.workers < 1:
        raise UsageError(f"--workers {args.workers} is below 1")
    _check_common(args)
    if args.top < 1:
        raise UsageError(f"--top {args.top} is below 1; say how many of a run's best rules")
    named = [text for rule in args.rules for text in _rules_of(rule, args.top)]
    texts = list(dict.fromkeys([*named, *(KNOWN if args.known else ())]))
    if not texts:
        raise UsageError("no RULE: name rule text, a library rule such as adam, a run folder, or --known")
    if args.baseline is not None and args.baseline not in texts:
        texts.append(args.baseline)
    rules = [parse_rule_argument(text) for text in texts]
    protocol = Protocol(sweep=args.sweep)
    chosen = recipes(args, args.tasks, "--tasks")
    tasks = [recipe.load() for recipe in chosen]  # every wrong name is an error here, before any training
    seeds = [derive_seed(args.seed, "evaluate", k) for k in range(args.seeds)]
    jobs = [(recipe, rule.text, seed) for recipe in chosen for rule in rules for seed in seeds]
    outcomes = run_all(jobs, protocol, workers=args.workers, threads=args.threads)
    results: list[Comparison] = []
    units: dict[str, str] = {}
    for task in tasks:
        units[task.name] = task.loss_name
        rows = []
        for rule in rules:
            note(f"evaluating {rule.label} on {task.name} ({task.spec}), {len(seeds)} seed(s)")
            rows.append(summarise(rule.label, task.name, [next(outcomes) for _ in seeds]))
        if args.baseline is not None:
            base = rows[texts.index(args.baseline)]
            rows = [row.against(base) for row in rows]
        results += rows
    if args.plot is not None:
        _write(args.plot, plot.comparison(results))
    if args.json:
        print_json(
            {
                "format": 2,
                "seed": args.seed,
                "sweep": args.sweep,
                "interval": f"Student t, {CONFIDENCE:.0%}, half width",
                "baseline": args.baseline,
                "nets": {task.name: str(task.spec) for task in tasks},
                "results": [asdict(result) for result in results],
            }
        )
    else:
        _print_comparisons(results, units, args)
    return 0


def _rules_of(source: str, top: int) -> list[str]:
    """The best rules of a run folder; anything else is a rule itself."""
    folder = Path(source)
    if not folder.is_dir():
        return [source]
    with Store.open(folder) as store:
        found = [row.rule for row in best_rows(store)[:top]]
    if not found:
        raise UsageError(f"{source}: no rule has been trained to the end yet")
    return found


def _spread(mean: float, half: float | None, digits: str = ".4f") -> str:
    return f"{mean:{digits}}" if half is None else f"{mean:{digits}} ± {half:.4f}"


def _print_comparisons(results: Sequence[Comparison], units: dict[str, str], args: argparse.Namespace) -> None:
    header = ["task", "validation", "test", "loss", "lr", "diverged", "rule"]
    if args.baseline is not None:
        header.insert(3, f"test - {args.baseline}")
    rows = []
    for r in sorted(results, key=lambda r: (list(units).index(r.task), -r.test_mean)):
        row = [
            r.task,
            _spread(r.val_mean, r.val_ci),
            _spread(r.test_mean, r.test_ci),
            shown_loss(units[r.task], r.loss),
            ",".join(dict.fromkeys(number(lr) for lr in r.lrs)),
            f"{r.diverged}/{r.seeds}",
            r.rule,
        ]
        if r.difference is not None:
            row.insert(3, _spread(*r.difference, digits="+.4f"))
        rows.append(row)
    print(table(header, rows))
    if args.seeds > 1:
        note(f"±: half width of the {CONFIDENCE:.0%} Student t interval over {args.seeds} seeds; a sweep for each run")


# --- train -----------------------------------------------------------------------------------------------------------


def train(args: argparse.Namespace) -> int:
    _check_common(args)
    if args.lr is not None and not 0 < args.lr < math.inf:
        raise UsageError(f"--lr {args.lr:g} is not a positive number; leave it out for a sweep")
    rule = parse_rule_argument(args.rule)
    protocol = Protocol(sweep=args.sweep)
    if "," in args.task:
        raise UsageError(f"--task {args.task!r}: train takes one task; evaluate takes several")
    task = recipes(args, args.task, "--task")[0].load()
    torch.set_num_threads(args.threads)
    seed = derive_seed(args.seed, "train")
    lr: float | None = args.lr
    sweep: list[dict[str, Any]] = []
    if lr is None:
        note(f"sweeping the learning rate of {rule.label} on {task.name} ({task.spec})")
        lr, sweep = best_rate(rule, task, protocol, seed=seed)
        if lr is None:
            raise SearchError(f"{rule.label} diverges on {task.name} at every learning rate from 1e-5 to 10")
    note(f"training {task.budget.train_steps} steps at lr {lr:g}")
    outcome = train_child(rule, task, lr=lr, seed=seed, test=True)
    curve = outcome.curve
    if args.plot is not None:
        title = f"{rule.label} on {task.name} at lr {lr:g}: validation accuracy"
        _write(args.plot, plot.curve(title, curve["steps"], curve["accuracy"]))
    if args.json:
        data = {"format": 1, "rule": rule.label, "task": task.name, "net": str(task.spec), "seed": args.seed}
        print_json(data | {"sweep": sweep} | asdict(replace(outcome, curve=curve)))
        return 0
    rows = [
        [str(step), f"{loss:.4f}", f"{accuracy:.4f}", shown_loss(task.loss_name, val_loss)]
        for step, loss, accuracy, val_loss in zip(
            *(curve[k] for k in ("steps", "loss", "accuracy", "val_loss")), strict=True
        )
    ]
    print(table(["step", "training loss", "validation", "validation loss"], rows))
    if outcome.status == "diverged":
        print(f"diverged at lr {lr:g}")
    else:
        print(f"lr {lr:g}: validation {outcome.reward:.4f}, test {outcome.test:.4f}")
    return 0
