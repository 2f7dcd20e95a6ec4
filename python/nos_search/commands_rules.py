"""Owns the commands about search spaces: space, surfaces."""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from nos_ext.optim import library

from .errors import UsageError, choose
from .gate import surface
from .gate.figure import Paths, draw
from .gate.formula import Array
from .gate.screen import LEARNING_RATES, final_positions, with_rate_tensor
from .output import print_json, table
from .rules import parse_rule_argument
from .space import SPACES, Options, ProgramSpace, SearchSpace, Space
from .space.space import MAX_GROUPS


def space_of(args: argparse.Namespace) -> SearchSpace:
    if args.space == ProgramSpace.kind:
        return ProgramSpace(lines=args.lines)
    if args.space != Space.kind:
        raise choose("--space", args.space, tuple(SPACES))
    options = Options(
        bias_correction=not args.no_bias_correction,
        drop_rescale=args.drop_rescale,
        noise_variance=args.noise_variance,
        distinct_operands=not args.no_masks,
        last_not_add=not args.no_masks,
        use_earlier=not args.no_masks,
    )
    return Space(vocabulary=args.vocabulary, groups=args.groups, options=options)


def space(args: argparse.Namespace) -> int:
    chosen = space_of(args)
    generator = torch.Generator().manual_seed(args.seed)
    samples = [chosen.sample(generator) for _ in range(max(0, args.samples))]
    if args.json:
        print_json(
            {
                "format": 1,
                **chosen.config(),
                "size": chosen.size(),
                "size_masked": chosen.size(masked=True),
                "positions": [{"name": p.name, "kind": p.kind, "tokens": list(p.names)} for p in chosen.positions],
                "samples": [{"tokens": list(tokens), "rule": chosen.text(tokens)} for tokens in samples],
            }
        )
        return 0
    if isinstance(chosen, Space):
        _describe_groups(chosen)
    else:
        _describe_program(chosen)
    if samples:
        print("\nsamples")
        for sample in samples:
            print(f"  {' '.join(map(str, sample))}  {chosen.text(sample)}")
    print(f"\nlibrary rules that evaluate and export know by name: {', '.join(library.names())}")
    return 0


def _describe_groups(chosen: Space) -> None:
    print(f"vocabulary {chosen.vocabulary}, {chosen.groups} group(s) of op1 op2 u1 u2 b, meaning b(u1(op1), u2(op2))")
    print(f"strings    {chosen.size():,} ({chosen.size():.3g}), {chosen.size(masked=True):.3g} within the masks")
    sizes = [Space(vocabulary=chosen.vocabulary, groups=n, options=chosen.options) for n in range(1, MAX_GROUPS + 1)]
    print("\nsize by groups, (operands + earlier outputs)^2 * unary^2 * binary each")
    print(
        table(
            ["groups", "length", "strings", "within the masks"],
            [[str(s.groups), str(s.length), f"{s.size():,}", f"{s.size(masked=True):.3g}"] for s in sizes],
        )
    )
    for title, position in (("operand", 0), ("unary", 2), ("binary", 4)):
        tokens = chosen.positions[position].tokens
        rows = [[str(k), t.name, chosen.token_text(t).format("x", "y"), t.doc] for k, t in enumerate(tokens)]
        print(f"\n{title}\n" + table(["index", "token", "text", "meaning"], rows))
    print("\noptions and masks")
    for name, value in asdict(chosen.options).items():
        print(f"  {name} {'on' if value else 'off'}")


def _describe_program(chosen: SearchSpace) -> None:
    lines = chosen.length // chosen.block
    print(f"programs of {lines} lines of op a b c, meaning x = op(a, b; c); the last is the update")
    print(f"strings    {chosen.size():.3g}, {chosen.size(masked=True):.3g} within the masks")
    parts = {"a": "a", "b": "b", "c": "c", "d": "(1 - c)", "s": "m"}
    for title, position in (("op", 0), ("operand", 1), ("constant", 3)):
        tokens = chosen.positions[position].tokens
        rows = [[str(k), t.name, t.text.format(**parts), t.doc] for k, t in enumerate(tokens)]
        print(f"\n{title}\n" + table(["index", "token", "text", "meaning"], rows))
    print("\nm is the average's own state. Later lines may take the values of earlier ones. Known rules:")
    for name, known in chosen.known().items():
        print(f"  {name:10} {chosen.text(known)}")


def surfaces(args: argparse.Namespace) -> int:
    """Trains rules on the analytic surfaces; a table of how far they come, and a figure."""
    if args.steps < 1:
        raise UsageError(f"--steps {args.steps} is below 1")
    rules = [parse_rule_argument(text) for text in args.rules]
    programs = [with_rate_tensor(rule.program.rule) for rule in rules]
    path: list[Array] = []
    final = final_positions(programs, learning_rates=LEARNING_RATES, steps=args.steps, seed=args.seed, path=path)
    reached = surface.scores(final)
    rates = reached.argmax(axis=1)
    paths = Paths([rule.label for rule in rules], np.stack(path), rates)
    best = reached.max(axis=1)
    names = [shown.name for shown in surface.SURFACES]
    losses = [[float(paths.loss(k, index)[-1]) for index in range(len(names))] for k in range(len(rules))]
    if args.plot is not None:
        try:
            Path(args.plot).write_text(draw(paths), encoding="utf-8")
        except OSError as error:
            raise UsageError(f"--plot {args.plot} cannot be written: {error.strerror}; choose another file") from None
    if args.json:
        rows = [
            {
                "rule": rule.label,
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
        print_json({"format": 1, "steps": args.steps, "seed": args.seed, "results": rows})
        return 0
    print(f"score in [0, 1]: decades of the loss won in {args.steps} steps, of 4, at the best of 7 learning rates (lr)")
    print(
        table(
            ["score", *names, "rule"],
            [
                [
                    f"{best[k].mean():.3f}",
                    *[f"{best[k, i]:.2f} (lr {LEARNING_RATES[rates[k, i]]:g})" for i in range(len(names))],
                    rule.label,
                ]
                for k, rule in enumerate(rules)
            ],
        )
    )
    if args.plot is not None:
        print(args.plot)
    return 0
