"""Running error analysis: how far the engine may be from the oracle, element by element (docs/numerics.md).

Every value carries (v, e): v as the oracle computes it in float64, e a bound on |engine - v|. An op's bound is what its
operands' errors can do to it, taken on the whole interval [v - e, v + e], plus its own rounding. Where an interval straddles a
discontinuity, or the engine may overflow, e is infinite: the element is undecided and takes no part in a comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .oracle import GLOBAL, ORACLE, REDUCTIONS, SCALAR, draws

Array = npt.NDArray[np.float64]
Pair = tuple[Array, Array]


@dataclass(frozen=True)
class Format:
    """A floating-point format and the ulp bounds of its functions, in units of the unit roundoff u (1 ulp <= 2 u)."""

    u: float  # unit roundoff: the relative error of one correct rounding
    tiny: float  # its absolute error among subnormals
    largest: float
    functions: Mapping[str, float]

    def own(self, op: str) -> float:
        return self.functions.get(op, 1.0)


# fp32: the proven bounds of docs/numerics.md. double: libm's, and once more for the oracle's own library.
F32 = Format(
    2.0**-24, 2.0**-149, float(np.finfo(np.float32).max), {"exp": 2, "log": 2, "pow": 1.2, "rsqrt": 1.2, "tanh": 3}
)
F64 = Format(2.0**-53, 2.0**-1074, float(np.finfo(np.float64).max),
             dict.fromkeys(("exp", "log", "pow", "rsqrt", "tanh", "cos", "sin", "mod"), 4))  # fmt: skip

ORACLE_U = 2.0**-53  # the oracle rounds too


def _mul(a: Pair, b: Pair) -> Array:
    # an exact zero or infinity stays what it is; 0 * inf appears only where the product is NaN anyway
    parts = [np.where(e == 0, 0.0, np.abs(v) * e) for v, e in ((a[0], b[1]), (b[0], a[1]), (a[1], b[1]))]
    return parts[0] + parts[1] + parts[2]


def _div(v: Array, a: Pair, b: Pair) -> Array:
    away = np.abs(b[0]) - b[1]
    return np.where((a[1] == 0) & (b[1] == 0), 0.0, np.where(away > 0, (a[1] + np.abs(v) * b[1]) / away, np.inf))


def _pow(v: Array, a: Pair, b: Pair) -> Array:
    corners = [ORACLE["pow"](a[0] + s * a[1], b[0] + r * b[1]) for s in (-1, 1) for r in (-1, 1)]
    spread = np.max([np.abs(c - v) for c in corners], axis=0)  # monotone in each operand while the base keeps its sign
    exact = (a[1] == 0) & (b[1] == 0)
    crosses = (np.abs(a[0]) <= a[1]) | ((a[0] <= 0) & (b[1] > 0))
    crosses |= (b[0] - b[1] < 0) & (b[0] + b[1] > 0) & (a[0] == 0)
    return np.where(exact, 0.0, np.where(crosses & ~exact, np.inf, spread))


def _monotone(op: str) -> Callable[[Array, Pair], Array]:
    def spread(v: Array, a: Pair) -> Array:
        ends = [ORACLE[op](a[0] + s * a[1]) for s in (-1, 1)]
        worst = np.max([np.abs(x - v) for x in ends], axis=0)
        leaves = np.isnan(ends[0]) != np.isnan(ends[1])  # the interval leaves the domain
        return np.where(a[1] == 0, 0.0, np.where(leaves | np.isnan(worst) & ~np.isnan(v), np.inf, worst))

    return spread


def _decided(margin: Array, error: Array) -> Array:
    return np.where((error == 0) | (np.abs(margin) > error), 0.0, np.inf)


def _compare(v: Array, a: Pair, b: Pair) -> Array:
    error = a[1] + b[1]
    same = (a[0] == b[0]) & (error == 0)  # the difference of equal infinities is NaN
    return np.where(
        same | np.isnan(a[0]) | np.isnan(b[0]), np.where(np.isfinite(error), 0.0, np.inf), _decided(a[0] - b[0], error)
    )


def _where(v: Array, a: Pair, b: Pair, c: Pair) -> Array:
    return _decided(a[0], a[1]) + np.where(a[0] == 0, c[1], b[1])


def _floor(v: Array, a: Pair) -> Array:
    ends = np.floor(a[0] - a[1]), np.floor(a[0] + a[1])
    return np.where((a[1] == 0) | (ends[0] == ends[1]), 0.0, np.inf)


def _worst(v: Array, *operands: Pair) -> Array:
    return np.max([np.broadcast_to(e, np.shape(v)) for _, e in operands], axis=0)


# What the operands' errors can do; the op's own rounding comes on top, but for those listed in EXACT.
PROPAGATE: dict[str, Callable[..., Array]] = {
    "add": lambda v, a, b: a[1] + b[1], "sub": lambda v, a, b: a[1] + b[1], "mul": lambda v, a, b: _mul(a, b),
    "div": _div, "pow": _pow, "min": _worst, "max": _worst, "clip": _worst, "neg": _worst, "abs": _worst,
    "lt": _compare, "le": _compare, "gt": _compare, "ge": _compare, "eq": _compare, "ne": _compare,
    "sign": lambda v, a: np.where(np.isnan(a[0]), 0.0, _decided(a[0], a[1])),
    "exp": _monotone("exp"), "log": _monotone("log"), "sqrt": _monotone("sqrt"), "rsqrt": _monotone("rsqrt"),
    "tanh": _monotone("tanh"), "floor": _floor, "square": lambda v, a: _mul(a, a),
    # the oracle rounds the product of fma, the engine does not
    "fma": lambda v, a, b, c: _mul(a, b) + c[1] + ORACLE_U * np.abs(a[0] * b[0]), "where": _where,
    "cos": lambda v, a: a[1], "sin": lambda v, a: a[1],
    "mod": lambda v, a, b: np.where((a[1] == 0) & (b[1] == 0), 0.0, np.inf),
}  # fmt: skip
EXACT = {"min", "max", "clip", "neg", "abs", "lt", "le", "gt", "ge", "eq", "ne", "sign", "floor", "where"}


def _rounded(fmt: Format, op: str, v: Array, e: Array, operands: Sequence[Pair]) -> Array:
    """Adds the op's own error. A result that is infinite or NaN is so in the engine too if its operands are exact."""
    unknown = np.zeros(np.shape(v), bool)
    for _, error in operands:
        unknown = unknown | ~np.isfinite(error)
    if op not in EXACT:
        own = fmt.own(op) * fmt.u + ORACLE_U  # the engine's rounding and the oracle's
        e = e + np.where(np.isfinite(v), own * (np.abs(v) + e) + fmt.tiny, 0.0)
        e = np.where(np.isfinite(v) & (np.abs(v) + e > fmt.largest), np.inf, e)
    inexact = np.max([np.broadcast_to(error > 0, np.shape(v)) for _, error in operands], axis=0)
    special = ~np.isfinite(v) & inexact & (op not in EXACT)  # reached by rounded operands: take no part
    return np.where(unknown | special | np.isnan(e), np.inf, e)


