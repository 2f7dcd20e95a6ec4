"""Owns what LaTeX and MathML share: the notation of mathematics, and the equations that a rule is written as.

Over the real numbers sums and products need no parentheses to be regrouped, and fractions, roots, powers and brackets
show by themselves where an operand ends. In equations p, g and the states carry the step as a subscript, so that the
old and the new value of a state are told apart.
"""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from ..definition import Definition
from ..expr import Expr, postorder, use_counts
from .formatter import Form, Formatter, Strength, Written
from .layout import trivial

_COMPARISON, _SUM, _PRODUCT, _, _POWER, _ATOM = Strength
# Maps an op to the strength of the whole and what its operands need. All other ops are atoms, whose operands stand in
# brackets, under a root or the like. Nothing of strength POWER may be raised to a power without parentheses.
_BINDING: Final[dict[str, tuple[Strength, tuple[Strength, ...]]]] = {
    "add": (_SUM, (_SUM, _PRODUCT)),
    "sub": (_SUM, (_SUM, _PRODUCT)),
    "neg": (_SUM, (_PRODUCT,)),
    "fma": (_SUM, (_PRODUCT, _PRODUCT, _PRODUCT)),
    "mul": (_PRODUCT, (_PRODUCT, _PRODUCT)),
    "mod": (_COMPARISON, (_PRODUCT, _POWER)),  # otherwise "a mod b c" and "a mod b + c" could be read in two ways
    "div": (_POWER, ()),
    "rsqrt": (_POWER, ()),
    "exp": (_POWER, ()),
    "where": (_POWER, ()),
    "pow": (_POWER, (_ATOM,)),
    "square": (_POWER, (_ATOM,)),
    "global_sum": (_SUM, (_ATOM,)),  # otherwise it would be open where the sum ends
    "normal": (_ATOM, (_ATOM,)),  # the standard deviation is written squared
}
_CONSTANTS: Final = (("e", math.e), ("pi", math.pi), ("inf", math.inf))
_SPOKEN: Final = {"lr": "eta", "eps": "epsilon"}
# The names of Greek letters, with their code points.
GREEK: Final = {
    "alpha": 0x3B1, "beta": 0x3B2, "gamma": 0x3B3, "delta": 0x3B4, "epsilon": 0x3F5, "zeta": 0x3B6, "eta": 0x3B7,
    "theta": 0x3B8, "kappa": 0x3BA, "lambda": 0x3BB, "mu": 0x3BC, "nu": 0x3BD, "xi": 0x3BE, "rho": 0x3C1,
    "sigma": 0x3C3, "tau": 0x3C4, "phi": 0x3D5, "chi": 0x3C7, "psi": 0x3C8, "omega": 0x3C9,
}  # fmt: skip
BEFORE: Final = "t-1"
NOW: Final = "t"


class MathFormatter(Formatter):
    """A MathFormatter writes formulas.

    A language says how numbers, symbols and ops look in it. What binds how strongly is said here.
    """

    scientific_below = 0.0  # positive numbers below this are written with a power of ten

    @abstractmethod
    def constant(self, name: str) -> str:
        """Writes one of the numbers e, pi and inf."""

    @abstractmethod
    def decimal(self, digits: str) -> str:
        """Writes a number as these digits."""

    @abstractmethod
    def power_of_ten(self, exponent: int) -> str:
        """Writes ten to the power of an integer."""

    @abstractmethod
    def product(self, left: str, right: str) -> str:
        """Writes a sign of multiplication between two factors."""

    @abstractmethod
    def minus(self, text: str) -> str:
        """Writes a minus before a number."""

    @abstractmethod
    def symbol(self, stem: str, subscripts: Sequence[str]) -> str:
        """Writes a name that has been taken apart, with its subscripts: digits, or BEFORE or NOW."""

    @abstractmethod
    def template(self, node: Expr, operands: Sequence[Written]) -> str:
        """Returns what a node looks like around its operands."""

    def name(self, name: str, *times: str) -> str:
        """Writes a name, at a time if one is given. `beta1` becomes the letter beta with the subscript 1."""
        if name in _SPOKEN:
            return self.symbol(_SPOKEN[name], times)
        stem, digits = re.fullmatch(r"(.*?)_?(\d*)", name).groups()  # type: ignore[union-attr]
        return self.symbol(stem, [digits, *times] if digits else times) if stem else self.symbol(name, times)

    def number(self, value: float) -> Written:
        """Writes a number, with a power of ten where it is very small or large."""
        if math.copysign(1.0, value) < 0:
            return Written(self.minus(self.number(-value).text), _SUM)
        for name, known in _CONSTANTS:
            if value == known:
                return Written(self.constant(name))
        text = repr(value)
        if "e" not in text and not 0 < value < self.scientific_below:
            return Written(self.decimal(text.removesuffix(".0")))
        digits, _, exponent = f"{Decimal(text):e}".partition("e")
        power = self.power_of_ten(int(exponent))
        if digits == "1":
            return Written(power, _POWER)
        return Written(self.product(self.decimal(digits), power), _PRODUCT)

    def leaf(self, node: Expr) -> Written:
        match node.op:
            case "constant":
                return self.number(node.value)  # type: ignore[arg-type]
            case "param":
                return Written(self.name("p", BEFORE))
            case "grad":
                return Written(self.name("g", NOW))
            case "state":
                return Written(self.name(str(node.value), BEFORE))
            case "step":
                return Written(self.name("t"))
            case "total":
                return Written(self.name("T"))
        return Written(self.name(str(node.value)))

    def form(self, node: Expr, operands: Sequence[Written]) -> Form:
        strength, needs = _BINDING.get(node.op, (_ATOM, ()))
        if node.op == "add" and node.args[1].op in ("add", "sub"):  # a + (b - c) is a + b - c, but not a + -b
            needs = (_SUM, _SUM)
        return Form(self.template(node, operands), strength, needs)

    def equations(self, rule: Definition) -> list[tuple[str, str]]:
        """Writes the left and right sides of a rule's equations.

        There is one for each value that is used more than once, and for each new tensor.
        """
        outputs = rule.simplified
        order = postorder(outputs)
        slots = ["p", *rule.state_names]
        names: dict[Expr, str] = {}
        for node, slot in zip(outputs, slots, strict=True):
            if node.args:
                names.setdefault(node, self.name(slot, NOW))
        uses = use_counts(order)
        shared = [x for x in order if uses.get(x, 0) > 1 and not trivial(x) and x not in names]
        names |= {node: self.symbol("x", [str(k)]) for k, node in enumerate(shared, 1)}
        texts, sources = self.write(order, names)
        lines = [(names[node], sources[node]) for node in order if node in names]
        for node, slot in zip(outputs, slots, strict=True):
            left = self.name(slot, NOW)
            if names.get(node) != left:  # not for a leaf, nor for the value of an earlier output
                lines.append((left, texts[node]))
        return lines
