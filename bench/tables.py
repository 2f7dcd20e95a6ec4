"""Owns the tables of docs/performance.md, one function each: record -> Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from . import record as rec
from .peers import CONTENDERS, ENGINE, LIMIT
from .record import Cell
from .rules import RULES
from .sizes import SIZES

NOISY: Final = "~"
HEADLINE_RULES: Final = ("adamw", "powersign")
HEADLINE_SIZES: Final = ("convnet", "1e6", "resnet50")
HEADLINE_PEERS: Final = {
    "eager": "eager",
    "foreach": "_foreach",
    "torch.optim, fused": "optim fused",
    "torch.compile": "torch.compile",
}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def us(value: float) -> str:
    """Microseconds with three significant digits."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def times(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}x" if value >= 20 else f"{value:.2f}x"


def percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"


def _ordered(found: set[str], known: Sequence[str]) -> list[str]:
    return [name for name in known if name in found]


def grid(record: dict[str, Any], text: Callable[[Cell], str]) -> str:
    """Rules by sizes; noisy cells are marked."""
    cells = {(c["rule"], c["size"]): c for c in rec.cells(record)}
    rules = _ordered({rule for rule, _ in cells}, list(RULES))
    sizes = _ordered({size for _, size in cells}, list(SIZES))
    rows = []
    for rule in rules:
        row = [rule]
        for size in sizes:
            cell = cells.get((rule, size))
            row.append("" if cell is None else text(cell) + (NOISY if cell["noisy"] else ""))
        rows.append(row)
    return table(["rule", *sizes], rows)


def against_peers(record: dict[str, Any]) -> str:
    def text(cell: Cell) -> str:
        peer = rec.best_peer(cell)
        return "" if peer is None else f"**{times(rec.speed_up(cell, peer))}** {peer}"

    return grid(record, text)


def against_limit(record: dict[str, Any]) -> str:
    return grid(record, lambda cell: f"**{percent(rec.of_limit(cell))}** ({percent(_native_of_limit(cell))})")


def _native_of_limit(cell: Cell) -> float | None:
    return rec.of_limit(cell, rec.best_native(cell))


def bandwidths(record: dict[str, Any]) -> str:
    return grid(record, lambda cell: "" if (gb := rec.bandwidth(cell)) is None else f"{gb:.0f}")


def behind(record: dict[str, Any]) -> str:
    """The cells in which a peer is faster."""
    rows = []
    for cell in rec.cells(record):
        peer = rec.best_peer(cell)
        value = rec.speed_up(cell, peer)
        if peer is not None and value is not None and value < 1:
            row = cell["contenders"][peer]
            spread = f"{times(row['ratio_q1'])} to {times(row['ratio_q3'])}"
            rows.append([cell["rule"], cell["size"], peer, times(value), spread, percent(rec.of_limit(cell))])
    head = ["rule", "size", "best peer", "its time / ours", "middle half", "of the limit"]
    return table(head, rows) if rows else "None."


def score(record: dict[str, Any]) -> str:
    values = [v for c in rec.cells(record) if (v := rec.speed_up(c, rec.best_peer(c))) is not None]
    ahead, level = sum(v >= 1 for v in values), sum(0.95 <= v < 1 for v in values)
    return (
        f"Of {len(values)} cells the engine is ahead of the best peer in {ahead}, within 5 % of it in {level}, "
        f"and behind in {len(values) - ahead - level}."
    )


def headline(record: dict[str, Any]) -> str:
    """A few rules and sizes that everybody knows, against each way that torch has."""
    cells = {(c["rule"], c["size"]): c for c in rec.cells(record)}
    found = [
        (rule, size, cells[rule, size]) for rule in HEADLINE_RULES for size in HEADLINE_SIZES if (rule, size) in cells
    ]
    rows = []
    for rule, size, cell in found:
        by = cell["contenders"]
        mark = NOISY if cell["noisy"] else ""
        peers = (times(rec.speed_up(cell, name)) + mark if name in by else "" for name in HEADLINE_PEERS.values())
        rows.append([f"{rule}, {SIZES[size].what}", *peers])
    return table(["its time / ours", *HEADLINE_PEERS], rows)


def all_times(record: dict[str, Any]) -> str:
    found = {name for cell in rec.cells(record) for name in cell["contenders"]}
    names = [name for name in _ordered(found, list(CONTENDERS)) if name not in (LIMIT, ENGINE)]
    rows = []
    for cell in rec.cells(record):
        by = cell["contenders"]
        own, limit = by[ENGINE], by.get(LIMIT)
        mark = NOISY if cell["noisy"] else ""
        row = [cell["rule"], cell["size"], us(limit["us"]) if limit else ""]
        row.append(f"**{us(own['us'])}** ({us(own['us_q1'])}-{us(own['us_q3'])}){mark}")
        row += [f"{us(by[n]['us'])} ({times(by[n]['ratio'])})" if n in by else "" for n in names]
        rows.append(row)
    return table(["rule", "size", LIMIT, ENGINE, *names], rows)


