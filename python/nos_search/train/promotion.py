"""Owns multi-fidelity promotion: rules earn longer trainings, then more data, then other tasks, by successive halving.

A ladder has rungs, the cheapest first. Every rule is scored on rung 0; of those that were scored on a rung, the best
1/eta are scored on the next one (ladder.py says who). A rule that only wins the short task stays below.

This module reads a ladder and scores rules on its rungs: `promote` does one promotion of a search in progress
(run/climbing.py), and `climb` does the whole ladder for a list of rules at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from ..errors import UsageError
from ..rules import CompiledRule
from ..task import Task, load
from .child import Outcome, ScoringProtocol, score
from .default_ladder import OWN
from .ladder import mean_ranks
from .seeds import derive_seed

_ARGUMENT = "--promote"
_MOST_SEEDS: Final = 1000
_MOST_TIMES: Final = 1e6


@dataclass(frozen=True)
class Part:
    """A part of a rung is a task, and with how many seeds a rule is scored on it. `loader` is called when the task is
    needed for the first time."""

    loader: Callable[[], Task]
    seeds: int = 1

    @classmethod
    def of(cls, task: Task, seeds: int = 1) -> Part:
        return cls(lambda: task, seeds)

    @cached_property
    def task(self) -> Task:
        return self.loader()


@dataclass(frozen=True)
class Rung:
    """A rung has parts, and a rule is scored on each. `text` is as the user wrote it."""

    text: str
    parts: tuple[Part, ...]

    @classmethod
    def of(cls, text: str, *tasks: Task) -> Rung:
        """Returns a rung of tasks that are loaded already."""
        return cls(text, tuple(Part.of(task) for task in tasks))

    @property
    def tasks(self) -> tuple[Task, ...]:
        return tuple(part.task for part in self.parts)


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
        """Returns the ladder with all data on `device`, once they are loaded."""

        def moved(part: Part) -> Part:
            return Part(lambda: part.task.to(device), part.seeds)

        return replace(self, rungs=tuple(replace(rung, parts=tuple(map(moved, rung.parts))) for rung in self.rungs))

    @classmethod
    def parse(
        cls,
        text: str,
        *,
        own: Task | None = None,
        data_dir: Path | None = None,
        eta: int = 4,
        protocol: ScoringProtocol | None = None,
        score: str | None = None,
        at_once: bool = True,
    ) -> Promotion:
        """Reads rungs, set apart by commas, of tasks joined by "+", each of which is TASK[:NET][*TIMES][@PART][#SEEDS].

        NET is NAME[-DEPTH[-WIDTH]] (net/). TIMES multiplies the steps of the task's longer training, PART is the share
        of its training data, and SEEDS says how often a rule is scored on it, each time with another seed. The word
        "own" is the task `own`. `score` is that of all other tasks; None is each one's own. Tasks are loaded
        `at_once`, or when a rule comes to them. Raises UsageError, which names the part that cannot be read.
        """
        rungs = []
        for rung in split(text):
            parts = [part.strip() for part in rung.split("+")]
            rungs.append(Rung(rung, tuple(_part(part, own, data_dir, score) for part in parts)))
        ladder = cls(tuple(rungs), eta, protocol or ScoringProtocol())
        for found in ladder.rungs if at_once else ():
            assert found.tasks
        return ladder


def split(text: str) -> list[str]:
    """Returns the rungs as the user wrote them."""
    return [rung.strip() for rung in text.split(",")]


def _number(text: str, part: str, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= most:
        raise UsageError(f"{_ARGUMENT}: {text!r} in {part!r} is not a number above 0 and up to {most:g}")
    return value


def _count(text: str, part: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= _MOST_SEEDS):
        raise UsageError(f"{_ARGUMENT}: {text!r} in {part!r} is not a number of seeds from 1 to {_MOST_SEEDS}")
    return int(text)


def _part(part: str, own: Task | None, data_dir: Path | None, score: str | None) -> Part:
    """Reads TASK[:NET][*TIMES][@PART][#SEEDS]."""
    rest, hash_, seeds = part.partition("#")
    rest, at, share = rest.partition("@")
    rest, star, factor = rest.partition("*")
    name, colon, net = (word.strip() for word in rest.partition(":"))
    times = _number(factor, part, _MOST_TIMES) if star else None
    fraction = _number(share, part, 1.0) if at else None
    if not name:
        raise UsageError(f"{_ARGUMENT}: {part!r} names no task; for example {_ARGUMENT} 'own*10#3, teacher+charlm'")
    if name == OWN and own is None:
        raise UsageError(f"{_ARGUMENT} {part!r}: {OWN} is the task of a search, and there is none; name a task")

    def loader() -> Task:
        if name == OWN:
            assert own is not None
            task = own
        else:
            task = load(name, data_dir=data_dir, argument=_ARGUMENT).with_options(score=score)
        if colon:
            try:
                task = task.with_options(net=net)
            except UsageError as error:
                raise UsageError(f"{_ARGUMENT}: in {part!r}, {error}") from None
        if fraction is not None:
            task = task.with_data(fraction)
        if times is not None:
            steps = max(1, round(task.budget.train_steps * times))
            task = replace(task, budget=replace(task.budget, train_steps=steps))
        return task

    return Part(loader, _count(seeds.strip(), part) if hash_ else 1)


def promote(rule: CompiledRule, promotion: Promotion, rung: int, *, seed: int) -> Outcome:
    """Scores a rule on all tasks of a rung. The outcome is a function of the arguments.

    Its reward is the mean over the tasks of the mean over the seeds, of which `seed` is the first. A training that
    diverges counts 0. Its status is "diverged" when all of them do, and its lr is that of the first. Its curve is
    {"rung", "tasks": [{"task", "part", "seed", "reward", "lr", "status", **curve of score()}]}; `part_scores` reads it.
    """
    rows: list[dict[str, Any]] = []
    for number, part in enumerate(promotion.rungs[rung].parts):
        for k in range(part.seeds):
            drawn = seed if k == 0 else derive_seed(seed, k)
            outcome = score(rule, part.task, promotion.protocol, seed=drawn)
            row = {"task": part.task.name, "part": number, "seed": drawn}
            row |= {"reward": outcome.reward, "lr": outcome.lr, "status": outcome.status}
            rows.append(row | outcome.curve)
    curve = {"rung": promotion.rungs[rung].text, "tasks": rows}
    means = part_scores(curve)
    diverged = all(row["status"] == "diverged" for row in rows)
    return Outcome("diverged" if diverged else "done", sum(means) / len(means), rows[0]["lr"], curve)


def part_scores(curve: dict[str, Any]) -> list[float]:
    """Returns the mean reward on each part of a rung, from what `promote` keeps as a curve. Releases that had one seed
    for a rung kept one row for each part, without its number. A curve of anything else has no scores."""
    found: dict[int, list[float]] = {}
    rows = curve.get("tasks")
    for place, row in enumerate(rows if isinstance(rows, list) else ()):
        reward = row.get("reward") if isinstance(row, dict) else None
        part = row.get("part", place) if isinstance(row, dict) else place
        if type(part) is not int or not isinstance(reward, (int, float)) or not 0 <= reward <= 1:
            return []
        found.setdefault(part, []).append(float(reward))
    return [sum(found[part]) / len(found[part]) for part in sorted(found)]


def climb(rules: Sequence[CompiledRule], promotion: Promotion, *, seed: int) -> list[list[Outcome]]:
    """Climbs the whole ladder at once: all rules are scored on rung 0, and the best 1/eta (at least one) of each rung,
    by mean rank, on the next.

    Returns the outcomes of each rule, one for each rung that it reached.
    """
    outcomes: list[list[Outcome]] = [[] for _ in rules]
    chosen = list(range(len(rules)))
    for rung in range(len(promotion.rungs)):
        for k in chosen:
            outcomes[k].append(promote(rules[k], promotion, rung, seed=seed))
        here = {k: outcomes[k][rung] for k in chosen}
        ranks = dict(zip(chosen, mean_ranks([part_scores(found.curve) for found in here.values()]), strict=True))
        fit = [k for k in chosen if here[k].reward > 0]
        fit.sort(key=lambda k: (ranks[k], -here[k].reward))
        chosen = fit[: max(1, len(chosen) // promotion.eta)]
    return outcomes
