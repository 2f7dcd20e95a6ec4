"""Owns decompile, which finds the definition that a program was compiled from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .compile import SCALAR_BIT
from .definition import Definition
from .expr import GRAD, PARAM, STEP, TOTAL, Expr, constant, hyper, state
from .table import OPS, RANDOM

if TYPE_CHECKING:
    from .. import _C


def decompile(program: _C.Program, *, doc: str = "") -> Definition:
    """Returns what `program` was compiled from, as far as compiling keeps it: names, defaults and graph."""
    values = [PARAM, GRAD, *[state(name) for name in program.state_names]]
    scalars = [STEP, TOTAL, *[hyper(name) for name in program.hyperparameters], *map(constant, program.constants)]

    def operand(bits: int) -> Expr:
        return scalars[bits & ~SCALAR_BIT] if bits & SCALAR_BIT else values[bits]

    for op, *operands in program.scalar_code:
        scalars.append(Expr(op, tuple([operand(x) for x in operands[: OPS[op].arity]]), None, True))
    sites: dict[Expr, int] = {}
    for op, *operands in program.code:
        node = Expr(op, tuple([operand(x) for x in operands[: OPS[op].arity]]), None, False)
        values.append(node)
        if op in RANDOM:
            sites[node] = operands[2]
    outputs = [operand(x) for x in program.outputs]
    return Definition(program.name, program.state_names, program.hyperparameters, outputs, doc=doc, sites=sites)
