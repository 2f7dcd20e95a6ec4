"""Owns the contract of search spaces: strings of tokens, one vocabulary per position, and the rule that a string means.

Whatever a strategy needs of a space is here, so a new space works with every strategy: which token may follow a
prefix, random strings, small changes, and which choices matter. All randomness comes from the generator passed in.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ..errors import UsageError
from .vocabulary import Token, TokenKind

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Position:
    """One prediction: `name` such as "u1.2" (second group), its kind and the tokens it may take, in index order."""

    name: str
    kind: TokenKind
    group: int
    tokens: tuple[Token, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(token.name for token in self.tokens)


class SearchSpace(ABC):
    """Strings of `positions`. Equal configurations give equal spaces; `config()` is what a run stores."""

    kind: ClassVar[str]
    positions: tuple[Position, ...]
    block: int  # positions that belong together: a group of five, or a line of a program

    def __init__(self) -> None:
        self._masks: dict[Hashable, list[bool]] = {}

    @property
    def length(self) -> int:
        """Number of predictions in a string."""
        return len(self.positions)

    # --- what a space defines --------------------------------------------------------------------------------------

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """A JSON-able description of this space, with its kind."""

    @classmethod
    @abstractmethod
    def from_config(cls, config: Mapping[str, Any]) -> SearchSpace:
        """The space that `config` describes. UsageError for values that describe none."""

    @abstractmethod
    def mask_key(self, prefix: Sequence[int]) -> Hashable:
        """What the mask after `prefix` depends on; prefixes with equal keys have equal masks."""

    @abstractmethod
    def make_mask(self, prefix: Sequence[int]) -> list[bool]:
        """The mask after `prefix`; at least one entry is True."""

    @abstractmethod
    def text(self, tokens: Sequence[int]) -> str:
        """The rule as text of the rule language, on one line."""

    @abstractmethod
    def live(self, tokens: Sequence[int]) -> list[bool]:
        """For each position: whether the rule depends on its token."""

    @abstractmethod
    def size(self, *, masked: bool = False) -> int:
        """Number of strings: all of them, or only those that the masks leave."""

    @abstractmethod
    def known(self) -> Mapping[str, Tokens]:
        """Well-known rules that this space can write, by name: where a warm start begins."""

    # --- what follows from it --------------------------------------------------------------------------------------

    def mask(self, prefix: Sequence[int]) -> list[bool]:
        """For the position after `prefix`: True for each token that may stand there. At least one always may."""
        key = self.mask_key(prefix)
        found = self._masks.get(key)
        if found is None:
            found = self._masks[key] = self.make_mask(prefix)
        return found

    def uses_gradient(self, tokens: Sequence[int]) -> bool:
        """Whether a live operand carries the gradient; without one the rule cannot learn."""
        return any(
            position.tokens[token].gradient
            for position, token, live in zip(self.positions, tokens, self.live(tokens), strict=True)
            if live
        )

    def names(self, tokens: Sequence[int]) -> tuple[str, ...]:
        """Token names, one per position."""
        return tuple(position.tokens[token].name for position, token in zip(self.positions, tokens, strict=True))

    def check(self, tokens: Sequence[int]) -> Tokens:
        """The string as a tuple; UsageError names the first position whose token is not allowed."""
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
        """A string whose every token is drawn uniformly from those that the masks leave, from `generator` only."""
        tokens: list[int] = []
        for draw in torch.rand(self.length, dtype=torch.float64, generator=generator).tolist():
            tokens.append(_pick(self.mask(tokens), draw))
        return tuple(tokens)

    def repair(self, tokens: Sequence[int]) -> Tokens:
        """The string with every masked token replaced by the next one that its mask leaves, from left to right."""
        fixed: list[int] = []
        for token in tokens:
            allowed = self.mask(fixed)
            n = len(allowed)
            fixed.append(next((token + k) % n for k in range(n) if allowed[(token + k) % n]))
        return tuple(fixed)

    def mutate(self, tokens: Tokens, generator: torch.Generator) -> Tokens:
        """A neighbour: another token at one live position, with what the masks then ask for."""
        where = [k for k, live in enumerate(self.live(tokens)) if live and sum(self.mask(tokens[:k])) > 1]
        first, second = torch.rand(2, dtype=torch.float64, generator=generator).tolist()
        if not where:
            return self.sample(generator)
        k = where[int(first * len(where))]
        allowed = [ok and index != tokens[k] for index, ok in enumerate(self.mask(tokens[:k]))]
        return self.repair((*tokens[:k], _pick(allowed, second), *tokens[k + 1 :]))

    def crossover(self, left: Tokens, right: Tokens, generator: torch.Generator) -> Tokens:
        """Each block (group or line) from one of the two parents, with what the masks then ask for."""
        draws = torch.rand(self.length // self.block, generator=generator).tolist()
        child: list[int] = []
        for start, draw in zip(range(0, self.length, self.block), draws, strict=True):
            child += (left if draw < 0.5 else right)[start : start + self.block]
        return self.repair(child)


def _pick(allowed: Sequence[bool], draw: float) -> int:
    """The index of an allowed entry; draw in [0, 1) chooses uniformly."""
    indices = [index for index, ok in enumerate(allowed) if ok]
    return indices[int(draw * len(indices))]
