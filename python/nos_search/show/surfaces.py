"""Owns the figure of rules on the analytic surfaces. Its upper panels, one for each surface, have the losses of all
rules over the steps. Its lower panels show the paths over the two-dimensional surfaces. There each rule has a row of
panels, so that none hides another.

Each rule is shown at the learning rate that brings it furthest on that surface, and the rate stands beside its curve.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ..gate import surface
from ..gate.screen import LEARNING_RATES
from ..space.group import Array
from .figure import SERIES, Drawing, colour, series, whole_steps, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FRAMES: Final = {  # (x range, y range) of the two-dimensional surfaces
    "rosenbrock": ((-1.8, 1.8), (-0.8, 2.2)),
    "beale": ((-0.5, 4.0), (-1.0, 2.0)),
    "saddle": ((0.6, 3.4), (-2.0, 2.0)),
    "plateau": ((1.5, 6.5), (0.5, 4.5)),
}
_WIDTH: Final = 12.0  # inches, as are all sizes here
_LEFT: Final = 0.85
_COLUMNS: Final = 3  # of losses
_LOSS: Final = (2.6, 2.1)  # width and height of a panel
_PATH: Final = (2.3, 1.95)
_GAP: Final = 0.75  # below a panel: its ticks, and the title of the next one
_LEGEND: Final = 0.28  # a line of the legend
_IN_LEGEND: Final = 3  # rules in a line of the legend
_DECADES: Final = 6  # shown of the loss: one above the start, five below
_REACH: Final = 6  # steps to either side that a smooth curve takes its mean over
_CELLS: Final = 41
_SUPERSCRIPT: Final = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Paths:
    """Paths are what n rules did. `positions` has the shape (steps + 1, n, rates, DIMENSION), and `rates` of the shape
    (n, surfaces) has the index of the best rate."""

    labels: Sequence[str]
    positions: Array
    rates: Array
    learning_rates: Sequence[float] = LEARNING_RATES

    def path(self, rule: int, index: int) -> Array:
        """Returns the positions, (steps + 1, dimension), of one rule on one surface at its best rate."""
        return np.asarray(self.positions[:, rule, self.rates[rule, index], surface.blocks()[index][1]])

    def loss(self, rule: int, index: int) -> Array:
        """Returns the losses, (steps + 1,)."""
        shown = surface.blocks()[index][0]
        with np.errstate(all="ignore"):
            return np.asarray(shown.value(self.path(rule, index).astype(np.float64)))

    def rate(self, rule: int, index: int) -> float:
        """Returns the best rate of one rule on one surface."""
        return float(self.learning_rates[self.rates[rule, index]])


def figure_of(paths: Paths) -> Drawing:
    """Draws rules on the analytic surfaces."""
    rules = range(len(paths.labels))
    flat = [k for k, shown in enumerate(surface.SURFACES) if shown.name in _FRAMES]
    legend = 0.45 + _LEGEND * math.ceil(len(rules) / _IN_LEGEND)
    rows = math.ceil(len(surface.SURFACES) / _COLUMNS)
    losses = legend + 0.3 + rows * (_LOSS[1] + _GAP)
    marks = losses + 0.25
    height = marks + 0.45 + len(rules) * (_PATH[1] + _GAP)

    def place(figure: Figure, left: float, top: float, size: tuple[float, float]) -> Axes:
        return figure.add_axes((left / _WIDTH, 1 - (top + size[1]) / height, size[0] / _WIDTH, size[1] / height))

    def paint(figure: Figure) -> None:
        for index in range(len(surface.SURFACES)):
            row, column = divmod(index, _COLUMNS)
            at = _LEFT + column * (_WIDTH - _LEFT) / _COLUMNS, legend + 0.3 + row * (_LOSS[1] + _GAP)
            _losses(place(figure, *at, _LOSS), paths, index, lowest=row == rows - 1, first=column == 0)
        for rule in rules:
            for column, index in enumerate(flat):
                left = _LEFT + column * (_WIDTH - _LEFT) / len(flat)
                axes = place(figure, left, marks + 0.45 + rule * (_PATH[1] + _GAP), _PATH)
                _over(axes, paths, rule, index, lowest=rule == len(rules) - 1)
                if column == 0:
                    name = "\n".join(textwrap.wrap(words(paths.labels[rule], 66), 24))
                    axes.set_ylabel(f"{name}\n\ny", color=series(rule), fontsize=9)
        _legends(figure, paths, top=1 - 0.45 / height, marks=1 - (losses - 0.16) / height)
        steps = len(paths.positions) - 1
        figure.text(
            0.05 / _WIDTH, 1 - 0.28 / height, f"Loss over {steps} steps, each rule at its best learning rate",
            fontsize=12, weight="bold",
        )  # fmt: skip
        figure.text(
            0.45, 1 - 0.28 / height, f"pale: every step; bold: mean of the logarithms over {2 * _REACH} steps",
            color=colour("soft"),
        )  # fmt: skip
        figure.text(0.05 / _WIDTH, 1 - (losses + 0.02) / height, "Paths, one row per rule", fontsize=12, weight="bold")

    return Drawing("Rules on analytic surfaces: loss over steps, and paths", (_WIDTH, height), paint)


def _look(rule: int) -> dict[str, Any]:
    """Returns how the lines of a rule are drawn. After ten rules the colours come again, dashed."""
    return {"color": series(rule), "linestyle": "-" if rule < SERIES else (0, (4, 1.5))}


def _legends(figure: Figure, paths: Paths, *, top: float, marks: float) -> None:
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], linewidth=2.2, **_look(rule)) for rule in range(len(paths.labels))]
    common: dict[str, Any] = {"loc": "upper left", "borderaxespad": 0.0, "borderpad": 0.1}
    names = [words(label, 40) for label in paths.labels]
    rules = figure.legend(lines, names, bbox_to_anchor=(0.07, top), ncols=_IN_LEGEND, **common)
    figure.add_artist(rules)
    shapes = [Line2D([], [], linestyle="none", color=colour("ink"), **look) for look in (_START, _END, _MINIMUM)]
    figure.legend(shapes, ["start", "end", "minimum"], bbox_to_anchor=(0.25, marks), ncols=3, **common)


_START: Final[dict[str, Any]] = {"marker": "o", "markersize": 7, "markerfacecolor": "none", "markeredgewidth": 1.6}
_END: Final[dict[str, Any]] = {"marker": "o", "markersize": 5}
_MINIMUM: Final[dict[str, Any]] = {"marker": "*", "markersize": 11, "markeredgewidth": 0.6}


# --- losses ----------------------------------------------------------------------------------------------------------


def _losses(axes: Axes, paths: Paths, index: int, *, lowest: bool, first: bool) -> None:
    """Draws the losses over the steps. What jumps up and down is pale, and the mean of its logarithms over some
    steps is drawn through it, so that no rule hides the others."""
    curves = [paths.loss(rule, index) for rule in range(len(paths.labels))]
    start = float(curves[0][0])
    low, high = 10.0 * start / 10.0**_DECADES, 10.0 * start
    ends = []
    for rule, curve in enumerate(curves):
        shown = np.clip(np.where(np.isfinite(curve), curve, 10 * high), low / 10, 10 * high)
        smooth = _smooth(shown)
        axes.plot(shown, linewidth=0.8, alpha=0.3, gid="raw", **_look(rule))
        axes.plot(smooth, linewidth=1.9, gid="loss", **_look(rule))
        ends.append(float(np.clip(smooth[-1], low, high)))
    axes.set(yscale="log", xlim=(0, len(curves[0]) - 1), ylim=(low, high))
    axes.set_yticks([10.0**k for k in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)])
    axes.yaxis.set_major_formatter(lambda value, _: f"10{str(round(math.log10(value))).translate(_SUPERSCRIPT)}")
    axes.tick_params(axis="y", which="minor", length=0)
    axes.set_title(surface.SURFACES[index].name)
    whole_steps(axes, most=5)
    if lowest:
        axes.set_xlabel("step")
    if first:
        axes.set_ylabel("loss above the minimum")
    heights = _spread([math.log(end / low) / math.log(high / low) for end in ends], gap=0.075)
    for rule, height in enumerate(heights):
        axes.annotate(
            f"lr {paths.rate(rule, index):g}", (1.0, height), xycoords="axes fraction", xytext=(5, 0),
            textcoords="offset points", va="center", fontsize=8.5, color=series(rule), annotation_clip=False,
        )  # fmt: skip


def _smooth(curve: Array, reach: int = _REACH) -> Array:
    """Returns the geometric mean over the steps within `reach`. The outermost two count half, so that a curve that
    jumps up and down at every step becomes smooth."""
    weights = np.ones(2 * reach + 1)
    weights[[0, -1]] = 0.5
    total = np.convolve(np.ones(len(curve)), weights)[reach:-reach]
    return np.asarray(np.exp(np.convolve(np.log(curve), weights)[reach:-reach] / total))


def _spread(heights: Sequence[float], gap: float) -> list[float]:
    """Moves the heights of labels, in [0, 1], as little as needed for each to be `gap` away from the next."""
    order = sorted(range(len(heights)), key=lambda k: heights[k])
    gap = min(gap, 1 / max(1, len(order) - 1))
    placed = [0.0] * len(heights)
    below = -gap
    for k in order:
        below = placed[k] = max(heights[k], below + gap)
    above = 1.0 + gap
    for k in reversed(order):
        above = placed[k] = min(placed[k], above - gap)
    return placed


# --- paths -----------------------------------------------------------------------------------------------------------


def _over(axes: Axes, paths: Paths, rule: int, index: int, *, lowest: bool) -> None:
    """Draws the path of one rule over one surface, on terrain that is dark where the loss is low."""
    shown = surface.SURFACES[index]
    x_range, y_range = _FRAMES[shown.name]
    _terrain(axes, shown, x_range, y_range)
    points = paths.path(rule, index)
    points = points[np.isfinite(points).all(axis=1)].astype(float)
    # far outside of the frame a coordinate means nothing to the reader, and much to the size of a file
    points = np.clip(points, (x_range[0] - 5, y_range[0] - 5), (x_range[1] + 5, y_range[1] + 5))
    axes.plot(points[:, 0], points[:, 1], linewidth=1.1, gid="path", **_look(rule))
    marks: dict[str, Any] = {"linestyle": "none", "zorder": 4}
    axes.plot(*zip(*shown.minima, strict=True), color=colour("ink"), gid="minimum", **marks, **_MINIMUM)
    axes.plot(*points[0], color=series(rule), gid="start", **marks, **_START)
    axes.plot(*points[-1], color=series(rule), gid="end", **marks, **_END)
    axes.set(xlim=x_range, ylim=y_range)
    axes.locator_params(nbins=4)
    axes.grid(visible=False)
    axes.set_title(f"{shown.name}, lr {paths.rate(rule, index):g}", fontsize=9.5, weight="normal")
    if lowest:
        axes.set_xlabel("x")


def _terrain(axes: Axes, shown: surface.Surface, x_range: tuple[float, float], y_range: tuple[float, float]) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    xs, ys = np.linspace(*x_range, _CELLS), np.linspace(*y_range, _CELLS)
    grid = np.stack(np.meshgrid(xs, ys), axis=-1)
    level = np.log10(np.maximum(shown.value(grid), 1e-3))
    greys = LinearSegmentedColormap.from_list("terrain", ["#b9c6d8", "#f4f7fb"])
    axes.contourf(xs, ys, level, levels=8, cmap=greys)
