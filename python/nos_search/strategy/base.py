"""Owns the contract between the search loop and whatever proposes rules: ask, tell, state.

A strategy owns one torch.Generator made from its seed and draws from nothing else. It must not read the clock. Two
strategies with equal seeds and options that are asked and told the same things stay equal bit for bit, and a strategy
rebuilt from `state_dict()` goes on exactly as the original would. `nos_search.testing.strategy.StrategyCase` checks
this.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from ..errors import UsageError
from ..space import SearchSpace, Tokens

# What state_dict() may hold, nested: None, bool, int, float, str, torch.Tensor, lists and dicts (str keys) of these.
State = dict[str, Any]


@dataclass(frozen=True)
class Candidate:
    """A candidate is a proposed rule. `id` counts the proposals of one strategy from 0."""

    id: int
    tokens: Tokens


@dataclass(frozen=True)
class Result:
    """A result is the answer to a candidate.

    `reward` is finite, and higher is better; it is None when no reward could be had (a failed trial), which teaches
    nothing. With `duplicate` the reward is that of an equal rule told before, and nothing was trained. `id` is the
    candidate's, or None for a rule that this strategy did not propose (tell without ask). `verdict` says more of it,
    for strategies that pass it on.

    `family` is the number of the family to which a trained rule belongs: rules that behave nearly alike are one family,
    and its number is the id of the first of them that was trained. It is None where that is not known, as for rejected
    rules.
    """

    tokens: Tokens
    reward: float | None
    id: int | None = None
    duplicate: bool = False
    family: int | None = None
    verdict: Mapping[str, Any] = field(default_factory=dict)

    @property
    def founds(self) -> bool:
        """Tells whether this is the first member of its family."""
        return self.family is not None and self.family == self.id and not self.duplicate


class Strategy(ABC):
    """A strategy proposes rules from a space. Subclasses add keyword options with defaults and list them in
    `options`."""

    name: ClassVar[str]
    version: ClassVar[int] = 1  # of state_dict
    free_options: ClassVar[tuple[str, ...]] = ()  # options that decide no proposal, and may be new at a resume
    repeats: ClassVar[bool] = True  # asked and told the same again, it proposes the same
    older: ClassVar[Mapping[str, Any]] = {}  # options that stored runs may not name, with what they were then

    def __init__(self, space: SearchSpace, *, seed: int) -> None:
        self.space = space
        self.seed = seed
        self.generator = torch.Generator().manual_seed(seed)
        self.asked = 0
        self._open: dict[int, Tokens] = {}

    def ask(self, n: int = 1) -> list[Candidate]:
        """Returns n >= 1 new candidates whose tokens pass the masks of the space. Only a strategy that does not repeat
        may return fewer, but one at least."""
        if n < 1:
            raise UsageError(f"ask: n must be at least 1, got {n}")
        candidates = [Candidate(self.asked + k, tokens) for k, tokens in enumerate(self.propose(n))]
        self.asked += len(candidates)
        self._open.update((candidate.id, candidate.tokens) for candidate in candidates)
        return candidates

    def tell(self, results: Sequence[Result]) -> None:
        """Takes answers in any order. Each candidate is answered once; raises UsageError for anything else."""
        seen: set[int] = set()
        for result in results:
            if result.reward is not None and not math.isfinite(result.reward):
                raise UsageError(f"tell: reward {result.reward} of candidate {result.id} is not finite; use None")
            if result.id is None:
                self.space.check(result.tokens)
            elif self._open.get(result.id) != result.tokens or result.id in seen:
                raise UsageError(f"tell: candidate {result.id} is not open with these tokens; was it told before?")
            else:
                seen.add(result.id)
        for number in seen:
            del self._open[number]
        # A fixed order whatever the order of arrival; foreign results last.
        self.learn(sorted(results, key=lambda r: (r.id is None, r.id or 0, r.tokens, r.reward or 0.0)))

    @property
    def open(self) -> list[Candidate]:
        """Returns the candidates that were asked and not yet told, by id."""
        return [Candidate(number, tokens) for number, tokens in sorted(self._open.items())]

    @abstractmethod
    def propose(self, n: int) -> Iterable[Tokens]:
        """Returns n new strings, and draws from self.generator only."""

    @abstractmethod
    def learn(self, results: Sequence[Result]) -> None:
        """Learns from results, which are checked and sorted by id."""

    def recall(self, answered: Sequence[Result], waiting: Sequence[Candidate]) -> None:
        """Takes up a run in which these were answered, in this order, and these are open. It is for a fresh strategy
        that does not repeat; others are asked and told the same again (run/resume.py)."""
        self.asked = len(answered) + len(waiting)
        self._open = {candidate.id: candidate.tokens for candidate in waiting}
        self.learn(answered)

    def close(self) -> None:
        """Lets go of what it holds outside of this process; it is not asked or told any more."""
        return

    def metrics(self) -> dict[str, float]:
        """Returns finite numbers about the strategy's present state, for reports. They have names such as "baseline"
        and "entropy"."""
        return {}

    def options(self) -> dict[str, Any]:
        """Returns the keyword options, fit for JSON, from which `create` makes an equal strategy."""
        return {}

    def state_dict(self) -> State:
        """Returns everything that decides what this strategy does next. Tensors are copies."""
        return {
            "strategy": self.name,
            "version": self.version,
            "asked": self.asked,
            "open": [[number, list(tokens)] for number, tokens in sorted(self._open.items())],
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Undoes state_dict(). Raises UsageError when the state is another strategy's or a newer version's."""
        if state.get("strategy") != self.name or state.get("version") != self.version:
            raise UsageError(
                f"state is of strategy {state.get('strategy')!r} version {state.get('version')!r}, "
                f"expected {self.name!r} version {self.version}"
            )
        self.asked = int(state["asked"])
        self._open = {int(number): tuple(tokens) for number, tokens in state["open"]}
        self.generator.set_state(state["generator"])
