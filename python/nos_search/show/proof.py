"""Owns what is shown of a proof: the drawing of its differences, and a page that contains everything and loads nothing.

Both are made of the document of prove/document.py. Text of unknown origin is escaped where it is put in (pages.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from markupsafe import Markup

from .figure import PALETTE, Drawing, colour, legend_above, series, words
from .inline import inline
from .pages import template

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINE: Final = 0.16  # inches for one baseline in a row
_GAP: Final = 0.22  # inches between rows
_TOP, _BOTTOM = 0.85, 0.6  # inches around the rows of a rule
_LABEL: Final = 46  # characters of a rule


def forest(found: Mapping[str, Any]) -> Drawing:
    """Draws the differences of each rule to each baseline, over all and in each family, with their intervals."""
    rules: Sequence[Mapping[str, Any]] = found["rules"]
    heights = [_TOP + _BOTTOM + _height(rule) for rule in rules]

    def paint(figure: Figure) -> None:
        width, height = figure.get_size_inches()
        above = 0.0
        for rule, high in zip(rules, heights, strict=True):
            bottom = height - above - high + _BOTTOM
            axes = figure.add_axes((1.3 / width, bottom / height, 1 - 1.6 / width, (high - _TOP - _BOTTOM) / height))
            _draw(axes, rule)
            above += high

    return Drawing("Differences of rules to tuned baselines, in deviations of a seed", (9.0, sum(heights)), paint)


def _rows(rule: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [("all", rule), *rule["families"].items()]


def _height(rule: Mapping[str, Any]) -> float:
    return len(_rows(rule)) * (_GAP + _LINE * len(rule["against"]))


def _draw(axes: Axes, rule: Mapping[str, Any]) -> None:
    rows, baselines = _rows(rule), list(rule["against"])
    each = _GAP / _LINE + len(baselines)  # in lines of the drawing
    axes.axvline(0.0, color=colour("soft"), linewidth=1.0)
    for k, base in enumerate(baselines):
        places = [row * each + k for row in range(len(rows))]
        gaps = [judged["against"][base] for _, judged in rows]
        axes.errorbar(
            [gap["mean"] for gap in gaps], places, xerr=[gap["half"] or 0.0 for gap in gaps], fmt="o", markersize=5,
            color=series(k), elinewidth=1.6, capsize=2, label=words(base, 24),
        )  # fmt: skip
    axes.set_yticks(
        [row * each + (len(baselines) - 1) / 2 for row in range(len(rows))], [words(name, 16) for name, _ in rows]
    )
    axes.set(
        ylim=(len(rows) * each - 1, -each / 3), xlabel="test score minus that of the baseline, in deviations of a seed"
    )
    axes.tick_params(axis="y", length=0, labelcolor=colour("ink"), labelsize=10)
    axes.spines["left"].set_visible(False)
    axes.set_title(f"{words(rule['rule'], _LABEL)}: {rule['verdict']}", pad=22)
    legend_above(axes)


def page(found: Mapping[str, Any]) -> str:
    """Returns the page as text."""
    drawing = Markup(inline(forest(found), "forest"))
    return template("proof.html").render(**found, palette=PALETTE, drawing=drawing)
