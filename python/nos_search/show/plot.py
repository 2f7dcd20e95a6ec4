"""Owns the drawings of evaluate and train: stand-alone SVG files."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..escape import markup
from ..train.evaluate import Comparison
from .svg import ticks

_STYLE = (
    "<style>text{font:13px system-ui,sans-serif;fill:#1c2430}.tick{fill:#5b6675;font-size:11px}"
    ".title{font-weight:600}line.grid{stroke:#dde2e8}.bar{stroke:#2563a8;stroke-width:2}.dot{fill:#2563a8}"
    ".run{fill:#2563a8;opacity:.35}polyline{fill:none;stroke:#2563a8;stroke-width:2}rect.page{fill:#fff}</style>"
)
_ROW, _LABEL, _WIDE, _RIGHT = 24, 300, 520, 90


def _page(width: int, height: int, label: str, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{markup(label)}">{_STYLE}<rect class="page" width="{width}" height="{height}"/>'
        + "".join(parts)
        + "</svg>\n"
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    """The part of [0, 1] that shows all values, with a margin."""
    low, high = min(values), max(values)
    margin = max(0.01, 0.08 * (high - low))
    return max(0.0, low - margin), min(1.0, high + margin)


def _between(low: float, high: float) -> list[float]:
    """About five round numbers from low to high."""
    step = ticks(high - low, 5)[1]
    return [k * step for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def comparison(results: Sequence[Comparison]) -> str:
    """Test accuracies, one panel per task, one row per rule: mean, 95 % t interval, and each run as a faint dot."""
    parts, top = [], 10
    for task in dict.fromkeys(result.task for result in results):
        rows = sorted((r for r in results if r.task == task), key=lambda r: -r.test_mean)
        ends = [r.test_mean + side * (r.test_ci or 0.0) for r in rows for side in (-1, 1)]
        low, high = _range([min(1.0, max(0.0, end)) for end in ends] + [test for r in rows for test in r.tests])

        def x(value: float, low: float = low, high: float = high) -> float:
            return _LABEL + _WIDE * (min(high, max(low, value)) - low) / (high - low)

        bottom = top + 30 + _ROW * len(rows)
        title = f"{task}: test accuracy, mean and 95 % t interval, {rows[0].seeds} seed(s)"
        parts.append(f'<text class="title" x="{_LABEL}" y="{top + 16}">{markup(title)}</text>')
        for tick in _between(low, high):
            at = x(tick)
            parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{top + 26}" y2="{bottom}"/>')
            parts.append(f'<text class="tick" x="{at:.1f}" y="{bottom + 14}" text-anchor="middle">{tick:.3g}</text>')
        for k, row in enumerate(rows):
            y = top + 30 + _ROW * k + _ROW / 2
            name = row.rule if len(row.rule) <= 40 else row.rule[:39] + "…"
            parts.append(f'<text x="{_LABEL - 12}" y="{y + 4}" text-anchor="end">{markup(name)}</text>')
            parts += [f'<circle class="run" cx="{x(test):.1f}" cy="{y}" r="2.5"/>' for test in row.tests]
            half = row.test_ci or 0.0
            ends_at = f'x1="{x(row.test_mean - half):.1f}" x2="{x(row.test_mean + half):.1f}"'
            parts.append(f'<line class="bar" {ends_at} y1="{y}" y2="{y}"/>')
            parts.append(f'<circle class="dot" cx="{x(row.test_mean):.1f}" cy="{y}" r="4.5"/>')
            parts.append(f'<text class="tick" x="{_LABEL + _WIDE + 12}" y="{y + 4}">{row.test_mean:.4f}</text>')
        top = bottom + 34
    return _page(_LABEL + _WIDE + _RIGHT, top, "Test accuracy of rules", parts)


def curve(title: str, steps: Sequence[int], accuracy: Sequence[float]) -> str:
    """Validation accuracy over the steps of one training, from 0 to 1."""
    width, height, left, top = 640, 360, 56, 40
    wide, high, last = width - left - 20, height - top - 44, max(1, steps[-1] if steps else 1)
    parts = [f'<text class="title" x="{left}" y="22">{markup(title)}</text>']
    for tick in ticks(1.0, 5):
        y = top + high * (1 - tick)
        parts.append(f'<line class="grid" x1="{left}" x2="{left + wide}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:.1f}</text>')
    for tick in ticks(float(last)):
        at = left + wide * tick / last
        parts.append(f'<text class="tick" x="{at:.1f}" y="{top + high + 18}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<text class="tick" x="{left + wide / 2}" y="{height - 8}" text-anchor="middle">step</text>')
    points = [
        (left + wide * step / last, top + high * (1 - value))
        for step, value in zip(steps, accuracy, strict=True)
        if math.isfinite(value)
    ]
    parts.append(f'<polyline points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in points)}"/>')
    parts += [f'<circle class="dot" cx="{a:.1f}" cy="{b:.1f}" r="3"/>' for a, b in points]
    return _page(width, height, title, parts)
