"""Owns the export of a run as an optuna journal, for optuna-dashboard and optuna's plots.

optuna itself makes the entries: its JournalStorage writes to a backend that keeps them in memory, and the file gets
them at once. (Through optuna's file backend every entry costs a lock and an fsync.)
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from ..errors import SearchError
from ..space import make_space
from ..store import Store, Trial
from ..task.score import scores


def write_journal(store: Store, path: Path) -> None:
    """Writes the run's answered trials as a study named after the run folder. Raises OSError when `path` cannot be
    made, and FileExistsError when it is there: optuna would take its entries for part of the study.

    A trial's parameters are the tokens of its positions by name, and its value is the reward. Failed trials are failed.
    Rejected and duplicate ones are complete with the reward that the strategy was told, and user attributes say what
    they are.
    """
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import BaseJournalBackend
    except ImportError:
        raise SearchError("--format optuna needs optuna; install it with: pip install 'nos-ext[optuna]'") from None

    class Memory(BaseJournalBackend):
        logs: list[dict[str, Any]] = []  # noqa: RUF012 - one instance

        def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
            return self.logs[log_number_from:]

        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            self.logs.extend(logs)

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    memory = Memory()
    memory.logs = []
    study = optuna.create_study(
        storage=JournalStorage(memory), study_name=store.folder.resolve().name, direction="maximize"
    )
    for name, value in (("config", store.config), ("versions", store.versions)):
        study.set_user_attr(name, value)
    space = make_space(store.config["space"])
    choices = {
        position.name: optuna.distributions.CategoricalDistribution(position.names) for position in space.positions
    }
    for trial in store.trials():
        if trial.told is not None:
            names = dict(zip(choices, space.names(trial.tokens), strict=True))
            study.add_trial(_frozen(optuna, trial, names, choices))
    with path.open("x", encoding="utf-8") as file:
        file.writelines(json.dumps(entry, separators=(",", ":")) + "\n" for entry in memory.logs)


def _frozen(optuna: Any, trial: Trial, params: dict[str, str], choices: dict[str, Any]) -> Any:
    failed = trial.reward is None
    curve = zip(trial.curve.get("steps", []), scores(trial.curve), strict=True)
    frozen = optuna.trial.create_trial(
        state=optuna.trial.TrialState.FAIL if failed else optuna.trial.TrialState.COMPLETE,
        value=None if failed else trial.reward,
        params=params,
        distributions=choices,
        intermediate_values={int(step): float(value) for step, value in curve},
        user_attrs={
            "rule": trial.rule,
            "status": trial.status,
            "lr": trial.lr,
            "seed": trial.seed,
            "reason": trial.reason,
            "duplicate_of": trial.duplicate_of,
            "id": trial.id,
        },
    )
    frozen.datetime_start = datetime.fromtimestamp(trial.started)
    frozen.datetime_complete = datetime.fromtimestamp(trial.started + trial.seconds)
    return frozen
