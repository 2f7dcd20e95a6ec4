"""Owns the command show, which prints the leaderboard of a run."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import UsageError
from ..show.leaderboard import summary
from ..store import Store
from .summary import print_summary


def call(args: argparse.Namespace) -> int:
    if args.top < 1:
        raise UsageError(f"--top {args.top} is below 1")
    with Store.open(Path(args.folder)) as store:
        data = summary(store, every=args.all)
    print_summary(data, top=args.top, json=args.json)
    return 0
