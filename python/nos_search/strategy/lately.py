"""Owns the memory of what a strategy proposed lately, so that it need not propose it again.

A policy that has found good strings draws them again and again. Their rewards are known, so such proposals cost time in
the gates and room in the store, and find nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from hashlib import blake2b

import torch
from torch import Tensor

from ..space import SearchSpace, Tokens

_KEPT = 8192  # strings; 64 KiB of a checkpoint


class Lately:
    """The last 8192 different strings that were added. Strings that differ in dead tokens only, on which the rule does
    not depend, are the same. (They are kept as hashes of 64 bits.)"""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._order: deque[int] = deque()
        self._kept: set[int] = set()

    def __contains__(self, tokens: Tokens) -> bool:
        return self._hash(tokens) in self._kept

    def add(self, tokens: Tokens) -> None:
        self._put(self._hash(tokens))

    def _put(self, number: int) -> None:
        if number in self._kept:
            return
        self._order.append(number)
        self._kept.add(number)
        if len(self._order) > _KEPT:
            self._kept.remove(self._order.popleft())

    def _hash(self, tokens: Sequence[int]) -> int:
        live = self._space.live(tokens)
        text = repr([token if counts else -1 for token, counts in zip(tokens, live, strict=True)])
        return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)

    def state(self) -> Tensor:
        """Returns the hashes, the oldest first, fit for a strategy's state."""
        return torch.tensor(list(self._order), dtype=torch.int64)

    def load(self, state: Tensor) -> None:
        """Undoes state()."""
        self._order.clear()
        self._kept.clear()
        for number in state.tolist():
            self._put(number)
