"""Owns the writing of rules as MathML, which browsers draw without scripts, fonts or network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from ..definition import Definition
from ..expr import Expr, postorder
from ..table import MATRIX, OPS
from ..text import parse_as_written
from .formatter import Form, Strength, Written, has_equal_limits
from .mathematics import BEFORE, GREEK, NOW, MathFormatter

_MINUS: Final = "<mo>&#x2212;</mo>"
_DOT: Final = "<mo>&#xb7;</mo>"
_APPLY: Final = "<mo>&#x2061;</mo>"
_COMMA: Final = '<mo separator="true">,</mo>'
_CONSTANTS: Final = {"e": "<mi>e</mi>", "pi": "<mi>&#x3c0;</mi>", "inf": "<mi>&#x221e;</mi>"}
_CELL: Final = '<mtd style="text-align: left; padding: 0.2em 0.3em">'  # MathML Core has no attribute for the alignment
_TIMES: Final = {NOW: "<mi>t</mi>", BEFORE: f"<mrow><mi>t</mi>{_MINUS}<mn>1</mn></mrow>"}
# Operands whose names are not written as they are spelt.
_LOOKS: Final = {
    **{f"{x}_hat": f'<mover accent="true"><mi>{x}</mi><mo>^</mo></mover>' for x in "mvy"},
    "adam": "<mi>ADAM</mi>",
    "rmsprop": "<mi>RMSProp</mi>",
    "noise": "<mi>&#x3b5;</mi>",
    "annealed_noise": "<msub><mi>&#x3b5;</mi><mi>t</mi></msub>",
}


def _row(*parts: str) -> str:
    return f"<mrow>{''.join(parts)}</mrow>"


def _fenced(body: str, left: str = "(", right: str = ")") -> str:
    """Puts the body in brackets. `{grow}` stands for the attribute that keeps them small."""
    return _row(f"<mo{{grow}}>{left}</mo>", body, f"<mo{{grow}}>{right}</mo>")


def _call(name: str, arguments: str) -> str:
    return _row(f"<mi>{name}</mi>", _APPLY, _fenced(arguments))


def _compared(sign: str) -> str:
    return _fenced(f"#0<mo>{sign}</mo>#1", "[", "]")


def _cases(first: str, condition: str, other: str) -> str:
    rows = [(first, condition), (other, "<mtext>else</mtext>")]
    cells = ["".join([f"{_CELL}{cell}</mtd>" for cell in row]) for row in rows]
    return _row("<mo>{</mo>", "<mtable>", *[f"<mtr>{row}</mtr>" for row in cells], "</mtable>")


def _all(element: str) -> str:
    """Marks what is taken of all tensors."""
    return f"<msub>{element}<mi>all</mi></msub>"


_NORM: Final = _fenced("#0", "&#x2016;", "&#x2016;")
_PRODUCT_OF_TWO: Final = _fenced(f"#0{_COMMA}#1", "&#x27e8;", "&#x27e9;")

# What each op looks like around its operands. It looks like a call, unless mathematics has a sign for it. Every
# template is one element, as is every operand.
TEMPLATES: Final = {
    **{op.name: _call(op.name, _COMMA.join([f"#{k}" for k in range(op.arity)])) for op in OPS.values()},
    "log": _call("ln", "#0"),
    "normal": _call("&#x1d4a9;", f"<mn>0</mn>{_COMMA}<msup>#0<mn>2</mn></msup>"),
    "add": _row("#0<mo>+</mo>#1"),
    "sub": _row("#0", _MINUS, "#1"),
    "neg": _row(_MINUS, "#0"),
    "mul": _row("#0", _DOT, "#1"),
    "fma": _row("#0", _DOT, "#1<mo>+</mo>#2"),
    "mod": _row('#0<mo lspace="0.3em" rspace="0.3em">mod</mo>#1'),
    "div": "<mfrac>#0#1</mfrac>",
    "pow": "<msup>#0#1</msup>",
    "square": "<msup>#0<mn>2</mn></msup>",
    "exp": "<msup><mi>e</mi>#0</msup>",
    "sqrt": "<msqrt>#0</msqrt>",
    "rsqrt": "<mfrac><mn>1</mn><msqrt>#0</msqrt></mfrac>",
    "abs": _fenced("#0", "|", "|"),
    "floor": _fenced("#0", "&#x230a;", "&#x230b;"),
    "lt": _compared("&lt;"),
    "le": _compared("&#x2264;"),
    "gt": _compared("&gt;"),
    "ge": _compared("&#x2265;"),
    "eq": _compared("="),
    "ne": _compared("&#x2260;"),
    "where": _cases("#1", "#0", "#2"),
    "norm": _NORM,
    "max_abs": f"<msub>{_NORM}{_CONSTANTS['inf']}</msub>",
    "dot": _PRODUCT_OF_TWO,
    "global_sum": _row(_all("<mo>&#x2211;</mo>"), "#0"),
    "global_norm": _all(_NORM),
    "global_dot": _all(_PRODUCT_OF_TWO),
}


class MathmlFormatter(MathFormatter):
    """A MathmlFormatter writes presentation MathML, every piece of which is one element."""

    scientific_below = 1e-2  # so 0.0001 is written with a power of ten, which reads better

    def constant(self, name: str) -> str:
        return _CONSTANTS[name]

    def decimal(self, digits: str) -> str:
        return f"<mn>{digits}</mn>"

    def power_of_ten(self, exponent: int) -> str:
        number = f"<mn>{abs(exponent)}</mn>"
        return f"<msup><mn>10</mn>{_row(_MINUS, number) if exponent < 0 else number}</msup>"

    def product(self, left: str, right: str) -> str:
        return _row(left, _DOT, right)

    def minus(self, text: str) -> str:
        return _row(_MINUS, text)

    def symbol(self, stem: str, subscripts: Sequence[str]) -> str:
        letter = f"&#x{GREEK[stem]:x};" if stem in GREEK else escape(stem)
        base = _LOOKS.get(stem) or f"<mi>{letter}</mi>"
        if not subscripts:
            return base
        parts = [_TIMES.get(x) or f"<mn>{x}</mn>" for x in subscripts]
        return f"<msub>{base}{parts[0] if len(parts) == 1 else _row(_COMMA.join(parts))}</msub>"

    def group(self, text: str) -> str:
        return _sized(_fenced("#0"), text).replace("#0", text)

    def form(self, node: Expr, operands: Sequence[Written]) -> Form:
        form = super().form(node, operands)
        return form._replace(strength=Strength.POWER) if _is_log_of_bars(node, operands) else form

    def template(self, node: Expr, operands: Sequence[Written]) -> str:
        template = _call(node.op, "#0") if node.op in MATRIX else TEMPLATES[node.op]
        if has_equal_limits(node):
            template = _call("clip", f"#0{_COMMA}#2")
        elif _is_log_of_bars(node, operands):
            template = _row("<mi>ln</mi>", _APPLY, "#0")
        return _sized(template, *[operand.text for operand in operands])


def _is_log_of_bars(node: Expr, operands: Sequence[Written]) -> bool:
    """Tells whether a node is ln|x|, where the bars are brackets enough."""
    return node.op == "log" and operands[0].text.endswith("|</mo></mrow>")


def _sized(template: str, *within: str) -> str:
    """Lets the brackets of a template grow, but only where something high is within.

    Left alone, browsers let them grow around superscripts and accents, too.
    """
    if "{grow}" not in template:
        return template
    high = any(tag in text for text in within for tag in ("<mfrac>", "<mtable>"))
    return template.replace("{grow}", "" if high else ' stretchy="false"')


def to_mathml(rule: Definition, *, block: bool = False) -> str:
    """Writes the equations of the rule as a <math> element, for a line of text or as a `block` of lines."""
    return _math([_row(left, "<mo>=</mo>", right) for left, right in MathmlFormatter().equations(rule)], block)


def text_to_mathml(text: str, *, block: bool = False) -> str:
    """Writes rule text as a <math> element.

    An update keeps the names of its operands, where `to_mathml` shows what they stand for. A function becomes the
    equations that `to_mathml` writes.

    Raises:
        RuleError: the text is not a rule.
    """
    written = parse_as_written(text)
    if isinstance(written, Definition):
        return to_mathml(written, block=block)
    texts, _ = MathmlFormatter().write(postorder([written]), {})
    return _math([texts[written]], block)


def _math(lines: Sequence[str], block: bool) -> str:
    display = ' display="block"' if block else ""
    if block and len(lines) > 1:
        rows = "".join([f"<mtr>{_CELL}{line}</mtd></mtr>" for line in lines])
        return f"<math{display}><mtable>{rows}</mtable></math>"
    between = '<mo>;</mo><mspace width="0.4em"/>'
    return f"<math{display}>{_row(between.join(lines))}</math>"
