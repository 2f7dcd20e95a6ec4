"""Owns what the funnel asks about candidates. Token strings are judged without compiling them, any other rule with the
engine."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import nos_ext
from nos_ext import Program
from nos_ext.rule.canonical import canonical_key

from ..errors import UsageError
from ..rules import CompiledRule, program_of
from ..space import Options, SearchSpace, Space, TextSpace, Tokens
from ..space.group import Array
from ..space.text import STATES
from . import engine
from .canonical import TokenCanon
from .probe import TokenProbe, behaviour_stimulus, descent_stimulus, effect_stimulus
from .screen import TokenGraphs, update_with_rate_tensor, with_rate_tensor
from .static import TokenStatic

SEED = 20_170_904  # the same for all probes, so that a fingerprint means the same in every run


class Judge(ABC):
    """A judge answers what the funnel asks about candidates. Rows are indices into the batch that was given to
    `start`."""

    @abstractmethod
    def start(self, batch: Sequence[Tokens]) -> list[str]:
        """Looks at a batch, and says of each candidate why it is none; "" if it is one."""

    @abstractmethod
    def effect(self, rows: Sequence[int]) -> Array:
        """Returns the (n, size) updates on the effect stimulus."""

    @abstractmethod
    def descent(self, rows: Sequence[int]) -> Array:
        """Returns the (n, size) updates on the descent stimulus."""

    @abstractmethod
    def behaviour(self, rows: Sequence[int]) -> Array:
        """Returns the (n, size) updates on the behaviour stimulus."""

    @abstractmethod
    def key(self, row: int) -> str:
        """Returns the canonical key."""

    @abstractmethod
    def comparable(self, row: int) -> bool:
        """Tells whether a fingerprint tells this candidate from others."""

    @abstractmethod
    def screening(self, row: int) -> Program:
        """Returns the program with a tensor of learning rates."""

    @abstractmethod
    def rule(self, row: int, key: str) -> CompiledRule:
        """Returns the rule to train."""


@functools.lru_cache(maxsize=8)  # every look at a run folder makes a judge anew, for its families
def _tables(vocabulary: str, groups: int, options: Options) -> tuple[TokenStatic, TokenProbe, TokenProbe, TokenProbe]:
    """Returns what tells whether strings of a space are rules, and the probes of effect, descent and behaviour. Nothing
    changes them."""
    space = Space(vocabulary=vocabulary, groups=groups, options=options)
    return (
        TokenStatic(space),
        TokenProbe(space, effect_stimulus(), seed=SEED),
        TokenProbe(space, descent_stimulus(), seed=SEED),
        TokenProbe(space, behaviour_stimulus(), seed=SEED, one_draw=True),
    )


class TokenJudge(Judge):
    """This judges strings of the paper's groups, and compiles nothing before the screening."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self._canon, self._graphs = TokenCanon(space), TokenGraphs(space)
        self._static, self._effect, self._descent, self._behaviour = _tables(
            space.vocabulary, space.groups, space.options
        )

    def start(self, batch: Sequence[Tokens]) -> list[str]:
        self._batch = batch
        self._strings = np.asarray(batch, np.int64).reshape(len(batch), self.space.length)
        gradient, self._shared = self._static(self._strings)
        return ["" if uses else "no gradient" for uses in gradient.tolist()]

    def effect(self, rows: Sequence[int]) -> Array:
        return self._effect(self._strings[rows])

    def descent(self, rows: Sequence[int]) -> Array:
        return self._descent(self._strings[rows])

    def behaviour(self, rows: Sequence[int]) -> Array:
        return self._behaviour(self._strings[rows])

    def key(self, row: int) -> str:
        return self._canon.key(self._batch[row])

    def comparable(self, row: int) -> bool:
        return not self._shared[row]

    def screening(self, row: int) -> Program:
        return update_with_rate_tensor(self._graphs.update(self._batch[row]))

    def rule(self, row: int, key: str) -> CompiledRule:
        text = self.space.text(self._batch[row])
        return CompiledRule(text, nos_ext.compile_rule(text), key)


class RuleJudge(Judge):
    """This judges strings of any space, through rule text and the engine."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space

    def start(self, batch: Sequence[Tokens]) -> list[str]:
        reasons = []
        self._batch = batch
        self._programs: list[Program | None] = []
        for tokens in batch:
            program, reason = None, ""
            if not self.space.uses_gradient(tokens):
                reason = "no gradient"
            else:
                try:
                    program = program_of(self.space.text(tokens))
                except nos_ext.RuleError as error:
                    reason = f"not a rule: {error}"
            self._programs.append(program)
            reasons.append(reason)
        self._graphs = [None if program is None else program.rule for program in self._programs]
        return reasons

    def _program(self, row: int) -> Program:
        program = self._programs[row]
        assert program is not None
        return program

    def _graph(self, row: int) -> nos_ext.Rule:
        graph = self._graphs[row]
        assert graph is not None
        return graph

    def effect(self, rows: Sequence[int]) -> Array:
        return engine.updates([self._graph(row) for row in rows], effect_stimulus(), seed=SEED)

    def descent(self, rows: Sequence[int]) -> Array:
        return engine.updates([self._graph(row) for row in rows], descent_stimulus(), seed=SEED)

    def behaviour(self, rows: Sequence[int]) -> Array:
        return engine.updates([self._graph(row) for row in rows], behaviour_stimulus(), seed=SEED)

    def key(self, row: int) -> str:
        return canonical_key(self._program(row))

    def comparable(self, row: int) -> bool:
        return True

    def screening(self, row: int) -> Program:
        return with_rate_tensor(self._graph(row))

    def rule(self, row: int, key: str) -> CompiledRule:
        return CompiledRule(self.space.text(self._batch[row]), self._program(row), key)


class TextJudge(RuleJudge):
    """This judges text from anywhere. It may be a rule that the gates cannot try: they need room in its program, and a
    learning rate that may be a tensor."""

    def start(self, batch: Sequence[Tokens]) -> list[str]:
        return [reason or self._not_for_gates(row) for row, reason in enumerate(super().start(batch))]

    def _not_for_gates(self, row: int) -> str:
        graph = self._graph(row)
        if len(graph.state_names) > STATES:
            return f"not a rule that gates can try: it has {len(graph.state_names)} states; a search takes {STATES}"
        try:
            engine.with_update_as_param(graph)
            with_rate_tensor(graph)
        except nos_ext.RuleError as error:
            return f"not a rule that gates can try: {error}; make it shorter"
        except UsageError as error:
            return f"not a rule that gates can try: {error}"
        return ""


# Spaces whose strings have a judge of their own, by kind.
JUDGES: dict[str, Callable[[Any], Judge]] = {Space.kind: TokenJudge, TextSpace.kind: TextJudge}


def judge_of(space: SearchSpace) -> Judge:
    """Returns the judge of the strings of a space, which is the fastest where there are two."""
    return JUDGES.get(space.kind, RuleJudge)(space)
