"""Owns the figure of docs/performance.md: per rule, part of the limit against the size of one tensor, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, Final

from . import record as rec
from .peers import ENGINE
from .record import Cell
from .rules import RULES

SIZES: Final = ("1e4", "1e5", "1e6", "1e7", "1e8")
COLUMNS: Final = 4
WIDTH, HEIGHT, GAP, TOP, LEFT = 200, 120, 34, 56, 44
TALLEST: Final = 1.2  # of the limit; noise reaches a little over 1
SERIES: Final = (
    ("nos_ext", "#d1495b", lambda cell: rec.of_limit(cell, ENGINE)),
    ("hand-fused C++", "#3d7ea6", lambda cell: rec.of_limit(cell, rec.best_native(cell))),
    ("best peer", "#8a8a8a", lambda cell: rec.of_limit(cell, rec.best_peer(cell))),
)


def _x(i: int) -> float:
    return i * WIDTH / (len(SIZES) - 1)


def _y(value: float) -> float:
    return HEIGHT * (1 - min(value, TALLEST) / TALLEST)


def _curve(cells: Sequence[Cell | None], pick: Any, colour: str) -> str:
    points = [(_x(i), _y(v)) for i, cell in enumerate(cells) if cell is not None and (v := pick(cell)) is not None]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in points)
    return f'<g fill="{colour}"><polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>{dots}</g>'


def _panel(rule: str, cells: Sequence[Cell | None], x: float, y: float, labels: bool) -> str:
    parts = [f'<g transform="translate({x:.0f},{y:.0f})">', f'<text y="-7" font-weight="bold">{escape(rule)}</text>']
    for value in (0.0, 0.5, 1.0):
        dash = "" if value == 1 else ' stroke-dasharray="2 3"'
        parts.append(f'<line x2="{WIDTH}" y1="{_y(value):.1f}" y2="{_y(value):.1f}" stroke="#bbb"{dash}/>')
        if labels:
            parts.append(f'<text x="-6" y="{_y(value) + 4:.1f}" text-anchor="end">{100 * value:.0f} %</text>')
    for i, size in enumerate(SIZES):
        parts.append(f'<text x="{_x(i):.1f}" y="{HEIGHT + 15}" text-anchor="middle">{size}</text>')
    parts += [_curve(cells, pick, colour) for _, colour, pick in reversed(SERIES)]
    return "".join(parts) + "</g>"


def svg(record: dict[str, Any]) -> str | None:
    """The figure; None when no rule was measured on a single tensor."""
    cells = {(c["rule"], c["size"]): c for c in rec.cells(record)}
    rules = [rule for rule in RULES if any((rule, size) in cells for size in SIZES)]
    if not rules:
        return None
    rows = -(-len(rules) // COLUMNS)
    width = LEFT + COLUMNS * (WIDTH + GAP)
    height = TOP + rows * (HEIGHT + GAP + 16)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="11" fill="#333">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{LEFT}" y="18" font-size="13">Part of the memory limit, against the elements of one tensor</text>',
    ]
    for i, (name, colour, _) in enumerate(SERIES):
        x = LEFT + 470 + 130 * i
        parts.append(
            f'<rect x="{x}" y="9" width="16" height="4" fill="{colour}"/><text x="{x + 22}" y="16">{name}</text>'
        )
    for i, rule in enumerate(rules):
        x, y = LEFT + i % COLUMNS * (WIDTH + GAP), TOP + i // COLUMNS * (HEIGHT + GAP + 16)
        parts.append(_panel(rule, [cells.get((rule, size)) for size in SIZES], x, y, labels=i % COLUMNS == 0))
    return "\n".join([*parts, "</svg>\n"])
