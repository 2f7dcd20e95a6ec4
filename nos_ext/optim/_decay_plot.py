"""Owns the figure of the learning-rate decays, written as SVG by hand: `python -m nos_ext.schedules --plot out.svg`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ._lr_factors import Factor, cosine, linear_cosine, stepwise

STEPS: Final = 300
CURVES: Final[tuple[tuple[str, Factor, str, str], ...]] = (  # label, factor, colour on light and on dark ground
    ("stepwise decay", stepwise(STEPS // 3, 0.1), "#b45309", "#f59e0b"),
    ("cosine decay", cosine(STEPS), "#1d4ed8", "#60a5fa"),
    ("linear cosine decay", linear_cosine(STEPS, beta=0.001), "#be123c", "#fb7185"),
)
_DASHES: Final = ("7 4", "2 3", "none")  # the curves differ without colour, too
_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 640, 400, 64, 44, 24, 56


def figure() -> str:
    """The text of the SVG file."""
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def x(step: float) -> float:
        return _LEFT + width * step / STEPS

    def y(value: float) -> float:
        return _TOP + height * (1.0 - value / 1.05)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
        f'height="{_HEIGHT}" role="img" aria-labelledby="title">',
        '<title id="title">Learning-rate decays: stepwise, cosine and linear cosine</title>',
        _style(),
        f'<rect class="ground" width="{_WIDTH}" height="{_HEIGHT}"/>',
        f'<text class="head" x="{_LEFT}" y="26">Learning-rate decays</text>',
    ]
    for value in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        parts.append(f'<path class="grid" d="M{_LEFT} {y(value):.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.1f}</text>')
    for step in range(0, STEPS + 1, 50):
        parts.append(f'<path class="axis" d="M{x(step):.1f} {y(0):.1f}v5"/>')
        parts.append(f'<text x="{x(step):.1f}" y="{y(0) + 20:.1f}" text-anchor="middle">{step}</text>')
    parts.append(f'<path class="axis" d="M{_LEFT} {_TOP}V{y(0):.1f}H{_WIDTH - _RIGHT}"/>')
    parts.append(f'<text x="{_LEFT + width / 2:.1f}" y="{_HEIGHT - 14}" text-anchor="middle">step</text>')
    middle = _TOP + height / 2
    parts.append(
        f'<text x="18" y="{middle:.1f}" text-anchor="middle" transform="rotate(-90 18 {middle:.1f})">'
        "learning rate / initial learning rate</text>"
    )
    for i, (label, factor, _, _) in enumerate(CURVES):
        points = " ".join(f"{x(step):.1f},{y(factor(step)):.2f}" for step in range(STEPS + 1))
        parts.append(f'<polyline class="curve c{i}" points="{points}"/>')
        line = _TOP + 30 + 20 * i
        parts.append(f'<path class="curve c{i}" d="M{_WIDTH - 214} {line}h34"/>')
        parts.append(f'<text x="{_WIDTH - 172}" y="{line + 4}">{label}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _style() -> str:
    light = [f".c{i}{{stroke:{curve[2]};stroke-dasharray:{_DASHES[i]}}}" for i, curve in enumerate(CURVES)]
    dark = [f".c{i}{{stroke:{curve[3]}}}" for i, curve in enumerate(CURVES)]
    return (
        "<style>"
        "text{font:13px system-ui,sans-serif;fill:#374151}.head{font-size:15px;font-weight:600}"
        ".ground{fill:#ffffff}.grid{stroke:#e5e7eb}.axis{stroke:#6b7280;fill:none}"
        f".curve{{fill:none;stroke-width:2.2}}{''.join(light)}"
        "@media(prefers-color-scheme:dark){"
        "text{fill:#d1d5db}.ground{fill:#111827}.grid{stroke:#1f2937}.axis{stroke:#9ca3af}"
        f"{''.join(dark)}}}"
        "</style>"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of nos_ext.schedules."""
    parser = argparse.ArgumentParser(prog="python -m nos_ext.schedules", description="Draw the learning-rate decays.")
    parser.add_argument("--plot", metavar="OUT.svg", type=Path, required=True, help="the SVG file to write")
    path = parser.parse_args(arguments).plot
    try:
        path.write_text(figure(), encoding="utf-8")
    except OSError as error:
        parser.exit(1, f"--plot is {str(path)!r}, which cannot be written ({error.strerror}); pass another path\n")
    print(path)
    return 0
