"""Both strategies pass the conformance suite that ships with the package, and the controller learns."""

from __future__ import annotations

import pytest
import torch

from nos_search.errors import UsageError
from nos_search.space import Space, Tokens
from nos_search.strategy import STRATEGIES, ControllerStrategy, RandomStrategy, Result, Strategy, create
from nos_search.testing.strategy import StrategyCase


class TestRandom(StrategyCase):
    def make(self, space: Space, seed: int) -> Strategy:
        return RandomStrategy(space, seed=seed)


class TestController(StrategyCase):
    def make(self, space: Space, seed: int) -> Strategy:
        return ControllerStrategy(space, seed=seed, hidden=16, embedding=8)


def test_every_registered_strategy_has_a_case() -> None:
    assert {"random", "controller"} == set(STRATEGIES)


def run(strategy: Strategy, reward, trials: int) -> list[float]:
    rewards = []
    for _ in range(trials):
        (candidate,) = strategy.ask(1)
        rewards.append(reward(candidate.tokens))
        strategy.tell([Result(candidate.tokens, rewards[-1], candidate.id)])
    return rewards


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_controller_finds_a_hidden_string(seed: int) -> None:
    space = Space(groups=2)
    hidden = space.sample(torch.Generator().manual_seed(1000 + seed))

    def reward(tokens: Tokens) -> float:
        return sum(a == b for a, b in zip(tokens, hidden, strict=True)) / len(hidden)

    learned = run(ControllerStrategy(space, seed=seed), reward, 480)[-80:]
    random = run(RandomStrategy(space, seed=seed), reward, 480)[-80:]
    assert sum(learned) / 80 > 0.7
    assert sum(random) / 80 < 0.3


def test_controller_learns_that_sign_products_pay() -> None:
    """A sparse reward: the update multiplies something by sign(g) or sign(m_hat), as PowerSign's exponent does."""
    space = Space(groups=1)

    def reward(tokens: Tokens) -> float:
        op1, op2, _, _, b = space.names(tokens)
        return float(b == "*" and {"sign(g)", "sign(m_hat)"} <= {op1, op2}) * 0.5 + 0.25 * (b == "*")

    learned = run(ControllerStrategy(space, seed=1), reward, 1200)[-100:]
    random = run(RandomStrategy(space, seed=1), reward, 1200)
    assert sum(random) / 1200 < 0.1
    assert sum(learned) / 100 > 0.2


def test_a_discounted_duplicate_teaches_less() -> None:
    space = Space(groups=1)

    def probability(discount: float) -> float:
        strategy = ControllerStrategy(space, seed=1, duplicate_discount=discount)
        favourite = strategy.ask(1)[0]
        strategy.tell([Result(favourite.tokens, 1.0, favourite.id)])
        for candidate in strategy.ask(39):
            strategy.tell([Result(candidate.tokens, 0.2, candidate.id)])
        for _ in range(10):
            strategy.tell([Result(favourite.tokens, 1.0, duplicate=True)] * 4)
            strategy.tell([Result(c.tokens, 0.2, c.id) for c in strategy.ask(8)])
        with torch.no_grad():
            return float(strategy.policy.evaluate([favourite.tokens])[0])

    assert probability(0.0) > probability(1.0)


def test_entropy_counts_live_choices_only() -> None:
    space = Space(groups=1)
    strategy = ControllerStrategy(space, seed=1)
    names = space.positions[4].names
    both = (0, 3, 0, 0, names.index("*"))
    left = (0, 3, 0, 0, names.index("left"))
    with torch.no_grad():
        _, entropy = strategy.policy.evaluate([both, left])
    assert entropy[1] < entropy[0] - 4  # op2 and u2 are dead: log 17 + log 12, about 5.3 nats


def test_unknown_names_and_options_say_what_there_is() -> None:
    with pytest.raises(UsageError, match="--strategy 'annealing' is not known; choose one of: controller, random"):
        create("annealing", Space(), seed=1)
    with pytest.raises(UsageError, match="has no option 'speed'; it has: hidden, embedding, batch, lr"):
        create("controller", Space(), seed=1, options={"speed": 3})
    with pytest.raises(UsageError, match="has no option 'lr'; it has: none"):
        create("random", Space(), seed=1, options={"lr": 3})
    with pytest.raises(UsageError, match=r"option batch is 2\.5; it must be a whole number"):
        create("controller", Space(), seed=1, options={"batch": 2.5})
    with pytest.raises(UsageError, match="option lr is True; it must be a number"):
        create("controller", Space(), seed=1, options={"lr": True})
    with pytest.raises(UsageError, match="batch 0 is below 1"):
        create("controller", Space(), seed=1, options={"batch": 0})
