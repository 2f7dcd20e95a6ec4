"""The rule language: expression graphs, their three front ends, and what can be made of them.

text.py, trace.py, shorthand.py  ->  expr.py, definition.py  ->  simplify.py  ->  compile.py
                                          |                                         |
canonical.py, reference.py, format.py, latex.py, export.py            decompile.py <-
"""

from .compile import as_rule, compile_rule
from .definition import Rule
from .errors import RuleError
from .expr import Expr, apply, constant, hyper, state
from .shorthand import OPERANDS, operand, rule_from_update
from .trace import rule

__all__ = [
    "OPERANDS",
    "Expr",
    "Rule",
    "RuleError",
    "apply",
    "as_rule",
    "compile_rule",
    "constant",
    "hyper",
    "operand",
    "rule",
    "rule_from_update",
    "state",
]
