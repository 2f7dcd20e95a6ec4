"""Owns the command train, which trains one child with one rule and shows its learning curve."""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict
from typing import Any

import torch

from ..errors import SearchError, UsageError
from ..rules import parse_rule_argument
from ..show import plot
from ..task import SCORES
from ..task.score import scores
from ..train.child import best_rate
from ..train.child import train as train_child
from ..train.engine import kind_of
from ..train.seeds import derive_seed
from .output import as_json, emit, note, table
from .plots import draw
from .training import check_common, load_all, recipes, scoring, shown_loss


def call(args: argparse.Namespace) -> int:
    check_common(args)
    if args.lr is not None and not 0 < args.lr < math.inf:
        raise UsageError(f"--lr {args.lr:g} is not a positive number; leave it out for a sweep")
    rule = parse_rule_argument(args.rule)
    if "," in args.task:
        raise UsageError(f"--task {args.task!r}: train takes one task; evaluate takes several")
    protocol = scoring(args, args.task, "--task")
    (task,) = load_all(recipes(args, args.task, "--task"))
    torch.set_num_threads(args.threads or 1)
    seed = derive_seed(args.seed, "train")
    lr: float | None = args.lr
    sweep: list[dict[str, Any]] = []
    if lr is None:
        note(f"sweeping the learning rate of {rule.label} on {task.name} ({task.spec})")
        lr, sweep = best_rate(rule, task, protocol, seed=seed)
        if lr is None:
            raise SearchError(f"{rule.label} diverges on {task.name} at every learning rate from 1e-5 to 10")
    note(f"training {task.budget.train_steps} steps at lr {lr:g}")
    outcome = train_child(rule, task, lr=lr, seed=seed, test=True, kind=kind_of(args.engine, task), decay=args.decay)
    curve = outcome.curve
    if args.json:
        data = {
            "format": 1,
            "rule": rule.label,
            "text": rule.text,
            "task": task.name,
            "net": str(task.spec),
            "score": task.score,
            "augment": task.augment,
            "seed": args.seed,
        }
        emit(as_json(data | {"sweep": sweep} | asdict(outcome)), keep=True)
    else:
        rows = [
            [str(step), f"{loss:.4f}", f"{value:.4f}", shown_loss(task.loss_name, val_loss)]
            for step, loss, value, val_loss in zip(
                curve["steps"], curve["loss"], scores(curve), curve["val_loss"], strict=True
            )
        ]
        label = SCORES[task.score].label
        end = f"lr {lr:g}: {label} {outcome.reward:.4f} on validation data, {outcome.test or 0.0:.4f} on test data"
        if outcome.status == "diverged":
            end = f"diverged at lr {lr:g}"
        header = ["step", "training loss", f"validation {label}", "validation loss"]
        emit(f"{table(header, rows)}\n{end}", keep=True)
    if args.plot is not None:
        draw(args.plot, plot.training(rule.label, task.name, lr, curve, score=task.score))
    return 0
