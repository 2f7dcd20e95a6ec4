"""Owns the contract of search spaces: a space has strings of tokens, a vocabulary for each position, and a rule that
each string means.

Whatever a strategy needs of a space is here, so a new space works with every strategy: which token may follow a prefix,
random strings, small changes, and which choices matter. All randomness comes from the generator that is passed in.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch

from ..errors import UsageError
from .vocabulary import Token, TokenKind

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Position:
    """A position is one prediction. It has a name such as "u1.2", which is that of the second group, its kind, and the
    tokens that it may take in index order."""

    name: str
    kind: TokenKind
    group: int
    tokens: tuple[Token, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(token.name for token in self.tokens)


class SearchSpace(ABC):
    """A space of strings with these `positions`, of which each `block` of them belongs together: a group of five, or a
    line of a program. Equal configurations give equal spaces; config() is what a run stores."""

    kind: ClassVar[str]
    positions: tuple[Position, ...]
    block: int  # positions that belong together: a group of five, or a line of a program

    def __init__(self) -> None:
        self._masks: dict[Hashable, list[bool]] = {}

    @property
    def length(self) -> int:
        """Counts the predictions in a string."""
        return len(self.positions)

    # --- what a space defines --------------------------------------------------------------------------------------

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Returns a description of this space as JSON, with its kind."""

    @classmethod
    @abstractmethod
    def from_config(cls, config: Mapping[str, Any]) -> SearchSpace:
        """Returns the space that `config` describes. Raises UsageError for values that describe none."""

    @abstractmethod
    def mask_key(self, prefix: Sequence[int]) -> Hashable:
        """Returns what the mask after `prefix` depends on; prefixes with equal keys have equal masks."""

    @abstractmethod
    def make_mask(self, prefix: Sequence[int]) -> list[bool]:
        """Returns the mask after `prefix`, in which at least one entry is True."""

    @abstractmethod
    def text(self, tokens: Sequence[int]) -> str:
        """Returns the rule as text of the rule language, on one line."""

    @abstractmethod
    def live(self, tokens: Sequence[int]) -> list[bool]:
        """Tells for each position whether the rule depends on its token."""

    @abstractmethod
    def size(self, *, masked: bool = False) -> int:
        """Counts the strings: all of them, or only those that the masks leave."""

    @abstractmethod
    def known(self) -> Mapping[str, Tokens]:
        """Returns well-known rules that this space can write, by name."""

    # --- what follows from it --------------------------------------------------------------------------------------

    def founders(self) -> Sequence[Tokens]:
        """Returns the strings that a warm start begins with: all known rules, unless a space says otherwise."""
        return list(self.known().values())

    def newcomer(self, generator: torch.Generator) -> Tokens:
        """Draws one of the strings that fill up the first population after the founders: a random one, unless a space
        says otherwise."""
        return self.sample(generator)

    def mask(self, prefix: Sequence[int]) -> list[bool]:
        """Returns True for each token that may stand at the position after `prefix`. At least one always may."""
        key = self.mask_key(prefix)
        found = self._masks.get(key)
        if found is None:
            found = self._masks[key] = self.make_mask(prefix)
        return found

    def uses_gradient(self, tokens: Sequence[int]) -> bool:
        """Tells whether a live operand carries the gradient; without one the rule cannot learn."""
        return any(
            position.tokens[token].gradient
            for position, token, live in zip(self.positions, tokens, self.live(tokens), strict=True)
            if live
        )

    def names(self, tokens: Sequence[int]) -> tuple[str, ...]:
        """Returns the names of the tokens, one per position."""
        return tuple(position.tokens[token].name for position, token in zip(self.positions, tokens, strict=True))

    @cached_property
    def _choices(self) -> tuple[int, ...]:
        return tuple(len(position.tokens) for position in self.positions)

    def holds(self, tokens: Sequence[int]) -> bool:
        """Tells whether these are a string of this space, whatever its masks say of it."""
        choices = self._choices
        return len(tokens) == len(choices) and all(0 <= t < n for t, n in zip(tokens, choices, strict=True))

    def check(self, tokens: Sequence[int]) -> Tokens:
        """Returns the string as a tuple. Raises UsageError, which names the first position whose token is not
        allowed."""
        if len(tokens) != self.length:
            raise UsageError(f"tokens: {len(tokens)} given, this space has strings of {self.length}")
        for where, token in enumerate(tokens):
            position = self.positions[where]
            if not 0 <= token < len(position.tokens):
                raise UsageError(f"tokens: {token} at {position.name} is outside 0..{len(position.tokens) - 1}")
            if not self.mask(tokens[:where])[token]:
                raise UsageError(f"tokens: {position.names[token]!r} is masked at {position.name} after this prefix")
        return tuple(tokens)

    def sample(self, generator: torch.Generator) -> Tokens:
        """Draws a string: each token uniformly from those that the masks leave, and from `generator` only."""
        tokens: list[int] = []
        for draw in torch.rand(self.length, dtype=torch.float64, generator=generator).tolist():
            tokens.append(_pick(self.mask(tokens), draw))
        return tuple(tokens)

    def repair(self, tokens: Sequence[int]) -> Tokens:
        """Replaces every masked token by the next one that its mask leaves, from left to right."""
        fixed: list[int] = []
        for token in tokens:
            allowed = self.mask(fixed)
            n = len(allowed)
            fixed.append(next((token + k) % n for k in range(n) if allowed[(token + k) % n]))
        return tuple(fixed)

    def mutate(self, tokens: Tokens, generator: torch.Generator) -> Tokens:
        """Returns a neighbour, which has another token at one live position, and what the masks then ask for."""
        where = [k for k, live in enumerate(self.live(tokens)) if live and sum(self.mask(tokens[:k])) > 1]
        first, second = torch.rand(2, dtype=torch.float64, generator=generator).tolist()
        if not where:
            return self.sample(generator)
        k = where[int(first * len(where))]
        allowed = [ok and index != tokens[k] for index, ok in enumerate(self.mask(tokens[:k]))]
        return self.repair((*tokens[:k], _pick(allowed, second), *tokens[k + 1 :]))

    def crossover(self, left: Tokens, right: Tokens, generator: torch.Generator) -> Tokens:
        """Takes each block (a group or a line) from one of the two parents, with what the masks then ask for."""
        draws = torch.rand(self.length // self.block, generator=generator).tolist()
        child: list[int] = []
        for start, draw in zip(range(0, self.length, self.block), draws, strict=True):
            child += (left if draw < 0.5 else right)[start : start + self.block]
        return self.repair(child)


def _pick(allowed: Sequence[bool], draw: float) -> int:
    """Returns the index of an allowed entry, which draw in [0, 1) chooses uniformly."""
    indices = [index for index, ok in enumerate(allowed) if ok]
    return indices[int(draw * len(indices))]
