"""Owns the command surfaces, which trains rules on analytic surfaces and shows a table and a figure."""

from __future__ import annotations

import argparse
import math

import numpy as np

from ..bounds import check_count
from ..gate import surface
from ..gate.screen import LEARNING_RATES, final_positions, with_rate_tensor
from ..rules import distinct, parse_rule_argument
from ..show.surfaces import Paths, figure_of
from ..space.group import Array
from ..train.seeds import check_seed
from .output import as_json, emit, table
from .plots import check_plot, draw


def call(args: argparse.Namespace) -> int:
    """Trains rules on the analytic surfaces, prints how far they come, and draws the figure if one is asked for."""
    check_count("--steps", args.steps)
    check_seed(args.seed)
    check_plot(args.plot)
    rules = distinct(map(parse_rule_argument, args.rules))
    programs = [with_rate_tensor(rule.program.rule, rule.label) for rule in rules]
    path: list[Array] = []
    final = final_positions(programs, learning_rates=LEARNING_RATES, steps=args.steps, seed=args.seed, path=path)
    reached = surface.scores(final)
    rates = reached.argmax(axis=1)
    paths = Paths([rule.label for rule in rules], np.stack(path), rates)
    best = reached.max(axis=1)
    names = [shown.name for shown in surface.SURFACES]
    losses = [[float(paths.loss(k, index)[-1]) for index in range(len(names))] for k in range(len(rules))]
    if args.plot is not None:
        draw(args.plot, figure_of(paths))
    if args.json:
        rows = [
            {
                "rule": rule.label,
                "text": rule.text,
                "score": float(best[k].mean()),
                "surfaces": {
                    name: {
                        "score": float(best[k, i]),
                        "lr": LEARNING_RATES[rates[k, i]],
                        "loss": losses[k][i] if math.isfinite(losses[k][i]) else None,
                    }
                    for i, name in enumerate(names)
                },
            }
            for k, rule in enumerate(rules)
        ]
        emit(as_json({"format": 1, "steps": args.steps, "seed": args.seed, "results": rows}))
        return 0
    head = f"score: decades of the loss won in {args.steps} steps, of 4, at the best of 7 rates (lr)"
    shown = [
        [
            f"{best[k].mean():.3f}",
            *[f"{best[k, i]:.2f} (lr {LEARNING_RATES[rates[k, i]]:g})" for i in range(len(names))],
            rule.label,
        ]
        for k, rule in enumerate(rules)
    ]
    emit("\n".join([head, table(["score", *names, "rule"], shown)]))
    return 0
