"""Owns the division of programs into crowds, each of which can be one population of `apply_population`."""

from __future__ import annotations

from collections.abc import Sequence

from nos_ext import Program
from nos_ext.rule.table import REDUCTIONS


def reduces(program: Program) -> bool:
    """Tells whether a rule has reductions, and so makes all elements of a tensor depend on one another."""
    return any(op in REDUCTIONS for op, *_ in program.code)


def crowds(programs: Sequence[Program]) -> list[list[int]]:
    """Returns the indices of each crowd.

    The rules without reductions are one. Of the others, those are that keep the same states as one number per tensor:
    a population has a state of one kind for all of its programs.
    """
    found: dict[tuple[bool, ...] | None, list[int]] = {}
    for index, program in enumerate(programs):
        numbers = program.per_tensor_states
        kinds = tuple(name in numbers for name in program.state_names) if reduces(program) else None
        found.setdefault(kinds, []).append(index)
    return list(found.values())
