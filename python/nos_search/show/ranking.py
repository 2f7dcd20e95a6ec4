"""Owns the order of a run's rules while it goes on: the best rule of each family, as `show` has them afterwards.

It is kept up to date rule by rule. A new rule is compared with those of its own family and finds its place by halving,
so at ten thousand rules it takes microseconds, and reading the first rows costs nothing.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..run.climbing import Reached
from ..store import Trial
from .leaderboard import standing

Place = tuple[float, float, float, int]  # what sorts rules; it ends in the trial's number, so no two are equal
Family = tuple[int, int]  # a number that families have, or one of a rule whose family is not known


class Ranked(NamedTuple):
    """A row: the best rule of a family and its place."""

    place: Place
    trial: Trial
    family: Family


class Ranking:
    """The rules that were trained to the end, one row for each family, the best first. `families` tells the family of
    each trained trial; it may grow, but must know a trial before that comes in here. A trial that it does not know is a
    family by itself."""

    def __init__(self, families: Mapping[int, int]) -> None:
        self._families = families
        self._members: Counter[Family] = Counter()
        self._rules: dict[Family, list[tuple[Place, Trial]]] = {}  # the best first
        self._places: dict[int, Place] = {}  # by trial
        self._rows: list[Ranked] = []

    def __len__(self) -> int:
        """Counts the families of which a rule was trained to the end."""
        return len(self._rows)

    def count(self, trial: Trial) -> None:
        """Counts a trained rule, diverged or not, as a member of its family."""
        self._members[self._family(trial)] += 1

    def place(self, trial: Trial, promoted: Sequence[Reached] = ()) -> None:
        """Puts a rule that was trained to the end where it belongs, or moves it there after a promotion."""
        family = self._family(trial)
        rules = self._rules.setdefault(family, [])
        best = rules[0][0] if rules else None
        if trial.id in self._places:
            del rules[bisect_left(rules, self._places[trial.id], key=_place)]
        place = self._places[trial.id] = standing(trial, promoted)
        insort(rules, (place, trial), key=_place)
        if rules[0][0] != best:
            if best is not None:
                del self._rows[bisect_left(self._rows, best, key=_place)]
            insort(self._rows, Ranked(*rules[0], family), key=_place)

    def holds(self, trial: Trial) -> bool:
        """Tells whether the rule has a place, as it was trained to the end."""
        return trial.id in self._places

    def top(self, count: int) -> list[tuple[Trial, int | None]]:
        """Returns the best rules, one of each family, with the number of its members, which is None where families are
        not known."""
        # The rows are cut off first, as another thread may draw them.
        return [
            (row.trial, self._members[row.family] if row.family[0] == _KNOWN else None) for row in self._rows[:count]
        ]

    def _family(self, trial: Trial) -> Family:
        number = self._families.get(trial.id)
        return (_ALONE, trial.id) if number is None else (_KNOWN, number)


_ALONE, _KNOWN = 0, 1


def _place(entry: tuple[Place, Trial] | Ranked) -> Place:
    return entry[0]
