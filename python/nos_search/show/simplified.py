"""Owns how a rule is shown for reading: the same function, without what a search leaves in it that does nothing.

A search writes sign(sign(m_hat)), g - -w or sqrt(abs(1)). The engine's exact rewrites take most of that away
(nos_ext/rule/simplify.py); those here hold over the real numbers, so they are for eyes only: what is trained, stored
and exported is the rule that was found. No rewrite drops or repeats an operand that draws random numbers; two of them
may change places.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from nos_ext import Expr, RuleError
from nos_ext.rule.expr import constant, postorder, rebuilt
from nos_ext.rule.printers.formatter import Formatter
from nos_ext.rule.printers.mathml import MathmlFormatter, text_to_mathml
from nos_ext.rule.printers.text import TextFormatter, number_text
from nos_ext.rule.simplify import Simplifier, fold
from nos_ext.rule.table import RANDOM
from nos_ext.rule.text import parse_as_written

from ..escape import markup
from ..rules import as_argument

_SHORT: Final = 6  # characters of a number that is worth computing: sqrt(2) says more than its digits


def shorter(text: str) -> Expr | None:
    """Returns the update that the text is, made shorter where that does not change the function. Its operands are
    leaves of the kind "operand". None stands for text of a whole function, and for text that is no rule.
    """
    try:
        written = parse_as_written(text)
    except RuleError:
        return None
    if not isinstance(written, Expr):
        return None
    build = _Shorter()
    new: dict[Expr, Expr] = {}
    for node in postorder([written]):
        args = tuple(new[x] for x in node.args)
        if not args:
            root = _root(node)
            new[node] = build.leaf(node) if root is None else root
        else:
            new[node] = build.draw(node, args) if node.op in RANDOM else build.make(node.op, args)
    return new[written]


def simplified(text: str) -> str:
    """Returns the text of the shorter update as the command line takes it, and text of anything else as it is."""
    update = shorter(text)
    return text if update is None else as_argument(_written(TextFormatter(), update))


def formula(text: str, *, block: bool = False) -> str:
    """Writes the rule as a <math> element, for a line of text or as a `block`. Of an update it is the shorter one. Text
    that is no rule, as a damaged or newer store may have, comes back as <code>.
    """
    update = shorter(text)
    if update is not None:
        display = ' display="block"' if block else ""
        return f"<math{display}><mrow>{_written(MathmlFormatter(), update)}</mrow></math>"
    try:
        return text_to_mathml(text, block=block)
    except RuleError:
        return f"<code>{markup(text)}</code>"


def _written(formatter: Formatter, update: Expr) -> str:
    texts, _ = formatter.write(postorder([update]), {})
    return texts[update]


class _Shorter(Simplifier):
    """This Simplifier may use algebra, and computes numbers only where they become short."""

    def make(self, op: str, args: tuple[Expr, ...]) -> Expr:
        if all(x.op == "constant" for x in args):
            number = fold(op, args)
            if number is not None and len(number_text(number)) <= _SHORT:
                return self.constant(number)
        rewrite = _REWRITES.get(op)
        node = rewrite(self, *args) if rewrite is not None else None
        if node is not None:
            return node
        if all(x.op == "constant" for x in args):
            return rebuilt(op, args)
        return super().make(op, args)


def _root(leaf: Expr) -> Expr | None:
    """Returns the square root that a number is, if it is one: the reader of the text has computed sqrt(2) already."""
    number = _value(leaf)
    if number is None or number.is_integer() or not 0 < number < 10 or math.sqrt(round(number**2)) != number:
        return None
    return rebuilt("sqrt", (constant(round(number**2)),))


def _value(x: Expr) -> float | None:
    return float(x.value) if x.op == "constant" else None  # type: ignore[arg-type]


def _add(build: Simplifier, a: Expr, b: Expr) -> Expr | None:
    return a if _value(b) == 0 else b if _value(a) == 0 else None


def _sub(build: Simplifier, a: Expr, b: Expr) -> Expr | None:
    return a if _value(b) == 0 else build.make("neg", (b,)) if _value(a) == 0 else None


def _neg(build: Simplifier, a: Expr) -> Expr | None:
    return build.make("sub", (a.args[1], a.args[0])) if a.op == "sub" else None


def _abs(build: Simplifier, a: Expr) -> Expr | None:
    return a if a.op == "sqrt" else None


def _sign(build: Simplifier, a: Expr) -> Expr | None:
    """Leaves out a positive factor."""
    if a.op == "mul":
        for factor, rest in (a.args, a.args[::-1]):
            if (_value(factor) or 0) > 0:
                return build.make("sign", (rest,))
    return None


def _sqrt(build: Simplifier, a: Expr) -> Expr | None:
    if a.op == "square":
        return build.make("abs", a.args)
    return a if a.op == "abs" and a.args[0].op == "sign" else None  # 0 and 1 are their own roots


def _pow(build: Simplifier, a: Expr, b: Expr) -> Expr | None:
    return a if _value(b) == 1 else None


def _clip(build: Simplifier, a: Expr, low: Expr, high: Expr) -> Expr | None:
    """Leaves out limits that hold anyway: around a sign, and around a narrower or wider clip."""
    lo, hi = _value(low), _value(high)
    if lo is None or hi is None or not lo <= 0 <= hi:
        return None
    if a.op == "sign" and lo <= -1 and hi >= 1:
        return a
    if a.op == "clip":
        x, inner_low, inner_high = a.args
        lower, upper = _value(inner_low), _value(inner_high)
        if lower is not None and upper is not None and lower <= 0 <= upper:
            limits = build.constant(max(lo, lower)), build.constant(min(hi, upper))
            return build.make("clip", (x, *limits))
    return None


_REWRITES: Final[dict[str, Callable[..., Expr | None]]] = {
    "add": _add,
    "sub": _sub,
    "neg": _neg,
    "abs": _abs,
    "sign": _sign,
    "sqrt": _sqrt,
    "pow": _pow,
    "clip": _clip,
}
