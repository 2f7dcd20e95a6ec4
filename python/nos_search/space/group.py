"""Owns the shape of the paper's strings, and how a string is evaluated.

A string is made of groups of five tokens (op1, op2, u1, u2, b), and a group means b(u1(op1), u2(op2)). An operand is a
plain one of the vocabulary or, in a later group, the output of an earlier one. The value of the last group is the value
of the string. Whoever wants to know something about a string says what the tokens mean for that (a `Meaning`: text, a
graph, numbers), and folds the string over it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

Array = np.ndarray[Any, Any]
V = TypeVar("V")


class Group(NamedTuple):
    """This is what belongs to the five positions of a group, in their order in a string; most of the time it is their
    tokens."""

    op1: Any
    op2: Any
    u1: Any
    u2: Any
    b: Any


GROUP = len(Group._fields)


class Meaning(ABC, Generic[V]):
    """This says what the tokens of a group are in one domain, whose values have the type V.

    A place is a side of a group: 2k is the left side of group k, 2k + 1 its right side.
    """

    @abstractmethod
    def operand(self, token: int) -> V:
        """Returns the value of a plain operand."""

    @abstractmethod
    def unary(self, token: int, x: V, place: int) -> V:
        """Returns the value of a unary function of x, at a place."""

    @abstractmethod
    def binary(self, token: int, left: V, right: V) -> V:
        """Returns the value of a binary function. It is not asked for the function that keeps the left side."""


@dataclass(frozen=True)
class Shape:
    """This says what the strings of a space look like.

    There are `groups` groups, `operands` plain operands and `unary` unary functions. The numbers after the plain
    operands are the outputs of earlier groups. `left` is the number of the binary function that keeps its left side,
    and -1 if there is none.
    """

    groups: int
    operands: int
    unary: int
    left: int

    def fold(self, tokens: Sequence[int], meaning: Meaning[V]) -> V:
        """Returns the value of a string. An output is evaluated anew wherever it is used, as the rule's text repeats
        it. What the value does not depend on is not evaluated: the right side of a keep-left, and outputs that are not
        used."""

        def output(group: int) -> V:
            parts = Group(*tokens[group * GROUP : (group + 1) * GROUP])
            left = side(parts.op1, parts.u1, 2 * group)
            if parts.b == self.left:
                return left
            return meaning.binary(parts.b, left, side(parts.op2, parts.u2, 2 * group + 1))

        def side(operand: int, unary: int, place: int) -> V:
            earlier = operand - self.operands
            return meaning.unary(unary, meaning.operand(operand) if earlier < 0 else output(earlier), place)

        return output(self.groups - 1)

    def plain_sides(self, meaning: Meaning[Array]) -> list[Array]:
        """Returns for each place the values of its side, by plain operand and unary function: operand * unary +
        function is the row. `fold_many` looks them up."""
        operands = [meaning.operand(operand) for operand in range(self.operands)]
        return [
            np.stack([meaning.unary(unary, x, place) for x in operands for unary in range(self.unary)])
            for place in range(2 * self.groups)
        ]

    def fold_many(self, strings: Array, meaning: Meaning[Array], sides: Sequence[Array]) -> Array:
        """Returns the values of (n, length) strings, one row each, for a meaning whose functions take rows of values.

        `sides` are the `plain_sides`. An output is evaluated once for each string.
        """
        outputs: list[Array] = []

        def side(operand: Array, unary: Array, place: int) -> Array:
            plain = operand < self.operands
            value: Array = sides[place][np.where(plain, operand, 0) * self.unary + unary]
            if plain.all():
                return value
            for earlier, output in enumerate(outputs):
                here = operand == self.operands + earlier
                for token in np.unique(unary[here]):
                    rows = np.flatnonzero(here & (unary == token))
                    value[rows] = meaning.unary(token, output[rows], place)
            return value

        for group in range(self.groups):
            parts = Group(*(strings[:, group * GROUP + k] for k in range(GROUP)))
            left = side(parts.op1, parts.u1, 2 * group)
            right = side(parts.op2, parts.u2, 2 * group + 1)
            for token in np.unique(parts.b):
                if token != self.left:
                    rows = np.flatnonzero(parts.b == token)
                    left[rows] = meaning.binary(token, left[rows], right[rows])
            outputs.append(left)
        return outputs[-1]
