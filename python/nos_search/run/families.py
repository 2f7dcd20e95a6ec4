"""Owns which trials of a run are one family: those whose rules behave nearly alike (gate/families.py).

A family has the number of its first trial. Trials join in the order of their answers, so a run that is resumed, and
whoever looks at its folder afterwards, find the families that the search found.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..gate import Funnel, Gates
from ..store import Store, Trial
from .config import RunConfig


def enter_trained(funnel: Funnel, trials: Iterable[Trial], *, equals: bool = True) -> dict[int, int]:
    """Enters the trained ones of a run's trials into a new funnel, and returns the family of each. Without `equals` the
    funnel knows of no equal rule afterwards."""
    trained = sorted(
        (trial for trial in trials if trial.told is not None and trial.status in ("done", "diverged")),
        key=lambda trial: trial.told or 0,
    )
    strings, rewards = [(trial.id, trial.tokens) for trial in trained], [trial.reward or 0.0 for trial in trained]
    found = funnel.restore(strings, rewards, equals=equals)
    return {trial.id: family for trial, family in zip(trained, found, strict=True) if family is not None}


def families_of(store: Store, trials: Iterable[Trial]) -> dict[int, int]:
    """Returns the family of each trained trial of a stored run."""
    config = RunConfig.from_json(store.config)
    return enter_trained(Funnel(config.make_space(), Gates(), alike=config.alike), trials, equals=False)
