"""Owns to_latex, which writes a rule as LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..definition import Definition
from ..expr import Expr
from ..table import MATRIX, OPS
from .formatter import Strength, Written
from .mathematics import GREEK, MathFormatter

_CONSTANTS: Final = {"e": "e", "pi": r"\pi", "inf": r"\infty"}


class LatexFormatter(MathFormatter):
    """A LatexFormatter writes LaTeX for math mode. The `latex` column of the op table says what an op looks like."""

    def constant(self, name: str) -> str:
        return _CONSTANTS[name]

    def decimal(self, digits: str) -> str:
        return digits

    def power_of_ten(self, exponent: int) -> str:
        return f"10^{{{exponent}}}"

    def product(self, left: str, right: str) -> str:
        return rf"{left} \cdot {right}"

    def minus(self, text: str) -> str:
        return f"-{text}"

    def symbol(self, stem: str, subscripts: Sequence[str]) -> str:
        r"""Writes `beta` with 1 as \beta_{1}, and `weight_decay` as \mathrm{weight\_decay}."""
        if stem in GREEK:
            stem = f"\\{stem}"
        elif len(stem) > 1:
            stem = rf"\mathrm{{{stem}}}".replace("_", r"\_")
        elif stem == "_":
            stem = r"\_"
        return f"{stem}_{{{','.join(subscripts)}}}" if subscripts else stem

    def group(self, text: str) -> str:
        return rf"\left({text}\right)"

    def template(self, node: Expr, operands: Sequence[Written]) -> str:
        template = (OPS.get(node.op) or MATRIX[node.op]).latex
        if node.op in ("mul", "fma"):
            text, strength = operands[1]
            if strength >= Strength.PRODUCT and text[0].isdigit():  # two numbers side by side would read as one
                return template.replace(r"\,", r"\cdot")
        return template


def to_latex(rule: Definition) -> str:
    """Writes the rule as an `aligned` environment, in which p, g and the states carry the step as a subscript."""
    lines = [f"{left} &= {right}" for left, right in LatexFormatter().equations(rule)]
    return "\\begin{aligned}\n" + " \\\\\n".join(lines) + "\n\\end{aligned}"
