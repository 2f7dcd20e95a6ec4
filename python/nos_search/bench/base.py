"""Owns what a bench hands back: figures with their units, ready to be printed or stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class BenchResult:
    """What a bench has found. `columns` name the entries of `rows` with their units, such as "us/trial". `notes` are
    printed under the table, one on a line. `figures` are the same numbers by name, for --json and for docs, such as
    {"overhead_ms": 0.4}. `head` has what --json shows at the top level, for programs that read it."""

    title: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    head: dict[str, Any] = field(default_factory=dict)
