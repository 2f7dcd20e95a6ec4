"""Owns the queue of priority queue training (Abolafia et al. 2018, arXiv 1801.03526): the best strings so far, one of
each family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..space import Tokens

ALONE = -1  # the family of a string whose family is not known


class Entry(NamedTuple):
    """A string with its reward and the number of its family."""

    reward: float
    family: int
    tokens: Tokens


class Queue:
    """The queue has at most `size` entries, the best first, and of equals the first that came. Of a family it has the
    best; a string without a family is one by itself."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.entries: list[Entry] = []

    def offer(self, entry: Entry) -> None:
        """Takes a string in if it is good enough. A reward of 0 never is."""
        if not entry.reward > 0:
            return
        for same in self.entries:
            if same.tokens == entry.tokens or same.family == entry.family != ALONE:
                if same.reward >= entry.reward:
                    return
                self.entries.remove(same)
                break
        self.entries.append(entry)
        self.entries.sort(key=lambda each: -each.reward)  # stable
        del self.entries[self.size :]

    @property
    def strings(self) -> list[Tokens]:
        return [entry.tokens for entry in self.entries]

    def state(self) -> list[list[Any]]:
        """Returns the entries, fit for a strategy's state."""
        return [[entry.reward, entry.family, list(entry.tokens)] for entry in self.entries]

    def load(self, state: Sequence[Sequence[Any]]) -> None:
        """Undoes state()."""
        self.entries = [Entry(float(reward), int(family), tuple(tokens)) for reward, family, tokens in state]
