"""Owns what a bench hands back: figures with their units, ready to be printed or stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class BenchResult:
    """columns: of `rows`, each with its unit, such as "us/trial". notes: one line each, printed under the table.

    figures: named numbers for --json and for docs, such as {"overhead_ms": 0.4}.
    """

    title: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
