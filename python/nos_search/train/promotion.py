"""Owns multi-fidelity promotion: rules earn longer trainings, then more data, then other tasks, by successive halving.

A ladder has rungs, the cheapest first. Every rule is scored on rung 0; of those that were scored on a rung, the best
1/eta are scored on the next one. A rule that only wins the short task stays below.

A search in progress is asynchronous, as in ASHA (Li et al. 2020): `due` says who has earned which rung, from the
rewards so far alone, so a search that is resumed from its store asks for the same promotions (run/climbing.py);
`promote` does one. `climb` does the whole ladder for a list of rules at once.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from ..errors import UsageError
from ..rules import CompiledRule
from ..task import Task, load
from .child import Outcome, ScoringProtocol, score

_ARGUMENT = "--promote"
_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True)
class Rung:
    """A rung has tasks. A rule is scored on each, and its reward is the mean of the scores. `text` is as the user wrote
    it."""

    text: str
    tasks: tuple[Task, ...]


@dataclass(frozen=True)
class Promotion:
    """A ladder of `rungs`, the cheapest first. One rule in `eta` is promoted, and every rung is scored by
    `protocol`."""

    rungs: tuple[Rung, ...]
    eta: int = 4
    protocol: ScoringProtocol = field(default_factory=ScoringProtocol)

    def __post_init__(self) -> None:
        if not self.rungs:
            raise UsageError(f"{_ARGUMENT}: no rung; for example {_ARGUMENT} 'digits, digits*4, fashion+patch10'")
        if self.eta < 2:
            raise UsageError(f"{_ARGUMENT}: eta {self.eta} is below 2; one rule in eta is promoted")

    def to(self, device: str) -> Promotion:
        """Returns the ladder with all data on `device`."""
        rungs = tuple(Rung(rung.text, tuple(task.to(device) for task in rung.tasks)) for rung in self.rungs)
        return replace(self, rungs=rungs)

    @classmethod
    def parse(
        cls,
        text: str,
        *,
        data_dir: Path | None = None,
        eta: int = 4,
        protocol: ScoringProtocol | None = None,
        score: str | None = None,
    ) -> Promotion:
        """Reads rungs, set apart by commas, of tasks joined by "+", each of which is TASK[:NET][*TIMES][@PART].

        NET is NAME[-DEPTH[-WIDTH]] (net/). TIMES multiplies the steps of the task's longer training, and PART is the
        share of its training data. `score` is that of all tasks; None is each one's own. Raises UsageError, which names
        the part that cannot be read.
        """
        rungs = []
        for rung in split(text):
            parts = [part.strip() for part in rung.split("+")]
            rungs.append(Rung(rung, tuple(_task(part, data_dir, score) for part in parts)))
        return cls(tuple(rungs), eta, protocol or ScoringProtocol())


def split(text: str) -> list[str]:
    """Returns the rungs as the user wrote them."""
    return [rung.strip() for rung in text.split(",")]


def due(rewards: Mapping[_Key, Sequence[float]], *, rungs: int, eta: int) -> list[tuple[_Key, int]]:
    """Says who has earned which rung, as (key, rung): the highest rung first, then the best reward, then in order of
    the mapping.

    `rewards` has for each rule one reward for each rung it was scored on; a reward of 0 earns nothing. `rungs` counts
    those of the ladder, rung 0 among them. A rule that is in flight is still due, and the caller leaves it out.
    """
    earned = []
    for rung in reversed(range(rungs - 1)):
        scored = [(values[rung], key, len(values)) for key, values in rewards.items() if len(values) > rung]
        scored.sort(key=lambda entry: -entry[0])  # stable
        best = scored[: len(scored) // eta]
        earned += [(key, rung + 1) for reward, key, done in best if done == rung + 1 and reward > 0]
    return earned


def _number(text: str, part: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise UsageError(f"{_ARGUMENT}: {text!r} in {part!r} is not a number above 0")
    return value


def _task(part: str, data_dir: Path | None, score: str | None) -> Task:
    """Loads TASK[:NET][*TIMES][@PART]."""
    rest, at, fraction = part.partition("@")
    rest, star, times = rest.partition("*")
    name, colon, net = rest.partition(":")
    task = load(name.strip(), data_dir=data_dir, argument=_ARGUMENT).with_options(score=score)
    if colon:
        task = task.with_options(net=net.strip())
    if at:
        task = task.with_data(_number(fraction, part))
    if star:
        steps = max(1, round(task.budget.train_steps * _number(times, part)))
        task = replace(task, budget=replace(task.budget, train_steps=steps))
    return task


def promote(rule: CompiledRule, promotion: Promotion, rung: int, *, seed: int) -> Outcome:
    """Scores a rule on all tasks of a rung. The outcome is a function of the arguments.

    Its reward is the mean over the tasks, where one on which the rule diverges counts 0. Its status is "diverged" when
    that happened on every task, and its lr is that of the first. Its curve is {"rung", "tasks": [{"task", "reward",
    "lr", "status", **curve of score()}]}.
    """
    rows: list[dict[str, Any]] = []
    for task in promotion.rungs[rung].tasks:
        outcome = score(rule, task, promotion.protocol, seed=seed)
        row = {"task": task.name, "reward": outcome.reward, "lr": outcome.lr, "status": outcome.status}
        rows.append(row | outcome.curve)
    reward = sum(row["reward"] for row in rows) / len(rows)
    diverged = all(row["status"] == "diverged" for row in rows)
    curve = {"rung": promotion.rungs[rung].text, "tasks": rows}
    return Outcome("diverged" if diverged else "done", reward, rows[0]["lr"], curve)


def climb(rules: Sequence[CompiledRule], promotion: Promotion, *, seed: int) -> list[list[Outcome]]:
    """Climbs the whole ladder at once: all rules are scored on rung 0, and the best 1/eta (at least one) of each rung
    on the next.

    Returns the outcomes of each rule, one for each rung that it reached.
    """
    outcomes: list[list[Outcome]] = [[] for _ in rules]
    chosen = list(range(len(rules)))
    for rung in range(len(promotion.rungs)):
        for k in chosen:
            outcomes[k].append(promote(rules[k], promotion, rung, seed=seed))
        fit = [k for k in chosen if outcomes[k][rung].reward > 0]
        fit.sort(key=lambda k: -outcomes[k][rung].reward)
        chosen = fit[: max(1, len(chosen) // promotion.eta)]
    return outcomes
