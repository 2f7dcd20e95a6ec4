"""Owns the vocabulary of rules: it makes the ops of the table functions, and has the constants and built-in scalars.

On plain numbers an op whose result IEEE 754 fixes gives a number; everything else gives an `Expr`. `clip(x, l)` is
short for `clip(x, -l, l)`, `t` is the step (from 1), `T` the total number of steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from .expr import STEP, TOTAL, Expr, Number, apply
from .matrix import orthogonalize
from .simplify import fold
from .table import OPS, OpSpec

OpFunction = Callable[..., "Expr | float"]


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


FUNCTIONS: Final[Mapping[str, OpFunction]] = MappingProxyType(
    {**{spec.name: _function(spec) for spec in OPS.values()}, "orthogonalize": orthogonalize}
)
CONSTANTS: Final[Mapping[str, Expr | float]] = MappingProxyType(
    {"t": STEP, "T": TOTAL, "e": math.e, "pi": math.pi, "inf": math.inf}
)
VOCABULARY: Final[Mapping[str, Any]] = MappingProxyType({**FUNCTIONS, **CONSTANTS})
