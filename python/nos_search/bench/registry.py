"""Owns the list of benches, which maps a name to its module in this package and to what it measures. A new bench is one
file and one row.

A module is imported only when its bench is asked for.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module
from typing import Protocol, cast

from .base import BenchResult


class Bench(Protocol):
    """The module of a bench has these functions."""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Adds the bench's options; each has a default."""

    def run(self, args: argparse.Namespace, *, note: Callable[[str], None]) -> BenchResult:
        """Measures, and says by `note` how far it is. Raises UsageError for a wrong option."""


BENCHES: dict[str, tuple[str, str]] = {
    "child": ("child", "a child's step and rules per hour, by own kernels and by torch"),
    "agreement": ("agreement", "whether rewards by own kernels and by torch agree"),
    "overhead": ("overhead", "time of loop, store and executor per trial"),
    "tasks": ("tasks", "what rewards say: spread over rules and seeds, and the order after a long training"),
    "prove": ("prove", "how often the verdicts of prove err on noise, and what differences they see"),
}


def load_bench(name: str) -> Bench:
    return cast(Bench, import_module(f"{__package__}.{BENCHES[name][0]}"))
