"""Owns the command export, which writes a rule as a stand-alone torch optimizer, or a run as CSV or as an optuna
journal."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from ..errors import UsageError, choose
from ..rules import parse_rule_argument
from ..show import csv_tables, exported
from ..store import FILE, Store, files
from .names import FORMATS
from .output import emit


def call(args: argparse.Namespace) -> int:
    if args.format not in FORMATS:
        raise choose("--format", args.format, FORMATS)
    is_run = _is_run(args.source)
    if args.rank is not None and (args.rank < 1 or not is_run or args.format != "torch"):
        why = "is below 1; 1 is the best rule" if args.rank < 1 else "is for one rule of a run folder; leave it out"
        raise UsageError(f"--rank {args.rank} {why}")
    if os.path.isdir(args.source) and not is_run:
        raise UsageError(f"export {args.source}: the folder holds no run; name a run folder or a rule")
    if args.format != "torch" and not is_run:
        raise UsageError(f"export {args.source} --format {args.format}: that is for run folders; name one")
    if args.out is not None:
        files.check_new("--out", args.out, force=args.force)
    if args.format == "optuna":
        return _optuna(Path(args.source), args.out, force=args.force)
    text = _text(args.source, args.rank or 1, args.format)
    if args.out is None:
        emit(text.rstrip("\n"))
    else:
        files.write("--out", args.out, text)
        emit(args.out)
    return 0


def _is_run(source: str) -> bool:
    return os.path.isfile(os.path.join(source, FILE))


def _text(source: str, rank: int, form: str) -> str:
    if form == "torch":
        return _source(source, rank)
    with Store.open(Path(source)) as store:
        return csv_tables.trials_csv(store) if form == "csv" else csv_tables.curves_csv(store)


def _source(source: str, rank: int) -> str:
    """Returns the source of a torch optimizer for a rule, or for the rule of that rank in a run."""
    if not _is_run(source):
        return exported.source(parse_rule_argument(source))
    with Store.open(Path(source)) as store:
        return exported.source_of_rank(store, rank)


def _optuna(folder: Path, out: str | None, *, force: bool) -> int:
    from ..show.journal import write_journal

    path = out or files.inside(folder, "optuna.log", remedy="remove it, or name another file with --out")
    files.check_new("--out", path, force=force)
    files.check_place("--out", path)
    with Store.open(folder) as store, tempfile.TemporaryDirectory() as place:
        part = Path(place) / "journal"
        write_journal(store, part)
        files.write("--out", path, part.read_text(encoding="utf-8"))
    emit(path)
    return 0
