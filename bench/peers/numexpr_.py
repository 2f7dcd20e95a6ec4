"""Each rule as numexpr expressions over NumPy views of the tensors: one pass for every array that is written.

Literals in numexpr are float64 and would drag the arrays along, so every constant is a float32 variable. It has no
sign, minimum or maximum for float32; `where` stands in for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from ..case import Case, Contender, Unavailable

_ONE: Final = {"zero": 0.0, "one": 1.0, "half": 0.5}


def _sign(x: str) -> str:
    return f"where({x} > zero, one, where({x} < zero, -one, zero))"


def _clip(x: str, bound: str) -> str:
    return f"where({x} > {bound}, {bound}, where({x} < -{bound}, -{bound}, {x}))"


_M: Final = ("m", "beta * m + rest * g")
_M1: Final = ("m", "beta1 * m + rest1 * g")
_V2: Final = ("v", "beta2 * v + rest2 * g * g")
_ADAM: Final = "step * m / (sqrt(v) / root + eps)"
_POWERSIGN: Final = (_M, ("p", f"p - lr * exp(power * {_sign('g')} * {_sign('m')}) * g"))

# rule -> (array, new value) in the order of evaluation; names that start with _ are temporaries
EXPRESSIONS: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "sgd": (("p", "p - lr * g"),),
    "momentum": (("m", "beta * m + g"), ("p", "p - lr * m")),
    "adam": (_M1, _V2, ("p", f"p - {_ADAM}")),
    "adamw": (_M1, _V2, ("p", f"p * keep - {_ADAM}")),
    "lion": (
        ("_u", "beta1 * m + rest1 * g"),
        ("p", f"p * keep - lr * {_sign('_u')}"),
        ("m", "beta2 * m + rest2 * g"),
    ),
    "rmsprop": (("v", "alpha * v + rest * g * g"), ("p", "p - lr * g / (sqrt(v) + eps)")),
    "powersign": _POWERSIGN,
    "powersign_cd": _POWERSIGN,
    "addsign": (_M, ("p", f"p - lr * (alpha + {_sign('g')} * {_sign('m')}) * g")),
    "random15": (
        _M,
        ("_x", f"abs(m) ** exponent * exp({_sign('g')} * {_sign('m')}) * {_clip('g', 'bound')}"),
        ("p", "p - lr * (_x + log(g * g + eps) * sqrt(abs(m)))"),
    ),
    "random40": (
        _M1,
        _V2,
        ("_a", f"tanh(m) - {_clip('g', 'small')}"),
        ("_b", f"exp(-abs(g)) * {_sign('m')}"),
        ("_c", "sqrt(v + eps)"),
        ("_d", "g / _c"),
        ("_h", "log(one + _d * _d)"),
        ("_i", "where(_a * _b > where(_d < _h, _d, _h), _a * _b, where(_d < _h, _d, _h))"),
        ("_k", "where(g > p, _i, _h) * abs(p) ** exponent"),
        ("_o", "tanh(one / sqrt(one + _k * _k) * m / _c) - half * p * exp(-v) + _b"),
        ("p", f"p - lr * ({_clip('_o', 'one')} + _a * _h - {_sign('_d')} * _i)"),
    ),
}


def build(case: Case) -> Contender:
    try:
        import numexpr
    except ImportError as error:
        raise Unavailable("numexpr is not installed") from error
    numexpr.set_num_threads(case.threads)
    constants = {name: np.float32(x) for name, x in (_ONE | case.rule.at(case.step)).items()}
    expressions = EXPRESSIONS[case.rule.name]
    names = ("p", "g", *case.state)
    scratch: dict[tuple[str, int], Any] = {}  # temporaries, shared by tensors of one size
    rows: list[dict[str, Any]] = []
    for tensors in zip(*case.lists, strict=True):
        row: dict[str, Any] = {name: x.detach().numpy().ravel() for name, x in zip(names, tensors, strict=True)}
        for target, _ in expressions:
            if target not in row:
                n = row["p"].size
                row[target] = scratch.setdefault((target, n), np.empty(n, np.float32))
        rows.append(row | constants)

    def run(n: int) -> None:
        for _ in range(n):
            for row in rows:
                for target, expression in expressions:
                    numexpr.evaluate(expression, local_dict=row, global_dict={}, out=row[target])

    return Contender("numexpr", run)
