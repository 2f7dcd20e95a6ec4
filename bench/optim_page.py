"""Owns the part of docs/performance.md about the optimizer classes: record of bench/optim.py -> Markdown."""

from __future__ import annotations

from typing import Any

from . import record as rec
from . import tables


def section(record: dict[str, Any]) -> list[str]:
    """The part of the page, in paragraphs; none if the record has no such rows."""
    out = []
    for cell in rec.cells(record, "optim"):
        training = cell.get("training_us")
        rows = [
            [name, tables.us(found["us"]), f"{found['ratio']:.2f}"]
            + ([f"{found['us'] / (found['us'] + training):.1%}"] if training else [])
            for name, found in cell["contenders"].items()
        ]
        head = [cell["scene"], "us", f"/ {cell['base']}"] + (["share of a training step"] if training else [])
        note = f"Forward and backward: {training / 1e3:.1f} ms." if training else ""
        out += [tables.table(head, rows) + (f"\n\n{note}" if note else "")]
    if not out:
        return []
    return ["## The optimizer classes", "Microseconds of `optimizer.step()`, AdamW everywhere.", *out]
