"""Owns the population of regularised evolution (Real et al. 2019): the best of a few members has a child, and the
oldest dies, however good it was. So a rule that was lucky once has to be good again through its children.

The age of a member is the number of its proposal, not when its answer came, so the order of tell does not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch

from ..errors import UsageError
from ..space import SearchSpace, Tokens
from .base import Result
from .queue import ALONE

_TRIES = 20  # tries to find a child that differs from all living members


class Member(NamedTuple):
    """A living string with its reward and the number of its family. Members from outside, which were no proposals, have
    age -1."""

    age: int
    tokens: Tokens
    reward: float
    family: int = ALONE


def as_member(result: Result, reward: float) -> Member:
    """Returns the member that a result makes, with its reward."""
    age = -1 if result.id is None else result.id
    return Member(age, result.tokens, reward, ALONE if result.family is None else result.family)


class Population:
    """The population has at most `size` members, the oldest first, of which `tournament` compete for a child. A child
    has `mutations` changes, and two parents with probability `crossover`. With `families` 1 the population has one
    member of each family, the youngest; a string without a family is one by itself.

    It works on any space: the space knows what a neighbour of a string is (another token; for programs also lines put
    in, taken out or made anew).
    """

    def __init__(
        self,
        space: SearchSpace,
        size: int,
        *,
        tournament: int,
        families: int,
        mutations: int = 1,
        crossover: float = 0.0,
    ) -> None:
        if size < 2 or not 1 <= tournament <= size:
            raise UsageError(f"options population {size}, tournament {tournament} must be >= 2 and in 1..population")
        if families not in (0, 1):
            raise UsageError(f"option families {families} must be 0 or 1")
        self.space, self.size, self.tournament, self.families = space, size, tournament, families
        self.mutations, self.crossover = mutations, crossover
        self.members: list[Member] = []

    def add(self, members: Iterable[Member]) -> None:
        """Takes members in, and lets the oldest go."""
        found = sorted([*self.members, *members])
        if self.families:
            youngest = {member.family: member for member in found}
            found = [member for member in found if member.family == ALONE or member is youngest[member.family]]
        self.members = found[-self.size :]

    def child(self, generator: torch.Generator) -> Tokens | None:
        """Returns a string that no living member is, or None when none was found."""
        living = {member.tokens for member in self.members}
        for _ in range(_TRIES):
            child = self._parent(generator)
            if self.crossover and float(torch.rand((), generator=generator)) < self.crossover:
                child = self.space.crossover(child, self._parent(generator), generator)
            for _ in range(self.mutations):
                child = self.space.mutate(child, generator)
            if child not in living:
                return child
        return None

    def _parent(self, generator: torch.Generator) -> Tokens:
        """Returns the best of a few members drawn with replacement, and of equals the youngest."""
        drawn = torch.randint(len(self.members), (self.tournament,), generator=generator).tolist()
        best: Member = max(
            (self.members[k] for k in drawn), key=lambda member: (member.reward, member.age, member.tokens)
        )
        return best.tokens

    def state(self) -> list[list[Any]]:
        """Returns the members, fit for a strategy's state."""
        return [[member.age, list(member.tokens), member.reward, member.family] for member in self.members]

    def load(self, state: Sequence[Sequence[Any]]) -> None:
        """Undoes state()."""
        self.members = [  # a state of before there were families has none
            Member(int(age), tuple(tokens), float(reward), *map(int, family)) for age, tokens, reward, *family in state
        ]
