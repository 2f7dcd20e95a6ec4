"""The oracle: what every op and every program means, in NumPy float64, by hand from the `doc` column of ops.def.

It shares nothing with the package: not the op table's own NumPy column, not the Philox code, not the evaluator of
`rule.reference`. It reads the decoded instructions of a program and nothing else of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
SCALAR = 0x8000
REDUCTIONS = ("sum", "mean", "norm", "rms", "max_abs", "dot")
GLOBAL = ("global_sum", "global_norm", "global_dot")


def _min(a: Any, b: Any) -> Any:
    """NaN if either is NaN, -0 below +0."""
    least = np.where(np.signbit(a), a, b)  # of two equal numbers, which may be zeros of either sign
    return np.where(np.isnan(a) | np.isnan(b), np.nan, np.where(a == b, least, np.where(a < b, a, b)))


def _max(a: Any, b: Any) -> Any:
    return -_min(np.negative(a), np.negative(b))


def _mod(a: Any, b: Any) -> Any:
    return np.float64(math.nan) if b == 0 or math.isinf(a) or math.isnan(a) else np.float64(float(a) % float(b))


def _exact_fma(a: float, b: float, c: float) -> float:
    if not math.isfinite(a) or not math.isfinite(b):
        return a * b + c
    if not math.isfinite(c):
        return c
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact == 0:
        return a * b + c  # a zero of the right sign
    try:
        return float(exact)
    except OverflowError:
        return math.inf if exact > 0 else -math.inf


def _fma(a: Any, b: Any, c: Any) -> Any:
    return np.asarray(np.frompyfunc(_exact_fma, 3, 1)(a, b, c), dtype=np.float64)


def _row(a: Any) -> list[float]:
    return [float(x) for x in np.ravel(a)]


def _dot(a: Any, b: Any) -> float:
    """The sum of products, in the order of the elements: NaN and infinities come out as sums make them."""
    total = 0.0
    for x, y in zip(_row(a), _row(b), strict=True):
        total += x * y
    return total


# One line per op: operands to result. Random ops take their draw as the last argument.
ORACLE: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: np.add(a, b),
    "sub": lambda a, b: np.subtract(a, b),
    "mul": lambda a, b: np.multiply(a, b),
    "div": lambda a, b: np.divide(a, b),
    "pow": lambda a, b: np.float_power(a, b),
    "min": _min,
    "max": _max,
    "lt": lambda a, b: np.where(a < b, 1.0, 0.0),
    "le": lambda a, b: np.where(a <= b, 1.0, 0.0),
    "gt": lambda a, b: np.where(a > b, 1.0, 0.0),
    "ge": lambda a, b: np.where(a >= b, 1.0, 0.0),
    "eq": lambda a, b: np.where(a == b, 1.0, 0.0),
    "ne": lambda a, b: np.where(a == b, 0.0, 1.0),
    "neg": lambda a: np.negative(a),
    "abs": lambda a: np.fabs(a),
    "sign": lambda a: np.where(np.isnan(a), np.nan, np.where(a > 0, 1.0, np.where(a < 0, -1.0, 0.0))),
    "exp": lambda a: np.exp(a),
    "log": lambda a: np.log(np.where(a == 0, 0.0, a)),
    "sqrt": lambda a: np.sqrt(a),
    "rsqrt": lambda a: np.divide(1.0, np.sqrt(a)),
    "square": lambda a: np.multiply(a, a),
    "tanh": lambda a: np.tanh(a),
    "floor": lambda a: np.floor(a),
    "fma": _fma,
    "where": lambda a, b, c: np.where(a == 0, c, b),
    "clip": lambda a, lo, hi: _min(_max(a, lo), hi),
    "cos": lambda a: np.cos(a),
    "sin": lambda a: np.sin(a),
    "mod": _mod,
    "drop": lambda a, prob, uniform: np.where(uniform < prob, 0.0, a),
    "normal": lambda std, gauss: std * gauss,
    "sum": lambda a: np.float64(_dot(a, np.ones_like(a))),
    "mean": lambda a: np.float64(_dot(a, np.ones_like(a)) / a.size),
    "norm": lambda a: np.float64(_dot(a, a) ** 0.5),
    "rms": lambda a: np.float64((_dot(a, a) / a.size) ** 0.5),
    "max_abs": lambda a: np.float64(math.nan if np.isnan(a).any() else max(map(abs, _row(a)))),
    "dot": lambda a, b: np.float64(_dot(a, b)),
    "global_sum": lambda a: np.float64(_dot(a, np.ones_like(a))),
    "global_norm": lambda a: np.float64(_dot(a, a) ** 0.5),
    "global_dot": lambda a, b: np.float64(_dot(a, b)),
}


def philox(counter: Sequence[int], key: Sequence[int]) -> list[int]:
    """Philox4x32-10 of Salmon et al., as printed in the paper: one block of four words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c0, 2**32)
        high1, low1 = divmod(0xCD9E8D57 * c2, 2**32)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return [c0, c1, c2, c3]


