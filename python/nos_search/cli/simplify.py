"""Owns the command simplify, which leaves out of a rule what trainings do not miss, and prints the chain."""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from ..errors import SearchError, UsageError
from ..escape import line, lines
from ..rules import CompiledRule, parse_rule_argument
from ..run.trainings import LoadTasks, make_tasks_executor
from ..simplify import Better, Chain, Step, simplify
from ..simplify.reduce import size
from ..store import files
from ..task import Task
from ..train.child import ScoringProtocol
from ..train.engine import engine_of
from ..train.evaluate import CONFIDENCE
from ..train.seeds import derive_seed
from .kept import KeptResult
from .output import as_json, note, table
from .training import Trainings, as_pairs, check_comparing, comparing, open_record, where_kept

_TRAININGS, _CHAIN = "trainings.json", "chain.json"  # in --out, beside the rule


def call(args: argparse.Namespace) -> int:
    _check(args)
    rule = parse_rule_argument(args.rule)
    protocol, chosen, tasks = comparing(args)
    kept = KeptResult(args.out, "simplify", _CHAIN, rule)
    kept.make_folder()
    with nullcontext() if args.out is None else files.alone("--out", args.out):
        kept.check()
        chain = _walked(args, rule, protocol, LoadTasks(tuple(chosen), protocol), tasks)
        document = as_json(_document(args, engine_of(protocol.engine, tasks), chain))
        kept.finish(document, chain.result, document if args.json else _shown(chain, args.seeds))
    return 0


def _walked(
    args: argparse.Namespace, rule: CompiledRule, protocol: ScoringProtocol, loader: LoadTasks, tasks: Sequence[Task]
) -> Chain:
    """Trains what is not finished yet, and returns the chain."""
    record = open_record(None if args.out is None else os.path.join(args.out, _TRAININGS), args, protocol, tasks)
    try:
        with make_tasks_executor(
            loader, tasks, workers=args.workers, threads=args.threads or 1, clock=time.perf_counter
        ) as executor:
            return simplify(
                rule,
                Trainings(executor, tasks, record),
                seeds=[derive_seed(args.seed, "simplify", k) for k in range(args.seeds)],
                fresh=[derive_seed(args.seed, "simplify fresh", k) for k in range(args.seeds)],
                margin=args.margin,
                note=note,
            )
    except (KeyboardInterrupt, SearchError):
        note(f"{record.added} trainings were finished by this call, and are {where_kept(args.out)}")
        raise


def _check(args: argparse.Namespace) -> None:
    check_comparing(args)
    if args.margin is not None and not 0 <= args.margin < math.inf:
        raise UsageError(f"--margin {args.margin} is not a loss of score; say 0 or more, such as 0.002")


# --- what is shown ---------------------------------------------------------------------------------------------------


def _shown(chain: Chain, seeds: int) -> str:
    given, last = chain.steps[0], chain.steps[-1]
    parts = [
        f"{line(task)}: a loss above {margin:.4f} counts; {seeds} seeds, validation data"
        for task, margin in chain.margins.items()
    ]
    parts.append(_table(chain.steps, range(len(chain.steps)), chain.margins))
    if last is given:
        parts.append("nothing can be left out: every reduction shows a loss, or cannot exclude one")
        return "\n".join(parts)
    parts += ["", f"again with {seeds} other seeds, on test data:"]
    parts += [f"{line(task)}: a loss above {margin:.4f} counts" for task, margin in chain.final_margins.items()]
    numbers = [len(chain.steps) - 1 - k for k in range(len(chain.confirmed))]
    parts += [_table(chain.confirmed, numbers, chain.final_margins), ""]
    parts += [_better(each, chain.result) for each in chain.better]
    if chain.result is given.rule:
        parts.append("no step of the chain holds there: the rule as it was given is the result")
    else:
        parts.append(f"simplest rule that shows no loss: {chain.result.label}")
        if "\n" in chain.result.text:
            parts.append(lines(chain.result.text).rstrip())
    return "\n".join(parts)


def _better(better: Better, result: CompiledRule) -> str:
    gaps = ", ".join(f"{line(task)} {gap.mean:+.4f} ± {gap.half:.4f}" for task, gap in better.differences.items())
    return f"step {better.number} is better: {gaps} to {result.label}, on the same seeds and data: {better.rule.label}"


def _table(steps: Sequence[Step], numbers: Sequence[int], tasks: Mapping[str, float]) -> str:
    header = ["step", "size", *(word for task in tasks for word in (task, "difference")), "removed", "rule"]
    rows = []
    for number, step in zip(numbers, steps, strict=True):
        row = [str(number), str(size(step.rule)[0])]
        for task in tasks:
            found = step.differences.get(task)
            row += [f"{step.scores[task]:.4f}", "" if found is None else f"{found.mean:+.4f} ± {found.half:.4f}"]
        rows.append([*row, step.removed or "as given", _on_a_line(step)])
    return table(header, rows)


def _on_a_line(step: Step) -> str:
    """Returns the rule of a step for one cell. What the walk has made of a function is a function without a docstring,
    and can stand on a line."""
    head, *body = step.rule.text.strip().split("\n")
    return f"{head} {'; '.join(each.strip() for each in body)}" if body and step.removed else step.rule.label


def _document(args: argparse.Namespace, engine: str, chain: Chain) -> dict[str, Any]:
    return {
        "format": 1,
        "seed": args.seed,
        "seeds": args.seeds,
        "engine": engine,
        "decay": args.decay,
        "augment": args.augment,
        "interval": f"Student t, {CONFIDENCE:.0%}, half width",
        "rule": chain.steps[0].rule.text,
        "result": chain.result.text,
        "margins": chain.margins,
        "chain": [_row(step) for step in chain.steps],
        "refused": [_row(step) for step in chain.refused],
        "final_margins": chain.final_margins,
        "confirmed": [_row(step) for step in chain.confirmed],
        "better": [
            {
                "step": each.number,
                "rule": each.rule.text,
                "scores": each.scores,
                "differences": as_pairs(each.differences),
            }
            for each in chain.better
        ],
    }


def _row(step: Step) -> dict[str, Any]:
    return {
        "rule": step.rule.text,
        "removed": step.removed,
        "size": size(step.rule)[0],
        "scores": step.scores,
        "differences": as_pairs(step.differences),
        "seeds": max((found.seeds for found in step.differences.values()), default=None),
    }
