"""Owns the command export: a rule as the source of a stand-alone torch optimizer."""

from __future__ import annotations

import argparse
from pathlib import Path

from .errors import SearchError, UsageError
from .results import leaderboard
from .rules import parse_rule_argument
from .store import FILE, Store

_EXPORT_NAME = "found_rule"  # of a rule that has no name of its own; the class is FoundRule


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
