"""Owns the bench of tasks: does the reward of a short training say anything about a rule?

It does if rules differ by more than seeds do, and if the order of rules after the short training is that after a long
one. For each task the known optimizers are scored over several seeds as a search would score them, random rules that
pass the gates with one seed, and all of these that learn at all once more: ten times the steps with a learning rate
that decays (linear times cosine), at the best of three rates around the one that the short sweep chose, with two other
seeds, on test data. Rules that do not learn are left out of the comparison, because any task tells them from the
others; and since tasks differ in how many rules learn, the order of equally many of the best is compared as well.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..bounds import check_count
from ..errors import SearchError
from ..known import RULES
from ..rules import CompiledRule, compile_rule
from ..task import TASKS, Task, load
from ..train.child import Outcome, ScoringProtocol, score, train
from ..train.engine import check_engine, kind_of
from ..train.seeds import derive_seed
from .base import BenchResult
from .sample import KNOWN, random_rules, rank_correlation

_LEARNS = 0.5  # of Adam's reward, at least
_BEST = 4  # one random rule in so many: the number of the best that are compared
_LONG_SEEDS = 2
_NEAR = math.sqrt(10)  # from one learning rate of the long training to the next


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tasks", default="charmlp,teacher,fashion14,digits", metavar="A,B", help=f"of {', '.join(TASKS)}"
    )
    parser.add_argument("--rules", type=int, default=40, metavar="N", help="random rules (default 40)")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="of each known optimizer (default 5)")
    parser.add_argument(
        "--times", type=int, default=10, metavar="N", help="how much longer the long one is (default 10)"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="decides rules and trainings (default 1)")
    parser.add_argument("--engine", default="auto", help="auto, native or torch (default auto)")


def run(options: argparse.Namespace, *, note: Callable[[str], None]) -> BenchResult:
    for option in ("rules", "seeds", "times"):
        check_count(f"--{option}", getattr(options, option), least=2)
    check_engine(options.engine)
    tasks = [load(name, argument="--tasks") for name in options.tasks.split(",")]
    torch.set_num_threads(1)
    drawn = random_rules(options.rules, derive_seed(options.seed, "rules"))
    result = BenchResult(
        f"{len(KNOWN)} known optimizers with {options.seeds} seeds, {len(drawn)} random rules with one; "
        f"long: {options.times} times the steps, with decay",
        [
            "task",
            *(RULES[name].label for name in KNOWN),
            "seeds",
            "median",
            "tenth",
            "best",
            "learn",
            "order",
            "of best",
            "s/rule",
        ],
        notes=[
            "known optimizers: mean reward; seeds: standard deviation of a reward over seeds, of all of these",
            "median, tenth, best: of the random rules' rewards",
            f"learn: rules, known or random, with a reward of {_LEARNS:g} of Adam's or more",
            "order: rank correlation of their rewards with their test scores after the long training; "
            f"of best: the same among the {len(drawn) // _BEST} of them with the best rewards",
            "s/rule: seconds of processor time for one reward",
        ],
    )
    for task in tasks:
        note(f"measuring {task.name} ({task.spec})")
        found = measure(task, drawn, options)
        result.figures[task.name] = found
        result.rows.append(_row(task.name, found))
    return result


@dataclass(frozen=True)
class _Scored:
    """A rule with the outcomes of its short trainings, one for each seed."""

    rule: str
    outcomes: Sequence[Outcome]

    @property
    def reward(self) -> float:
        return statistics.fmean(outcome.reward for outcome in self.outcomes)


def measure(task: Task, drawn: Sequence[CompiledRule], options: argparse.Namespace) -> dict[str, Any]:
    """Returns the figures of one task, fit for JSON."""
    protocol = ScoringProtocol(engine=options.engine)
    seeds = [derive_seed(options.seed, "short", k) for k in range(options.seeds)]
    start = time.process_time()
    known = {
        name: _Scored(RULES[name].update, [_short(f"({RULES[name].update})", task, protocol, seed) for seed in seeds])
        for name in KNOWN
    }
    random = [_Scored(rule.text, [score(rule, task, protocol, seed=seeds[0])]) for rule in drawn]
    spent = time.process_time() - start
    least = _LEARNS * known["adam"].reward
    # one seed each, so that a known rule is no better measured than the others
    fit = [each for each in (*known.values(), *random) if each.outcomes[0].reward >= least > 0]
    long = [_long(each, task, options) for each in fit]
    pairs = sorted(((each.outcomes[0].reward, end) for each, end in zip(fit, long, strict=True)), reverse=True)
    return {
        "score": task.score,
        "net": str(task.spec),
        "known": {name: [outcome.reward for outcome in each.outcomes] for name, each in known.items()},
        "random": {each.rule: each.reward for each in random},
        "long": {each.rule: end for each, end in zip(fit, long, strict=True)},
        "order": rank_correlation(pairs),
        "order_of_best": rank_correlation(pairs[: len(random) // _BEST]),
        "seconds": spent / (len(KNOWN) * len(seeds) + len(random)),
    }


def _short(text: str, task: Task, protocol: ScoringProtocol, seed: int) -> Outcome:
    return score(compile_rule(text), task, protocol, seed=seed)


def _long(each: _Scored, task: Task, options: argparse.Namespace) -> float:
    """Returns the mean test score after the long training, at the rate that is best on validation data with the first
    seed."""
    longer = replace(task, budget=replace(task.budget, train_steps=options.times * task.budget.train_steps))
    rule, kind = compile_rule(f"({each.rule})"), kind_of(options.engine, task)
    rate = each.outcomes[0].lr
    if rate is None:
        raise SearchError(f"{each.rule} has a reward and no learning rate")

    def trained(lr: float, number: int) -> Outcome:
        seed = derive_seed(options.seed, "long", number)
        return train(rule, longer, lr=lr, seed=seed, test=True, kind=kind, decay="linear_cosine")

    tried = [(trained(rate * factor, 0), rate * factor) for factor in (1 / _NEAR, 1, _NEAR)]
    first, best = max(tried, key=lambda entry: entry[0].reward)
    ends = [first, *(trained(best, number) for number in range(1, _LONG_SEEDS))]
    return statistics.fmean(end.test or 0.0 for end in ends)


def _row(name: str, found: dict[str, Any]) -> list[str]:
    rewards = sorted(found["random"].values())
    spread = math.sqrt(statistics.fmean(statistics.variance(values) for values in found["known"].values()))
    numbers = [
        *(statistics.fmean(values) for values in found["known"].values()),
        spread,
        statistics.median(rewards),
        rewards[-1 - len(rewards) // 10],
        rewards[-1],
    ]
    orders = ["-" if found[key] is None else f"{found[key]:.2f}" for key in ("order", "order_of_best")]
    return [name, *(f"{x:.3f}" for x in numbers), str(len(found["long"])), *orders, f"{found['seconds']:.2f}"]
