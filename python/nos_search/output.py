"""Owns how the commands print: notes on stderr, tables and JSON on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Plain text in columns; the last column is not padded, numbers are set right."""
    wide = [max(len(row[k]) for row in (header, *rows)) for k in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell if k == len(cells) - 1 else cell.rjust(wide[k]) if _numeric(rows, k) else cell.ljust(wide[k])
            for k, cell in enumerate(cells)
        ]
        return "  ".join(padded).rstrip()

    return "\n".join(line(row) for row in (header, *rows))


def _numeric(rows: Sequence[Sequence[str]], column: int) -> bool:
    return all(row[column][:1].isdigit() or row[column][:1] in "-." for row in rows)


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def print_json(data: Any) -> None:
    print(json.dumps(data, indent=2, allow_nan=False))
