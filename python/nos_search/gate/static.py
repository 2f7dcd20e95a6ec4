"""Owns what can be told from the tokens of many strings at once, without computing anything: liveness in NumPy."""

from __future__ import annotations

import numpy as np

from ..space import Space
from ..space.space import GROUP
from .formula import Array


class TokenStatic:
    """Vectorised forms of Space.uses_gradient and the like."""

    def __init__(self, space: Space) -> None:
        self.space = space
        operands, unary, binary = (space.positions[k].tokens for k in (0, 2, 4))
        self._base = len(operands)
        # outputs of earlier groups carry no gradient of their own
        self._gradient = np.array([token.gradient for token in operands] + [False] * (space.groups - 1))
        self._draws = np.array(["drop" in token.text for token in unary])
        self._left = next((k for k, token in enumerate(binary) if token.name == "left"), -1)

    def __call__(self, strings: Array) -> tuple[Array, Array]:
        """(uses the gradient, draws through a shared output), (n,) bool each.

        The second is True when an output that drops is used twice: as text it is written out twice and drawn twice,
        which a probe with one set of draws cannot show.
        """
        n, groups = len(strings), self.space.groups
        uses = np.zeros((n, groups), np.int64)
        uses[:, -1] = 1
        gradient = np.zeros(n, bool)
        drops = np.zeros((n, groups), bool)
        for group in reversed(range(groups)):
            op1, op2, u1, u2, b = (strings[:, group * GROUP + k] for k in range(GROUP))
            live = uses[:, group] > 0
            for operand, unary, side in ((op1, u1, live), (op2, u2, live & (b != self._left))):
                gradient |= side & self._gradient[operand]
                drops[:, group] |= side & self._draws[unary]
                rows = np.flatnonzero(side & (operand >= self._base))
                np.add.at(uses, (rows, operand[rows] - self._base), uses[rows, group])
        # what an output is made of draws, too
        for group in range(groups):
            op1, op2, _, _, b = (strings[:, group * GROUP + k] for k in range(GROUP))
            for operand, side in ((op1, True), (op2, b != self._left)):
                rows = np.flatnonzero((operand >= self._base) & side)
                drops[rows, group] |= drops[rows, operand[rows] - self._base]
        return gradient, np.asarray((drops & (uses > 1)).any(axis=1))
