"""Reads MathML back as rule text, by what a reader of the page would take it for: the oracle of the MathML printer.

Nothing is put in parentheses that has none on the page, so that a printer that forgets some is found out. What reads a
fraction or a power into a power without parentheses is an error, for nobody can tell where its base begins.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

NAMES = {
    "\u03b1": "alpha",
    "\u03b2": "beta",
    "\u03f5": "eps",
    "\u03c1": "rho",
    "\u03b7": "lr",
    "\u03b5": "noise",
    "\u03c0": "pi",
    "\u221e": "inf",
}
NAMES |= {"ADAM": "adam", "RMSProp": "rmsprop", "ln": "log"}
SIGNS = {"\u2212": "-", "\u00b7": "*", "\u2264": "<=", "\u2265": ">=", "\u2260": "!=", "=": "==", "[": "(", "]": ")"}
SIGNS |= {"mod": "%", "\u2061": "", "\u230a": "floor(", "\u230b": ")"}
TIMES = {"t": "_new", "t-1": ""}  # the new value of m is called m_new, the old one m


def read(element: ElementTree.Element) -> str:
    """The rule text of an expression."""
    parts = list(element)
    text = element.text or ""
    match element.tag:
        case "mn":
            assert not parts
            return text
        case "mi":
            return NAMES.get(text, text)
        case "mo":
            return SIGNS.get(text, text)
        case "msqrt":
            return f"sqrt({_row(parts)})"
        case "mfrac":
            return f"(({read(parts[0])}) / ({read(parts[1])}))"
        case "mover":
            assert parts[1].text == "^"
            return f"{read(parts[0])}_hat"
        case "msub":
            return _subscripted(*parts)
        case "msup":
            base, exponent = parts
            assert base.tag not in ("mfrac", "msup"), "a power of what has no parentheses"
            if base.text == "e":
                return f"exp({read(exponent)})"
            return f"1e{read(exponent)}" if base.text == "10" else f"{read(base)} ** ({read(exponent)})"
        case "mrow" | "math":
            return _row(parts)
    raise AssertionError(element.tag)


def _subscripted(base: ElementTree.Element, below: ElementTree.Element) -> str:
    if base.tag == "mrow":  # the norm of all tensors, or the largest absolute value
        called = read(base)
        return f"global_{called}" if below.text == "all" else f"max_abs({called.removeprefix('norm(')}"
    name, subscripts = read(base), read(below).split(",")
    if (name, subscripts) == ("noise", ["t"]):
        return "annealed_noise"
    return name + "".join([TIMES.get(x, x) for x in subscripts])


def _row(parts: list[ElementTree.Element]) -> str:
    if parts and parts[0].text == "|":
        return f"abs({_row(parts[1:-1])})"
    if parts and parts[0].text == "\u2016":
        return f"norm({_row(parts[1:-1])})"
    if parts and parts[0].text == "\u27e8":
        return f"dot({_row(parts[1:-1])})"
    if len(parts) == 2 and parts[0].tag == "msub" and parts[0][0].text == "\u2211":
        assert (
            parts[1].tag != "mrow"
            or parts[1][0].text in ("(", "|", "[", "\u2016", "\u27e8", "\u230a", "{")
            or (parts[1][0].tag == "mi")
        ), "a sum whose end is open"
        return f"global_sum({read(parts[1])})"
    if parts and parts[0].text == "{":
        (a, when), (b, other) = [[cell[0] for cell in row] for row in parts[1]]
        assert other.text == "else"
        return f"where({read(when)}, {read(a)}, {read(b)})"
    if parts and parts[0].text == "\U0001d4a9":  # N(0, std ** 2)
        zero, comma, variance = list(parts[2])[1:-1]
        assert (zero.text, comma.text, variance.tag, variance[1].text) == ("0", ",", "msup", "2")
        base = variance[0]
        assert (
            base.tag in ("mn", "mi", "msub", "msqrt")
            or base[0].text in ("(", "[", "|", "\u2016", "\u27e8", "\u230a")
            or base[0].tag == "mi"
        )
        return f"normal({read(base)})"
    if len(parts) == 3 and parts[1].text == "\u2061" and parts[2][0].text == "|":  # ln|x|
        return f"{read(parts[0])}({read(parts[2])})"
    texts = [read(part) for part in parts]
    if [part.tag for part in parts] == ["mn", "mo", "msup"] and texts[1] == "*" and parts[2][0].text == "10":
        return texts[0] + texts[2].removeprefix("1")
    return "".join(texts)


def equations(markup: str) -> list[tuple[str, str]]:
    """Left and right sides of a rule's equations."""
    root = ElementTree.fromstring(markup)
    if root[0].tag == "mtable":
        lines = [row[0][0] for row in root[0]]
    else:
        lines = [part for part in root[0] if part.tag == "mrow"]
    sides = []
    for line in lines:
        left, sign, right = line
        assert sign.text == "="
        sides.append((read(left), read(right)))
    return sides
