"""Owns the commands about rules and spaces: export, space."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import torch

from nos_ext.optim import library

from .errors import SearchError, UsageError
from .output import print_json, table
from .results import leaderboard
from .rules import parse_rule_argument
from .space import Options, Space
from .store import FILE, Store

_EXPORT_NAME = "found_rule"  # of a rule that has no name of its own; the class is FoundRule


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
