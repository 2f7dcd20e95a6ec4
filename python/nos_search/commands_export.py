"""Owns the command export: a rule as a stand-alone torch optimizer, a run as CSV or as an optuna journal."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import tables
from .errors import SearchError, UsageError, choose
from .results import best_rows
from .rules import parse_rule_argument
from .store import FILE, Store

FORMATS = ("torch", "csv", "curves", "optuna")
_EXPORT_NAME = "found_rule"  # of a rule that has no name of its own; the class is FoundRule


def export(args: argparse.Namespace) -> int:
    if args.format not in FORMATS:
        raise choose("--format", args.format, FORMATS)
    if args.rank < 1:
        raise UsageError(f"--rank {args.rank} is below 1; 1 is the best rule")
    is_run = (Path(args.source) / FILE).is_file()
    if Path(args.source).is_dir() and not is_run:
        raise UsageError(f"export {args.source}: the folder holds no run; name a run folder or a rule")
    if args.format != "torch" and not is_run:
        raise UsageError(f"export {args.source} --format {args.format}: that is for run folders; name one")
    if args.format == "optuna":
        return _optuna(Path(args.source), args.out)
    text = _source(args.source, args.rank) if args.format == "torch" else ""
    if args.format in ("csv", "curves"):
        with Store.open(Path(args.source)) as store:
            text = tables.trials_csv(store) if args.format == "csv" else tables.curves_csv(store)
    if args.out is None:
        sys.stdout.write(text if text.endswith("\n") else f"{text}\n")
        return 0
    try:
        Path(args.out).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--out {args.out} cannot be written: {error.strerror}; choose another file") from None
    print(args.out)
    return 0


def _source(source: str, rank: int) -> str:
    """Source of a torch optimizer for a rule, or for the rule of that rank of a run."""
    text, comment = source, ""
    if (Path(source) / FILE).is_file():
        with Store.open(Path(source)) as store:
            rows = best_rows(store)
            if len(rows) < rank:
                raise SearchError(f"{source} has {len(rows)} rules trained to the end, none of rank {rank}")
            row = rows[rank - 1]
            text = row.rule
            comment = (
                f"# reward {row.reward:.4f} on {store.config['task']} at lr {row.lr:g}, seed {store.config['seed']}\n"
            )
    rule = parse_rule_argument(text)
    head = f"# update u = {rule.label}, p <- p - lr * u\n" if rule.is_update else ""
    named = rule.program.rule.replaced(name=_EXPORT_NAME) if rule.is_update else rule.program
    return head + comment + named.to_pytorch()


def _optuna(folder: Path, out: str | None) -> int:
    from .journal import write_journal

    path = Path(out) if out else folder / "optuna.log"
    with Store.open(folder) as store:
        try:
            write_journal(store, path)
        except FileExistsError:
            raise UsageError(f"--out {path} exists; remove it or choose another file") from None
        except OSError as error:
            raise UsageError(f"--out {path} cannot be written: {error.strerror}; choose another file") from None
    print(path)
    return 0
