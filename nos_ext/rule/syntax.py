"""Owns the expressions of rule text: the allow-list of Python's expression syntax and what each form means.

Python's own operators do the work on `Expr` and float, so that a text and a function mean the same.
"""

from __future__ import annotations

import ast
import difflib
import functools
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from .errors import RuleError, quoted
from .expr import Expr
from .scan import MAX_NESTING
from .source import Source, too_deep
from .table import MATRIX
from .vocabulary import FUNCTIONS

Value = Expr | float

MAX_NODES: Final = 16 * 1024  # operations in a text; a sensible program of 4096 instructions does not need more

_BINARY: Final[dict[type[ast.operator], Callable[[Value, Value], Value]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_COMPARE: Final[dict[type[ast.cmpop], Callable[[Value, Value], Value]]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}

_NO_TRUTH = "use where(condition, a, b), and * between conditions"
_REFUSED: Final[dict[type[ast.AST], str]] = {
    ast.Attribute: "attribute access is not part of the rule language; use the plain names of the ops: exp, sign, ...",
    ast.Subscript: "indexing is not part of the rule language; a rule works on every element alike",
    ast.Lambda: "lambda is not part of the rule language; use an assignment",
    ast.NamedExpr: ":= is not part of the rule language; put the assignment on a line of its own",
    ast.JoinedStr: "strings are not part of the rule language",
    ast.IfExp: f"if/else is not part of the rule language; {_NO_TRUTH}",
    ast.BoolOp: f"and/or are not part of the rule language; {_NO_TRUTH}",
    ast.Tuple: "a tuple can only be returned; give every value a line of its own",
    ast.Starred: "* arguments are not part of the rule language",
    ast.ListComp: "comprehensions are not part of the rule language; a rule works on every element alike",
    ast.Await: "await is not part of the rule language",
    ast.Yield: "yield is not part of the rule language",
}
for _like in (ast.SetComp, ast.DictComp, ast.GeneratorExp):
    _REFUSED[_like] = _REFUSED[ast.ListComp]
_REFUSED_OPERATORS: Final[dict[type[ast.AST], str]] = {
    ast.FloorDiv: "// is not part of the rule language; use floor(a / b)",
    ast.MatMult: "@ is not part of the rule language; dot(a, b) is the sum of the products of two tensors",
    ast.Not: "not is not part of the rule language; use x == 0",
}


def refusal(node: ast.AST) -> str:
    """Says why syntax that is not on the allow-list is refused, and what to write instead."""
    return _REFUSED.get(type(node), f"this ({type(node).__name__}) is not part of the rule language")


def suggestion(name: str, known: Iterable[str]) -> str:
    """Asks whether the closest of the known names was meant; says nothing where none is close."""
    # The name is cut, as the time grows with the square of its length.
    close = difflib.get_close_matches(name[:64], list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def _is_infinite(value: Value) -> bool:
    return type(value) is float and math.isinf(value)


class Evaluator:
    """An Evaluator turns expression syntax into values.

    `names` has what names mean; a subclass of dict may make that up when it is asked.
    """

    def __init__(self, source: Source, names: dict[str, Value]) -> None:
        self.source = source
        self.names = names
        self.used: set[str] = set()
        self.places: dict[Expr, ast.AST] = {}  # where each node was built
        self._left = MAX_NODES
        self._visit: dict[type[ast.expr], Callable[..., Value]] = {
            ast.BinOp: self._binary,
            ast.Name: self._name,
            ast.Constant: self._number,
            ast.Call: self._call,
            ast.UnaryOp: self._unary,
            ast.Compare: self._compare,
        }

    def value(self, node: ast.expr, depth: int = 0) -> Value:
        """Returns the value of an expression. RuleError says where it is none."""
        visit = self._visit.get(type(node))
        if visit is None:
            raise self.source.error(refusal(node), node)
        if depth > MAX_NESTING:
            raise self.source.error(too_deep(), node)
        return visit(node, depth)

    def binary(self, kind: ast.operator, left: Value, right: Value, node: ast.AST) -> Value:
        function = _BINARY.get(type(kind))
        if function is None:
            message = _REFUSED_OPERATORS.get(type(kind), "bitwise operators are not part of the rule language")
            raise self.source.error(message, node)
        return self._apply(function, (left, right), node)

    def _binary(self, node: ast.BinOp, depth: int) -> Value:
        # A flat sum of n terms is a tree that is n levels deep on its left side. A loop walks along that side.
        spine = [node]
        left: ast.expr = node.left
        while type(left) is ast.BinOp:
            spine.append(left)
            left = left.left
        value = self.value(left, depth + 1)
        for step in reversed(spine):
            value = self.binary(step.op, value, self.value(step.right, depth + 1), step)
        return value

    def _name(self, node: ast.Name, depth: int) -> Value:
        name = node.id
        try:
            value = self.names[name]
        except KeyError:
            pass
        else:
            self.used.add(name)
            return value
        if name in FUNCTIONS:
            raise self.source.error(f"'{name}' is an op; call it: {name}(...)", node)
        if name == "nan":
            raise self.source.error("NaN cannot be a constant of a rule", node)
        raise self.source.error(f"unknown name {quoted(name)}{suggestion(name, self.names)}", node)

    def _number(self, node: ast.Constant, depth: int) -> Value:
        value = node.value
        if type(value) is float:
            if _is_infinite(value):
                raise self.source.error("this number is too large for a double; write inf for infinity", node)
            return value
        if type(value) is int:
            try:
                return float(value)
            except OverflowError:
                message = "this integer is too large for a double; write it as 1e300 or smaller"
                raise self.source.error(message, node) from None
        if isinstance(value, bool):
            raise self.source.error(f"{value} is not part of the rule language; write {int(value)}", node)
        if isinstance(value, str | bytes):
            raise self.source.error("strings are not part of the rule language", node)
        raise self.source.error(f"{'...' if value is ... else value} is not a real number", node)

    def _call(self, node: ast.Call, depth: int) -> Value:
        called = node.func
        if type(called) is not ast.Name:
            known = type(called) is ast.Attribute
            message = refusal(called) if known else "only the ops of the rule language can be called"
            raise self.source.error(message, called)
        function = FUNCTIONS.get(called.id)
        if function is None:
            if called.id in self.names:
                raise self.source.error(f"'{called.id}' is a value and cannot be called; write * to multiply", called)
            raise self.source.error(f"unknown op {quoted(called.id)}{suggestion(called.id, FUNCTIONS)}", called)
        if called.id in MATRIX:
            function = functools.partial(function, **self._options(node))
        elif node.keywords:
            message = f"keyword arguments are not part of the rule language; write {called.id}(a, b)"
            raise self.source.error(message, node)
        return self._apply(function, [self.value(x, depth + 1) for x in node.args], node)

    def _options(self, node: ast.Call) -> dict[str, object]:
        """Reads the options of a function that has some. They are fixed in the rule, so they are plain literals."""
        options: dict[str, object] = {}
        for keyword in node.keywords:
            try:
                if keyword.arg is None:
                    raise ValueError
                options[keyword.arg] = ast.literal_eval(keyword.value)
            except ValueError:
                message = "an option is written name=value, where the value is a number, a text or some in brackets"
                raise self.source.error(message, keyword.value) from None
        return options

    def _unary(self, node: ast.UnaryOp, depth: int) -> Value:
        if type(node.op) is ast.USub:
            return self._apply(operator.neg, (self.value(node.operand, depth + 1),), node)
        if type(node.op) is ast.UAdd:
            return self.value(node.operand, depth + 1)
        message = _REFUSED_OPERATORS.get(type(node.op), "bitwise operators are not part of the rule language")
        raise self.source.error(message, node)

    def _compare(self, node: ast.Compare, depth: int) -> Value:
        if len(node.ops) > 1:
            message = "comparisons cannot be chained; write (a < b) * (b < c)"
            raise self.source.error(message, node)
        function = _COMPARE.get(type(node.ops[0]))
        if function is None:
            raise self.source.error("is and in are not part of the rule language", node)
        left = self.value(node.left, depth + 1)
        right = self.value(node.comparators[0], depth + 1)
        if not isinstance(left, Expr) and not isinstance(right, Expr):
            raise self.source.error("this compares two numbers; write the result, 1 or 0", node)
        return self._apply(function, (left, right), node)

    def _apply(self, function: Callable[..., Value], operands: Sequence[Value], node: ast.AST) -> Value:
        self._left -= 1
        if self._left < 0:
            raise self.source.error(f"the rule has more than {MAX_NODES} operations", node)
        try:
            value = function(*operands)
            if _is_infinite(value) and not any(map(_is_infinite, operands)):
                raise OverflowError  # which Python raises for 2.0 ** 1024, but not for 1e308 * 10
        except RuleError as error:
            raise self.source.located(error, node) from None
        except ZeroDivisionError:
            raise self.source.error("division of numbers by zero", node) from None
        except OverflowError:
            raise self.source.error("the result of these numbers is too large for a double", node) from None
        if type(value) is Expr:
            self.places[value] = node
            return value
        if isinstance(value, complex) or (isinstance(value, float) and math.isnan(value)):
            raise self.source.error("the result of these numbers is not a real number", node)
        return value
