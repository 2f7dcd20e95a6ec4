"""The vocabulary of rules as Python names: `from nos_ext.ops import exp, sign, where, e, pi`.

Every op of the table csrc/ops/ops.def is a function here. On plain numbers an op whose result IEEE 754 fixes gives a
number; everything else gives an `Expr`. `clip(x, l)` is short for `clip(x, -l, l)`, `t` is the step (from 1), `T` the
total number of steps. Inside a function decorated with `nos_ext.rule` these names are there without an import, and
they win over globals of the same name.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from .rule.expr import STEP, TOTAL, Expr, Number, apply
from .rule.simplify import fold
from .rule.table import OPS, OpSpec

__all__ = ["CONSTANTS", "FUNCTIONS", "OPS", "VOCABULARY", "OpSpec", *OPS, "T", "e", "inf", "pi", "t"]

OpFunction = Callable[..., "Expr | float"]

t: Final = STEP
T: Final = TOTAL
e: Final = math.e
pi: Final = math.pi
inf: Final = math.inf


def _function(spec: OpSpec) -> OpFunction:
    name = spec.name

    def op(*operands: Expr | Number) -> Expr | float:
        for x in operands:
            if type(x) is Expr:
                return apply(name, *operands)
        node = apply(name, *operands)
        folded = fold(name, node.args)
        return node if folded is None else folded

    def clip(*operands: Expr | Number) -> Expr | float:
        if len(operands) == 2:
            x, limit = operands
            return op(x, -limit, limit)
        return op(*operands)

    function = clip if name == "clip" else op
    function.__name__ = function.__qualname__ = name
    function.__doc__ = spec.doc
    return function


FUNCTIONS: Final[Mapping[str, OpFunction]] = MappingProxyType({spec.name: _function(spec) for spec in OPS.values()})
CONSTANTS: Final[Mapping[str, Expr | float]] = MappingProxyType({"t": t, "T": T, "e": e, "pi": pi, "inf": inf})
VOCABULARY: Final[Mapping[str, Any]] = MappingProxyType({**FUNCTIONS, **CONSTANTS})

globals().update(FUNCTIONS)


def __getattr__(name: str) -> OpFunction:  # for type checkers, and for a helpful message
    close = difflib.get_close_matches(name, VOCABULARY, n=1)
    raise AttributeError(f"nos_ext.ops has no op '{name}'" + (f"; did you mean '{close[0]}'?" if close else ""))
