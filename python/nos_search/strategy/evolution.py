"""Owns regularised evolution (Real et al. 2019): the best of a few members has a child, and the oldest dies.

It works on any space: the space knows what a neighbour of a string is (another token; for programs also lines put in,
taken out or made anew). The age of a member is its number, not when its answer came, so the order of tell does not
matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch

from ..errors import UsageError
from ..space import SearchSpace, Tokens
from .base import Result, State, Strategy

_TRIES = 20  # tries to find a child that differs from all living members


class EvolutionStrategy(Strategy):
    """Evolution keeps `population` members, of which `tournament` compete for a child.

    With `warm_start` 1 it begins with the founders of the space (the known rules, in most), and its newcomers (random
    strings, in most) fill up the first population; with 0 all of that is random. `crossover` is the probability that a
    child has two parents, and `mutations` counts the changes per child. With `zeros` 1 it keeps members without any
    reward (rejected rules, diverged children), as the original does; with 0 it does not let them in, so that good
    members live longer.
    """

    name: ClassVar[str] = "evolution"

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        population: int = 64,
        tournament: int = 8,
        warm_start: int = 1,
        crossover: float = 0.0,
        mutations: int = 1,
        zeros: int = 0,
    ) -> None:
        super().__init__(space, seed=seed)
        if population < 2 or not 1 <= tournament <= population:
            raise UsageError(
                f"evolution options population {population}, tournament {tournament} must be >= 2 and in 1..population"
            )
        if mutations < 1:
            raise UsageError(f"evolution option mutations {mutations} is below 1")
        if not 0 <= crossover <= 1 or warm_start not in (0, 1) or zeros not in (0, 1):
            raise UsageError(
                f"evolution options crossover {crossover}, warm_start {warm_start}, zeros {zeros} must be in [0, 1], "
                "0 or 1, and 0 or 1"
            )
        self._options = {
            "population": population,
            "tournament": tournament,
            "warm_start": warm_start,
            "crossover": crossover,
            "mutations": mutations,
            "zeros": zeros,
        }
        self.population, self.tournament = population, tournament
        self.crossover, self.mutations, self.zeros = crossover, mutations, zeros
        self._first = list(space.founders()) if warm_start else []
        self._fill = space.newcomer if warm_start else space.sample
        # Each is (age, tokens, reward), the oldest first. Members from outside have age -1.
        self.members: list[tuple[int, Tokens, float]] = []

    def options(self) -> dict[str, Any]:
        return dict(self._options)

    def propose(self, n: int) -> Iterable[Tokens]:
        return [self._next(self.asked + k) for k in range(n)]

    def _next(self, number: int) -> Tokens:
        if number < len(self._first):
            return self._first[number]
        if number < self.population or not self.members:
            return self._fill(self.generator)
        living = {tokens for _, tokens, _ in self.members}
        for _ in range(_TRIES):
            child = self._child()
            if child not in living:
                return child
        return self.space.sample(self.generator)

    def _child(self) -> Tokens:
        child = self._parent()
        if self.crossover and float(torch.rand((), generator=self.generator)) < self.crossover:
            child = self.space.crossover(child, self._parent(), self.generator)
        for _ in range(self.mutations):
            child = self.space.mutate(child, self.generator)
        return child

    def _parent(self) -> Tokens:
        """Returns the best of a few members drawn with replacement, and of equals the youngest."""
        drawn = torch.randint(len(self.members), (self.tournament,), generator=self.generator).tolist()
        drawn_members = [self.members[k] for k in drawn]
        tokens: Tokens = max(drawn_members, key=lambda member: (member[2], member[0], member[1]))[1]
        return tokens

    def learn(self, results: Sequence[Result]) -> None:
        for result in results:
            if result.reward is None or (result.reward == 0 and not self.zeros):
                continue
            self.members.append((-1 if result.id is None else result.id, result.tokens, result.reward))
        self.members.sort()
        del self.members[: -self.population]

    def metrics(self) -> dict[str, float]:
        """Returns the number of members as "population", and the mean and the best of their rewards."""
        if not self.members:
            return {}
        rewards = [reward for _, _, reward in self.members]
        return {
            "population": float(len(rewards)),
            "population_mean": sum(rewards) / len(rewards),
            "population_best": max(rewards),
        }

    def state_dict(self) -> State:
        members = [[age, list(tokens), reward] for age, tokens, reward in self.members]
        return {**super().state_dict(), "members": members}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.members = [(int(age), tuple(tokens), float(reward)) for age, tokens, reward in state["members"]]
