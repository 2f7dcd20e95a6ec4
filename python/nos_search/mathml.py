"""Owns formulas on a page: rule text to MathML, which browsers draw without scripts, fonts or network."""

from __future__ import annotations

import ast

from .escape import markup

_HATS = {"m_hat": "m", "v_hat": "v", "y_hat": "y"}
_WORDS = {"adam": "ADAM", "rmsprop": "RMSProp", "ld": "ld", "cd": "cd", "rd": "rd"}
_SYMBOLS = {"noise": "<mi>ε</mi>", "annealed_noise": "<msub><mi>ε</mi><mi>t</mi></msub>"}
# Binding strength: a part is put in parentheses when it binds weaker than its place asks for.
_SUM, _PRODUCT, _UNARY, _ATOM = range(4)
_APPLY = "<mo>&#x2061;</mo>"
_MINUS = "&#x2212;"


def formula(text: str, *, block: bool = False) -> str:
    """A <math> element for an expression of the rule language, or for a function made of assignments and a return,
    which becomes one line each (set apart by semicolons where not `block`). Other text comes back as <code>."""
    display = ' display="block"' if block else ""
    try:
        tree = ast.parse(text)
        match tree.body:
            case [ast.Expr(value=value)]:
                lines = [_node(value)[0]]
            case [ast.FunctionDef(body=[*assignments, ast.Return(value=ast.expr() as value)])]:
                lines = [*map(_assignment, assignments), *_returned(value)]
            case _:
                raise _NoFormulaError
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError, _NoFormulaError):
        # Not a rule: ValueError for null characters; deep nesting ends in one of two errors, a huge number in another.
        return f"<code>{markup(text)}</code>"
    if len(lines) == 1:
        return f"<math{display}><mrow>{lines[0]}</mrow></math>"
    if block:
        rows = "".join(f'<mtr><mtd class="line">{line}</mtd></mtr>' for line in lines)
        return f"<math{display}><mtable>{rows}</mtable></math>"
    between = '<mo>;</mo><mspace width=".4em"/>'
    return f"<math><mrow>{between.join(lines)}</mrow></math>"


def _assignment(node: ast.stmt) -> str:
    match node:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            return _row(_name(name), _op("&#x2190;"), _node(value)[0])
    raise _NoFormulaError


def _returned(value: ast.expr) -> list[str]:
    """The new parameter; the states that are returned with it keep their names."""
    parts = value.elts if isinstance(value, ast.Tuple) else [value]
    if not parts or not all(isinstance(part, ast.Name) for part in parts[1:]):
        raise _NoFormulaError
    return [_row(_name("p"), _op("&#x2190;"), _node(parts[0])[0])]


class _NoFormulaError(Exception):
    pass


def _row(*parts: str) -> str:
    return f"<mrow>{''.join(parts)}</mrow>"


def _op(symbol: str) -> str:
    return f"<mo>{symbol}</mo>"


def _fenced(body: str, left: str = "(", right: str = ")") -> str:
    # Browsers grow fences around superscripts and accents, too; only fractions need it.
    grow = "" if "<mfrac>" in body else ' stretchy="false"'
    return _row(f"<mo{grow}>{left}</mo>", body, f"<mo{grow}>{right}</mo>")


def _part(node: ast.expr, at_least: int) -> str:
    body, strength = _node(node)
    return _fenced(body) if strength < at_least else body


def _number(value: float) -> str:
    text = f"{value:g}"
    mantissa, e, exponent = text.partition("e")
    if not e and value and abs(value) < 1e-2:  # 0.0001 reads better as a power of ten
        mantissa, _, exponent = f"{value:e}".partition("e")
        mantissa = f"{float(mantissa):g}"
    elif not e:
        return f"<mn>{text}</mn>"
    power = f"<msup><mn>10</mn><mn>{int(exponent)}</mn></msup>".replace("<mn>-", f"<mn>{_MINUS}")
    return power if mantissa == "1" else _row(f"<mn>{mantissa}</mn>", _op("·"), power)


def _name(name: str) -> str:
    if name in _HATS:
        return f'<mover accent="true"><mi>{_HATS[name]}</mi><mo>^</mo></mover>'
    if name in _WORDS:
        return f'<mi mathvariant="normal">{_WORDS[name]}</mi>'
    if name == "lr":
        return "<mi>&#x3b7;</mi>"
    letter, digits = name.rstrip("0123456789"), name[len(name.rstrip("0123456789")) :]
    if digits and len(letter) == 1:
        return f"<msub><mi>{markup(letter)}</mi><mn>{digits}</mn></msub>"
    return _SYMBOLS.get(name, f"<mi>{markup(name)}</mi>")


def _call(node: ast.Call) -> tuple[str, int]:
    if not isinstance(node.func, ast.Name) or node.keywords:
        raise _NoFormulaError
    name, args = node.func.id, node.args
    if len(args) == 1:
        body = _node(args[0])[0]
        if name == "exp":
            return f"<msup><mi>e</mi>{_row(body)}</msup>", _UNARY
        if name == "sqrt":
            return f"<msqrt>{body}</msqrt>", _ATOM
        if name == "abs":
            return _fenced(body, "|", "|"), _ATOM
        if name == "square":
            return f"<msup>{_part(args[0], _ATOM)}<mn>2</mn></msup>", _UNARY
        if name == "log" and isinstance(args[0], ast.Call):
            return _row("<mi>log</mi>", _APPLY, body), _PRODUCT
    inner = '<mo separator="true">,</mo>'.join(_node(arg)[0] for arg in args)
    return _row(f'<mi mathvariant="normal">{markup(name)}</mi>', _APPLY, _fenced(inner)), _ATOM


def _node(node: ast.expr) -> tuple[str, int]:
    """MathML of a node and how strongly its outermost operation binds."""
    match node:
        case ast.Constant(value=int() | float() as value):
            return _number(float(value)), _ATOM
        case ast.Name(id=name):
            return _name(name), _ATOM
        case ast.Call():
            return _call(node)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _row(_op(_MINUS), _part(operand, _PRODUCT)), _SUM
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _row(_part(left, _SUM), _op("+"), _part(right, _SUM)), _SUM
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return _row(_part(left, _SUM), _op(_MINUS), _part(right, _PRODUCT)), _SUM
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _row(_part(left, _PRODUCT), _op("·"), _part(right, _PRODUCT)), _PRODUCT
        case ast.BinOp(left=left, op=ast.Mod(), right=right):
            return _row(
                _part(left, _PRODUCT), '<mo rspace="0.3em" lspace="0.3em">mod</mo>', _part(right, _ATOM)
            ), _PRODUCT
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return f"<mfrac>{_row(_node(left)[0])}{_row(_node(right)[0])}</mfrac>", _UNARY
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return f"<msup>{_row(_part(left, _ATOM))}{_row(_node(right)[0])}</msup>", _UNARY
    raise _NoFormulaError
