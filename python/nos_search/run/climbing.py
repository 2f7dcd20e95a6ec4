"""Owns the promotions of a run in progress: which rule has earned which rung (train/promotion.py), and what came of it.

Rung 0 is the search's own task, and its rewards are those of the trials; the rungs from 1 up are those of --promote.
Promotions do not change what the strategy is told, so a run proposes the same rules with and without them. They are
kept as scores in the store.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from ..executor import Answer
from ..store import PROMOTION, Score, Store, Trial, clean, record_fault
from ..train.promotion import due, split
from ..train.seeds import derive_seed
from .config import RunConfig


def climbed(store: Store) -> dict[int, list[float]]:
    """Returns for each promoted trial of a run its rewards on the rungs 1, 2, ..., as `climbs` does."""
    return climbs(store.scores(PROMOTION))


def climbs(promotions: Iterable[Score]) -> dict[int, list[float]]:
    """Returns for each promoted trial its rewards on the rungs 1, 2, ... A reward is 0 where the rule diverged or could
    not be run."""
    rewards: dict[int, list[float]] = {}
    for entry in promotions:
        rewards.setdefault(entry.budget["trial"], []).append(entry.reward or 0.0)
    return rewards


def rungs(config: RunConfig) -> list[str]:
    """Returns what the user wrote for the rungs 1, 2, ..."""
    return split(config.promote) if config.promote else []


class Climb:
    """These are the promotions of one run. `trained` are the trials whose own child has given them a reward."""

    def __init__(self, store: Store, config: RunConfig, trained: Collection[Trial]) -> None:
        self._store, self._config, self._rungs = store, config, rungs(config)
        self._rewards: dict[int, list[float]] = {}
        self._trials: dict[int, Trial] = {}
        self._due: list[tuple[int, int]] | None = None  # None: must be found out again
        if self._rungs:
            for trial in sorted(trained, key=lambda trial: trial.told or 0):
                self.add(trial)
            for number, rewards in climbed(store).items():
                self._rewards[number] += rewards

    def add(self, trial: Trial) -> None:
        """Takes note of a trial that was trained."""
        if self._rungs:
            self._trials[trial.id] = trial
            self._rewards[trial.id] = [trial.reward or 0.0]
            self._due = None

    def next(self, flying: Collection[int]) -> tuple[Trial, int] | None:
        """Returns a trial and the rung that it has earned, or None if there is none besides those in flight."""
        if self._due is None:
            self._due = due(self._rewards, rungs=len(self._rungs) + 1, eta=self._config.promote_eta)
        for number, rung in self._due:
            if number not in flying:
                return self._trials[number], rung
        return None

    def seed(self, rung: int) -> int:
        """Returns the seed of all children of a rung. It is another one than the search's, so that a rule that was only
        lucky with the first does not climb."""
        return derive_seed(self._config.seed, f"{PROMOTION}{rung}")

    def land(self, number: int, rung: int, answer: Answer) -> Score:
        """Writes what became of a promotion. One that could not be run counts as a reward of 0."""
        outcome, trial = answer.outcome, self._trials[number]
        budget = {"trial": number, "rung": rung}
        failed = Score(
            PROMOTION,
            trial.rule,
            trial.key,
            self._rungs[rung - 1],
            self.seed(rung),
            budget,
            "failed",
            reward=0.0,
            curve={"reason": clean(answer.reason)},
            seconds=answer.seconds,
        )
        score = failed
        if outcome is not None:
            score = replace(failed, status=outcome.status, reward=outcome.reward, lr=outcome.lr, curve=outcome.curve)
            fault = record_fault(score)
            if fault:
                score = replace(failed, curve={"reason": f"the outcome cannot be stored: {fault}"})
        self._store.put_score(score)
        self._rewards[number].append(score.reward or 0.0)
        self._due = None
        return score


def order(reward: float, promoted: Sequence[float]) -> tuple[float, float]:
    """Returns a key that sorts the best rules first: by the rung that they reached, then by their reward there. A rule
    that diverged on a rung comes last, because that rung has found it out."""
    last = promoted[-1] if promoted else reward
    return (-float(len(promoted)) if last > 0 else 1.0, -last)
