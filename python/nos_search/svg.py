"""Owns the report's drawings: plain SVG text that takes its colours from the page's CSS classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT = 860, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 14, 38


def ticks(high: float, count: int = 6) -> list[float]:
    """Round numbers from 0 to at most `high`, about `count` of them."""
    raw = max(high, 1e-9) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= raw)
    return [k * step for k in range(int(high / step + 1e-9) + 1)]


def rewards(
    points: Sequence[tuple[int, float, str, str]], best: Sequence[float], mean: Sequence[tuple[int, float]]
) -> str:
    """Rewards over trials. points: (trial from 0, reward, css class, title);

    best: running best per trial; mean: (trial, mean).
    """
    last = max(1, len(best) - 1)
    wide, high = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM

    def x(trial: float) -> float:
        return _LEFT + wide * trial / last

    def y(reward: float) -> float:
        return _TOP + high * (1 - reward)

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Reward of every trial, running best and mean">'
    ]
    for tick in ticks(1.0, 5):
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.1f}</text>')
    for tick in ticks(float(last)):
        if tick == int(tick):
            parts.append(f'<text class="tick" x="{x(tick):.1f}" y="{HEIGHT - 20}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<text class="tick" x="{_LEFT + wide / 2}" y="{HEIGHT - 4}" text-anchor="middle">trial</text>')
    for trial, reward, kind, title in points:
        at = f'cx="{x(trial):.1f}" cy="{y(reward):.1f}"'
        parts.append(f'<circle class="{kind}" {at} r="2.6"><title>{escape(title)}</title></circle>')
    if mean:
        line = " ".join(f"{x(trial):.1f},{y(value):.1f}" for trial, value in mean)
        parts.append(f'<polyline class="mean" points="{line}"/>')
    steps = [f"{x(0):.1f},{y(best[0]):.1f}"] if best else []
    for trial in range(1, len(best)):
        steps += [f"{x(trial):.1f},{y(best[trial - 1]):.1f}", f"{x(trial):.1f},{y(best[trial]):.1f}"]
    parts.append(f'<polyline class="best" points="{" ".join(steps)}"/></svg>')
    return "".join(parts)


def funnel(stages: Sequence[tuple[str, int, str]]) -> str:
    """Horizontal bars: (label, count, note), widths to the first count."""
    row, label, total = 34, 190, max(1, stages[0][1] if stages else 1)
    wide = WIDTH - label - 250
    parts = [f'<svg viewBox="0 0 {WIDTH} {row * len(stages)}" role="img" aria-label="Trials that passed each gate">']
    for k, (name, count, note) in enumerate(stages):
        top, bar = k * row, max(1.0, wide * count / total)
        parts.append(f'<text class="label" x="{label - 12}" y="{top + 21}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect class="bar" x="{label}" y="{top + 6}" width="{bar:.1f}" height="{row - 12}" rx="3"/>')
        parts.append(f'<text class="count" x="{label + bar + 8:.1f}" y="{top + 21}">{count}</text>')
        parts.append(f'<text class="tick" x="{WIDTH}" y="{top + 21}" text-anchor="end">{escape(note)}</text>')
    return "".join(parts) + "</svg>"


def spark(values: Sequence[float]) -> str:
    """A small curve of accuracies in [0, 1]."""
    if len(values) < 2:
        return ""
    points = " ".join(f"{2 + 66 * k / (len(values) - 1):.1f},{2 + 18 * (1 - v):.1f}" for k, v in enumerate(values))
    return f'<svg class="spark" viewBox="0 0 70 22" aria-hidden="true"><polyline class="best" points="{points}"/></svg>'
