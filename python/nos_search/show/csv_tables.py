"""Owns runs as CSV, with one row per trial, or one row per point of a learning curve.

Text is one line, and what a spreadsheet would take for a formula, such as the rule -g, begins with an apostrophe.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from ..escape import cell
from ..gate import GATES
from ..run import RunConfig
from ..run.climbing import Reached, climbed, rungs
from ..space import make_space
from ..store import Store, answered
from ..task.score import scores

_COLUMNS: tuple[str, ...] = ("id", "told", "status", "reward", "lr", "seed", "rule", "key", "fingerprint")
_COLUMNS += ("duplicate_of", "reason", "started", "seconds", "attempts", "worker")


def trials_csv(store: Store) -> str:
    """Returns all answered trials in the order of their answers, with the seconds of each gate, the rewards and
    mean ranks on higher rungs, the strategy's numbers after the trial, and the token of each position by name."""
    trials = answered(store.trials())
    space = make_space(store.config["space"])
    metrics = sorted({name for trial in trials for name in trial.metrics})
    gates = [gate for gate in GATES if any(gate in trial.gates for trial in trials)]
    ladder, promoted = len(rungs(RunConfig.from_json(store.config))), climbed(store)
    header = [
        *_COLUMNS,
        *(f"gate.{gate}.seconds" for gate in gates),
        *(f"rung.{k}.{what}" for k in range(1, ladder + 1) for what in ("reward", "rank")),
        *(f"strategy.{name}" for name in metrics),
        *(f"token.{position.name}" for position in space.positions),
    ]
    rows = (
        [
            *(getattr(trial, name) for name in _COLUMNS),
            *(trial.gates.get(gate, {}).get("seconds") for gate in gates),
            *_climb(promoted.get(trial.id, ()), ladder),
            *(trial.metrics.get(name) for name in metrics),
            *space.names(trial.tokens),
        ]
        for trial in trials
    )
    return _text(header, rows)


def curves_csv(store: Store) -> str:
    """Returns the points of every learning curve. The part "sweep" has the end of each learning rate; the other is
    "training"."""

    def points() -> Iterable[list[object]]:
        for trial in answered(store.trials()):
            for row in trial.curve.get("sweep", []):
                yield [trial.id, "sweep", row.get("lr"), row.get("steps"), None, row.get("accuracy"), row.get("score")]
            curve = [trial.curve.get(name, []) for name in ("steps", "loss", "accuracy")]
            for step, loss, accuracy, value in zip(*curve, scores(trial.curve), strict=False):
                yield [trial.id, "training", trial.lr, step, loss, accuracy, value]

    return _text(["id", "part", "lr", "step", "loss", "accuracy", "score"], points())


def _climb(reached: Sequence[Reached], ladder: int) -> list[float | None]:
    """Returns reward and mean rank on each rung."""
    found = [number for each in reached[:ladder] for number in (each.reward, each.rank)]
    return [*found, *[None] * (2 * ladder - len(found))]


def _text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(map(cell, header))
    writer.writerows(map(cell, row) for row in rows)
    return stream.getvalue()
