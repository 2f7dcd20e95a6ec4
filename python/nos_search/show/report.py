"""Owns the report of a run: one HTML page that contains everything it shows and loads nothing.

Everything from the store is escaped when it is put in: text by the template (pages.py), and in formulas by
simplified.py and in drawings by inline.py. Only what those two made is Markup. Rules are shown simplified; the text
that the search wrote appears when one points at them.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from markupsafe import Markup

from ..diagnose.problems import KINDS
from ..gate import GATES, gate_counts
from ..known import REPORTED, RULES
from ..run import RunConfig, baselines
from ..run.climbing import climbs, rungs
from ..run.families import families_of
from ..space import SearchSpace, make_space
from ..store import PROMOTION, Score, Store, Trial, answered
from ..task.score import ACCURACY, SHOWN, scores
from . import charts
from .diagnosed import diagnosed
from .figure import PALETTE, Drawing
from .inline import inline
from .leaderboard import Row, counts, leaderboard, shown_rungs
from .pages import template
from .primitives import usage
from .simplified import formula, simplified

TOP_RULES = 8
TABLE_ROWS = 50
CURVES = 4  # so many of the best rules have a curve
PERIODS, PRIMITIVES = 24, 24
_MEAN_WINDOW = 25  # trials


def render(store: Store, *, diagnoses: bool = False) -> str:
    """Returns the page as text. The run may still be going on. With `diagnoses` the best rules and known optimizers are
    run over the battery of small problems, which takes a few seconds."""
    trials = answered(store.trials())
    promotions = store.scores(PROMOTION)
    promoted = climbs(promotions)
    families = families_of(store, trials)
    rows = leaderboard(trials, promoted, families)
    higher = rungs(RunConfig.from_json(store.config))
    by_id = {trial.id: trial for trial in trials}
    config = dict(store.config)
    score = SHOWN[RunConfig.from_json(config).score or ACCURACY]
    space = make_space(config["space"])
    known = baselines.stored(store)
    names, shares = usage([trial.rule for trial in trials], periods=PERIODS, top=PRIMITIVES)
    curves = _curves(rows, by_id, known)
    return template("report.html").render(
        config=config,
        score=score,
        palette=PALETTE,
        best=_Shown.of(rows[0], block=True) if rows else None,
        counts=counts(trials),
        families=len({*families.values()}),
        is_update=bool(rows) and not rows[0].rule.startswith("def "),
        reward_chart=_svg(_rewards(trials) if trials else None, "rewards"),
        funnel=_svg(charts.funnel(_funnel(trials, higher, promotions)), "funnel"),
        meanings=GATES,
        learning=_svg(charts.learning([line.curve for line in curves], score), "learning"),
        legend=sorted(curves, key=lambda line: -line.reward),
        baselines_missing=[RULES[name].label for name in REPORTED if name not in known],
        primitives=_svg(charts.primitives(names, shares, evaluations=len(trials)), "primitives"),
        rows=[
            _Shown.of(row, spark=_svg(charts.spark(scores(by_id[row.trial].curve), score), f"spark{row.rank}"))
            for row in rows[:TABLE_ROWS]
        ],
        kinds=KINDS,
        diagnosed=diagnosed(rows, store.folder) if diagnoses else [],
        rungs=[
            {"name": name, "rewards": sorted((r[k].reward for r in promoted.values() if len(r) > k), reverse=True)}
            for k, name in enumerate(higher)
        ],
        eta=config.get("promote_eta"),
        cells={row.rank: shown_rungs(row.promoted, row.ranks, higher) for row in rows[:TABLE_ROWS]},
        hidden=max(0, len(rows) - TABLE_ROWS),
        top=TOP_RULES,
        reasons=Counter(trial.reason.splitlines()[0] for trial in trials if trial.reason).most_common(8),
        settings=_settings(config, space),
        versions=store.versions,
        times=_Times(sum(trial.seconds for trial in trials), sum(score.seconds for score in promotions)),
        started=_day(min(trial.started for trial in trials)) if trials else "",
    )


@dataclass(frozen=True)
class _Times:
    """_Times has the seconds for which children trained: for the search itself, and for promotions."""

    search: float
    promotions: float

    @property
    def total(self) -> float:
        return self.search + self.promotions


@dataclass(frozen=True)
class _Shown:
    """A _Shown is a row of the leaderboard as the page shows it. It has the rule as a formula and as simplified text,
    and the rule's small curve."""

    row: Row
    formula: str
    text: str
    spark: str

    @classmethod
    def of(cls, row: Row, *, block: bool = False, spark: str = "") -> _Shown:
        return cls(row, Markup(formula(row.rule, block=block)), simplified(row.rule), spark)


