"""Owns the question which states are never negative, so that they can be stored without a sign.

The answer comes from intervals: each value of the rule lies in one, whatever p and g are. A state that starts at 0
stays at or above it if its new value is, as long as the old ones were; all states are taken to be so first, and those
that cannot be shown to be are given up one after the other. Hyperparameters are taken to stay where they start: a decay
of 0.999 in 0..1, others on their side of 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

from .definition import Definition
from .expr import Expr, postorder

Interval = tuple[float, float]

_ANY: Final = (-math.inf, math.inf)
_POSITIVE: Final = (0.0, math.inf)
_UNIT: Final = (0.0, 1.0)


def non_negative_states(rule: Definition) -> frozenset[str]:
    """Returns the names of the states that no step makes negative. NaN counts as not negative."""
    new = dict(zip(rule.state_names, rule.simplified[1:], strict=True))
    order = postorder(rule.simplified)
    kept = frozenset(new)
    while kept:
        found = _intervals(order, rule.hyperparameters, kept)
        still = frozenset([name for name in kept if found[new[name]][0] >= 0])
        if still == kept:
            break
        kept = still
    return kept


def _intervals(
    order: list[Expr], hypers: Mapping[str, float | None], non_negative: frozenset[str]
) -> dict[Expr, Interval]:
    out: dict[Expr, Interval] = {}
    for node in order:
        if node.op == "state":
            out[node] = _POSITIVE if node.value in non_negative else _ANY
        elif node.op == "hyper":
            out[node] = _of_hyper(hypers[str(node.value)])
        elif node.op == "constant":
            out[node] = (float(node.value),) * 2  # type: ignore[arg-type]
        elif node.op in ("step", "total"):
            out[node] = (1.0, math.inf)
        elif _is_mean(node, out) or (node.op == "mul" and node.args[0] is node.args[1]):
            out[node] = _POSITIVE
        elif node.op in _OPS:
            low, high = _OPS[node.op](*[out[x] for x in node.args])
            out[node] = _ANY if math.isnan(low) or math.isnan(high) else (low, high)
        else:
            out[node] = _ANY
    return out


def _of_hyper(start: float | None) -> Interval:
    if start is None or start >= 1:  # lr has no default
        return _POSITIVE
    return _UNIT if start >= 0 else (-math.inf, 0.0)


def _is_mean(node: Expr, known: Mapping[Expr, Interval]) -> bool:
    """Tells whether the node is a + w (b - a) with a weight from 0 to 1, of two values that are not negative. It is not
    negative either, as rounding keeps the order of numbers."""
    if node.op == "add":
        pairs = [node.args, node.args[::-1]]
        products = [(a, x.args) for a, x in pairs if x.op == "mul"]
    elif node.op == "fma":
        products = [(node.args[2], node.args[:2])]
    else:
        return False
    for a, factors in products:
        for weight, difference in (factors, factors[::-1]):
            if difference.op != "sub" or difference.args[1] is not a:
                continue
            low, high = known[weight]
            if low >= 0 and high <= 1 and known[a][0] >= 0 and known[difference.args[0]][0] >= 0:
                return True
    return False


def _times(x: float, y: float) -> float:
    return 0.0 if x == 0 or y == 0 else x * y


def _mul(a: Interval, b: Interval) -> Interval:
    corners = [_times(x, y) for x in a for y in b]
    return min(corners), max(corners)


def _add(a: Interval, b: Interval) -> Interval:
    return a[0] + b[0], a[1] + b[1]


def _neg(a: Interval) -> Interval:
    return -a[1], -a[0]


def _div(a: Interval, b: Interval) -> Interval:
    if b[0] < 0:
        return _neg(_div(a, _neg(b))) if b[1] <= 0 else _ANY
    high = math.inf if b[0] == 0 else 1 / b[0]
    return _mul(a, (0.0 if math.isinf(b[1]) else 1 / b[1], high)) if b[1] > 0 else _ANY


def _pow(a: Interval, b: Interval) -> Interval:
    if a[0] < 0:
        return _ANY
    falls = (a[0] >= 1 and b[1] <= 0) or (a[1] <= 1 and b[0] >= 0)
    return _UNIT if falls else _POSITIVE


def _square(a: Interval) -> Interval:
    low = 0.0 if a[0] <= 0 <= a[1] else min(a[0] * a[0], a[1] * a[1])
    return low, max(a[0] * a[0], a[1] * a[1])


def _root(a: Interval) -> Interval:
    return math.sqrt(max(a[0], 0.0)), math.sqrt(max(a[1], 0.0))


def _exp(a: Interval) -> Interval:
    return 0.0, 1.0 if a[1] <= 0 else math.inf


def _min(a: Interval, b: Interval) -> Interval:
    return min(a[0], b[0]), min(a[1], b[1])


def _max(a: Interval, b: Interval) -> Interval:
    return max(a[0], b[0]), max(a[1], b[1])


def _either(a: Interval, b: Interval) -> Interval:
    return min(a[0], b[0]), max(a[1], b[1])


# Ops that are not here may give anything.
_OPS: Final[Mapping[str, Callable[..., Interval]]] = {
    "add": _add,
    "sub": lambda a, b: _add(a, _neg(b)),
    "mul": _mul,
    "div": _div,
    "fma": lambda a, b, c: _add(_mul(a, b), c),
    "pow": _pow,
    "square": _square,
    "neg": _neg,
    "abs": lambda a: _POSITIVE,
    "sqrt": _root,
    "rsqrt": lambda a: _POSITIVE,
    "exp": _exp,
    "sign": lambda a: (0.0 if a[0] >= 0 else -1.0, 0.0 if a[1] <= 0 else 1.0),
    "tanh": lambda a: (0.0 if a[0] >= 0 else -1.0, 0.0 if a[1] <= 0 else 1.0),
    "floor": lambda a: (0.0, math.inf) if a[0] >= 0 else _ANY,
    "min": _min,
    "max": _max,
    "clip": lambda a, low, high: _min(_max(a, low), high),
    "where": lambda a, b, c: _either(b, c),
    "drop": lambda a, prob: _either(a, (0.0, 0.0)),
    **dict.fromkeys(("lt", "le", "gt", "ge", "eq", "ne"), lambda a, b: _UNIT),
    **dict.fromkeys(("norm", "rms", "max_abs", "global_norm"), lambda a: _POSITIVE),
    **dict.fromkeys(("sum", "mean", "global_sum"), lambda a: (0.0, math.inf) if a[0] >= 0 else _ANY),
}
