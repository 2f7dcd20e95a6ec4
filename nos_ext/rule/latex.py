"""Owns the printing of rules as LaTeX: aligned equations, one line for each new tensor and each shared value."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Final

from .definition import Rule
from .expr import Expr, postorder
from .table import OPS

# binding strength of what is printed; #0 of an op's latex column stands in braces or brackets unless named here
_SUM, _PRODUCT, _POWER, _ATOM = range(4)
_STRENGTH: Final = {"add": _SUM, "sub": _SUM, "neg": _SUM, "mul": _PRODUCT, "mod": _PRODUCT, "fma": _SUM}
_POWERS: Final = frozenset(("div", "exp", "pow", "square"))  # nothing may be raised to a power without brackets
# the strength that an operand needs to go without brackets, by position; others need none
_OPERANDS: Final[dict[str, tuple[int, ...]]] = {
    "add": (_SUM, _PRODUCT),
    "sub": (_SUM, _PRODUCT),
    "neg": (_PRODUCT,),
    "mul": (_PRODUCT, _PRODUCT),
    "mod": (_PRODUCT, _POWER),
    "fma": (_PRODUCT, _PRODUCT, _PRODUCT),
    "pow": (_ATOM, _SUM),
    "square": (_ATOM,),
}
_GREEK: Final = frozenset(
    ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "kappa", "lambda", "mu", "nu", "xi", "rho")
).union(("sigma", "tau", "phi", "chi", "psi", "omega"))
_SPECIAL: Final = {"lr": r"\eta", "eps": r"\epsilon"}
Latex = tuple[str, int]


def name_latex(name: str) -> str:
    r"""`beta1` as \beta_{1}, `weight_decay` as \mathrm{weight\_decay}."""
    if name in _SPECIAL:
        return _SPECIAL[name]
    stem, digits = re.fullmatch(r"(.*?)_?(\d*)", name).groups()  # type: ignore[union-attr]
    if not stem:
        stem, digits = name, ""
    if stem in _GREEK:
        stem = f"\\{stem}"
    elif len(stem) > 1:
        stem = rf"\mathrm{{{stem}}}".replace("_", r"\_")
    return f"{stem}_{{{digits}}}" if digits else stem.replace("_", r"\_") if stem == "_" else stem


def number_latex(value: float) -> Latex:
    if math.copysign(1.0, value) < 0:
        return f"-{number_latex(-value)[0]}", _SUM
    for text, known in (("e", math.e), (r"\pi", math.pi), (r"\infty", math.inf)):
        if value == known:
            return text, _ATOM
    digits, _, exponent = repr(value).partition("e")
    digits = digits.removesuffix(".0")
    if not exponent:
        return digits, _ATOM
    power = f"10^{{{int(exponent)}}}"
    return (power, _POWER) if digits == "1" else (rf"{digits} \cdot {power}", _PRODUCT)


def _subscript(name: str, time: str) -> str:
    """`m` at a time; names that have a subscript share it."""
    latex = name_latex(name)
    return f"{latex[:-1]},{time}}}" if latex.endswith("}") and "_{" in latex else f"{latex}_{{{time}}}"


def _leaf(node: Expr) -> Latex:
    if node.op == "constant":
        return number_latex(node.value)  # type: ignore[arg-type]
    if node.op == "hyper":
        return name_latex(str(node.value)), _ATOM
    fixed = {"param": "p_{t-1}", "grad": "g_{t}", "step": "t", "total": "T"}
    return fixed.get(node.op) or _subscript(str(node.value), "t-1"), _ATOM


def node_latex(node: Expr, args: Sequence[Latex]) -> Latex:
    """LaTeX of one node around that of its operands."""
    if not node.args:
        return _leaf(node)
    op = node.op
    needed = _OPERANDS.get(op, ())
    texts = []
    for k, (text, strength) in enumerate(args):
        need = needed[k] if k < len(needed) else _SUM
        # over the real numbers a + (b + c) needs no brackets
        bare = strength >= need or (k == 1 and op == "add" and node.args[1].op in ("add", "sub"))
        texts.append(text if bare else rf"\left({text}\right)")
    template = OPS[op].latex
    if op == "mul" and texts[1][0].isdigit():
        template = r"#0 \cdot #1"
    out = re.sub(r"#(\d)", lambda match: texts[int(match[1])], template)
    return out, _STRENGTH.get(op, _POWER if op in _POWERS else _ATOM)


def to_latex(rule: Rule) -> str:
    """The rule as an `aligned` environment; p, g and the states carry the step as a subscript."""
    outputs = rule.simplified
    order = postorder(outputs)
    names: dict[Expr, str] = {}
    for node, name in zip(outputs, ["p", *rule.state_names], strict=True):
        if node.args:
            names.setdefault(node, _subscript(name, "t"))
    uses: dict[Expr, int] = {}
    for x in [arg for node in order for arg in node.args]:
        uses[x] = uses.get(x, 0) + 1
    shared = [x for x in order if uses.get(x, 0) > 1 and x.args and (not x.scalar or any(y.args for y in x.args))]
    for number, node in enumerate([x for x in shared if x not in names], 1):
        names[node] = f"x_{{{number}}}"

    lines: list[str] = []
    latex: dict[Expr, Latex] = {}
    for node in order:
        text = node_latex(node, [latex[x] for x in node.args])
        latex[node] = (names[node], _ATOM) if node in names else text
        if node in names:
            lines.append(f"{names[node]} &= {text[0]}")
    for node, name in zip(outputs, ["p", *rule.state_names], strict=True):
        left = _subscript(name, "t")
        if names.get(node) != left:  # a leaf, or the value of an earlier output
            lines.append(f"{left} &= {latex[node][0]}")
    return "\\begin{aligned}\n" + " \\\\\n".join(lines) + "\n\\end{aligned}"