def contenders(record: dict[str, Any], suite: str, label: Callable[[Cell], str], head: str) -> str:
    """Any suite: one row per cell, one column per contender, with the ratio to the first."""
    found: dict[str, None] = {}
    for cell in rec.cells(record, suite):
        found |= dict.fromkeys(cell["contenders"])
    rows = []
    for cell in rec.cells(record, suite):
        row = [label(cell) + (f" {NOISY}" if cell["noisy"] else "")]
        for name in found:
            value = cell["contenders"].get(name)
            row.append("" if value is None else us(value["us"]) + _ratio(value))
        rows.append(row)
    return table([head, *found], rows)


def _ratio(row: dict[str, Any]) -> str:
    return f" ({times(row['ratio'])})" if row.get("ratio", 1.0) != 1.0 else ""


def population(record: dict[str, Any]) -> str:
    """Candidate-steps per second beside the times."""
    rows = []
    for cell in rec.cells(record, "population"):
        for name, row in cell["contenders"].items():
            rate = cell["candidates"] / row["us"] * 1e6
            mark = NOISY if cell["noisy"] else ""
            rows.append(
                [
                    f"{cell['candidates']} x {cell['scene']}",
                    name,
                    us(row["us"]) + mark,
                    f"{rate:,.0f}",
                    times(row["ratio"]),
                ]
            )
    return table(["candidates", "by", "us per step of all", "candidate-steps per second", "time / engine's"], rows)


def compile_times(record: dict[str, Any]) -> str:
    rows = []
    for cell in rec.cells(record):
        seconds = cell["contenders"].get("torch.compile", {}).get("build_seconds")
        if seconds is not None:
            rows.append((cell["size"], seconds))
    out = []
    for size in _ordered({size for size, _ in rows}, list(SIZES)):
        found = sorted(seconds for name, seconds in rows if name == size)
        out.append(
            [SIZES[size].what, str(len(found)), f"{found[0]:.1f}", f"{found[len(found) // 2]:.1f}", f"{found[-1]:.1f}"]
        )
    return table(["torch.compile of a step on", "rules", "fastest, s", "median, s", "slowest, s"], out)


def states(record: dict[str, Any]) -> str:
    """Bytes of states per parameter beside the times."""
    rows = []
    for cell in _states(record, on_the_host=False):
        mark = f" {NOISY}" if cell["noisy"] else ""
        for name, row in cell["contenders"].items():
            kept = f"{cell['state_bytes'][name]:.2f}"
            rows.append([name, kept, f"{row['us'] / 1e3:.1f}{mark}", times(row["ratio"])])
        rows += [[name, "", why, ""] for name, why in cell["absent"].items()]
    return table(["states", "bytes per parameter", "ms per step", "time / float32's"], rows)


def host_steps(record: dict[str, Any]) -> str:
    rows = []
    for cell in _states(record, on_the_host=True):
        mark = f" {NOISY}" if cell["noisy"] else ""
        for name, row in cell["contenders"].items():
            rows.append([str(cell["threads"]), name, f"{row['us'] / 1e3:.1f}{mark}", times(row["ratio"])])
    return table(["threads", "AdamW", "ms per step", "time / torch's"], rows)


def _states(record: dict[str, Any], *, on_the_host: bool) -> Iterator[dict[str, Any]]:
    return (cell for cell in rec.cells(record, "states") if ("threads" in cell) == on_the_host)


def memory(record: dict[str, Any]) -> str:
    rows = []
    for row in record.get("memory", []):
        if "skipped" in row:
            rows.append([row["rule"], row["contender"], row["skipped"], ""])
        else:
            rows.append([row["rule"], row["contender"], f"{row['growth'] / 1e6:.1f}", f"{row['peak'] / 1e6:.1f}"])
    return table(["rule", "by", "growth, MB", "peak, MB"], rows)


def missing(record: dict[str, Any]) -> str:
    """Why a contender is absent, each reason once."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for cell in rec.cells(record):
        for name, why in cell["missing"].items():
            reasons.setdefault((name, why), []).append(f"{cell['rule']} {cell['size']}")
    rows = [[name, why, str(len(where))] for (name, why), where in sorted(reasons.items())]
    rows += [["all", row["skipped"], row["size"]] for row in record.get("update", []) if "skipped" in row]
    return table(["contender", "why it is missing", "cells"], rows)
