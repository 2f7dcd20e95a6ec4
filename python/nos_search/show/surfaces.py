"""Owns the figure of rules on the analytic surfaces: paths over the two-dimensional ones, loss over steps on all.

Plain SVG text that stands alone. Each rule is shown at the learning rate that brings it furthest on that surface.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..escape import markup
from ..gate import surface
from ..gate.screen import LEARNING_RATES
from ..space.group import Array
from .svg import ticks

COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#ff7f0e", "#9467bd", "#8c564b", "#e377c2", "#17becf")
_PANEL, _GAP, _LEFT, _TOP = 250, 56, 48, 30
_CELLS, _BANDS = 50, 12
_FRAMES = {  # (x range, y range) of the two-dimensional surfaces
    "rosenbrock": ((-1.8, 1.8), (-0.8, 2.2)),
    "beale": ((-0.5, 4.0), (-1.0, 2.0)),
    "saddle": ((0.6, 3.4), (-2.0, 2.0)),
    "plateau": ((1.5, 6.5), (0.5, 4.5)),
}


@dataclass(frozen=True)
class Paths:
    """What rules did. positions: (steps + 1, n, rates, DIMENSION); rates: (n, surfaces) index of the best rate."""

    labels: Sequence[str]
    positions: Array
    rates: Array
    learning_rates: Sequence[float] = LEARNING_RATES

    def path(self, rule: int, index: int) -> Array:
        """(steps + 1, dimension) of one rule on one surface at its best rate."""
        return np.asarray(self.positions[:, rule, self.rates[rule, index], surface.blocks()[index][1]])

    def loss(self, rule: int, index: int) -> Array:
        """(steps + 1,) loss above the floor."""
        shown = surface.blocks()[index][0]
        with np.errstate(all="ignore"):
            return np.asarray(shown.value(self.path(rule, index).astype(np.float64)) - shown.floor)


def draw(paths: Paths) -> str:
    """The figure as the text of an SVG file."""
    columns = len(surface.SURFACES)
    width = _LEFT + columns * (_PANEL + _GAP)
    legend = _TOP + 2 * (_PANEL + _GAP) + 10
    height = legend + 22 * len(paths.labels) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="12" role="img" aria-label="Rules on analytic surfaces">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for index, shown in enumerate(surface.SURFACES):
        left = _LEFT + index * (_PANEL + _GAP)
        parts.append(f'<text x="{left}" y="{_TOP - 10}" font-weight="bold">{markup(shown.name)}</text>')
        if shown.name in _FRAMES:
            parts += _path_panel(paths, index, left, _TOP)
        else:
            parts.append(f'<text x="{left}" y="{_TOP + 16}" fill="#555">{shown.dimension} dimensions:</text>')
            for k, line in enumerate(textwrap.wrap(shown.doc, 40)):
                parts.append(f'<text x="{left}" y="{_TOP + 34 + 16 * k}" fill="#555">{markup(line)}</text>')
        parts += _loss_panel(paths, index, left, _TOP + _PANEL + _GAP)
    for rule, label in enumerate(paths.labels):
        y = legend + 22 * rule + 14
        colour = COLOURS[rule % len(COLOURS)]
        rates = ", ".join(f"{paths.learning_rates[k]:g}" for k in paths.rates[rule])
        parts.append(
            f'<line x1="{_LEFT}" x2="{_LEFT + 28}" y1="{y - 4}" y2="{y - 4}" stroke="{colour}" stroke-width="3"/>'
        )
        parts.append(f'<text x="{_LEFT + 36}" y="{y}">{markup(label)}<tspan fill="#555">  lr {rates}</tspan></text>')
    return "\n".join([*parts, "</svg>\n"])


def _path_panel(paths: Paths, index: int, left: int, top: int) -> list[str]:
    shown, _ = surface.blocks()[index]
    (x0, x1), (y0, y1) = _FRAMES[shown.name]
    name = f"clip{index}"
    parts = [f'<clipPath id="{name}"><rect x="{left}" y="{top}" width="{_PANEL}" height="{_PANEL}"/></clipPath>']
    parts += _terrain(shown, (x0, x1), (y0, y1), left, top)
    for rule in range(len(paths.labels)):
        points = paths.path(rule, index)
        points = points[np.isfinite(points).all(axis=1)].astype(float)
        # far outside of the frame a coordinate means nothing to the reader, and much to an SVG file's size
        points = np.clip(points, (x0 - 5, y0 - 5), (x1 + 5, y1 + 5))
        line = " ".join(
            f"{left + _PANEL * (x - x0) / (x1 - x0):.1f},{top + _PANEL * (1 - (y - y0) / (y1 - y0)):.1f}"
            for x, y in points
        )
        colour = COLOURS[rule % len(COLOURS)]
        parts.append(
            f'<polyline clip-path="url(#{name})" points="{line}" fill="none" stroke="{colour}" stroke-width="1.6"/>'
        )
    for value, x in ((x0, left), (x1, left + _PANEL)):
        parts.append(f'<text x="{x}" y="{top + _PANEL + 15}" text-anchor="middle" fill="#555">{value:g}</text>')
    for value, y in ((y0, top + _PANEL), (y1, top + 8)):
        parts.append(f'<text x="{left - 5}" y="{y}" text-anchor="end" fill="#555">{value:g}</text>')
    return parts


def _terrain(
    shown: surface.Surface, x_range: tuple[float, float], y_range: tuple[float, float], left: int, top: int
) -> list[str]:
    """Bands of equal log-loss, dark where it is low; cells of one band that touch in a row are one rectangle."""
    side = _PANEL / _CELLS
    xs = np.linspace(*x_range, _CELLS, endpoint=False) + (x_range[1] - x_range[0]) / (2 * _CELLS)
    ys = np.linspace(y_range[1], y_range[0], _CELLS, endpoint=False) - (y_range[1] - y_range[0]) / (2 * _CELLS)
    grid = np.stack(np.meshgrid(xs, ys), axis=-1)
    level = np.log10(np.maximum(shown.value(grid) - shown.floor, 1e-3))
    band = np.clip(((level - level.min()) / np.ptp(level) * _BANDS).astype(int), 0, _BANDS - 1)
    parts = []
    for row in range(_CELLS):
        edges = [0, *(np.flatnonzero(np.diff(band[row])) + 1).tolist(), _CELLS]
        for start, end in itertools.pairwise(edges):
            grey = int(200 + 50 * band[row, start] / (_BANDS - 1))
            parts.append(
                f'<rect x="{left + start * side:g}" y="{top + row * side:g}" width="{(end - start) * side + 0.3:g}" '
                f'height="{side + 0.3:g}" fill="rgb({grey - 20},{grey - 8},{grey})"/>'
            )
    return parts


def _loss_panel(paths: Paths, index: int, left: int, top: int) -> list[str]:
    """Loss over steps, its logarithm upwards."""
    curves = [paths.loss(rule, index) for rule in range(len(paths.labels))]
    start = float(curves[0][0])
    high, low = np.log10(start) + 1, np.log10(start) - 5
    steps = len(curves[0]) - 1
    parts = [f'<rect x="{left}" y="{top}" width="{_PANEL}" height="{_PANEL}" fill="none" stroke="#999"/>']
    for power in range(int(np.ceil(low)), int(np.floor(high)) + 1, 2):
        y = top + _PANEL * (high - power) / (high - low)
        parts.append(f'<line x1="{left}" x2="{left + _PANEL}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 5}" y="{y + 4:.1f}" text-anchor="end" fill="#555">1e{power}</text>')
    for tick in ticks(float(steps), 4):
        x = left + _PANEL * tick / steps
        parts.append(f'<text x="{x:.1f}" y="{top + _PANEL + 15}" text-anchor="middle" fill="#555">{tick:g}</text>')
    for rule, curve in enumerate(curves):
        height = np.log10(np.maximum(np.where(np.isfinite(curve), curve, 1e30), 1e-30))
        y = top + _PANEL * (high - np.clip(height, low, high)) / (high - low)
        points = " ".join(f"{left + _PANEL * k / steps:.1f},{v:.1f}" for k, v in enumerate(y))
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{COLOURS[rule % len(COLOURS)]}" stroke-width="1.4"/>'
        )
    return parts
