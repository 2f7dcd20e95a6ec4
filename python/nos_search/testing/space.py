"""Owns the conformance test of search spaces.

    class TestMine(SpaceCase):
        def make(self):
            return MySpace(...)

The space must be in the list of spaces (space/registry.py), because a run rebuilds it from its configuration. The tests
are plain asserts and need no fixtures, so the package does not need pytest.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch

import nos_ext
from nos_ext.rule.expr import postorder
from nos_ext.rule.table import RANDOM

from ..gate.judge import RuleJudge, judge_of
from ..space import SearchSpace, Tokens, make_space

_STRINGS = 60


def _refused(call: Callable[[], object]) -> bool:
    try:
        call()
    except ValueError:
        return True
    return False


def _draws(text: str) -> bool:
    return any(node.op in RANDOM for node in postorder(nos_ext.compile_rule(text).rule.outputs))


class SpaceCase(ABC):
    """Every search space must pass these. `make` returns a space, and all that it returns must be equal."""

    @abstractmethod
    def make(self) -> SearchSpace:
        """Returns a space of the kind that is tested."""

    def strings(self, space: SearchSpace, seed: int = 1) -> list[Tokens]:
        generator = torch.Generator().manual_seed(seed)
        return [space.sample(generator) for _ in range(_STRINGS)]

    def test_its_configuration_makes_an_equal_space(self) -> None:
        space = self.make()
        again = make_space(json.loads(json.dumps(space.config())))
        assert type(again) is type(space)
        assert again.config() == space.config()
        assert again.positions == space.positions
        assert self.strings(again) == self.strings(space)

    def test_positions_are_named_and_come_in_whole_blocks(self) -> None:
        space = self.make()
        assert len({position.name for position in space.positions}) == space.length > 0
        assert space.length % space.block == 0
        for position in space.positions:
            assert len(set(position.names)) == len(position.names) > 0

    def test_sizes_are_counts_of_strings(self) -> None:
        space = self.make()
        assert space.size() == math.prod(len(position.tokens) for position in space.positions)
        assert 0 < space.size(masked=True) <= space.size()

    def test_masks_leave_a_token_and_depend_on_their_key_alone(self) -> None:
        space, seen = self.make(), dict[object, list[bool]]()
        for tokens in self.strings(space):
            for where, position in enumerate(space.positions):
                made = space.make_mask(tokens[:where])
                assert len(made) == len(position.tokens)
                assert any(made)
                assert made == space.mask(tokens[:where]) == seen.setdefault(space.mask_key(tokens[:where]), made)

    def test_what_it_draws_and_changes_passes_the_masks(self) -> None:
        space, generator = self.make(), torch.Generator().manual_seed(2)
        (last, *strings) = self.strings(space)
        for tokens in strings:
            assert space.check(tokens) == tokens == space.repair(tokens)
            space.check(space.mutate(tokens, generator))
            space.check(space.crossover(tokens, last, generator))
            whatever = [int(torch.randint(len(p.tokens), (), generator=generator)) for p in space.positions]
            space.check(space.repair(whatever))

    def test_strings_of_another_length_or_with_other_tokens_are_refused(self) -> None:
        space = self.make()
        tokens = self.strings(space)[0]
        assert _refused(lambda: space.check(tokens[:-1]))
        assert _refused(lambda: space.check((*tokens[:-1], len(space.positions[-1].tokens))))

    def test_global_random_state_is_neither_read_nor_written(self) -> None:
        def drawn() -> list[Tokens]:
            space, generator = self.make(), torch.Generator().manual_seed(3)
            first, second = space.sample(generator), space.sample(generator)
            return [first, space.mutate(first, generator), space.crossover(first, second, generator)]

        torch.manual_seed(1)
        before, found = torch.get_rng_state(), drawn()
        assert torch.equal(before, torch.get_rng_state())
        torch.manual_seed(2)
        assert drawn() == found

    def test_every_string_is_a_rule_on_one_line(self) -> None:
        space = self.make()
        for tokens in [*self.strings(space), *space.known().values()]:
            text = space.text(space.check(tokens))
            assert text.isprintable()
            nos_ext.compile_rule(text)

    def test_dead_tokens_leave_no_trace(self) -> None:
        space = self.make()
        for tokens in self.strings(space):
            live = space.live(tokens)
            assert len(live) == space.length
            for where in (k for k, ok in enumerate(live) if not ok):
                allowed = space.mask(tokens[:where])
                for token in (k for k, ok in enumerate(allowed) if ok and k != tokens[where]):
                    changed = space.repair((*tokens[:where], token, *tokens[where + 1 :]))
                    if changed[where + 1 :] == tokens[where + 1 :]:  # the masks asked for no other change
                        assert space.text(changed) == space.text(tokens)
                        break

    def test_a_string_that_uses_no_gradient_is_a_rule_that_uses_none(self) -> None:
        space = self.make()
        blind = [tokens for tokens in self.strings(space) if not space.uses_gradient(tokens)]
        for tokens in blind:
            program, results = nos_ext.compile_rule(space.text(tokens)), []
            for gradient in (0.25, -3.0):
                params = [np.full(4, 0.5, np.float32)]
                state = nos_ext.init_state(program, params)
                for step in (1, 2):
                    grads = [np.full(4, gradient, np.float32)]
                    nos_ext.apply_rule(program, params, grads, state, lr=0.1, step=step, total_steps=2, seed=1)
                results.append(params[0])
            assert np.array_equal(results[0], results[1], equal_nan=True)

    def test_the_gates_judge_the_rule_that_the_text_says(self) -> None:
        """They are compared by the updates on the gates' stimuli, for rules that draw nothing: every judge has draws of
        its own."""
        space = self.make()
        plain = [
            tokens for tokens in self.strings(space) if space.uses_gradient(tokens) and not _draws(space.text(tokens))
        ]
        assert plain
        fast, slow = judge_of(space), RuleJudge(space)
        assert fast.start(plain) == slow.start(plain) == [""] * len(plain)
        rows = range(len(plain))
        for mine, truth in ((fast.effect(rows), slow.effect(rows)), (fast.descent(rows), slow.descent(rows))):
            same = (mine == truth) | (np.isnan(mine) & np.isnan(truth)) | np.isclose(mine, truth, rtol=1e-4, atol=1e-30)
            assert same.mean() > 0.99  # the rest is cancellation, and overflow at its edge
        keys = {fast.key(row): slow.key(row) for row in rows}
        assert len(keys) == len(set(keys.values())) == len({slow.key(row) for row in rows})
