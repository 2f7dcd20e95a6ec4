"""Owns the commands about rules and spaces: evaluate, space."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import torch

from nos_ext.optim import library

from .errors import UsageError
from .output import note, number, print_json, table
from .rules import parse_rule_argument
from .space import Options, Space
from .task import load
from .train.child import Protocol, derive_seed
from .train.evaluate import compare


def space_of(args: argparse.Namespace) -> Space:
    options = Options(
        bias_correction=not args.no_bias_correction,
        drop_rescale=args.drop_rescale,
        noise_variance=args.noise_variance,
        distinct_operands=not args.no_masks,
        last_not_add=not args.no_masks,
        use_earlier=not args.no_masks,
    )
    return Space(vocabulary=args.vocabulary, groups=args.groups, options=options)


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
    print(f"vocabulary {chosen.vocabulary}, {chosen.groups} group(s) of op1 op2 u1 u2 b, meaning b(u1(op1), u2(op2))")
    print(f"strings    {chosen.size():,} ({chosen.size():.3g}), {chosen.size(masked=True):.3g} within the masks")
    for title, position in (("operand", 0), ("unary", 2), ("binary", 4)):
        tokens = chosen.positions[position].tokens
        rows = [[str(k), t.name, chosen.token_text(t).format("x", "y"), t.doc] for k, t in enumerate(tokens)]
        print(f"\n{title}\n" + table(["index", "token", "text", "meaning"], rows))
    print("\noptions and masks")
    for name, value in asdict(chosen.options).items():
        print(f"  {name} {'on' if value else 'off'}")
    if samples:
        print("\nsamples")
        for sample in samples:
            print(f"  {' '.join(map(str, sample))}  {chosen.text(sample)}")
    print(f"\nlibrary rules that evaluate and export know by name: {', '.join(library.names())}")
    return 0
