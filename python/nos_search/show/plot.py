"""Owns the drawings of the commands evaluate and train: accuracies of rules side by side, and the curves of one
training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from ..train.evaluate import CONFIDENCE, Comparison
from .figure import Drawing, colour, legend_above, whole_steps, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROW: Final = 0.3  # inches for one rule
_TOP, _BOTTOM = 0.75, 0.6  # inches around the rows of a task
_LABEL: Final = 46  # characters of a rule


def comparison(results: Sequence[Comparison]) -> Drawing:
    """Draws test accuracies. Each task has a panel, and each rule a row in it, the best on top. A row shows the mean,
    its interval, and each run."""
    tasks = list(dict.fromkeys(result.task for result in results))
    panels = {task: sorted((r for r in results if r.task == task), key=lambda r: -r.test_mean) for task in tasks}
    heights = [_TOP + _BOTTOM + _ROW * len(rows) for rows in panels.values()]

    def paint(figure: Figure) -> None:
        width, height = figure.get_size_inches()
        longest = max(len(words(r.rule, _LABEL)) for r in results)
        left, right = 0.5 + 0.085 * longest, 0.85
        above = 0.0
        for (task, rows), high in zip(panels.items(), heights, strict=True):
            bottom = height - above - high + _BOTTOM
            axes = figure.add_axes(
                (left / width, bottom / height, 1 - (left + right) / width, _ROW * len(rows) / height)
            )
            _compare(axes, task, rows)
            above += high

    return Drawing("Test accuracy of rules", (10.0, sum(heights)), paint)


def _compare(axes: Axes, task: str, rows: Sequence[Comparison]) -> None:
    places = range(len(rows))
    means = [row.test_mean for row in rows]
    axes.plot(
        [test for row in rows for test in row.tests], [k for k in places for _ in rows[k].tests],
        linestyle="none", marker="o", markersize=5, color=colour("done"), alpha=0.35, label="one seed", gid="runs",
    )  # fmt: skip
    halves = {k: row.test_ci for k, row in enumerate(rows) if row.test_ci is not None}
    if halves:
        axes.errorbar(
            [means[k] for k in halves], list(halves), xerr=list(halves.values()), fmt="none",
            ecolor=colour("ink"), elinewidth=1.6, capsize=3, label=f"{CONFIDENCE:.0%} t interval of the mean",
        )  # fmt: skip
    axes.plot(
        means, places, linestyle="none", marker="D", markersize=6, color=colour("best"), label="mean", gid="means"
    )
    seen = [value for row in rows for value in (*row.tests, row.test_mean)]
    ends = [row.test_mean + side * (row.test_ci or 0.0) for row in rows for side in (-1, 1)]
    low, high = min([*seen, *(max(0.0, end) for end in ends)]), max([*seen, *(min(1.0, end) for end in ends)])
    margin = max(0.005, 0.05 * (high - low))
    axes.set(
        xlim=(low - margin, high + margin),
        ylim=(len(rows) - 0.4, -0.6),
        xlabel="test accuracy (share of examples)",
    )
    axes.set_yticks(places, [words(row.rule, _LABEL) for row in rows])
    axes.tick_params(axis="y", length=0, labelcolor=colour("ink"), labelsize=10)
    axes.spines["left"].set_visible(False)
    for k, mean in enumerate(means):
        axes.annotate(
            f"{mean:.4f}", (1.0, k), xycoords=("axes fraction", "data"), xytext=(8, 0), textcoords="offset points",
            va="center", color=colour("soft"), annotation_clip=False,
        )  # fmt: skip
    seeds = rows[0].seeds
    axes.set_title(f"{words(task)}, {seeds} seed{'' if seeds == 1 else 's'}", pad=22)
    legend_above(axes)


def training(rule: str, task: str, lr: float, curve: Mapping[str, Sequence[Any]]) -> Drawing:
    """Draws the curves of one training over its steps, with the losses above and the validation accuracy below."""
    steps = curve["steps"]

    def paint(figure: Figure) -> None:
        loss, accuracy = figure.subplots(
            2, 1, sharex=True, height_ratios=(1, 1),
            gridspec_kw={"left": 0.1, "right": 0.97, "top": 0.88, "bottom": 0.1, "hspace": 0.22},
        )  # fmt: skip
        lines = (
            (loss, curve["loss"], "training", {"color": colour("s0"), "linestyle": (0, (5, 2))}),
            (loss, curve["val_loss"], "validation", {"color": colour("s1")}),
            (accuracy, curve["accuracy"], "validation", {"color": colour("s1")}),
        )
        for axes, values, name, look in lines:
            points = [(step, value) for step, value in zip(steps, values, strict=True) if value is not None]
            points = [(step, value) for step, value in points if math.isfinite(value)]
            axes.plot(
                [step for step, _ in points], [value for _, value in points], marker="o", markersize=4, label=name,
                gid=f"{'accuracy' if axes is accuracy else f'{name}-loss'}", **look,
            )  # fmt: skip
        loss.set(ylabel="loss (nats)")
        accuracy.set(xlabel="training step", ylabel="accuracy (share of examples)", ylim=(-0.02, 1.02))
        whole_steps(accuracy)
        for axes in (loss, accuracy):
            legend_above(axes)
        figure.suptitle(
            f"{words(rule, 48)} on {words(task)} at lr {lr:g}", x=0.1, ha="left", fontsize=11, weight="bold"
        )

    return Drawing(f"Training of {rule} on {task} at lr {lr:g}: losses and validation accuracy", (8.0, 6.0), paint)
