"""Owns the reading of a record (the JSON of bench.run): cells by rule and size, and the comparisons drawn from them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .peers import ENGINE, LIMIT, native
from .run import SCHEMA

Cell = dict[str, Any]


def load(path: Path) -> dict[str, Any]:
    """A record; ValueError if the file is none, or of another version."""
    try:
        data = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} cannot be read as a record of bench.run: {error}") from error
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise ValueError(f"{path} has not schema {SCHEMA}; record it again with python -m bench.run")
    return data


def cells(record: dict[str, Any], suite: str = "update") -> Iterator[Cell]:
    """The measured cells of a suite."""
    return (cell for cell in record.get(suite, []) if "contenders" in cell)


def fastest(cell: Cell, names: Iterable[str]) -> str | None:
    """The contender with the shortest time, by its ratio to the engine."""
    known = [name for name in names if name in cell["contenders"]]
    return min(known, key=lambda name: float(cell["contenders"][name]["ratio"]), default=None)


def best_peer(cell: Cell) -> str | None:
    return fastest(cell, [name for name, row in cell["contenders"].items() if row["peer"]])


def speed_up(cell: Cell, name: str | None) -> float | None:
    """Time of a contender / time of the engine."""
    return None if name is None else float(cell["contenders"][name]["ratio"])


def of_limit(cell: Cell, name: str | None = ENGINE) -> float | None:
    """The part of the limit that a contender reaches."""
    row = cell["contenders"].get(name)
    return row.get("of_limit") if row else None


def best_native(cell: Cell) -> str | None:
    """The fastest hand-fused form."""
    return fastest(cell, native.LABELS)


def bandwidth(cell: Cell) -> float | None:
    """GB/s of the limit."""
    row = cell["contenders"].get(LIMIT)
    return cell["bytes"] / row["us"] / 1e3 if row and "bytes" in cell else None
