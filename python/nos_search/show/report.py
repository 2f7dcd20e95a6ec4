"""Owns the report of a run: one HTML page that holds everything it shows and loads nothing.

Everything from the store is escaped when it is put in: text by the template, which is rendered with autoescape, and in
formulas by `formula` and in drawings by svg.py. Only what those two made is Markup.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from nos_ext import RuleError
from nos_ext.rule.printers.mathml import text_to_mathml

from ..escape import lines, markup
from ..gate import GATES, gate_counts
from ..known import REPORTED, RULES
from ..run import RunConfig, baselines
from ..run.climbing import climbed, rungs
from ..space import SearchSpace, make_space
from ..store import PROMOTION, Score, Store, Trial
from . import svg
from .leaderboard import Row, counts, leaderboard
from .primitives import usage

TOP_RULES = 8
TABLE_ROWS = 50
CURVES = 4  # of the best rules
PERIODS, PRIMITIVES = 24, 24
_MEAN_WINDOW = 25  # trials
_TEMPLATE = Path(__file__).resolve().parent / "templates" / "report.html"


def render(store: Store) -> str:
    """The page as text. Works on a run that is going on, too."""
    trials = sorted((trial for trial in store.trials() if trial.told is not None), key=lambda trial: trial.told or 0)
    promoted = climbed(store)
    rows = leaderboard(trials, promoted)
    higher = rungs(RunConfig.from_json(store.config))
    by_id = {trial.id: trial for trial in trials}
    config = dict(store.config)
    space = make_space(config["space"])
    best = rows[0] if rows else None
    chart, has_baseline = _reward_chart(trials) if trials else ("", False)
    learning, legend = _learning(rows, by_id, baselines.stored(store))
    names, shares = usage([trial.rule for trial in trials], periods=PERIODS, top=PRIMITIVES)
    return _template().render(
        config=config,
        best=best,
        counts=counts(trials),
        best_formula=Markup(formula(best.rule, block=True)) if best else "",
        is_update=best is not None and not best.rule.startswith("def "),
        reward_chart=Markup(chart),
        has_baseline=has_baseline,
        funnel=Markup(svg.funnel(_funnel(trials))),
        meanings=GATES,
        learning=Markup(learning),
        legend=legend,
        baselines_missing=[RULES[name].label for name in REPORTED if name not in baselines.stored(store)],
        primitives=Markup(
            svg.heat(names, shares, label="Use of primitives over time", ends=("first", "last evaluations"))
        ),
        rows=[
            {
                "row": row,
                "formula": Markup(formula(row.rule)),
                "spark": Markup(svg.spark(by_id[row.trial].curve.get("accuracy", []))),
            }
            for row in rows[:TABLE_ROWS]
        ],
        rungs=[
            {"name": name, "rewards": sorted((r[k] for r in promoted.values() if len(r) > k), reverse=True)}
            for k, name in enumerate(higher)
        ],
        eta=config.get("promote_eta"),
        hidden=max(0, len(rows) - TABLE_ROWS),
        top=TOP_RULES,
        window=_MEAN_WINDOW,
        reasons=Counter(trial.reason.splitlines()[0] for trial in trials if trial.reason).most_common(8),
        settings=_settings(config, space),
        versions=store.versions,
        training_seconds=sum(trial.seconds for trial in trials) + sum(s.seconds for s in store.scores(PROMOTION)),
        started=_day(min(trial.started for trial in trials)) if trials else "",
    )


def formula(text: str, *, block: bool = False) -> str:
    """The text of a rule as a <math> element, for a line of text or as a `block`. Text that is no rule, as a damaged or
    newer store may have, comes back as <code>.
    """
    try:
        return text_to_mathml(text, block=block)
    except RuleError:
        return f"<code>{markup(text)}</code>"


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True,
        finalize=lambda value: value if isinstance(value, Markup) else lines(value),  # before it is escaped
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda value: "none" if value is None else f"{value:g}"
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))


def _day(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, tz=timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, ValueError, OSError):  # not a time
        return ""


def _reward_chart(trials: Sequence[Trial]) -> tuple[str, bool]:
    """The drawing, and whether the strategy told its own mean."""
    points, best, window, baseline = [], [], [], []
    top = 0.0
    recent: deque[float] = deque(maxlen=_MEAN_WINDOW)
    for index, trial in enumerate(trials):
        reward = trial.reward or 0.0
        top = max(top, reward)
        best.append(top)
        recent.append(reward)
        if len(recent) >= min(_MEAN_WINDOW, len(trials)):
            window.append((index, sum(recent) / len(recent)))
        if "baseline" in trial.metrics:
            baseline.append((index, trial.metrics["baseline"]))
        points.append((index, reward, f"dot {trial.status}", f"#{trial.id} {trial.status} {reward:.3f}  {trial.rule}"))
    means = [("mean", window), ("baseline", baseline)]
    return svg.rewards(points, best, [(kind, line) for kind, line in means if line]), bool(baseline)


def _funnel(trials: Sequence[Trial]) -> list[tuple[str, int, str]]:
    """What was left after each gate, and what the gate cost."""
    total = counts(trials)
    left = total["trials"]
    stages = [("proposed", left, "")]
    for gate in gate_counts(trials):
        if gate.entered == 0:
            continue
        left -= gate.stopped
        each = 1e6 * gate.seconds / gate.entered
        cost = f"{each:.0f} \u00b5s" if each < 1e3 else f"{each / 1e3:.1f} ms"
        stages.append((gate.gate, left, f"{gate.stopped} stopped, {cost} each, {gate.seconds:.2f} s in all"))
    trained = sum(trial.seconds for trial in trials)
    each = trained / max(1, total["trained"])
    stages.append(("trained", total["trained"], f"{each:.2f} s each, {trained:.0f} s in all"))
    stages.append(("to the end", total["done"], f"{total['diverged']} diverged, {total['failed']} failed"))
    return stages


@dataclass(frozen=True)
class _Line:
    """An entry of the legend of learning curves."""

    css: str
    name: str
    formula: str
    reward: float
    lr: float | None


def _points(curve: Mapping[str, Any]) -> list[tuple[float, float]]:
    return list(zip(curve.get("steps", []), curve.get("accuracy", []), strict=False))


def _learning(rows: Sequence[Row], trials: Mapping[int, Trial], known: Mapping[str, Score]) -> tuple[str, list[_Line]]:
    """Learning curves of the best rules and the known optimizers, with the legend."""
    lines, legend = [], []
    for k, row in enumerate(rows[:CURVES]):
        curve = trials[row.trial].curve
        lines.append((f"curve found c{k}", _points(curve)))
        legend.append(_Line(f"found c{k}", f"rank {row.rank}", Markup(formula(row.rule)), row.reward, row.lr))
    for k, (name, entry) in enumerate(known.items()):
        lines.append((f"curve known k{k}", _points(entry.curve)))
        legend.append(_Line(f"known k{k}", RULES[name].label, "", entry.reward or 0.0, entry.lr))
    drawing = svg.curves(
        [line for line in lines if line[1]], label="Validation accuracy while a child trains", what="training step"
    )
    return drawing, sorted(legend, key=lambda line: -line.reward)


def _settings(config: dict[str, Any], space: SearchSpace) -> list[tuple[str, str]]:
    nested = ("space", "strategy_options", "gates")
    shown = [(name, value) for name, value in config.items() if name not in nested]
    options = [(f"{config['strategy']} {name}", value) for name, value in config.get("strategy_options", {}).items()]
    gates = [(f"gate {name}", value) for name, value in config.get("gates", {}).items()]
    described: list[tuple[str, Any]] = []
    for name, value in config["space"].items():
        described += value.items() if isinstance(value, dict) else [(f"space {name}", value)]
    described.append(("strings", f"{space.size():.3g}, {space.size(masked=True):.3g} within the masks"))
    return [
        (name.replace("_", " "), "none" if value is None else value if isinstance(value, str) else json.dumps(value))
        for name, value in shown + options + gates + described
    ]
