"""Owns the bench of agreement: the same rules are scored by own kernels and by torch, on the same tasks with the same
seeds, and their rewards are set side by side.

Both engines differ in rounding, which a training amplifies, so two rewards of one rule differ as those of two seeds
would, only less. What must not differ is their mean, and the order of rules. How far two seeds of torch agree is shown
beside it: no engine can agree better with torch than torch with itself.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..bounds import check_count
from ..errors import UsageError
from ..rules import CompiledRule
from ..task import Task, load
from ..train.child import Outcome, ScoringProtocol, score
from ..train.engine import Engine
from ..train.evaluate import half_width
from ..train.native import why_not
from ..train.seeds import derive_seed
from .base import BenchResult
from .sample import random_rules, rank_correlation


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tasks", default="digits", metavar="A,B", help="default digits")
    parser.add_argument(
        "--rules", type=int, default=24, metavar="N", help="random rules that pass the gates (default 24)"
    )
    parser.add_argument("--net", metavar="NAME[-DEPTH[-WIDTH]]", help="child network (default: each task's)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of rules and children (default 1)")


def run(options: argparse.Namespace, *, note: Callable[[str], None]) -> BenchResult:
    check_count("--rules", options.rules, "two or more show the spread", least=2)
    tasks = [load(name, argument="--tasks").with_options(net=options.net) for name in options.tasks.split(",")]
    for task in tasks:
        missing = why_not(task)
        if missing is not None:
            raise UsageError(f"--tasks {task.name}: {missing}, so there is nothing to compare; leave it out")
    torch.set_num_threads(1)
    result = BenchResult(
        f"rewards of {options.rules} random rules that pass the gates, by own kernels and by torch",
        ["task", "net", "native", "torch", "native - torch", "rank correlation", "of two seeds", "diverged alone"],
        notes=[
            "native - torch: mean of the differences, with its 95 % interval (Student t)",
            "rank correlation: Spearman's, native with torch at equal seeds; of two seeds: torch with torch",
            "diverged alone: rules that one engine trains to the end and the other does not",
        ],
    )
    rules = random_rules(options.rules, derive_seed(options.seed, "rules"))
    for task in tasks:
        figures = _compare(rules, task, options.seed, note)
        result.figures[task.name] = figures
        low, high = (figures["difference"] + sign * figures["half_width"] for sign in (-1, 1))
        result.rows.append(
            [
                task.name,
                str(task.spec),
                f"{figures['native']:.4f}",
                f"{figures['torch']:.4f}",
                f"{figures['difference']:+.4f} [{low:+.4f}, {high:+.4f}]",
                _shown(figures["rank_correlation"]),
                _shown(figures["rank_correlation_of_seeds"]),
                str(figures["diverged_alone"]),
            ]
        )
        note("  ".join(result.rows[-1]))  # the next task may take an hour
    return result


def _shown(correlation: float | None) -> str:
    return "-" if correlation is None else f"{correlation:.3f}"


def _compare(rules: Sequence[CompiledRule], task: Task, seed: int, note: Callable[[str], None]) -> dict[str, Any]:
    seeds = [derive_seed(seed, "agreement", k) for k in range(2)]

    def outcome(rule: CompiledRule, engine: Engine, seed: int) -> Outcome:
        return score(rule, task, ScoringProtocol(engine=engine), seed=seed)

    native, theirs, again = [], [], []
    for number, rule in enumerate(rules, 1):
        note(f"{task.name}: rule {number} of {len(rules)}: {rule.label}")
        native.append(outcome(rule, "native", seeds[0]))
        theirs.append(outcome(rule, "torch", seeds[0]))
        again.append(outcome(rule, "torch", seeds[1]))
    rewards = [[each.reward for each in column] for column in (native, theirs, again)]
    gaps = [mine - other for mine, other in zip(rewards[0], rewards[1], strict=True)]
    return {
        "rules": len(rules),
        "native": statistics.fmean(rewards[0]),
        "torch": statistics.fmean(rewards[1]),
        "difference": statistics.fmean(gaps),
        "half_width": half_width(gaps) or 0.0,
        "rank_correlation": rank_correlation(list(zip(rewards[0], rewards[1], strict=True))),
        "rank_correlation_of_seeds": rank_correlation(list(zip(rewards[1], rewards[2], strict=True))),
        "diverged_alone": sum(a.status != b.status for a, b in zip(native, theirs, strict=True)),
    }
