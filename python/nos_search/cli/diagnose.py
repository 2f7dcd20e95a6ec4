"""Owns the command diagnose, which runs rules over the battery of small problems and shows where each fails."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict

from ..bounds import check_count
from ..diagnose.battery import PASSED, RATES, Diagnosis, diagnose
from ..diagnose.problems import BATTERY, KINDS, STEPS
from ..gate.screen import with_rate_tensor
from ..rules import CompiledRule, distinct, parse_rule_argument
from ..train.seeds import check_seed
from .output import as_json, emit, note, table


def call(args: argparse.Namespace) -> int:
    check_count("diagnose --trials", args.trials, "say how many starts of each problem")
    check_seed(args.seed)
    rules = distinct(map(parse_rule_argument, args.rules))
    for rule in rules:
        with_rate_tensor(rule.program.rule, rule.label)  # what cannot be run is said before anything is
    found: list[list[Diagnosis]] = []
    try:
        for rule in rules:
            note(f"running {rule.label} on {len(BATTERY)} problems, {args.trials} trials each, at {len(RATES)} rates")
            found.append(diagnose(rule.program.rule, trials=args.trials, seed=args.seed))
    except KeyboardInterrupt:
        if found:  # what is finished is shown all the same
            _show(args, rules[: len(found)], found)
        raise
    _show(args, rules, found)
    return 0


def _show(args: argparse.Namespace, rules: Sequence[CompiledRule], found: Sequence[Sequence[Diagnosis]]) -> None:
    if args.json:
        document = {
            "format": 1,
            "steps": STEPS,
            "trials": args.trials,
            "seed": args.seed,
            "rates": RATES,
            "needed": PASSED,
            "results": [
                {
                    "rule": rule.label,
                    "text": rule.text,
                    "passed": _passed(rows),
                    "problems": [asdict(row) for row in rows],
                }
                for rule, rows in zip(rules, found, strict=True)
            ],
        }
        emit(as_json(document))
        return
    emit(_levels(rules, found) if args.levels else _kinds(rules, found))


def _passed(rows: Sequence[Diagnosis]) -> int:
    return sum(row.passed for row in rows)


def _kinds(rules: Sequence[CompiledRule], found: Sequence[Sequence[Diagnosis]]) -> str:
    head = (
        f"levels passed, of each kind of problem: {PASSED:.0%} of the trials come to the goal within {STEPS} steps at "
        "the best learning rate"
    )
    lines = []
    for rule, rows in zip(rules, found, strict=True):
        cells = []
        for kind in KINDS:
            mine = [row for row in rows if row.kind == kind]
            cells.append(f"{_passed(mine)}/{len(mine)}")
        lines.append([f"{_passed(rows)}/{len(rows)}", *cells, rule.label])
    return "\n".join([head, table(["all", *KINDS, "rule"], lines)])


def _levels(rules: Sequence[CompiledRule], found: Sequence[Sequence[Diagnosis]]) -> str:
    head = [
        "share of the trials that come to the goal at the best rate (in how many of "
        f"{len(RATES)} rates {PASSED:.0%} do); * marks what is passed",
        *[f"{k + 1}: {rule.label}" for k, rule in enumerate(rules)],
    ]
    lines = []
    for k, problem in enumerate(BATTERY):
        cells = [f"{rows[k].solved:.2f} ({rows[k].rates}){'*' if rows[k].passed else ''}" for rows in found]
        lines.append([problem.kind, problem.level, *cells])
    return "\n".join([*head, table(["problem", "level", *[str(k + 1) for k in range(len(rules))]], lines)])
