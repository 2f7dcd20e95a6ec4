"""Owns the strategy that proposes the children of a population (population.py)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from ..errors import UsageError
from ..space import SearchSpace, Tokens
from .base import Result, State, Strategy
from .population import Population, as_member


class EvolutionStrategy(Strategy):
    """Evolution keeps `population` members, of which `tournament` compete for a child.

    With `warm_start` 1 it begins with the founders of the space (the known rules, in most), and its newcomers (random
    strings, in most) fill up the first population; with 0 all of that is random. `crossover` is the probability that a
    child has two parents, and `mutations` counts the changes per child. With `zeros` 1 it keeps members without any
    reward (rejected rules, diverged children), as the original does; with 0 it does not let them in, so that good
    members live longer. With `families` 1 it has one member of each family, the youngest, so that ornaments of one good
    rule do not fill it.
    """

    name: ClassVar[str] = "evolution"
    older: ClassVar[Mapping[str, Any]] = {"families": 0}

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
        families: int = 1,
    ) -> None:
        super().__init__(space, seed=seed)
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
            "families": families,
        }
        self.population = Population(
            space, population, tournament=tournament, mutations=mutations, crossover=crossover, families=families
        )
        self.zeros = zeros
        self._first = list(space.founders()) if warm_start else []
        self._fill = space.newcomer if warm_start else space.sample

    def options(self) -> dict[str, Any]:
        return dict(self._options)

    def propose(self, n: int) -> Iterable[Tokens]:
        return [self._next(self.asked + k) for k in range(n)]

    def _next(self, number: int) -> Tokens:
        if number < len(self._first):
            return self._first[number]
        if number < self.population.size or not self.population.members:
            return self._fill(self.generator)
        child = self.population.child(self.generator)
        return self.space.sample(self.generator) if child is None else child

    def learn(self, results: Sequence[Result]) -> None:
        self.population.add(
            as_member(result, result.reward)
            for result in results
            if result.reward is not None and (result.reward != 0 or self.zeros)
        )

    def metrics(self) -> dict[str, float]:
        """Returns the number of members as "population", and the mean and the best of their rewards."""
        rewards = [member.reward for member in self.population.members]
        if not rewards:
            return {}
        return {
            "population": float(len(rewards)),
            "population_mean": sum(rewards) / len(rewards),
            "population_best": max(rewards),
        }

    def state_dict(self) -> State:
        return {**super().state_dict(), "members": self.population.state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.population.load(state["members"])
