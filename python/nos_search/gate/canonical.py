"""Owns the canonical form of token strings: the algebra of nos_ext.rule.canonical, shared between all strings that are
seen.

Strings are made of few pieces, so the value of a piece is computed once and found again by what it is made of. Values
are known by their content, so two spellings of a piece share everything that is built on it.
"""

from __future__ import annotations

from collections.abc import Sequence

from nos_ext.rule.atoms import Value
from nos_ext.rule.canonical import Pieces
from nos_ext.rule.expr import Expr, postorder, state

from ..space import Space
from ..space.group import Meaning
from .formula import Formula, functions, update_of

_MAX_ATOMS = 200_000  # about 200 MB; beyond, the memory is emptied, and the keys stay the same


class TokenCanon(Meaning[Value]):
    """This gives the canonical keys of the strings of a space. Strings with equal keys are equal functions, which
    algebra can show."""

    def __init__(self, space: Space) -> None:
        self._shape = space.shape
        self._operands = [postorder([update_of(space.token_text(token))]) for token in space.operands]
        self._unary, self._binary = functions(space)
        self._u_holes = [_holes(formula, 1) for formula in self._unary]
        self._b_holes = [_holes(formula, 2) for formula in self._binary]
        self._start()

    def _start(self) -> None:
        self._pieces = Pieces()
        # Each operand that draws is a draw of its own, and the same one wherever it stands.
        self._base = [self._pieces.value(order, draw=k + 1) for k, order in enumerate(self._operands)]
        self._values: dict[tuple[object, ...], Value] = {}

    def key(self, tokens: Sequence[int]) -> str:
        """Returns the key of a string, a hex digest."""
        if self._pieces.atoms > _MAX_ATOMS:
            self._start()
        # How many drops of each value there have been. An output that is written twice is drawn twice.
        self._draws: dict[tuple[str, int], int] = {}
        return self._shape.fold(tokens, self).key

    def operand(self, token: int) -> Value:
        return self._base[token]

    def unary(self, token: int, x: Value, place: int) -> Value:
        draw = 1
        if self._unary[token].random:
            draw = self._draws[x.key, token] = self._draws.get((x.key, token), 0) + 1
        name = (x.key, token, draw)
        value = self._values.get(name)
        if value is None:
            (hole,) = self._u_holes[token]
            value = self._values[name] = self._pieces.value(self._unary[token].order, {hole: x}, draw=draw)
        return value

    def binary(self, token: int, left: Value, right: Value) -> Value:
        name = (token, left.key, right.key)
        value = self._values.get(name)
        if value is None:
            first, second = self._b_holes[token]
            value = self._values[name] = self._pieces.value(self._binary[token].order, {first: left, second: right})
        return value


def _holes(formula: Formula, arity: int) -> tuple[Expr, ...]:
    """Returns the nodes of the holes; a hole that the template does not read has a node of its own."""
    found = {str(node.value): node for node in formula.order if node.op == "state"}
    return tuple(found.get(name, state(name)) for name in [f"x{k}" for k in range(arity)])
