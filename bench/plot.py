"""Owns the figure of docs/performance.md: per rule, part of the limit against the size of one tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from nos_search.show.figure import Drawing, colour

from . import record as rec
from .peers import ENGINE
from .record import Cell
from .rules import RULES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZES: Final = ("1e4", "1e5", "1e6", "1e7", "1e8")
COLUMNS: Final = 4
TALLEST: Final = 1.2  # of the limit; noise reaches a little over 1
_WIDE, _HIGH, _HEAD, _LEFT = 2.75, 2.1, 0.6, 0.75  # inches: a panel with its margins, above all panels, left of them
_Pick = Callable[[Cell], float | None]
SERIES: Final[tuple[tuple[str, _Pick, dict[str, Any]], ...]] = (
    ("nos_ext", lambda cell: rec.of_limit(cell, ENGINE), {"color": colour("s4"), "marker": "o", "zorder": 4}),
    (
        "hand-fused C++",
        lambda cell: rec.of_limit(cell, rec.best_native(cell)),
        {"color": colour("s0"), "marker": "s", "linestyle": (0, (5, 2)), "zorder": 3},
    ),
    (
        "best peer",
        lambda cell: rec.of_limit(cell, rec.best_peer(cell)),
        {"color": colour("s9"), "marker": "^", "linestyle": (0, (1.5, 1.5)), "zorder": 3},
    ),
)


def figure_of(record: dict[str, Any]) -> Drawing | None:
    """Returns the figure, and None when no rule was measured on a single tensor."""
    cells = {(c["rule"], c["size"]): c for c in rec.cells(record)}
    rules = [rule for rule in RULES if any((rule, size) in cells for size in SIZES)]
    if not rules:
        return None
    rows = -(-len(rules) // COLUMNS)
    width, height = _LEFT + COLUMNS * _WIDE, _HEAD + rows * _HIGH + 0.35

    def paint(figure: Figure) -> None:
        for i, rule in enumerate(rules):
            row, column = divmod(i, COLUMNS)
            left, bottom = _LEFT + column * _WIDE, height - _HEAD - (row + 1) * _HIGH + 0.35
            axes = figure.add_axes((left / width, bottom / height, (_WIDE - 0.35) / width, (_HIGH - 0.75) / height))
            _panel(axes, {size: cells[rule, size] for size in SIZES if (rule, size) in cells})
            axes.set_title(rule)
            axes.tick_params(axis="y", labelleft=column == 0)
            if column == 0:
                axes.set_ylabel("part of the limit")
            if i + COLUMNS >= len(rules):
                axes.set_xlabel("elements of the tensor")
        figure.text(
            _LEFT / width, 1 - 0.3 / height, "Speed as a part of the memory limit, by the size of one tensor",
            fontsize=12, weight="bold",
        )  # fmt: skip
        handles, names = figure.axes[0].get_legend_handles_labels()
        figure.legend(
            handles, names, loc="upper left", bbox_to_anchor=(_LEFT / width, 1 - 0.4 / height), ncols=len(SERIES),
            borderaxespad=0.0,
        )  # fmt: skip

    return Drawing("Part of the memory limit, against the elements of one tensor", (width, height), paint)


def _panel(axes: Axes, cells: dict[str, Cell]) -> None:
    axes.axhline(1.0, color=colour("soft"), linewidth=1.0)
    for name, pick, look in SERIES:
        values = [pick(cells[size]) if size in cells else None for size in SIZES]
        shown = [float("nan") if value is None else min(value, TALLEST) for value in values]
        axes.plot(range(len(SIZES)), shown, markersize=4, linewidth=1.8, label=name, gid=name, **look)
    axes.set(xlim=(-0.2, len(SIZES) - 0.8), ylim=(0, TALLEST))
    axes.set_xticks(range(len(SIZES)), SIZES)
    axes.set_yticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
