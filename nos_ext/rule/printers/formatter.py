"""Owns Formatter: the walk over an expression that all printers share, and their one decision about parentheses.

A printer is a Formatter that knows how its language writes a leaf and, for every op, the Form of a node. Whether an
operand stands in parentheses follows from these: it does where it holds together less strongly than its place needs.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from ..expr import Expr

_HOLE: Final = re.compile(r"#(\d)")


class Strength(IntEnum):
    """Strength says how strongly a piece of text holds together, by the operation that was applied last in it."""

    COMPARISON = 0
    SUM = 1
    PRODUCT = 2
    SIGN = 3
    POWER = 4
    ATOM = 5


class Written(NamedTuple):
    """Written is the text of a node with how strongly it holds together."""

    text: str
    strength: Strength = Strength.ATOM


class Form(NamedTuple):
    """A Form says how a node is written around its operands.

    `template` has #0, #1 and #2 in the places of the operands, and `strength` is that of the whole. `needs` is the
    strength that each operand needs to stand without parentheses; operands beyond its end need none.
    """

    template: str
    strength: Strength = Strength.ATOM
    needs: tuple[Strength, ...] = ()


class Formatter(ABC):
    """A Formatter writes expressions in one language."""

    @abstractmethod
    def leaf(self, node: Expr) -> Written:
        """Writes a node without operands."""

    @abstractmethod
    def form(self, node: Expr, operands: Sequence[Written]) -> Form:
        """Returns the form of a node with operands, whose texts may have a say in it."""

    def group(self, text: str) -> str:
        """Puts a text in parentheses."""
        return f"({text})"

    def node(self, node: Expr, operands: Sequence[Written]) -> Written:
        """Writes a node around the texts of its operands."""
        if not node.args:
            return self.leaf(node)
        template, strength, needs = self.form(node, operands)
        texts = [operand.text for operand in operands]
        for k, need in enumerate(needs):
            if operands[k].strength < need:
                texts[k] = self.group(texts[k])
        return Written(_HOLE.sub(lambda hole: texts[int(hole[1])], template), strength)

    def write(self, order: Iterable[Expr], names: Mapping[Expr, str]) -> tuple[dict[Expr, str], dict[Expr, str]]:
        """Writes all nodes of a postorder list. Inside of others, a node that has a name stands under it.

        Returns:
            The text that stands for each node, and the text behind the name of each one that has a name.
        """
        standing: dict[Expr, Written] = {}
        behind: dict[Expr, str] = {}
        for node in order:
            written = self.node(node, [standing[x] for x in node.args])
            if node in names:
                behind[node] = written.text
                written = Written(names[node])
            standing[node] = written
        return {node: written.text for node, written in standing.items()}, behind


def has_equal_limits(node: Expr) -> bool:
    """Tells whether a node is clip(x, -l, l), for which clip(x, l) is short."""
    if node.op != "clip":
        return False
    _, low, high = node.args
    if low.op == "constant" and high.op == "constant":
        return high.value > 0 and low.value == -high.value  # type: ignore[operator]
    return low.op == "neg" and low.args[0] is high
