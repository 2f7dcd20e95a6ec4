"""Writes a record of the GPU benches as Markdown: python -m bench.gpu.page DIR; and the part of docs/performance.md
that shows the committed ones."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from .. import tables
from .contenders import CONTENDERS
from .predictions import ROWS
from .scenes import SCENES

RESULTS: Final = Path(__file__).resolve().parents[1] / "results"


def load(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "results.json").read_text())
    if record.get("schema") != 1:
        raise ValueError(f"{folder}: schema {record.get('schema')}; this version reads 1")
    return record


def _head(record: dict[str, Any]) -> str:
    m = record["machine"]
    copy = record.get("copy")
    words = [f"{m['device']}, torch {m['torch']}, Python {m['python']}, {m['date']}."]
    if copy:
        words.append(f"Copying {copy['elements']:,} floats: {copy['gb_per_s']:,.0f} GB/s, read and written together.")
    return " ".join(words)


def predictions(record: dict[str, Any]) -> str:
    rows = []
    dry = record["machine"]["device"] == "cpu"
    for row in ROWS:
        value = row.value(record)
        target = f"{'>=' if row.at_least else '<='} {row.target:g} {row.unit}".strip()
        measured, met = ("not measured", "") if value is None else (f"{value:.2f} {row.unit}".strip(), "")
        if dry:
            measured = "dry run" if value is not None else "no value"
        elif value is not None:
            met = "yes" if row.met(value) else "**no**"
        rows.append([row.what, row.predicted, target, measured, met])
    return tables.table(["what", "predicted", "target", "measured", "met"], rows)


def _times(record: dict[str, Any]) -> str:
    cells = [c for c in record.get("cells", []) if "contenders" in c]
    names = [n for n in CONTENDERS if any(n in c["contenders"] for c in cells)]
    rows = []
    for c in cells:
        copied = c["bytes"] / record["copy"]["gb_per_s"] * 1e-3 if "copy" in record else None
        row = [c["scene"], c["rule"], c["dtype"], "" if copied is None else tables.us(copied)]
        for n in names:
            r = c["contenders"].get(n)
            row.append("" if r is None else f"{tables.us(r['us'])} ({tables.us(r['host_us'])})")
        rows.append(row)
    return tables.table(["tensors", "rule", "dtype", "at copy speed", *names], rows)


def _population(record: dict[str, Any]) -> str:
    rows = []
    for p in record.get("population", []):
        for name, r in p.get("contenders", {}).items():
            rows.append([f"{p['candidates']} x {p['elements']:,}", name, tables.us(r["us"]), tables.times(r["ratio"])])
    return tables.table(["programs x elements", "by", "us", "time / one launch"], rows)


def _reductions(record: dict[str, Any]) -> str:
    rows = []
    for c in record.get("reductions", []):
        copied = c["bytes"] / record["copy"]["gb_per_s"] * 1e-3 if "copy" in record and "bytes" in c else None
        for name, r in c.get("contenders", {}).items():
            limit = "" if copied is None else tables.us(copied)
            rows.append([c["scene"], c["rule"], limit, name, tables.us(r["us"]), tables.times(r["ratio"])])
    return tables.table(["tensors", "rule", "passes at copy speed", "by", "us", "time / nos_ext"], rows)


def _compiled(record: dict[str, Any]) -> str:
    rows = []
    for c in record.get("compiled", []):
        for name, r in c.get("contenders", {}).items():
            build = f"{r['build_seconds']:.1f} s" if "build_seconds" in r else ""
            rows.append([c["scene"], name, tables.us(r["us"]), tables.times(r["ratio"]), build])
    return tables.table(["tensors", "by", "us", "time / interpreter", "first call"], rows)


def _missing(record: dict[str, Any]) -> list[list[str]]:
    """Each reason once, with the number of cells."""
    count: dict[tuple[str, str], int] = {}
    for c in record.get("cells", []):
        for reason in (c["missing"] if "missing" in c else {"all": c["skipped"]}).items():
            count[reason] = count.get(reason, 0) + 1
    return [[name, why, str(n)] for (name, why), n in count.items()]


def sections(record: dict[str, Any]) -> list[str]:
    out = [_head(record), "Predicted from instruction counts, aimed at, measured:", predictions(record)]
    if any("contenders" in c for c in record.get("cells", [])):
        out += ["Microseconds of a step (microseconds of host time):", _times(record)]
        out += ["\n".join(f"- {s.name}: {s.what}" for s in SCENES.values())]
    if record.get("population"):
        out += ["Many programs at once:", _population(record)]
    if record.get("reductions"):
        out += ["Rules with reductions:", _reductions(record)]
    if record.get("compiled"):
        out += ["PowerSign against torch.compile:", _compiled(record)]
    if missing := _missing(record):
        out += ["Missing:", tables.table(["contender", "why", "cells"], missing)]
    return out


def committed(results: Path = RESULTS) -> list[str]:
    """Paragraphs on every record in bench/results/<device>-<date>/; none without records."""
    out: list[str] = []
    for path in sorted(results.glob("*/results.json")):
        out += [f"### {path.parent.name}", *sections(load(path.parent))]
    return ["## CUDA", *out] if out else []


def main(argv: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else argv
    if len(arguments) != 1:
        print("usage: python -m bench.gpu.page FOLDER_OF_RESULTS", file=sys.stderr)
        return 2
    try:
        print("\n\n".join(sections(load(Path(arguments[0])))))
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