def words(seed: int, step: int, tensor: int, site: int, count: int) -> list[int]:
    """One word for each of `count` elements."""
    out: list[int] = []
    for q in range((count + 3) // 4):
        counter = (q % 2**32, q // 2**32 + site * 2**20, tensor, step % 2**32)
        out += philox(counter, (seed % 2**32, seed // 2**32))
    return out[:count] if count % 4 == 0 else out


def draws(op: str, seed: int, step: int, tensor: int, site: int, count: int) -> Array:
    w = words(seed, step, tensor, site, count)
    if op == "drop":
        return np.array([x // 2**8 / 2**24 for x in w])[:count]
    out = []
    for x, y in zip(w[0::2], w[1::2], strict=True):
        radius = math.sqrt(-2 * math.log(x / 2**32 + 2**-33))
        out += [radius * math.cos(2 * math.pi * y / 2**32), radius * math.sin(2 * math.pi * y / 2**32)]
    return np.array(out)[:count]


def scalar_values(program: Any, hyper: Mapping[str, float], t: float, total: float | None = None) -> list[np.float64]:
    """The scalars of a program in slot order: t, T, hyperparameters, constants, results."""
    values = [t, math.nan if total is None else total]
    for name, default in program.hyperparameters.items():
        values.append(hyper.get(name, default))
    slots = [np.float64(x) for x in [*values, *program.constants]]
    with np.errstate(all="ignore"):
        for op, *operands in program.scalar_code:
            arguments = [slots[x - SCALAR] for x in operands[: _arity(op)]]
            slots.append(np.float64(ORACLE[op](*arguments)))
    return slots


def _arity(op: str) -> int:
    return ORACLE[op].__code__.co_argcount - (op in ("drop", "normal"))


def evaluate(
    program: Any,
    p: Any,
    g: Any,
    states: Sequence[Any] = (),
    hyper: Mapping[str, float] | None = None,
    t: float = 1,
    total: float | None = None,
    *,
    seed: int = 0,
    tensor: int = 0,
) -> tuple[Array, list[Array]]:
    """The new p and the new states of one step, in float64.

    `hyper` must have lr; the program's defaults fill in the rest. `tensor` is the number of the tensor in its list.
    """
    new = evaluate_all(program, [p], [g], [[s] for s in states], hyper, t, total, seed=seed, tensor=tensor)
    return new[0][0], [x[0] for x in new[1:]]


def evaluate_all(
    program: Any,
    params: Sequence[Any],
    grads: Sequence[Any],
    states: Sequence[Sequence[Any]] = (),
    hyper: Mapping[str, float] | None = None,
    t: float = 1,
    total: float | None = None,
    *,
    seed: int = 0,
    tensor: int = 0,
) -> list[list[Array]]:
    """The new parameters, then the new tensors of each state, of one step in float64. No parameter is empty, and all
    have gradients. `tensor` is the number of the first one."""
    numbers = program.per_tensor_states if program.bytecode[4] == 2 else ()
    scalars: list[list[Any]] = []  # of each tensor
    values: list[list[Any]] = []
    for i, arrays in enumerate(zip(params, grads, *states, strict=True)):
        values.append([np.asarray(x, dtype=np.float64) for x in arrays])
        kept = [x for name, x in zip(program.state_names, values[i][2:], strict=True) if name in numbers]
        scalars.append([*scalar_values(program, hyper or {}, t, total), *kept])
    plain = len(scalar_values(program, hyper or {}, t, total))

    def read(i: int, operand: int) -> Any:
        return scalars[i][operand - SCALAR] if operand >= SCALAR else values[i][operand]

    tensors = range(len(values))
    with np.errstate(all="ignore"):
        for op, *operands in program.code:
            used = operands[: _arity(op)]
            if op in GLOBAL:
                rows = [np.concatenate([np.ravel(read(i, x)) for i in tensors]) for x in used]
                for i in tensors:
                    scalars[i].append(ORACLE[op](*rows))
                continue
            for i in tensors:
                p = values[i][0]
                arguments = [read(i, x) for x in used]
                if op in ("drop", "normal"):
                    drawn = draws(op, seed, int(t), tensor + i, operands[2], p.size)
                    arguments.append(drawn.reshape(p.shape))
                elif op in REDUCTIONS or (min(used) >= SCALAR and max(used) - SCALAR >= plain):
                    scalars[i].append(np.float64(ORACLE[op](*arguments)))
                    continue
                values[i].append(np.broadcast_to(ORACLE[op](*arguments), p.shape))
        kinds = [False, *[name in numbers for name in program.state_names]]
        return [
            [np.array(np.broadcast_to(read(i, x), () if number else values[i][0].shape)) for i in tensors]
            for x, number in zip(program.outputs, kinds, strict=True)
        ]
