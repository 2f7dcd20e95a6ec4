"""Owns what each op of the language is in algebra (algebra.py): a function of the normal forms of its operands.

An op whose function raises Opaque becomes an atom (canonical.py). So does one of which algebra knows nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from .algebra import Algebra
from .atoms import ONE, ZERO, Opaque, Value, constant
from .table import OPS


def _compare(kind: str, test: Callable[[float], bool], flip: bool) -> Callable[[Algebra, Value, Value], Value]:
    """Makes a < b and its like a test of the sign of b - a."""

    def compare(algebra: Algebra, a: Value, b: Value) -> Value:
        difference = algebra.sub(a, b) if flip else algebra.sub(b, a)
        c, mono = algebra.factor(difference)
        if not mono:
            return ONE if test(c) else ZERO
        sign = math.copysign(1.0, c) if kind in ("positive", "not negative") else 1.0
        return algebra.atom(kind, (algebra.product(sign, mono),), nonneg=True)

    return compare


def _maximum(algebra: Algebra, a: Value, b: Value) -> Value:
    """Makes nested maxima one of all their operands, which are sorted and have one number among them at most."""
    operands: dict[str, Value] = {}
    largest = -math.inf
    for x in (a, b):
        atom = algebra.atoms.get(x.terms[0][0][0][0]) if len(x.terms) == 1 and x.terms[0][0] else None
        whole = atom is not None and atom.kind == "max" and x.terms == ((((atom.key, 1.0),), 1.0),)
        for operand in atom.args if atom is not None and whole else (x,):
            if operand.constant is None:
                operands[operand.key] = operand
            else:
                largest = max(largest, operand.constant)
    if not operands:
        return constant(largest)
    if largest > -math.inf:
        operands["number"] = constant(largest)
    if len(operands) == 1:
        return next(iter(operands.values()))
    ordered = sorted(operands.values(), key=lambda x: x.key)
    return algebra.atom("max", ordered, nonneg=largest >= 0)


def _minimum(algebra: Algebra, a: Value, b: Value) -> Value:
    return algebra.scale(_maximum(algebra, algebra.scale(a, -1.0), algebra.scale(b, -1.0)), -1.0)


def _clip(algebra: Algebra, x: Value, low: Value, high: Value) -> Value:
    lo, hi = low.constant, high.constant
    if lo is None or hi is None:
        return _minimum(algebra, _maximum(algebra, x, low), high)
    if lo >= hi:
        algebra.discard(x)
        return constant(hi)
    c, mono = algebra.factor(x)
    if not mono:
        return constant(min(max(c, lo), hi))
    # clip(c y, lo, hi) = c clip(y, lo / c, hi / c)
    lo, hi = (lo / c, hi / c) if c > 0 else (hi / c, lo / c)
    inner = algebra.product(1.0, mono)
    if algebra.only_signs(inner):
        if lo <= -1 and hi >= 1:
            return x
        if lo == -hi:
            return algebra.scale(inner, c * hi)
    kind = "clip" if lo < 0 < hi else "cut"
    return algebra.scale(algebra.atom(kind, (inner, constant(lo), constant(hi)), nonneg=lo >= 0), c)


def _where(algebra: Algebra, condition: Value, a: Value, b: Value) -> Value:
    c, mono = algebra.factor(condition)
    if not mono:
        return a if c != 0 else b
    if a.key == b.key:
        return a
    test = algebra.product(1.0, mono)
    if len(mono) == 1:
        atom = algebra.atoms[mono[0][0]]
        if atom.kind in ("zero", "not zero") and mono[0][1] == 1:
            test = atom.args[0]
            if atom.kind == "zero":
                a, b = b, a
    scale = algebra.factor(a)[0] or algebra.factor(b)[0]
    inner = algebra.atom("where", (test, algebra.scale(a, 1 / scale), algebra.scale(b, 1 / scale)))
    return algebra.scale(inner, scale)


def _odd(function: Callable[[float], float], kind: str) -> Callable[[Algebra, Value], Value]:
    """Takes the sign out of the operand of a function with f(-x) = -f(x)."""

    def odd(algebra: Algebra, a: Value) -> Value:
        c, mono = algebra.factor(a)
        if not mono:
            return constant(function(c))
        sign = math.copysign(1.0, c)
        return algebra.scale(algebra.atom(kind, (algebra.scale(a, sign),)), sign)

    return odd


def _cos(algebra: Algebra, a: Value) -> Value:
    c, mono = algebra.factor(a)
    return algebra.atom("cos", (algebra.scale(a, math.copysign(1.0, c)),)) if mono else constant(math.cos(c))


def _floor(algebra: Algebra, a: Value) -> Value:
    return algebra.atom("floor", (a,)) if a.constant is None else constant(math.floor(a.constant))


def _pow(algebra: Algebra, a: Value, b: Value) -> Value:
    if b.constant is not None:
        return algebra.power(a, b.constant)
    if a.constant is not None and a.constant > 0:
        return algebra.exp(algebra.scale(b, math.log(a.constant)))
    raise Opaque


def _sum(over_all: bool) -> Callable[[Algebra, Value], Value]:
    return lambda algebra, a: algebra.total(a, over_all)


def _dot(over_all: bool) -> Callable[[Algebra, Value, Value], Value]:
    return lambda algebra, a, b: algebra.total(algebra.mul(a, b), over_all)


def _norm(over_all: bool) -> Callable[[Algebra, Value], Value]:
    return lambda algebra, a: algebra.power(algebra.total(algebra.power(a, 2.0), over_all), 0.5)


def _mean(algebra: Algebra, a: Value) -> Value:
    return algebra.div(algebra.total(a, False), algebra.total(ONE, False))  # the total of 1 is the number of elements


def _rms(algebra: Algebra, a: Value) -> Value:
    return algebra.power(_mean(algebra, algebra.power(a, 2.0)), 0.5)


def _closed(algebra: Algebra, *args: Value) -> Value:
    """Stands for an op of which algebra knows nothing."""
    raise Opaque


NORMAL_FORMS: Final[dict[str, Callable[..., Value]]] = {
    **dict.fromkeys(OPS, _closed),
    "add": Algebra.add,
    "sub": Algebra.sub,
    "mul": Algebra.mul,
    "div": Algebra.div,
    "pow": _pow,
    "min": _minimum,
    "max": _maximum,
    "lt": _compare("positive", lambda d: d > 0, False),
    "le": _compare("not negative", lambda d: d >= 0, False),
    "gt": _compare("positive", lambda d: d > 0, True),
    "ge": _compare("not negative", lambda d: d >= 0, True),
    "eq": _compare("zero", lambda d: d == 0, False),
    "ne": _compare("not zero", lambda d: d != 0, False),
    "neg": lambda algebra, a: algebra.scale(a, -1.0),
    "abs": Algebra.abs,
    "sign": Algebra.sign,
    "exp": Algebra.exp,
    "log": Algebra.log,
    "sqrt": lambda algebra, a: algebra.power(a, 0.5),
    "rsqrt": lambda algebra, a: algebra.power(a, -0.5),
    "square": lambda algebra, a: algebra.power(a, 2.0),
    "tanh": _odd(math.tanh, "tanh"),
    "floor": _floor,
    "fma": lambda algebra, a, b, c: algebra.add(algebra.mul(a, b), c),
    "where": _where,
    "clip": _clip,
    "cos": _cos,
    "sin": _odd(math.sin, "sin"),
    "sum": _sum(False),
    "mean": _mean,
    "norm": _norm(False),
    "rms": _rms,
    "max_abs": Algebra.max_abs,
    "dot": _dot(False),
    "global_sum": _sum(True),
    "global_norm": _norm(True),
    "global_dot": _dot(True),
}
