"""Owns the list of benches: name -> (module of this package, what it measures). A new bench is one file and one row.

The module is imported only when its bench is asked for.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module
from typing import Protocol, cast

from .base import BenchResult


class Bench(Protocol):
    """What a bench's module has."""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Adds the bench's options; each has a default."""

    def run(self, args: argparse.Namespace, *, note: Callable[[str], None]) -> BenchResult:
        """Measures, and says by `note` how far it is. UsageError for a wrong option."""


BENCHES: dict[str, tuple[str, str]] = {
    "child": ("child", "rules per hour, and the update's share of a child's step, against eager updates"),
    "overhead": ("overhead", "time of loop, store and executor per trial"),
}


def load_bench(name: str) -> Bench:
    return cast(Bench, import_module(f"{__package__}.{BENCHES[name][0]}"))
