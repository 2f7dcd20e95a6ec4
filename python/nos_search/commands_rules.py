"""Owns the command about search spaces."""

from __future__ import annotations

import argparse
from dataclasses import asdict

import torch

from nos_ext.optim import library

from .output import print_json, table
from .space import Options, Space


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
