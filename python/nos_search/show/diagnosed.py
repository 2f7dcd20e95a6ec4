"""Owns the table of a report that says on which small problems the best rules and known optimizers fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from ..diagnose.battery import diagnose
from ..diagnose.problems import KINDS
from ..known import REPORTED, RULES
from ..rules import CompiledRule, compile_rule, parse_stored_rule
from .leaderboard import Row

_FOUND: Final = 3  # rules
_TRIALS: Final = 20  # of each problem: a report is to be there in a few seconds


@dataclass(frozen=True)
class Diagnosed:
    """A line of the table: a rule, and of each kind of problem the levels that it passes and how many there are."""

    name: str
    levels: tuple[tuple[int, int], ...]

    @property
    def passed(self) -> int:
        return sum(passed for passed, _ in self.levels)

    @property
    def whole(self) -> int:
        return sum(count for _, count in self.levels)


def diagnosed(rows: Sequence[Row], folder: Path) -> list[Diagnosed]:
    """Runs the best rules of a leaderboard, and the known optimizers, over the battery."""
    found = [_line(f"rank {row.rank}", parse_stored_rule(row.rule, folder, row.trial)) for row in rows[:_FOUND]]
    return [*found, *map(_known, REPORTED)] if found else []


@cache  # the same for every page of a process
def _known(name: str) -> Diagnosed:
    return _line(RULES[name].label, compile_rule(name))


def _line(name: str, rule: CompiledRule) -> Diagnosed:
    outcomes = diagnose(rule.program.rule, trials=_TRIALS)
    of_kind = [[row.passed for row in outcomes if row.kind == kind] for kind in KINDS]
    return Diagnosed(name, tuple((sum(passed), len(passed)) for passed in of_kind))
