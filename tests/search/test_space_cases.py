"""The shipped conformance suite on every search space."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import pytest
import torch

from nos_search.cli.space import _KINDS
from nos_search.gate.judge import JUDGES
from nos_search.space import SPACES, LionSpace, Options, ProgramSpace, SearchSpace, Space, Tokens
from nos_search.testing.space import SpaceCase


class TestGroups(SpaceCase):
    def make(self) -> SearchSpace:
        return Space(groups=2)


class TestManyGroups(SpaceCase):
    def make(self) -> SearchSpace:
        return Space(vocabulary="icml", groups=4, options=Options(bias_correction=False, drop_rescale=True))


class TestUnmaskedGroups(SpaceCase):
    def make(self) -> SearchSpace:
        options = Options(noise_variance=True, distinct_operands=False, last_not_add=False, use_earlier=False)
        return Space(vocabulary="arxiv-decay", groups=3, options=options)


class TestProgram(SpaceCase):
    def make(self) -> SearchSpace:
        return ProgramSpace(lines=4)


class TestElementwiseProgram(SpaceCase):
    def make(self) -> SearchSpace:
        return ProgramSpace(lines=4, vocabulary="elementwise")


class TestLion(SpaceCase):
    def make(self) -> SearchSpace:
        return LionSpace()


def test_every_registered_space_has_a_case() -> None:
    cases: list[SpaceCase] = [TestGroups(), TestProgram(), TestLion()]
    drawn = {kind: space for kind, space in SPACES.items() if kind != "text"}  # tests/search/test_external.py has that
    assert {case.make().kind: type(case.make()) for case in cases} == drawn


def test_every_registered_space_can_be_named_on_the_command_line() -> None:
    assert set(_KINDS) == set(SPACES)


def test_judges_are_for_spaces_that_are_there() -> None:
    assert set(JUDGES) <= set(SPACES)


# --- the suite itself: a space with a fault fails it -----------------------------------------------------------------


class DrawsElsewhere(ProgramSpace):
    def sample(self, generator: torch.Generator) -> Tokens:
        return super().sample(torch.default_generator)


class ShowsDeadTokens(ProgramSpace):
    def live(self, tokens: Sequence[int]) -> list[bool]:
        return [*[False] * (self.length - 4), *super().live(tokens)[-4:]]


class HidesTheGradient(ProgramSpace):
    def uses_gradient(self, tokens: Sequence[int]) -> bool:
        return False


class ForgetsItsLines(ProgramSpace):
    def config(self) -> dict[str, Any]:
        return {**super().config(), "lines": 3}


class OneKeyForAllMasks(ProgramSpace):
    def mask_key(self, prefix: Sequence[int]) -> Hashable:
        return len(prefix)


class CountsTooMany(ProgramSpace):
    def size(self, *, masked: bool = False) -> int:
        return 1 + super().size(masked=masked)


@pytest.mark.parametrize(
    "kind", [DrawsElsewhere, ShowsDeadTokens, HidesTheGradient, ForgetsItsLines, OneKeyForAllMasks, CountsTooMany]
)
def test_faults_are_found(kind: type[ProgramSpace]) -> None:
    class Case(SpaceCase):
        def make(self) -> SearchSpace:
            return kind(lines=4)

    tests = [getattr(Case(), name) for name in dir(SpaceCase) if name.startswith("test_")]
    failures = 0
    for test in tests:
        try:
            test()
        except (AssertionError, ValueError):
            failures += 1
    assert failures
