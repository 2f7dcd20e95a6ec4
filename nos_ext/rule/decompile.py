"""Owns decompile, which finds the definition that a program was compiled from."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from .compile import SCALAR_BIT, WITH_REDUCTIONS
from .definition import Definition
from .expr import ELEMENT, GRAD, PARAM, STEP, TENSOR, TOTAL, Expr, constant, hyper, rebuilt
from .table import OPS, RANDOM

if TYPE_CHECKING:
    from .. import _C


def decompile(program: _C.Program, *, doc: str = "") -> Definition:
    """Returns what `program` was compiled from, as far as compiling keeps it: names, defaults and graph."""
    one_number = per_tensor_states(program)
    states = {x: Expr("state", (), x, TENSOR if x in one_number else ELEMENT) for x in program.state_names}
    values = [PARAM, GRAD, *states.values()]
    scalars = [STEP, TOTAL, *[hyper(name) for name in program.hyperparameters], *map(constant, program.constants)]

    def operand(bits: int) -> Expr:
        return scalars[bits & ~SCALAR_BIT] if bits & SCALAR_BIT else values[bits]

    for op, *operands in program.scalar_code:
        scalars.append(rebuilt(op, tuple([operand(x) for x in operands[: OPS[op].arity]])))
    scalars += [states[name] for name in one_number]
    sites: dict[Expr, int] = {}
    for op, *operands in program.code:
        node = rebuilt(op, tuple([operand(x) for x in operands[: OPS[op].arity]]))
        (values if node.level == ELEMENT else scalars).append(node)
        if op in RANDOM:
            sites[node] = operands[2]
    outputs = [operand(x) for x in program.outputs]
    return Definition(
        program.name,
        program.state_names,
        program.hyperparameters,
        outputs,
        doc=doc,
        sites=sites,
        per_tensor=one_number,
    )


def per_tensor_states(program: _C.Program) -> tuple[str, ...]:
    """Lists the states that the program keeps as one number per tensor, in slot order."""
    code = program.bytecode
    version, *_, name_bytes = struct.unpack_from("<7H", code, 4)
    if version != WITH_REDUCTIONS:
        return ()
    at = 4 + 7 * 2 + name_bytes
    found = []
    for name in program.state_names:
        at += 2 + struct.unpack_from("<H", code, at)[0]
        if code[at]:
            found.append(name)
        at += 1
    return tuple(found)
