"""Owns the promotions of a run in progress: which rule has earned which rung (train/ladder.py), and what came of it.

Rung 0 is the search's own task, and its rewards are those of the trials; the rungs from 1 up are those of --promote.
Promotions do not change what the strategy is told, so a run proposes the same rules with and without them. They are
kept as scores in the store.

Where a rule stands follows from what the store has, in whatever order it came: first by the rung that it reached, then
by its mean rank over the tasks of that rung, among all rules that were scored there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from ..executor import Answer
from ..store import PROMOTION, Score, Store, Trial, clean, record_fault
from ..train.ladder import Ladder, mean_ranks
from ..train.promotion import part_scores, split
from ..train.seeds import derive_seed
from .config import RunConfig


@dataclass(frozen=True)
class Reached:
    """What a rule has reached on a rung: its reward there, which is the mean of its scores and 0 where it diverged or
    could not be run, and its mean rank over the tasks, where 1 is the best."""

    reward: float
    rank: float


def climbed(store: Store) -> dict[int, list[Reached]]:
    """Returns for each promoted trial of a run what it reached on the rungs 1, 2, ..., as `climbs` does."""
    return climbs(store.scores(PROMOTION))


def climbs(promotions: Iterable[Score]) -> dict[int, list[Reached]]:
    """Returns for each promoted trial what it reached on the rungs 1, 2, ..."""
    by_rung: dict[int, list[Score]] = {}
    for entry in promotions:
        by_rung.setdefault(entry.budget["rung"], []).append(entry)
    reached: dict[int, list[Reached]] = {}
    for _, entries in sorted(by_rung.items()):
        for entry, rank in zip(entries, mean_ranks(list(map(scores_of, entries))), strict=True):
            reached.setdefault(entry.budget["trial"], []).append(Reached(entry.reward or 0.0, rank))
    return reached


def scores_of(promotion: Score) -> list[float]:
    """Returns the scores of a promoted rule by task. One that could not be run scores 0."""
    return part_scores(promotion.curve) or [promotion.reward or 0.0]


def rungs(config: RunConfig) -> list[str]:
    """Returns what the user wrote for the rungs 1, 2, ..."""
    return split(config.promote) if config.promote else []


class Climb:
    """These are the promotions of one run. `trained` are the trials whose own child was trained, in the
    order of their answers."""

    def __init__(self, store: Store, config: RunConfig, trained: Iterable[Trial]) -> None:
        self._store, self._config, self._rungs = store, config, rungs(config)
        self._ladder: Ladder[int] = Ladder(len(self._rungs) + 1, config.promote_eta)
        self._trials: dict[int, Trial] = {}
        self._spent: dict[int, tuple[float, int]] = {}  # by rung: the seconds of promotions, and how many they were
        if self._rungs:
            for trial in trained:
                self.add(trial)
            for score in store.scores(PROMOTION):
                self._note(score)

    def add(self, trial: Trial) -> None:
        """Takes note of a trial that was trained."""
        if self._rungs:
            self._trials[trial.id] = trial
            self._ladder.score(trial.id, 0, [trial.reward or 0.0])

    def next(self, flying: Collection[int], left: float) -> tuple[Trial, int] | None:
        """Returns a trial and the rung that it has earned, or None if there is none besides those in flight. One that
        would take more than the `left` seconds, as those on its rung have, waits."""
        for number, rung in self._ladder.due():
            if number not in flying and self._expected(rung) < left:
                return self._trials[number], rung
        return None

    def _expected(self, rung: int) -> float:
        seconds, count = self._spent.get(rung, (0.0, 1))
        return seconds / count

    def _note(self, score: Score) -> None:
        number, rung = score.budget["trial"], score.budget["rung"]
        if number in self._trials and rung <= len(self._rungs):  # a folder may be anyone's
            self._ladder.score(number, rung, scores_of(score))
            seconds, count = self._spent.get(rung, (0.0, 0))
            self._spent[rung] = seconds + score.seconds, count + 1

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
        self._note(score)
        return score


def order(reward: float, promoted: Sequence[Reached]) -> tuple[float, float, float]:
    """Returns a key that sorts the best rules first: by the rung that they reached, then by their mean rank there, then
    by their reward there. A rule that diverged on a rung comes last, because that rung has found it out."""
    last = promoted[-1] if promoted else Reached(reward, 0.0)
    return (-float(len(promoted)), last.rank, -last.reward) if last.reward > 0 else (1.0, 0.0, 0.0)