def _svg(drawing: Drawing | None, name: str) -> str:
    return Markup("" if drawing is None else inline(drawing, name))


def _day(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, tz=timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, ValueError, OSError):  # not a time
        return ""


def _rewards(trials: Sequence[Trial]) -> Drawing:
    dots: list[charts.Dot] = []
    mean: list[tuple[float, float]] = []
    baseline: list[tuple[float, float]] = []
    recent: deque[float] = deque(maxlen=_MEAN_WINDOW)
    for index, trial in enumerate(trials):
        reward = trial.reward or 0.0
        recent.append(reward)
        if len(recent) >= min(_MEAN_WINDOW, len(trials)):
            mean.append((index, sum(recent) / len(recent)))
        if "baseline" in trial.metrics:
            baseline.append((index, trial.metrics["baseline"]))
        title = f"#{trial.id} {trial.status} {reward:.3f}  {trial.rule}"
        dots.append(charts.Dot(index, reward, trial.status, title))
    return charts.rewards(dots, mean, baseline, window=_MEAN_WINDOW)


def _funnel(trials: Sequence[Trial], higher: Sequence[str], promotions: Sequence[Score]) -> list[charts.Stage]:
    """Returns how many rules were left after each gate, after the training and on each rung, and what that cost."""
    total = counts(trials)
    left = total["trials"]
    stages = [charts.Stage("proposed", left, "")]
    for gate in gate_counts(trials):
        if gate.entered == 0:
            continue
        left -= gate.stopped
        each = 1e6 * gate.seconds / gate.entered
        cost = f"{each:.0f} \u00b5s" if each < 1e3 else f"{each / 1e3:.1f} ms"
        stages.append(
            charts.Stage(gate.gate, left, f"{gate.stopped} stopped, {cost} each, {gate.seconds:.2f} s in all")
        )
    stages.append(
        charts.Stage("trained", total["trained"], _cost([trial.seconds for trial in trials], total["trained"]))
    )
    stages.append(charts.Stage("to the end", total["done"], f"{total['diverged']} diverged, {total['failed']} failed"))
    for rung, name in enumerate(higher, start=1):
        seconds = [score.seconds for score in promotions if score.budget["rung"] == rung]
        stages.append(charts.Stage(f"rung {rung}: {name}", len(seconds), _cost(seconds, len(seconds))))
    return stages


def _cost(seconds: Sequence[float], count: int) -> str:
    return f"{sum(seconds) / max(1, count):.2f} s each, {sum(seconds):.0f} s in all"


@dataclass(frozen=True)
class _Line:
    """A _Line is a learning curve with its row in the table below the drawing."""

    curve: charts.Curve
    swatch: str
    formula: str
    searched: str
    reward: float
    lr: float | None


def _curves(rows: Sequence[Row], trials: Mapping[int, Trial], known: Mapping[str, Score]) -> list[_Line]:
    """Returns the curves of the best rules, then those of the known optimizers."""

    def line(curve: charts.Curve, name: str, rule: str, reward: float, lr: float | None) -> _Line:
        shown = Markup(formula(rule)) if rule else ""
        return _Line(curve, _svg(charts.swatch(curve.look), f"swatch-{name}"), shown, rule, reward, lr)

    found = [
        line(
            charts.Curve(f"rank {row.rank}", charts.found_look(k), _points(trials[row.trial].curve)),
            f"found{k}",
            row.rule,
            row.reward,
            row.lr,
        )
        for k, row in enumerate(rows[:CURVES])
    ]
    return found + [
        line(
            charts.Curve(RULES[name].label, charts.known_look(k), _points(entry.curve)),
            f"known{k}",
            "",
            entry.reward or 0.0,
            entry.lr,
        )
        for k, (name, entry) in enumerate(known.items())
    ]


def _points(curve: Mapping[str, Any]) -> list[tuple[float, float]]:
    return list(zip(curve.get("steps", []), scores(curve), strict=False))


def _settings(config: dict[str, Any], space: SearchSpace) -> list[tuple[str, str]]:
    nested = ("space", "strategy_options", "gates")
    shown = [(name, value) for name, value in config.items() if name not in nested]
    options = [(f"{config['strategy']} {name}", value) for name, value in config.get("strategy_options", {}).items()]
    gates = [(f"gate {name}", value) for name, value in config.get("gates", {}).items()]
    described: list[tuple[str, Any]] = []
    for name, value in config["space"].items():
        described += value.items() if isinstance(value, dict) else [(f"space {name}", value)]
    if space.positions:
        described.append(("strings", f"{space.size():.3g}, {space.size(masked=True):.3g} within the masks"))
    return [
        (name.replace("_", " "), "none" if value is None else value if isinstance(value, str) else json.dumps(value))
        for name, value in shown + options + gates + described
    ]
