"""Owns the commands about rules and spaces: evaluate, export, space, surfaces."""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from nos_ext.optim import library

from .errors import SearchError, UsageError, choose
from .gate import surface
from .gate.figure import Paths, draw
from .gate.formula import Array
from .gate.screen import LEARNING_RATES, final_positions, with_rate_tensor
from .output import note, number, print_json, table
from .results import leaderboard
from .rules import parse_rule_argument
from .space import SPACES, Options, ProgramSpace, SearchSpace, Space
from .space.space import MAX_GROUPS
from .store import FILE, Store
from .task import load
from .train.child import Protocol, derive_seed
from .train.evaluate import compare

_EXPORT_NAME = "found_rule"  # of a rule that has no name of its own; the class is FoundRule


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


def export(args: argparse.Namespace) -> int:
    if args.rank < 1:
        raise UsageError(f"--rank {args.rank} is below 1; 1 is the best rule")
    text, comment = args.source, ""
    if (Path(args.source) / FILE).is_file():
        with Store.open(Path(args.source)) as store:
            rows = leaderboard(store.trials())
            if len(rows) < args.rank:
                raise SearchError(f"{args.source} has {len(rows)} rules trained to the end, none of rank {args.rank}")
            row = rows[args.rank - 1]
            text = row.rule
            comment = (
                f"# reward {row.reward:.4f} on {store.config['task']} at lr {row.lr:g}, seed {store.config['seed']}\n"
            )
    elif Path(args.source).is_dir():
        raise UsageError(f"export {args.source}: the folder holds no run; name a run folder or a rule")
    rule = parse_rule_argument(text)
    source = f"# update u = {rule.label}, p <- p - lr * u\n" if rule.is_update else ""
    named = rule.program.rule.replaced(name=_EXPORT_NAME) if rule.is_update else rule.program
    source += comment + named.to_pytorch()
    if args.out is None:
        print(source, end="" if source.endswith("\n") else "\n")
    else:
        try:
            Path(args.out).write_text(source, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"--out {args.out} cannot be written: {error.strerror}; choose another file") from None
        print(args.out)
    return 0


def evaluate(args: argparse.Namespace) -> int:
    if args.seeds < 1:
        raise UsageError(f"--seeds {args.seeds} is below 1; 3 or more show the spread")
    if args.threads < 1:
        raise UsageError(f"--threads {args.threads} is below 1")
    rules = [parse_rule_argument(text) for text in args.rules]
    folder = Path(args.data_dir) if args.data_dir else None
    tasks = [
        load(name, data_dir=folder, argument="--tasks").with_options(
            width=args.width, sweep_steps=args.sweep_steps, train_steps=args.train_steps
        )
        for name in args.tasks.split(",")
    ]
    protocol = Protocol(sweep=args.sweep)
    torch.set_num_threads(args.threads)
    seeds = [derive_seed(args.seed, "evaluate", k) for k in range(args.seeds)]
    results = []
    for task in tasks:
        for rule in rules:
            note(f"evaluating {rule.label} on {task.name}, {len(seeds)} seed(s)")
            results.append(compare(rule, task, protocol, seeds=seeds))
    if args.json:
        print_json(
            {"format": 1, "seed": args.seed, "sweep": args.sweep, "results": [asdict(result) for result in results]}
        )
        return 0
    print(
        table(
            ["task", "validation", "test", "lr", "diverged", "rule"],
            [
                [
                    r.task,
                    f"{r.val_mean:.4f} ± {r.val_std:.4f}",
                    f"{r.test_mean:.4f} ± {r.test_std:.4f}",
                    ",".join(dict.fromkeys(number(lr) for lr in r.lrs)),
                    f"{r.diverged}/{r.seeds}",
                    r.rule,
                ]
                for r in results
            ],
        )
    )
    return 0


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
