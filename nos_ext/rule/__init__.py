"""Has the rule language: expression graphs, the ways to write them, and what can be made of them.

Files import one way only, from the right to the left:

table.py <- expr.py <- simplify.py, levels.py <- definition.py <- compile.py, decompile.py, stages.py <- program.py
                                                               <- printers/, reference.py         <-
                       matrix.py <- vocabulary.py <- text.py, shorthand.py, trace.py <- read.py                <-
program.py <- canonical.py
atoms.py <- algebra.py <- normal_forms.py <- canonical.py
definition.py <- signs.py <- program.py
"""

from .errors import RuleError
from .expr import Expr, apply, constant, hyper, state
from .program import MatrixProgram, Program, Rule, as_rule, compile_rule, rule
from .shorthand import OPERANDS, operand

__all__ = [
    "OPERANDS",
    "Expr",
    "MatrixProgram",
    "Program",
    "Rule",
    "RuleError",
    "apply",
    "as_rule",
    "compile_rule",
    "constant",
    "hyper",
    "operand",
    "rule",
    "state",
]
