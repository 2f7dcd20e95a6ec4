"""Owns the canonical form of token strings: the algebra of nos_ext.rule.canonical, shared between all strings seen.

Strings are made of few pieces, so the value of a piece is computed once and found again by what it is made of. Values
are known by their content, so two spellings of a piece share everything that is built on it.
"""

from __future__ import annotations

from collections.abc import Sequence

from nos_ext.rule.algebra import Value
from nos_ext.rule.canonical import Pieces
from nos_ext.rule.expr import Expr, postorder, state

from ..space import Space
from ..space.space import GROUP
from .formula import Formula, update_of

_MAX_ATOMS = 200_000  # about 200 MB of algebra; then the memory starts again, the keys stay the same


class TokenCanon:
    """Canonical keys of the strings of a space. Equal keys: equal functions, as far as algebra can tell."""

    def __init__(self, space: Space) -> None:
        self.space = space
        operands, unary, binary = (space.positions[k].tokens for k in (0, 2, 4))
        self._operands = [postorder([update_of(space.token_text(token))]) for token in operands]
        self._unary = [Formula(space.token_text(token), 1) for token in unary]
        self._binary = [Formula(space.token_text(token), 2) for token in binary]
        self._u_holes = [_holes(formula, 1) for formula in self._unary]
        self._b_holes = [_holes(formula, 2) for formula in self._binary]
        self._left = next((k for k, token in enumerate(binary) if token.name == "left"), -1)
        self._start()

    def _start(self) -> None:
        self._pieces = Pieces()
        # Operands that draw are different draws, each the same wherever it stands.
        self._base = [self._pieces.value(order, draw=k + 1) for k, order in enumerate(self._operands)]
        self._values: dict[tuple[object, ...], Value] = {}

    def key(self, tokens: Sequence[int]) -> str:
        """A hex digest."""
        if self._pieces.atoms > _MAX_ATOMS:
            self._start()
        return self._group(tokens, self.space.groups - 1, {}).key

    def _group(self, tokens: Sequence[int], group: int, draws: dict[tuple[str, int], int]) -> Value:
        """The output of a group. An output that is used twice is written out twice, so its drops are drawn twice."""
        op1, op2, u1, u2, b = tokens[group * GROUP : (group + 1) * GROUP]
        left = self._side(tokens, op1, u1, draws)
        if b == self._left:
            return left
        right = self._side(tokens, op2, u2, draws)
        name = (b, left.key, right.key)
        value = self._values.get(name)
        if value is None:
            first, second = self._b_holes[b]
            value = self._pieces.value(self._binary[b].order, {first: left, second: right})
            self._values[name] = value
        return value

    def _side(self, tokens: Sequence[int], operand: int, unary: int, draws: dict[tuple[str, int], int]) -> Value:
        base = operand - len(self._base)
        x = self._base[operand] if base < 0 else self._group(tokens, base, draws)
        draw = 1
        if self._unary[unary].random:
            draw = draws[x.key, unary] = draws.get((x.key, unary), 0) + 1
        name = (x.key, unary, draw)
        value = self._values.get(name)
        if value is None:
            (hole,) = self._u_holes[unary]
            value = self._pieces.value(self._unary[unary].order, {hole: x}, draw=draw)
            self._values[name] = value
        return value


def _holes(formula: Formula, arity: int) -> tuple[Expr, ...]:
    """The nodes of the holes; a hole that the template does not read has a node of its own."""
    found = {str(node.value): node for node in formula.order if node.op == "state"}
    return tuple(found.get(name, state(name)) for name in [f"x{k}" for k in range(arity)])
