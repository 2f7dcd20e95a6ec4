"""Owns how a strategy gets back to where a stored run was: it loads its last checkpoint, and is asked and told what
came after it.

Most strategies are functions of their state and of what they are asked and told, so repeating the calls gives the state
of the run at its last commit, bit for bit on the same machine and versions. The rows hold all that is needed: which
trials were asked for in one call (`batch`), how many answers had been told before (`asked`), and the order of answers
(`told`). A strategy that does not repeat is not asked again for what it has proposed: it is told what became of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import StoreError, UsageError
from ..escape import line
from ..store import Store, Trial, answered
from ..strategy import Candidate, Result, Strategy

_UNFIT = (
    "run folder {folder} cannot be resumed: the strategy's checkpoint does not fit the trials; restore it from a copy"
)


@dataclass(frozen=True)
class Resumed:
    """What a run was when it stopped. `trials` are all of it, answered and open; `waiting` are those that were asked
    for and not answered, by id. The last checkpoint knew `known` answers.

    `strangers` counts the trials that the strategy would not propose again, because versions or the machine changed
    since. Their answers are told as foreign results, so nothing that was trained is lost; what the strategy proposes in
    their place is answered without a reward.
    """

    trials: list[Trial]
    waiting: list[Trial]
    strangers: int
    known: int


def result_of(trial: Trial, families: Mapping[int, int]) -> Result:
    """Returns what a strategy is told of an answered trial. `families` has the family of each that was trained."""
    duplicate = trial.status == "duplicate"
    trained = trial.duplicate_of if duplicate else trial.id
    family = None if trained is None else families.get(trained)
    return Result(trial.tokens, trial.reward, trial.id, duplicate=duplicate, family=family, verdict=verdict_of(trial))


def verdict_of(trial: Trial) -> dict[str, Any]:
    """Returns what gates and training said of an answered trial, as JSON."""
    gated = trial.status in ("rejected", "duplicate")
    said: dict[str, Any] = {"verdict": trial.status if gated else "passed"}
    if not gated:
        said["training"] = trial.status
    stopped = [gate for gate, entry in trial.gates.items() if not entry["passed"]]
    optional = {
        "gate": stopped[0] if stopped else None,
        "reason": trial.reason or None,
        "duplicate_of": trial.duplicate_of,
        "lr": trial.lr,
    }
    return said | {name: value for name, value in optional.items() if value is not None}


def check_limits(store: Store, new: Mapping[str, Any]) -> None:
    """Raises UsageError for a new limit that the run has passed already."""
    trials = store.trials()
    reached = {
        "trials": sum(trial.told is not None for trial in trials),
        "children": sum(trial.trained for trial in trials),
    }
    for name, done in reached.items():
        limit = new.get(name)
        if limit is not None and limit < done:
            what = "trials" if name == "trials" else "trained children"
            raise UsageError(f"--{name} {limit}: {line(store.folder)} has {done} {what} already; name a higher number")


def restore(store: Store, trials: list[Trial], strategy: Strategy, families: Mapping[int, int]) -> Resumed:
    """Brings a fresh strategy to the stored run's state. `trials` are all of the run, and `families` has the family of
    each that was trained."""
    checkpoint = store.checkpoint()
    known = 0
    if checkpoint is not None:
        state, known = checkpoint
        try:
            strategy.load_state_dict(state)
        except Exception as error:  # a strategy need not foresee every foreign state
            said = f"{type(error).__name__}: {ascii(str(error))[:200]}"
            raise StoreError(f"{_UNFIT.format(folder=store.folder)} ({said})") from error
    if not strategy.repeats:
        waiting = [trial for trial in trials if trial.told is None]
        results = [result_of(trial, families) for trial in answered(trials)]
        strategy.recall(results, [Candidate(trial.id, trial.tokens) for trial in waiting])
        return Resumed(trials, waiting, 0, known)
    by_id = {trial.id: trial for trial in trials}
    asked = {candidate.id: candidate.tokens for candidate in strategy.open}
    strangers = 0

    def ask(batch: Sequence[Trial]) -> None:
        asked.update((candidate.id, candidate.tokens) for candidate in strategy.ask(len(batch)))

    def tell(trial: Trial) -> None:
        nonlocal strangers
        if trial.id not in asked:
            raise StoreError(_UNFIT.format(folder=store.folder))
        tokens = asked.pop(trial.id)
        if tokens == trial.tokens:
            strategy.tell([result_of(trial, families)])
            return
        strangers += 1
        strategy.tell([Result(tokens, None, trial.id)])
        if trial.reward is not None:
            strategy.tell([replace(result_of(trial, families), id=None)])

    answers = [trial for trial in answered(trials) if (trial.told or 0) >= known]
    told = known
    for batch in _batches([trial for trial in trials if trial.id >= strategy.asked]):
        while answers and told < (batch[0].asked or 0):
            tell(answers.pop(0))
            told += 1
        ask(batch)
    for trial in answers:
        tell(trial)
    waiting = []
    for number, tokens in sorted(asked.items()):
        if number not in by_id or by_id[number].told is not None:
            raise StoreError(_UNFIT.format(folder=store.folder))
        row = by_id[number]
        if row.tokens != tokens:
            strangers += 1
            row = replace(row, tokens=tokens, rule="", key="")
        waiting.append(row)
    return Resumed(trials, waiting, strangers, known)


def _batches(trials: Sequence[Trial]) -> list[list[Trial]]:
    batches: list[list[Trial]] = []
    for trial in trials:
        if batches and batches[-1][0].batch == trial.batch:
            batches[-1].append(trial)
        else:
            batches.append([trial])
    return batches
