"""Owns the report of a run: one HTML page that holds everything it shows and loads nothing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from . import svg
from .gate import counts as gate_counts
from .mathml import formula
from .results import counts, leaderboard
from .space import SearchSpace, make_space
from .store import Store, Trial

TOP_RULES = 8
TABLE_ROWS = 50
_MEAN_WINDOW = 25  # trials
_TEMPLATE = Path(__file__).resolve().parent / "templates" / "report.html"


def render(store: Store) -> str:
    """The page as text. Works on a run that is going on, too."""
    trials = [trial for trial in store.trials() if trial.status != "running"]
    rows = leaderboard(trials)
    by_id = {trial.id: trial for trial in trials}
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    config = dict(store.config)
    space = make_space(config["space"])
    best = rows[0] if rows else None
    return template.render(
        config=config,
        best=best,
        counts=counts(trials),
        best_formula=Markup(formula(best.rule, block=True)) if best else "",
        reward_chart=Markup(_reward_chart(trials)),
        funnel=Markup(svg.funnel(_funnel(trials))),
        rows=[
            {
                "row": row,
                "formula": Markup(formula(row.rule)),
                "spark": Markup(svg.spark(by_id[row.trial].curve.get("accuracy", []))),
            }
            for row in rows[:TABLE_ROWS]
        ],
        hidden=max(0, len(rows) - TABLE_ROWS),
        top=TOP_RULES,
        window=_MEAN_WINDOW,
        reasons=Counter(trial.reason.splitlines()[0] for trial in trials if trial.reason).most_common(8),
        settings=_settings(config, space),
        versions=store.versions,
        training_seconds=sum(trial.seconds for trial in trials),
        started=_day(trials[0].started) if trials else "",
    )


def write(store: Store, path: Path) -> None:
    """Writes the page to `path`."""
    path.write_text(render(store), encoding="utf-8")


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, tz=timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def _reward_chart(trials: Sequence[Trial]) -> str:
    if not trials:
        return ""
    points, best, mean = [], [], []
    top = 0.0
    values: list[float] = []
    for index, trial in enumerate(trials):
        reward = trial.reward or 0.0
        top = max(top, reward)
        best.append(top)
        values.append(reward)
        if len(values) >= min(_MEAN_WINDOW, len(trials)):
            window = values[-_MEAN_WINDOW:]
            mean.append((index, sum(window) / len(window)))
        points.append((index, reward, f"dot {trial.status}", f"#{trial.id} {trial.status} {reward:.3f}  {trial.rule}"))
    return svg.rewards(points, best, mean)


def _funnel(trials: Sequence[Trial]) -> list[tuple[str, int, str]]:
    total = counts(trials)
    rows = [("proposed", total["trials"], "")]
    for gate in gate_counts(trials):
        if gate.entered:
            each = 1e6 * gate.seconds / gate.entered
            rows.append((gate.gate, gate.entered - gate.stopped, f"{gate.stopped} stopped, {each:.0f} us each"))
    rows.append(("trained to the end", total["done"], f"{total['diverged']} diverged, {total['failed']} failed"))
    return rows


def _settings(config: dict[str, Any], space: SearchSpace) -> list[tuple[str, str]]:
    shown = [(name, value) for name, value in config.items() if name not in ("space", "strategy_options", "gates")]
    gates = [(f"gate {name}", value) for name, value in config.get("gates", {}).items()]
    options = [(f"{config['strategy']} {name}", value) for name, value in config["strategy_options"].items()]
    described = [
        *[(name, value) for name, value in config["space"].items() if name not in ("kind", "options")],
        *config["space"].get("options", {}).items(),
        ("strings", f"{space.size():.3g}, {space.size(masked=True):.3g} within the masks"),
    ]
    return [
        (name.replace("_", " "), "none" if value is None else value if isinstance(value, str) else json.dumps(value))
        for name, value in shown + options + gates + described
    ]
