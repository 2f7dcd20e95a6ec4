"""Owns the conformance test of strategies.

    class TestMine(StrategyCase):
        def make(self, space, seed):
            return MyStrategy(space, seed=seed)

The tests are plain asserts and need no fixtures, so the package does not need pytest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial

import torch

from ..space import ProgramSpace, SearchSpace, Space, Tokens
from ..store.codec import pack, unpack
from ..strategy import Candidate, Result, Strategy

_ROUNDS = 24


def toy_reward(tokens: Tokens) -> float:
    """Returns a fixed reward in [0, 1] that has something to learn: the share of even tokens."""
    return sum(token % 2 == 0 for token in tokens) / len(tokens)


def _answer(candidate: Candidate) -> Result:
    """Answers as a search does: the rewards and the families of rules are fixed, and some rules were trained before."""
    first, *_, last = candidate.tokens
    duplicate = last % 5 == 4
    return Result(candidate.tokens, toy_reward(candidate.tokens), candidate.id, duplicate=duplicate, family=first)


def _play(strategy: Strategy, rounds: int, n: int = 3) -> list[Candidate]:
    """Asks n at a time and answers at once, and returns all candidates."""
    played: list[Candidate] = []
    for _ in range(rounds):
        asked = strategy.ask(n)
        strategy.tell([_answer(candidate) for candidate in asked])
        played += asked
    return played


def _fails(call: Callable[[], object]) -> bool:
    try:
        call()
    except ValueError:
        return True
    return False


class StrategyCase(ABC):
    """Every strategy must pass these. `make` returns a fresh strategy; equal arguments must give equal strategies."""

    @abstractmethod
    def make(self, space: SearchSpace, seed: int) -> Strategy:
        """Returns a fresh strategy for the space."""

    def space(self) -> SearchSpace:
        return Space(vocabulary="arxiv", groups=2)

    def test_candidates_pass_the_masks_and_are_numbered(self) -> None:
        spaces: list[SearchSpace] = [
            Space(vocabulary=vocabulary, groups=groups)
            for vocabulary, groups in (("icml", 1), ("arxiv", 2), ("arxiv-decay", 3))
        ]
        for space in [*spaces, ProgramSpace(lines=4)]:
            played = _play(self.make(space, 5), 8)
            assert [candidate.id for candidate in played] == list(range(24))
            for candidate in played:
                assert space.check(candidate.tokens) == candidate.tokens

    def test_equal_seeds_give_equal_runs(self) -> None:
        assert _play(self.make(self.space(), 7), _ROUNDS) == _play(self.make(self.space(), 7), _ROUNDS)

    def test_other_seeds_give_other_runs(self) -> None:
        """They need not differ at once: a strategy may begin with rules that are known to be good."""
        assert _play(self.make(self.space(), 7), _ROUNDS) != _play(self.make(self.space(), 8), _ROUNDS)

    def test_global_random_state_is_neither_read_nor_written(self) -> None:
        torch.manual_seed(1)
        before = torch.get_rng_state()
        first = _play(self.make(self.space(), 7), 6)
        assert torch.equal(before, torch.get_rng_state())
        torch.manual_seed(2)
        assert _play(self.make(self.space(), 7), 6) == first

    def test_order_of_tell_does_not_matter(self) -> None:
        whole, pieces = self.make(self.space(), 3), self.make(self.space(), 3)
        for _ in range(6):
            answers = [_answer(candidate) for candidate in whole.ask(11)]
            pieces.ask(11)
            whole.tell(answers)
            for answer in reversed(answers):
                pieces.tell([answer])
        assert pack(whole.state_dict()) == pack(pieces.state_dict())
        assert whole.ask(5) == pieces.ask(5)

    def test_state_goes_on_bit_for_bit(self) -> None:
        """This holds also with candidates open, and after a trip through the store's bytes."""
        for stop in (0, 1, 5, 13):
            one = self.make(self.space(), 11)
            _play(one, stop)
            waiting = one.ask(4)
            one.tell([_answer(waiting[2])])
            two = self.make(self.space(), 99)
            two.load_state_dict(unpack(pack(one.state_dict())))
            assert two.open == one.open == [waiting[0], waiting[1], waiting[3]]
            for strategy in (one, two):
                strategy.tell([_answer(candidate) for candidate in strategy.open])
            assert _play(one, 9) == _play(two, 9)
            assert pack(one.state_dict()) == pack(two.state_dict())

    def test_state_is_a_copy(self) -> None:
        strategy = self.make(self.space(), 4)
        _play(strategy, 4)
        state = strategy.state_dict()
        frozen = pack(state)
        _play(strategy, 8)
        assert pack(state) == frozen

    def test_state_of_another_strategy_is_refused(self) -> None:
        strategy = self.make(self.space(), 4)
        state = strategy.state_dict()
        assert _fails(lambda: strategy.load_state_dict({**state, "strategy": "no such strategy"}))
        assert _fails(lambda: strategy.load_state_dict({**state, "version": 999}))

    def test_trials_without_reward_are_taken(self) -> None:
        strategy = self.make(self.space(), 2)
        for _ in range(12):
            strategy.tell([Result(candidate.tokens, None, candidate.id) for candidate in strategy.ask(3)])
        assert len(strategy.ask(3)) == 3

    def test_foreign_results_are_taken(self) -> None:
        strategy = self.make(self.space(), 2)
        generator = torch.Generator().manual_seed(0)
        strategy.tell([Result(self.space().sample(generator), 0.5) for _ in range(3)])
        _play(strategy, _ROUNDS)

    def test_wrong_answers_are_refused_and_change_nothing(self) -> None:
        strategy = self.make(self.space(), 2)
        (candidate,) = strategy.ask(1)
        before = pack(strategy.state_dict())
        right = _answer(candidate)
        for wrong in (
            [Result(candidate.tokens, float("nan"), candidate.id)],
            [Result(candidate.tokens, float("inf"), candidate.id)],
            [Result(candidate.tokens, 0.5, candidate.id + 1)],
            [Result(tuple(reversed(candidate.tokens)), 0.5, candidate.id)],
            [Result(candidate.tokens[:-1], 0.5)],
            [right, right],
        ):
            assert _fails(partial(strategy.tell, wrong))
        assert pack(strategy.state_dict()) == before
        strategy.tell([right])
        assert _fails(lambda: strategy.tell([right]))
        assert _fails(lambda: strategy.ask(0))

    def test_metrics_are_finite(self) -> None:
        strategy = self.make(self.space(), 2)
        _play(strategy, _ROUNDS)
        assert all(abs(value) < float("inf") for value in strategy.metrics().values())
