"""Owns the parts of docs/performance.md about optimizer classes and reductions: scenes of a record -> Markdown."""

from __future__ import annotations

from typing import Any

from . import record as rec
from . import tables


def section(record: dict[str, Any]) -> list[str]:
    """The part of the page, in paragraphs; none if the record has no such rows."""
    scenes = _scenes(record, "optim")
    if not scenes:
        return []
    return ["## The optimizer classes", "Microseconds of `optimizer.step()`, AdamW everywhere.", *scenes]


def reductions(record: dict[str, Any]) -> list[str]:
    """The same of rules with reductions."""
    scenes = _scenes(record, "reductions")
    if not scenes:
        return []
    how = "The limit is memory speed for the passes of the rule ([bench/reductions.py](../bench/reductions.py))."
    return ["## Rules with reductions", f"Microseconds of a step. {how}", *scenes]


def _scenes(record: dict[str, Any], suite: str) -> list[str]:
    out = []
    for cell in rec.cells(record, suite):
        training = cell.get("training_us")
        rows = [
            [name, tables.us(found["us"]), f"{found['ratio']:.2f}"]
            + ([f"{found['us'] / (found['us'] + training):.1%}"] if training else [])
            for name, found in cell["contenders"].items()
        ]
        head = [cell["scene"], "us", f"/ {cell['base']}"] + (["share of a training step"] if training else [])
        note = f"Forward and backward: {training / 1e3:.1f} ms." if training else ""
        out += [tables.table(head, rows) + (f"\n\n{note}" if note else "")]
    return out
