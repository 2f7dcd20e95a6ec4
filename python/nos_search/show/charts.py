"""Owns the drawings of the report: rewards, learning curves, what the gates stopped, and what rules are made of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ..task.score import ScoreKind
from .figure import Drawing, colour, legend_above, room, series, whole_steps, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH: Final = 12.0  # inches: the page is 864 points wide at most
_REWARD: Final = "reward (0 to 1)"
_DOTS: Final = 1500  # beyond, a mark of its own with a title for each dot would make the page too big
_ACROSS, _UP = 432, 120  # places that such dots may have: one for two points of the page
_POINTS: Final = 1000  # of a line; the page has fewer pixels

Points = Sequence[tuple[float, float]]


# --- rewards ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dot:
    """A Dot is one evaluation: its number, its reward, what became of the trial, and what the page says of it."""

    evaluation: int
    reward: float
    status: str
    title: str


_KINDS: Final[dict[tuple[str, ...], tuple[str, dict[str, Any]]]] = {  # statuses -> name, look; the last lies on top
    ("diverged", "failed"): ("diverged or failed", {"color": colour("bad")}),
    ("rejected",): ("rejected", {"color": colour("reject"), "alpha": 0.5}),
    ("duplicate",): ("duplicate", {"markeredgecolor": colour("dup"), "markerfacecolor": "none"}),
    ("done",): ("trained", {"color": colour("done"), "alpha": 0.55}),
}


def rewards(dots: Sequence[Dot], mean: Points, baseline: Points, *, window: int) -> Drawing:
    """Draws the reward of every evaluation, the best so far, the mean over a window, and the mean that the strategy
    itself goes by. Evaluations are numbered from 0 in the order of their answers."""
    kinds = {kind: [dot for dot in dots if dot.status in kind] for kind in _KINDS}
    lines = {"mean": (f"mean of last {window}", mean), "base": ("strategy's own mean", baseline)}

    def paint(figure: Figure) -> None:
        axes = room(figure, left=0.7, right=0.15, top=0.35, bottom=0.55)
        axes.plot(*_best(dots), color=colour("best"), linewidth=2.2, label="best so far", gid="best", zorder=3)
        for role, (name, points) in lines.items():
            if points:
                x, y = zip(*points[:: max(1, len(points) // _POINTS)], strict=True)
                axes.plot(x, y, color=colour(role), linewidth=1.8, label=name, gid=role, zorder=3)
        for kind, found in reversed(kinds.items()):
            if found:
                _dots(axes, kind, found, whole=len(dots) <= _DOTS)
        axes.set(xlabel="evaluation", ylabel=_REWARD, ylim=(-0.03, 1.03), xlim=_padded(len(dots)))
        legend_above(axes)

    hover = {_gid(kind): [dot.title for dot in found] for kind, found in kinds.items() if found}
    return Drawing(
        "Reward of every evaluation, the best so far and means",
        (WIDTH, 4.4),
        paint,
        hover if len(dots) <= _DOTS else {},
    )


def _gid(kind: tuple[str, ...]) -> str:
    return f"dots-{kind[0]}"


def _dots(axes: Axes, kind: tuple[str, ...], found: Sequence[Dot], *, whole: bool) -> None:
    name, look = _KINDS[kind]
    dotted: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 5, "zorder": 2.5, **look}
    if whole:
        axes.plot(
            [d.evaluation for d in found],
            [d.reward for d in found],
            label=name,
            gid=_gid(kind),
            clip_on=False,
            **dotted,
        )
        return
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    # All dots are one path. A dot is a very short line with round ends, as matplotlib drops lines of no length. One dot
    # hides what is less than half its width away.
    last = max(1, found[-1].evaluation)
    seen = {(round(d.evaluation / last * _ACROSS), round(d.reward * _UP)): d for d in found}.values()
    places = [(d.evaluation + end, d.reward) for d in seen for end in (0.0, 3e-4 * last)]
    path = Path(places, [Path.MOVETO, Path.LINETO] * len(seen))
    edge = look.get("color") or look["markeredgecolor"]
    axes.add_patch(
        PathPatch(path, facecolor="none", edgecolor=edge, alpha=0.45, linewidth=4, capstyle="round", gid=_gid(kind))
    )
    axes.plot([], [], label=name, **dotted)


def _best(dots: Sequence[Dot]) -> tuple[list[float], list[float]]:
    """Returns the corners of a staircase, which is the best reward so far."""
    x: list[float] = []
    y: list[float] = []
    best = 0.0
    for k, dot in enumerate(dots):
        if k == 0 or dot.reward > best or k == len(dots) - 1:
            x += [dot.evaluation, dot.evaluation]
            y += [best if k else dot.reward, max(best, dot.reward)]
        best = max(best, dot.reward)
    return x, y


def _padded(count: int) -> tuple[float, float]:
    last = max(1, count - 1)
    return -0.01 * last, 1.01 * last


# --- learning curves -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curve:
    """A Curve is a learning curve: its name, how it is drawn, and (step, score) of its points."""

    name: str
    look: Mapping[str, Any]
    points: Points


def found_look(k: int) -> dict[str, Any]:
    """Returns how the k-th best rule of a run is drawn, which is a full line."""
    return {"color": series(k), "linewidth": 2.4}


def known_look(k: int) -> dict[str, Any]:
    """Returns how the k-th known optimizer is drawn: thin, pale and dashed, or dotted when the colours begin again."""
    return {
        "color": series(4 + k % 6),
        "linewidth": 1.6,
        "alpha": 0.8,
        "linestyle": (0, (5, 2)) if k < 6 else (0, (1.2, 1.6)),
    }


def learning(curves: Sequence[Curve], score: ScoreKind) -> Drawing | None:
    """Draws the score on validation data over the steps of a training. The legend has the order of the last scores.
    There is no drawing when there is no point."""
    drawn = [
        Curve(
            curve.name,
            curve.look,
            [(step, min(1.0, max(0.0, value))) for step, value in curve.points if math.isfinite(step + value)],
        )
        for curve in curves
    ]
    drawn = sorted((curve for curve in drawn if curve.points), key=lambda curve: -curve.points[-1][1])
    if not drawn:
        return None

    def paint(figure: Figure) -> None:
        axes = room(figure, left=0.75, right=2.1, top=0.15, bottom=0.55)
        for curve in reversed(drawn):  # the best lies on top
            steps, values = zip(*curve.points, strict=True)
            alone: dict[str, Any] = {"marker": "o"} if len(steps) == 1 else {}
            axes.plot(steps, values, label=words(curve.name, 28), gid="curve", **alone, **curve.look)
        axes.set(xlabel="training step", ylabel=f"validation {score.axis}")
        axes.margins(x=0.01)
        whole_steps(axes)
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(
            handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1.0, 0.5), title=f"by last {score.label}",
            alignment="left",
        )  # fmt: skip

    return Drawing(f"Validation {score.label} while a child trains, by rule", (WIDTH, 4.4), paint)


def swatch(look: Mapping[str, Any]) -> Drawing:
    """Draws a short line with the look of a curve, for a table beside the drawing."""

    def paint(figure: Figure) -> None:
        axes = figure.add_axes((0, 0, 1, 1), frameon=False)
        axes.set(xlim=(0, 1), ylim=(-1, 1))
        axes.set_axis_off()
        axes.plot([0.03, 0.97], [0, 0], **look)

    return Drawing("how this rule is drawn", (0.5, 0.14), paint)


def spark(values: Sequence[float], score: ScoreKind) -> Drawing | None:
    """Draws a small curve of scores in [0, 1] without axes. There is none for fewer than two."""
    if len(values) < 2:
        return None

    def paint(figure: Figure) -> None:
        axes = figure.add_axes((0, 0, 1, 1), frameon=False)
        axes.set(xlim=(-0.1, len(values) - 0.9), ylim=(-0.05, 1.05))
        axes.set_axis_off()
        axes.plot(range(len(values)), values, color=colour("best"), linewidth=1.5)

    return Drawing(f"{score.label} while training, 0 to 1", (1.0, 0.3), paint)


# --- gates and primitives --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stage:
    """A Stage is a step on the way of a rule: its name, how many rules were left after it, and what it cost."""

    name: str
    count: int
    note: str


def funnel(stages: Sequence[Stage]) -> Drawing:
    """Draws a bar for each stage from top to bottom, as long as the number of rules that were left."""
    most = max([1, *(stage.count for stage in stages)])

    def paint(figure: Figure) -> None:
        axes = room(figure, left=2.5, right=3.6, top=0.1, bottom=0.55)  # as wide as a name and a note may be
        places = range(len(stages))
        axes.barh(places, [stage.count for stage in stages], height=0.66, color=colour("bar"))
        axes.set_yticks(places, [words(stage.name, 26) for stage in stages])
        axes.tick_params(axis="y", length=0, labelcolor=colour("ink"), labelsize=10)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.set(xlim=(0, most * 1.12), ylim=(len(stages) - 0.4, -0.6), xlabel="rules left")
        for k, stage in enumerate(stages):
            axes.annotate(f"{stage.count:d}", (stage.count, k), xytext=(5, 0), textcoords="offset points", va="center")
            axes.annotate(
                words(stage.note, 80), (1.0, k), xycoords=("axes fraction", "data"), xytext=(12, 0),
                textcoords="offset points", va="center", color=colour("soft"), fontsize=9.5, annotation_clip=False,
            )  # fmt: skip

    return Drawing("How many rules were left after each gate", (WIDTH, 0.75 + 0.36 * max(1, len(stages))), paint)


def primitives(names: Sequence[str], shares: Sequence[Sequence[float]], *, evaluations: int) -> Drawing | None:
    """Draws a table of shares in [0, 1] as shades: a row for each primitive, a column for each period of equally many
    evaluations, and the last share in figures. There is no drawing without rows."""
    if not shares:
        return None
    periods = len(shares[0])

    def paint(figure: Figure) -> None:
        from matplotlib.colors import to_rgba

        axes = room(figure, left=1.4, right=1.0, top=0.1, bottom=0.6)
        edges = [evaluations * k / periods for k in range(periods + 1)]
        rows = range(len(names) + 1)
        shown = axes.pcolormesh(edges, rows, shares, edgecolors=colour("paper"), linewidth=0.8, gid="shares")
        shown.set_array(None)
        shown.set_facecolor([to_rgba(colour("done"), 0.04 + 0.96 * share) for row in shares for share in row])
        axes.set_yticks([k + 0.5 for k in range(len(names))], [words(name, 20) for name in names])
        axes.tick_params(axis="y", length=0, labelcolor=colour("ink"))
        axes.grid(visible=False)
        axes.spines["left"].set_visible(False)
        axes.set(ylim=(len(names), 0), xlim=(0, evaluations), xlabel="evaluation")
        for k, row in enumerate(shares):
            axes.annotate(
                f"{row[-1]:.0%}", (1.0, k + 0.5), xycoords=("axes fraction", "data"), xytext=(8, 0),
                textcoords="offset points", va="center", fontsize=9, color=colour("soft"), annotation_clip=False,
            )  # fmt: skip

    hover = [f"{name} is in {share:.0%} of the rules" for name, row in zip(names, shares, strict=True) for share in row]
    size = (WIDTH, 0.7 + 0.26 * len(names))
    return Drawing("Use of primitives over time", size, paint, {"shares": hover})
