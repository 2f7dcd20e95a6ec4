"""Owns what the tokens of many strings tell at once, before any update is computed."""

from __future__ import annotations

import numpy as np

from ..space import Space
from ..space.group import Array, Meaning


class TokenStatic(Meaning[Array]):
    """This tells whether strings use the gradient, and whether they draw a drop twice.

    A value is a row of counts of what stands in the rule's text: the operands that carry the gradient, then the drops
    of each place.
    """

    def __init__(self, space: Space) -> None:
        self._shape = space.shape
        self._gradient = [token.gradient for token in space.operands]
        self._drops = ["drop" in token.text for token in space.unary]
        self._sides = self._shape.plain_sides(self)

    def operand(self, token: int) -> Array:
        counts = np.zeros(1 + 2 * self._shape.groups, np.int64)
        counts[0] = self._gradient[token]
        return counts

    def unary(self, token: int, x: Array, place: int) -> Array:
        counts = np.array(x)
        counts[..., 1 + place] += self._drops[token]
        return counts

    def binary(self, token: int, left: Array, right: Array) -> Array:
        return np.asarray(left + right)

    def __call__(self, strings: Array) -> tuple[Array, Array]:
        """Returns two arrays of (n,) bool: whether a string uses the gradient, and whether it draws through a shared
        output.

        The second is True when an output that drops is used twice: as text it is written out twice and drawn twice,
        which a probe with one set of draws cannot show.
        """
        counts = self._shape.fold_many(strings, self, self._sides)
        return np.asarray(counts[:, 0] > 0), np.asarray((counts[:, 1:] > 1).any(axis=1))
