"""Owns the notation of rule text: it has Python's syntax, and what is written reads back as the same graph."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from ..table import MATRIX, OPS
from .formatter import Form, Formatter, Strength, Written, has_equal_limits

if TYPE_CHECKING:
    from ..expr import Expr

_REPR_LIMIT: Final = 500  # characters of an operand that `shortened_text` writes
_LEAF_NAMES: Final = {"param": "p", "grad": "g", "step": "t", "total": "T"}
_SUM, _PRODUCT, _SIGN, _POWER, _ATOM = list(Strength)[1:]
_COMPARISON_FORM: Final = (Strength.COMPARISON, (_SUM, _SUM))
# Maps a symbol to the strength of the whole and what its operands need. These are Python's precedences, and all
# operators group to the left.
_INFIX: Final = {
    "+": (_SUM, (_SUM, _PRODUCT)),
    "-": (_SUM, (_SUM, _PRODUCT)),
    "*": (_PRODUCT, (_PRODUCT, _SIGN)),
    "/": (_PRODUCT, (_PRODUCT, _SIGN)),
    "%": (_PRODUCT, (_PRODUCT, _SIGN)),
    "**": (_POWER, (_ATOM, _SIGN)),
    **dict.fromkeys(("<", "<=", ">", ">=", "==", "!="), _COMPARISON_FORM),
}


def number_text(value: float) -> str:
    """Writes the shortest source of a number."""
    if value < 0 or (value == 0 and math.copysign(1.0, value) < 0):
        return "-0.0" if value == 0 else f"-{number_text(-value)}"
    for name, known in (("e", math.e), ("pi", math.pi), ("inf", math.inf)):
        if value == known:
            return name
    return str(int(value)) if value.is_integer() and value < 1e16 else repr(value)


class TextFormatter(Formatter):
    """A TextFormatter writes rule text. Operators stand between their operands; everything else is a call."""

    def number(self, value: float) -> str:
        return number_text(value)

    def leaf(self, node: Expr) -> Written:
        if node.op == "constant":
            text = self.number(node.value)  # type: ignore[arg-type]
            return Written(text, _SIGN if text[0] == "-" else _ATOM)
        return Written(_LEAF_NAMES.get(node.op) or str(node.value))

    def form(self, node: Expr, operands: Sequence[Written]) -> Form:
        # No operator stands between two numbers, as Python itself would compute it.
        infix = None if all(x.op == "constant" for x in node.args) else self.infix(node)
        return self.call(node) if infix is None else infix

    def infix(self, node: Expr) -> Form | None:
        """Returns the form with an operator, for ops that have one."""
        if node.op == "neg":
            return Form("-#0", _SIGN, (_SIGN,))
        if node.op == "square":
            return Form("#0 ** 2", _POWER, (_ATOM,))
        if node.op in MATRIX:
            return None
        symbol = OPS[node.op].symbol
        if not symbol or (node.op == "pow" and _is_two(node.args[1])):  # `x ** 2` means square(x)
            return None
        return Form(f"#0 {symbol} #1", *_INFIX[symbol])

    def call(self, node: Expr) -> Form:
        """Returns the form of a call."""
        places = [f"#{k}" for k in range(len(node.args))]
        if has_equal_limits(node):
            del places[1]
        options = node.value.arguments() if node.op in MATRIX else ""  # type: ignore[union-attr]
        return Form(f"{node.op}({', '.join(places)}{options})")


def shortened_text(order: Iterable[Expr]) -> str:
    """Writes the last node of a postorder list for people, with "..." in the place of long operands."""
    formatter = TextFormatter()
    written: dict[Expr, Written] = {}
    last = Written("")
    for node in order:
        last = formatter.node(node, [written[x] for x in node.args])
        written[node] = last = last if len(last.text) <= _REPR_LIMIT else Written("...")
    return last.text


def _is_two(node: Expr) -> bool:
    return node.op == "constant" and node.value == 2
