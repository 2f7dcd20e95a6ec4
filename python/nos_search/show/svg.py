"""Owns the report's drawings: plain SVG text that takes its colours from the page's CSS classes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..escape import markup

WIDTH, HEIGHT = 860, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 14, 38


def ticks(high: float, count: int = 6) -> list[float]:
    """Round numbers from 0 to at most `high`, about `count` of them."""
    raw = max(high, 1e-9) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= raw)
    return [k * step for k in range(int(high / step + 1e-9) + 1)]


_DOTS = 1500  # beyond, a dot each with its title would make the page too big


def _frame(label: str, high: int, xs: Sequence[tuple[float, str]], ys: Sequence[tuple[float, str]], what: str) -> str:
    """Opens a drawing: grid lines and labels at ys (pixel, text), labels at xs, the name of the x axis."""
    parts = [f'<svg viewBox="0 0 {WIDTH} {high}" role="img" aria-label="{markup(label)}">']
    for y, text in ys:
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{markup(text)}</text>')
    parts += [
        f'<text class="tick" x="{x:.1f}" y="{high - 20}" text-anchor="middle">{markup(text)}</text>' for x, text in xs
    ]
    middle = _LEFT + (WIDTH - _LEFT - _RIGHT) / 2
    return "".join(parts) + f'<text class="tick" x="{middle}" y="{high - 4}" text-anchor="middle">{markup(what)}</text>'


def rewards(
    points: Sequence[tuple[int, float, str, str]],
    best: Sequence[float],
    means: Sequence[tuple[str, Sequence[tuple[int, float]]]],
) -> str:
    """Rewards over evaluations. points: (evaluation from 0, reward, css class, title).

    best: running best per evaluation; means: lines of a css class through (evaluation, mean).
    """
    last = max(1, len(best) - 1)
    wide, high = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM

    def x(trial: float) -> float:
        return _LEFT + wide * trial / last

    def y(reward: float) -> float:
        return _TOP + high * (1 - reward)

    xs = [(x(tick), f"{tick:g}") for tick in ticks(float(last)) if tick == int(tick)]
    ys = [(y(tick), f"{tick:.1f}") for tick in ticks(1.0, 5)]
    parts = [_frame("Reward of every evaluation, running best and means", HEIGHT, xs, ys, "evaluation")]
    if len(points) <= _DOTS:
        for trial, reward, kind, title in points:
            at = f'cx="{x(trial):.1f}" cy="{y(reward):.1f}"'
            parts.append(f'<circle class="{markup(kind)}" {at} r="2.6"><title>{markup(title)}</title></circle>')
    else:  # one path per kind, a dot being a line of no length with a round end
        for kind in dict.fromkeys(kind for _, _, kind, _ in points):
            moves = "".join(f"M{x(t):.0f} {y(r):.0f}h0" for t, r, k, _ in points if k == kind)
            parts.append(f'<path class="{markup(kind)} many" d="{moves}"/>')
    for kind, line in means:
        chosen = line[:: max(1, len(line) // 1000)]
        dots = " ".join(f"{x(trial):.1f},{y(value):.1f}" for trial, value in chosen)
        parts.append(f'<polyline class="{markup(kind)}" points="{dots}"/>')
    steps = [f"{x(0):.1f},{y(best[0]):.1f}"] if best else []
    for trial in range(1, len(best)):
        if best[trial] != best[trial - 1] or trial == len(best) - 1:
            steps += [f"{x(trial):.1f},{y(best[trial - 1]):.1f}", f"{x(trial):.1f},{y(best[trial]):.1f}"]
    parts.append(f'<polyline class="best" points="{" ".join(steps)}"/></svg>')
    return "".join(parts)


def curves(lines: Sequence[tuple[str, Sequence[tuple[float, float]]]], *, label: str, what: str) -> str:
    """Lines through (x, accuracy): (css class, points). The y axis shows the part of [0, 1] that is used."""
    lines = [(kind, [(x, min(1.0, max(0.0, y))) for x, y in points if math.isfinite(x + y)]) for kind, points in lines]
    values = [value for _, points in lines for _, value in points]
    if not values:
        return ""
    low, top = max(0.0, min(values) - 0.03), min(1.0, max(values) + 0.03)
    start, end = (f(x for _, points in lines for x, _ in points) for f in (min, max))
    wide, high = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM

    def x(step: float) -> float:
        return _LEFT + wide * (step - start) / max(1e-9, end - start)

    def y(value: float) -> float:
        return _TOP + high * (top - value) / (top - low)

    step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if (top - low) / s <= 7)
    ys = [(y(k * step), f"{k * step:.2f}") for k in range(math.ceil(low / step - 1e-9), int(top / step + 1e-9) + 1)]
    xs = [(x(tick), f"{tick:g}") for tick in ticks(end, 8) if tick >= start]
    parts = [_frame(label, HEIGHT, xs, ys, what)]
    for kind, points in lines:
        dots = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in points)
        parts.append(f'<polyline class="{markup(kind)}" points="{dots}"/>')
        if len(points) == 1:
            parts.append(
                f'<circle class="{markup(kind)}" cx="{x(points[0][0]):.1f}" cy="{y(points[0][1]):.1f}" r="3"/>'
            )
    return "".join(parts) + "</svg>"


def heat(names: Sequence[str], rows: Sequence[Sequence[float]], *, label: str, ends: tuple[str, str]) -> str:
    """A table of shares in [0, 1] as shades: one row per name, one column per period. ends: of the time axis."""
    if not rows:
        return ""
    left, side, high = 130, 18, 19
    wide = (WIDTH - left - 62) / max(1, len(rows[0]))
    bottom = high * len(rows)
    parts = [f'<svg viewBox="0 0 {WIDTH} {bottom + side + 6}" role="img" aria-label="{markup(label)}">']
    for k, (name, shares) in enumerate(zip(names, rows, strict=True)):
        y = k * high
        parts.append(f'<text class="label" x="{left - 10}" y="{y + 14}" text-anchor="end">{markup(name)}</text>')
        for column, share in enumerate(shares):
            at = f'x="{left + column * wide:.1f}" y="{y + 1}" width="{wide - 1:.1f}" height="{high - 2}"'
            shade = f'<rect class="cell" fill-opacity="{0.04 + 0.96 * share:.2f}" {at}>'
            parts.append(f"{shade}<title>{markup(name)} in {share:.0%} of the rules</title></rect>")
        parts.append(f'<text class="tick" x="{WIDTH}" y="{y + 14}" text-anchor="end">{shares[-1]:.0%}</text>')
    parts.append(f'<text class="tick" x="{left}" y="{bottom + side}">{markup(ends[0])}</text>')
    right = left + wide * len(rows[0])
    parts.append(f'<text class="tick" x="{right:.0f}" y="{bottom + side}" text-anchor="end">{markup(ends[1])}</text>')
    return "".join(parts) + "</svg>"


def funnel(stages: Sequence[tuple[str, int, str]]) -> str:
    """Horizontal bars: (label, count, note), widths to the first count."""
    row, label, total = 34, 190, max(1, stages[0][1] if stages else 1)
    wide = WIDTH - label - 340  # the count beside the longest bar, then the note
    parts = [f'<svg viewBox="0 0 {WIDTH} {row * len(stages)}" role="img" aria-label="Trials that passed each gate">']
    for k, (name, count, note) in enumerate(stages):
        top, bar = k * row, max(1.0, wide * count / total)
        parts.append(f'<text class="label" x="{label - 12}" y="{top + 21}" text-anchor="end">{markup(name)}</text>')
        parts.append(f'<rect class="bar" x="{label}" y="{top + 6}" width="{bar:.1f}" height="{row - 12}" rx="3"/>')
        parts.append(f'<text class="count" x="{label + bar + 8:.1f}" y="{top + 21}">{count:d}</text>')
        parts.append(f'<text class="tick" x="{WIDTH}" y="{top + 21}" text-anchor="end">{markup(note)}</text>')
    return "".join(parts) + "</svg>"


def spark(values: Sequence[float]) -> str:
    """A small curve of accuracies in [0, 1]."""
    if len(values) < 2:
        return ""
    points = " ".join(f"{2 + 66 * k / (len(values) - 1):.1f},{2 + 18 * (1 - v):.1f}" for k, v in enumerate(values))
    return f'<svg class="spark" viewBox="0 0 70 22" aria-hidden="true"><polyline class="best" points="{points}"/></svg>'
