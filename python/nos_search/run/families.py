"""Owns which trials of a run are one family: those whose rules behave nearly alike (gate/families.py).

A family has the number of its first trial. Trials join in the order of their answers, so a run that is resumed finds
the families that the search found. It keeps them with its trials. Runs of older releases have none, and whoever looks
at such a folder finds them again, which takes far longer than to read them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..gate import Funnel, Gates
from ..store import Store, Trial, answered
from .config import RunConfig


def _trained(trials: Sequence[Trial]) -> list[Trial]:
    """Returns the trained ones in the order of their answers."""
    return [trial for trial in answered(trials) if trial.trained]


def enter_trained(funnel: Funnel, trials: Sequence[Trial], *, equals: bool = True) -> dict[int, int]:
    """Enters the trained ones of a run's trials into a new funnel, and returns the family of each. Without `equals` the
    funnel knows of no equal rule afterwards."""
    trained = _trained(trials)
    found = funnel.restore([(trial.id, trial.tokens) for trial in trained], equals=equals)
    return {trial.id: family for trial, family in zip(trained, found, strict=True) if family is not None}


def with_families(store: Store, trials: Sequence[Trial], families: Mapping[int, int]) -> list[Trial]:
    """Returns the trials with their families, and puts those into the store that had none, or others: they are of an
    older release, or of another machine whose last digits were others."""
    found = [
        trial if trial.family == families.get(trial.id) else replace(trial, family=families.get(trial.id))
        for trial in trials
    ]
    for now, then in zip(found, trials, strict=True):
        if now is not then:
            store.put(now)
    return found


def families_of(store: Store, trials: Sequence[Trial]) -> dict[int, int]:
    """Returns the family of each trained trial of a stored run."""
    stored = {trial.id: trial.family for trial in _trained(trials)}
    known = {number: family for number, family in stored.items() if family is not None}
    if len(known) == len(stored):
        return known
    config = RunConfig.from_json(store.config)
    return enter_trained(Funnel(config.make_space(), Gates(), alike=config.alike), trials, equals=False)