def _step(fmt: Format, op: str, operands: Sequence[Pair]) -> Pair:
    v = np.asarray(ORACLE[op](*[v for v, _ in operands]), dtype=np.float64)
    e = np.broadcast_to(PROPAGATE[op](v, *operands), np.shape(v))
    return v, _rounded(fmt, op, v, e, operands)


def evaluate(
    program: Any, p: Any, g: Any, states: Sequence[Any], hyper: Mapping[str, float], t: float, total: float | None,
    fmt: Format, *, seed: int = 0, tensor: int = 0,
) -> list[Pair]:  # fmt: skip
    """(v, e) of the new p and of each new state. The inputs must be exact in `fmt`."""
    zero = np.zeros(())
    given = [t, np.nan if total is None else total]
    given += [hyper.get(name, default) for name, default in program.hyperparameters.items()]
    doubles: list[Pair] = [(np.float64(x), zero) for x in [*given, *program.constants]]
    with np.errstate(all="ignore"):
        for op, *operands in program.scalar_code:
            doubles.append(_step(F64, op, [doubles[x - SCALAR] for x in operands[: _arity(op)]]))
        values: list[Pair] = [(np.array(x, dtype=np.float64), np.zeros(np.shape(x))) for x in (p, g, *states)]

        numbers = program.per_tensor_states if program.bytecode[4] == 2 else ()
        kept = [name in numbers for name in program.state_names]
        doubles += [(np.float64(x), zero) for x, number in zip(states, kept, strict=True) if number]

        def read(operand: int) -> Pair:
            return _converted(fmt, doubles[operand - SCALAR]) if operand >= SCALAR else values[operand]

        shape = np.shape(values[0][0])
        for op, *operands in program.code:
            used = operands[: _arity(op)]
            if op in REDUCTIONS or op in GLOBAL:
                doubles.append(_reduced(op.removeprefix("global_"), [values[x] for x in used]))
            elif op in ("drop", "normal"):
                count = int(np.prod(shape))
                draw = draws(op, seed, int(t), tensor, operands[2], (count + 3) // 4 * 4)
                values.append(_random(fmt, op, [read(x) for x in used], draw, shape))
            elif min(used) >= SCALAR:
                doubles.append(_step(F64, op, [doubles[x - SCALAR] for x in used]))
            else:
                v, e = _step(fmt, op, [read(x) for x in used])
                values.append((np.broadcast_to(v, shape), np.broadcast_to(e, shape)))
        shapes = [shape, *[() if number else shape for number in kept]]
        return [
            tuple(np.broadcast_to(x, to) for x in read(o))  # type: ignore[misc]
            for o, to in zip(program.outputs, shapes, strict=True)
        ]


def _converted(fmt: Format, number: Pair) -> Pair:
    """A scalar or tensor scalar, computed in double, as it is rounded once to the compute type."""
    v, d = number
    e = _rounded(fmt, "add", v, d, [number]) if fmt is not F64 else d
    return v, np.where((e > 0) & np.isfinite(v) & _fits(fmt, v) & (d == 0), 0.0, e)


def _reduced(op: str, operands: Sequence[Pair]) -> Pair:
    """A reduction of one tensor, which is added up in double whatever the compute type is."""
    v = np.asarray(ORACLE[op](*[v for v, _ in operands]))
    a, b = operands[0], operands[-1]
    exact = all((e == 0).all() for _, e in operands)
    if op == "max_abs":
        worst = np.max(a[1])
        return v, np.asarray(0.0 if exact else worst if np.isfinite(v) else np.inf)
    products = op in ("norm", "rms", "dot")
    terms, errors = (a[0] * b[0], _mul(a, b)) if products else a
    if not np.isfinite(terms).all():
        finite = np.abs(terms[np.isfinite(terms)]).sum()  # a sum that overflows may meet the infinity of the other sign
        sure = exact and np.isfinite([x for x, _ in operands]).all() == np.isfinite(terms).all()
        return v, np.asarray(0.0 if sure and np.isfinite(finite) else np.inf)
    count = terms.size
    most = np.abs(terms).sum() + errors.sum()
    additions = 8 * max(1, int(np.ceil(np.log2(count) / 8 - 1e-9)))  # of the engine, one after the other
    # the engine's additions and its product, the oracle's own, and once more the roundings of this line
    e = errors.sum() + F64.u * (additions + 1 + count + 1) * most * (1 + 2.0**-30) + count * F64.tiny
    if op in ("mean", "rms"):
        e = e / count + F64.u * most / count
    if op in ("norm", "rms"):
        total = v * v
        low, high = np.sqrt(np.maximum(total * (1 - 4 * F64.u) - e, 0)), np.sqrt(total * (1 + 4 * F64.u) + e)
        e = np.maximum(v - low, high - v) + 2 * F64.u * high
    e = e + 2 * F64.u * np.abs(v) + F64.tiny
    zero = exact and not most
    return v, np.asarray(0.0 if zero else e if most < F64.largest / 2 else np.inf)


def _fits(fmt: Format, v: Array) -> Any:
    """Whether a scalar is a number of the format, so that rounding to it changes nothing."""
    return np.float64(np.float32(v)) == v if fmt is F32 else True


def _random(fmt: Format, op: str, arguments: list[Pair], draw: Array, shape: tuple[int, ...]) -> Pair:
    """`draw` holds whole groups of four; the last of them may reach beyond the tensor."""
    own = draw[: int(np.prod(shape))].reshape(shape)
    if op == "drop":
        (a, ea), (prob, ep) = arguments
        return ORACLE["drop"](a, prob, own), _decided(own - prob, ep) + np.where(own < prob, 0.0, ea)
    # draws are fp32 in every format; two neighbours share the radius r
    r = np.repeat(np.hypot(draw[0::2], draw[1::2]), 2)[: own.size].reshape(shape)
    error = 2.0**-21 * r + np.minimum(2.0**-23 / r, 2.0**-11)
    return _step(fmt, "mul", [(own, error), arguments[0]])


def _arity(op: str) -> int:
    return ORACLE[op].__code__.co_argcount - (op in ("drop", "normal"))
