"""Owns who goes up a ladder: which rule is the best of those on a rung, and when one goes on to the next.

On a rung with several tasks rules are compared by their mean rank over the tasks, since scores of different tasks have
different spreads: a sum of scores is decided by the task whose scores lie furthest apart. The ranks are among all rules
that were scored on the same rung, so they change as rules arrive, and depend on nothing but the scores that there are.

A search in progress is asynchronous, as in ASHA (Li et al. 2020): nobody waits for a rung to be full. Each time that
`eta` more rules have been scored on a rung, the best of them all that has not gone up goes up. So of n rules on a rung
exactly n // eta have earned the next, whatever the order in which they came, unless their scores are 0. Who they are
follows from the order of the scores on that rung alone, so a search that is resumed from its store asks for the same
promotions.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterator, Sequence
from typing import Generic, TypeVar

_Key = TypeVar("_Key", bound=Hashable)


def mean_ranks(scores: Sequence[Sequence[float]]) -> list[float]:
    """Returns for each rule the mean of its ranks on the tasks of a rung, where 1 is the best. `scores` has the scores
    of each rule by task; one that is missing counts 0. Equal scores share the mean of their ranks."""
    tasks = max(map(len, scores), default=0)
    if tasks == 0:
        return [(len(scores) + 1) / 2] * len(scores)
    totals = [0.0] * len(scores)
    for task in range(tasks):
        column = [row[task] if task < len(row) else 0.0 for row in scores]
        order = sorted(range(len(column)), key=lambda k: -column[k])
        first = 0
        while first < len(order):
            last = first
            while last + 1 < len(order) and column[order[last + 1]] == column[order[first]]:
                last += 1
            for place in range(first, last + 1):
                totals[order[place]] += (first + last) / 2 + 1
            first = last + 1
    return [total / tasks for total in totals]


class Ladder(Generic[_Key]):
    """The rules on a ladder of so many `rungs`, rung 0 among them, of which one in `eta` goes up."""

    def __init__(self, rungs: int, eta: int) -> None:
        self._eta = eta
        self._rungs: list[_Rung[_Key]] = [_Rung() for _ in range(rungs - 1)]  # nothing lies above the last
        self._due: list[dict[_Key, None]] = [{} for _ in range(rungs)]  # by the rung that was earned, in order

    def score(self, key: _Key, rung: int, scores: Sequence[float]) -> None:
        """Takes note of the scores of a rule on the tasks of a rung. On rung 0 there is one."""
        self._due[rung].pop(key, None)
        if rung:
            self._rungs[rung - 1].gone.add(key)  # of another release, which promoted by another rule, perhaps
        if rung >= len(self._rungs):
            return
        here = self._rungs[rung]
        here.add(key, scores)
        if here.count % self._eta == 0:
            best = here.best()
            if best is not None:
                here.gone.add(best)
                self._due[rung + 1][best] = None

    def due(self) -> Iterator[tuple[_Key, int]]:
        """Yields who has earned which rung and was not scored there yet, those of the highest rung first, then those
        that have waited longest. A rule that is in flight is still due."""
        for rung in reversed(range(len(self._due))):
            for key in list(self._due[rung]):
                yield key, rung


class _Rung(Generic[_Key]):
    """The rules that were scored on a rung, and those of them that have `gone` up."""

    def __init__(self) -> None:
        self.gone: set[_Key] = set()
        self._keys: list[_Key] = []
        self._scores: list[Sequence[float]] = []
        self._tasks = 0
        self._heap: list[tuple[float, int]] = []  # of (-score, place), for as long as there is one task

    @property
    def count(self) -> int:
        return len(self._keys)

    def add(self, key: _Key, scores: Sequence[float]) -> None:
        self._keys.append(key)
        self._scores.append(scores)
        self._tasks = max(self._tasks, len(scores))
        if self._tasks == 1:
            heapq.heappush(self._heap, (-scores[0], len(self._keys) - 1))

    def best(self) -> _Key | None:
        """Returns the best rule that has not gone up, of equals the one that came first, or None where all that are
        left score 0."""
        if self._tasks == 1:
            return self._best_of_one_task()
        ranks = mean_ranks(self._scores)
        left = [
            (ranks[k], -sum(self._scores[k]), k)
            for k, key in enumerate(self._keys)
            if key not in self.gone and any(self._scores[k])
        ]
        return self._keys[min(left)[2]] if left else None

    def _best_of_one_task(self) -> _Key | None:
        """Does so without a look at all rules, of which rung 0 has many thousands."""
        while self._heap and self._heap[0][0] < 0:
            key = self._keys[heapq.heappop(self._heap)[1]]
            if key not in self.gone:
                return key
        return None
