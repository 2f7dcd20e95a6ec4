"""Owns the known optimizers that a report sets beside the found rules. They are trained on the same task by the same
protocol with the same seed, and are kept in the store."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from ..errors import UsageError
from ..known import REPORTED, RULES
from ..rules import compile_rule
from ..store import Score, Store
from ..task.score import ACCURACY
from ..train.child import score
from ..train.device import check_device
from .config import RunConfig

BASELINE = "baseline"


def budget(config: RunConfig) -> dict[str, Any]:
    """Returns what decides a score besides rule, task and seed. Scores of other budgets cannot be compared with it."""
    names = ("sweep", "net", "width", "sweep_steps", "train_steps", "data_dir")
    # not written by runs that had no choice
    device = {} if config.device_name == "cpu" else {"device": config.device_name}
    engine = {} if config.engine == "torch" else {"engine": config.engine}
    paid = {} if config.score in (None, ACCURACY) else {"score": config.score}
    return {name: getattr(config, name) for name in names} | {"threads": config.torch_threads} | device | engine | paid


def stored(store: Store) -> dict[str, Score]:
    """Returns the scores of known optimizers that fit the run, by name, in the order of REPORTED."""
    config = RunConfig.from_json(store.config)
    found = {
        entry.name: entry
        for entry in store.scores(BASELINE)
        if (entry.task, entry.seed, entry.budget) == (config.task, config.child_seed, budget(config))
    }
    return {name: found[name] for name in REPORTED if name in found}


def train_missing(store: Store, *, note: Callable[[str], None]) -> None:
    """Trains the known optimizers that the store does not have yet. It must be open for writing. Where the run's task
    or its device is not to be had here none is trained, and `note` is told why."""
    config = RunConfig.from_json(store.config)
    missing = [name for name in REPORTED if name not in stored(store)]
    if not missing:
        return
    try:
        task = config.make_task().to(check_device(config.device_name))
    except UsageError as error:
        why = str(error).rsplit("; ", 1)[0]  # without the remedy, which is another command's option
        note(f"note: known optimizers that were not trained yet are left out: {why}")
        return
    protocol = config.make_protocol()
    torch.set_num_threads(config.torch_threads)
    for name in missing:
        note(f"training {RULES[name].label} on {config.task} with the run's seed, to compare")
        rule = compile_rule(name)
        start = time.perf_counter()
        got = score(rule, task, protocol, seed=config.child_seed)
        store.put_score(
            Score(
                BASELINE,
                name,
                rule.key,
                config.task,
                config.child_seed,
                budget(config),
                got.status,
                got.reward,
                got.lr,
                None,
                got.curve,
                time.perf_counter() - start,
            )
        )
