"""What the engine must compute to the bit, in NumPy: rules of ops that are exact or correctly rounded, and reductions.

Elements are computed in fp32, or in double for float64 tensors; tensor scalars in double; sums in the order that
docs/numerics.md defines. It shares the ops with the oracle, and nothing with the package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .oracle import GLOBAL, ORACLE, REDUCTIONS, SCALAR, _arity, draws, scalar_values

Array = npt.NDArray[Any]
UNIT = 256

# No rounding, or one that NumPy makes as the engine does. The draw of drop is a number of fp32.
OPS = ("add", "sub", "mul", "div", "min", "max", "lt", "le", "gt", "ge", "eq", "ne", "neg", "abs", "sign", "sqrt", "square",
       "floor", "where", "clip", "drop")  # fmt: skip


def joined(terms: Array, join: Callable[..., Any] = np.add) -> float:
    """256 numbers at a time become one, by a balanced tree whose first step joins number i + 128 to number i."""
    terms = np.asarray(terms, np.float64)
    while True:
        units = np.zeros((-(-terms.size // UNIT), UNIT))
        units.ravel()[: terms.size] = terms
        half = UNIT
        while half > 1:
            half //= 2
            units = join(units[:, :half], units[:, half:])
        terms = units[:, 0]
        if terms.size == 1:
            return float(terms[0])


def memory_order(x: Array) -> Array:
    """The elements of a dense array as they lie in memory."""
    axes = sorted(range(x.ndim), key=lambda d: -x.strides[d])
    return x.transpose(axes).ravel()


def added_up(op: str, operands: Sequence[Array]) -> float:
    """What a reduction adds up of one tensor. The operands are elements in memory order."""
    a, *rest = [x.astype(np.float64) for x in operands]
    with np.errstate(all="ignore"):
        if op == "max_abs":
            return joined(np.abs(a), np.maximum)
        if op in ("sum", "mean", "global_sum"):
            return joined(a)
        return joined(a * (rest[0] if rest else a))


def finished(op: str, total: float, count: int) -> np.float64:
    value = np.float64(total) + 0.0
    with np.errstate(all="ignore"):
        if op in ("mean", "rms"):
            value = value / count
        return np.sqrt(value) if op in ("norm", "rms", "global_norm") else value


def reduced(op: str, *operands: Array) -> np.float64:
    """A reduction of one tensor."""
    return finished(op, added_up(op, operands), operands[0].size)


def evaluate(
    program: Any, params: Sequence[Array], grads: Sequence[Array], states: Sequence[Sequence[Array]],
    hyper: Mapping[str, float], *, t: float = 1, total: float | None = None, factor: float = 1.0,
    seed: int = 0, indices: Sequence[int] = (),
) -> list[list[Array]]:  # fmt: skip
    """The new parameters, then the new tensors of each state, of one step on flat arrays, none of them empty.

    They come in the compute type (numbers per tensor in double), not yet rounded to what they are stored in. `indices`
    are the numbers of the tensors in the key of draws.
    """
    numbers = [s for s, name in enumerate(program.state_names) if name in program.per_tensor_states]
    tensors = range(len(params))
    plain = scalar_values(program, hyper, t, total)
    types = [np.float64 if p.dtype == np.float64 else np.float32 for p in params]
    with np.errstate(all="ignore"):
        values = [[params[i].astype(types[i]), grads[i].astype(types[i]), *[s[i].astype(types[i]) for s in states]]
                  for i in tensors]  # fmt: skip
        if factor != 1:
            for i in tensors:
                values[i][1] = values[i][1] * types[i](factor)
        scalars: list[list[Any]] = [[*plain, *[np.float64(states[s][i]) for s in numbers]] for i in tensors]

        def element(i: int, operand: int) -> Array:
            return (
                np.asarray(scalars[i][operand - SCALAR]).astype(types[i]) if operand >= SCALAR else values[i][operand]
            )

        for op, *operands in program.code:
            used = operands[: _arity(op)]
            if op in GLOBAL:
                parts = [added_up(op, [values[i][x] for x in used]) for i in tensors]
                result = finished(op, float(sum(parts, np.float64(0))), 0)
                for i in tensors:
                    scalars[i].append(result)
                continue
            for i in tensors:
                if op in REDUCTIONS:
                    scalars[i].append(reduced(op, *[values[i][x] for x in used]))
                elif op != "drop" and min(used) >= SCALAR:
                    scalars[i].append(np.float64(ORACLE[op](*[scalars[i][x - SCALAR] for x in used])))
                else:
                    arguments = [element(i, x) for x in used]
                    if op == "drop":
                        count = params[i].size
                        arguments.append(draws(op, seed, int(t), indices[i], operands[2], count).astype(types[i]))
                    result = np.asarray(ORACLE[op](*arguments)).astype(types[i])
                    values[i].append(np.broadcast_to(result, params[i].shape))
        return [
            [np.asarray(scalars[i][x - SCALAR]) if k - 1 in numbers else np.broadcast_to(element(i, x), params[i].shape)
             for i in tensors]
            for k, x in enumerate(program.outputs)
        ]  # fmt: skip
