"""Owns the space `lion`: programs over the vocabulary of the search that found Lion (Chen et al. 2023), and what
evolution begins with there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch

from .base import Tokens
from .program import MAX_LINES, ProgramSpace
from .words import LION


class LionSpace(ProgramSpace):
    """A space of programs over the functions, inputs and numbers of that search. As there, evolution begins with AdamW;
    its neighbours fill up the first population."""

    kind: ClassVar[str] = "lion"
    vocabularies: ClassVar[tuple[str, ...]] = (LION,)

    def __init__(self, *, lines: int = MAX_LINES, vocabulary: str | None = None) -> None:
        super().__init__(lines=lines, vocabulary=vocabulary)

    def founders(self) -> Sequence[Tokens]:
        return [tokens for name, tokens in self.known().items() if name == "adamw"]

    def newcomer(self, generator: torch.Generator) -> Tokens:
        founders = self.founders()
        return self.mutate(founders[0], generator) if founders else self.sample(generator)
