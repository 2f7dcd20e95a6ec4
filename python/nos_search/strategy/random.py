"""Owns uniform random search, which draws every token uniformly from those that the masks leave.

All other strategies are measured against it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from ..space import Tokens
from .base import Result, Strategy


class RandomStrategy(Strategy):
    """Random search learns nothing from what it is told."""

    name: ClassVar[str] = "random"

    def propose(self, n: int) -> Iterable[Tokens]:
        return [self.space.sample(self.generator) for _ in range(n)]

    def learn(self, results: Sequence[Result]) -> None:
        pass
