"""Simplifying keeps every result bit; contraction is the one rewrite that does not, and only on request."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nos_ext
from nos_ext.ops import OPS
from nos_ext.rule import Expr, Rule, apply, constant, hyper
from nos_ext.rule.expr import GRAD, PARAM, STEP, postorder
from nos_ext.rule.simplify import simplify
from nos_ext.rule.table import numpy_function
from tests.reference.strategies import constants, rules

EDGES = np.array(
    [
        *(0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 3.0, -7.5, 0.1, 0.9, 88.8, -104.0, 1 / 3, -2.0, math.pi, math.e, 16777217.0),
        *(1e-8, 1e-40, -1e-45, 1.2e-38, 2.0**-126, 1e-310, 5e-324, 1e10, 3.4e38, -1e300, math.inf, -math.inf, math.nan),
    ]
)
DETERMINISTIC = tuple(name for name, op in OPS.items() if op.domain != "random")


def evaluate(outputs: Sequence[Expr], known: Mapping[str, Any], dtype: Any) -> list[Any]:
    """Every op in turn, rounded to dtype; scalar-only nodes in float64 first, as the engine has it."""
    values: dict[Expr, Any] = {}
    with np.errstate(all="ignore"):
        for node in postorder(outputs):
            kind = np.float64 if node.scalar else dtype
            if not node.args:
                name = str(node.value) if node.op in ("state", "hyper") else node.op
                values[node] = kind(node.value if node.op == "constant" else known[name])
            else:
                args = [values[x] if x.scalar == node.scalar else dtype(values[x]) for x in node.args]
                values[node] = np.asarray(numpy_function(node.op)(*args)).astype(kind)
    return [np.broadcast_to(values[x].astype(dtype), known["param"].shape) for x in outputs]


def same_bits(a: Any, b: Any) -> bool:
    """Equal bits, but for the sign and payload of NaN."""
    both_nan = np.isnan(a) & np.isnan(b)
    unsigned = np.dtype(f"u{a.dtype.itemsize}")
    return bool(np.all(both_nan | (np.ascontiguousarray(a).view(unsigned) == np.ascontiguousarray(b).view(unsigned))))


def inputs(rule: Rule, dtype: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    pairs = np.array(list(itertools.product(EDGES, EDGES)))
    with np.errstate(all="ignore"):
        known: dict[str, Any] = {"param": pairs[:, 0].astype(dtype), "grad": pairs[:, 1].astype(dtype)}
        known |= {name: rng.choice(EDGES, len(pairs)).astype(dtype) for name in rule.state_names}
    known |= {name: 0.1 if default is None else default for name, default in rule.hyperparameters.items()}
    return known | {"step": 3.0, "total": 10.0}


# min, max: NumPy leaves the sign of a zero open. The ops that IEEE 754 does not fix are never rewritten into others.
UNFIXED = frozenset(("min", "max", "clip"))


@settings(max_examples=200)
@given(rules(ops=tuple(name for name in DETERMINISTIC if name not in UNFIXED), max_states=3), st.booleans())
def test_bits_are_kept(rule: Rule, double: bool) -> None:
    dtype = np.float64 if double else np.float32
    known = inputs(rule, dtype)
    before, after = evaluate(rule.outputs, known, dtype), evaluate(simplify(rule.outputs), known, dtype)
    assert all(map(same_bits, before, after)), rule.to_text()


X, Y, S = GRAD, PARAM, hyper("lr")
REWRITES: list[tuple[Expr | float, Expr | float]] = [
    (X * 1, X),
    (1 * X, X),
    (X / 1, X),
    (X - 0, X),
    (X + -0.0, X),
    (X * -1, -X),
    (X / -1, -X),
    (apply("neg", -X), X),
    (X - -Y, X + Y),
    (X + -Y, X - Y),
    (-X + Y, Y - X),
    (X + -3, X - 3),
    (X - -3, X + 3),
    (-X * -Y, X * Y),
    (-X / -Y, X / Y),
    (X / 4, X * 0.25),
    (X / -0.5, X * -2),
    (abs(-X), abs(X)),
    (abs(abs(X)), abs(X)),
    (abs(apply("exp", X)), apply("exp", X)),
    (apply("square", -X), apply("square", X)),
    (apply("sign", apply("sign", X)), apply("sign", X)),
    (apply("floor", apply("sign", X)), apply("sign", X)),
    (apply("min", X, X), X),
    (apply("min", X, math.inf), X),
    (apply("max", -math.inf, X), X),
    (apply("clip", X, -math.inf, math.inf), X),
    (apply("where", X, Y, Y), Y),
    (apply("where", 1, X, Y), X),
    (apply("where", 0, X, Y), Y),
    (apply("where", -0.0, X, Y), Y),
    (apply("where", 2.0**-149, X, Y), X),
    (apply("where", 2.0**-150, S, STEP), S),  # scalar code is double
    (apply("where", 2.0**-150, X, X), X),
    (apply("lt", 1, X), X > 1),
    (apply("eq", 1, X), X == 1),
    (apply("drop", X, 0), X),
    (constant(2) * 3 + 1, 7),
    (apply("sqrt", constant(2)), math.sqrt(2)),
    (apply("sqrt", constant(4)) * X, 2 * X),
    (S - -STEP, S + STEP),
]


def compiled(*outputs: Expr | float) -> nos_ext.Program:
    return Rule("f", ["m"], {"lr": None}, [outputs[0], outputs[-1]]).compile()


@pytest.mark.parametrize(("before", "after"), REWRITES, ids=[repr(x) for x, _ in REWRITES])
def test_rewritten(before: Expr, after: Expr | float) -> None:
    assert compiled(before) == compiled(after)


KEPT: list[Expr] = [
    X + 0,  # -0 + 0 is 0
    X - -0.0,
    X * 0,  # NaN, infinities, sign
    X - X,
    X / X,
    0 - X,
    X / 3,
    X / 2.0**-126,  # the reciprocal is no normal float32 number
    (X + 1) - 1,
    (X * S) * 2,  # products are not regrouped
    S * (STEP * X),
    -(X - Y),
    -X - Y,
    apply("where", 2.0**-150, X, S),  # 0 in float32
    apply("where", -5e-324, X, Y),
    apply("log", apply("exp", X)),
    apply("sqrt", apply("square", X)),
    apply("pow", X, 2),
    apply("pow", X, 1),
    apply("abs", apply("sqrt", X)),  # sqrt(-0) is -0
    apply("exp", constant(1)),  # depends on the machine
    apply("sub", constant(math.inf), constant(math.inf)),  # NaN
]


@pytest.mark.parametrize("node", KEPT, ids=map(repr, KEPT))
def test_kept(node: Expr) -> None:
    (simple,) = simplify([node])
    assert repr(simple) == repr(node)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("condition", [1e-60, 2.0**-150, 2.0**-149, 1.0, -0.0])
def test_a_constant_condition_chooses_as_a_hyperparameter_does(condition: float, dtype: Any) -> None:
    found = []
    for text in (f"where({condition!r}, t, g)", "where(c, t, g)"):
        extra, given = (", c=1.0", {"c": condition}) if "(c" in text else ("", {})
        p, g = [np.zeros(5, dtype)], [np.full(5, 7, dtype)]
        program = nos_ext.compile_rule(f"def f(p, g, *, lr{extra}): return {text}")
        nos_ext.apply_rule(program, p, g, [], lr=0.1, step=3, **given)
        found.append(p[0])
    np.testing.assert_array_equal(*found)


def test_equal_values_are_computed_once() -> None:
    assert len(compiled((X + Y) * (Y + X), X + Y)) == 2
    assert len(compiled((X - Y) * (Y - X), X - Y)) == 3
    assert len(compiled((X == Y) * (Y == X), X == Y)) == 2
    assert len(compiled(apply("normal", 0.1) * apply("normal", 0.1))) == 3  # two draws, one product


def test_dead_and_scalar_code() -> None:
    program = nos_ext.compile_rule(
        "def f(p, g, m, *, lr, beta=0.9):\n"
        "    scale = lr * sqrt(1 - beta ** t) / (1 - beta)\n"
        "    return p - scale * g, where(1, g, exp(m))"
    )
    assert [op for op, *_ in program.code] == ["mul", "sub"]
    assert len(program.scalar_code) == 6
    assert not compiled(X, Y).constants


@given(constants(), constants())
def test_folding_is_ieee_double(a: float, b: float) -> None:
    for name in ("add", "sub", "mul", "div"):
        (node,) = simplify([apply(name, constant(a), constant(b))])
        with np.errstate(all="ignore"):
            expected = float(numpy_function(name)(np.float64(a), np.float64(b)))
        if math.isnan(expected):
            assert node.op in (name, {"add": "sub", "sub": "add"}.get(name))  # inf + -inf is written inf - inf
        else:
            assert node.op == "constant"
            assert math.copysign(1, node.value) == math.copysign(1, expected)  # type: ignore[arg-type]
            assert node.value == expected


def contract_ops(text: str) -> list[str]:
    return [op for op, *_ in nos_ext.compile_rule(text, contract=True).code]


def test_contraction() -> None:
    assert contract_ops("g") == ["fma"]
    assert contract_ops("g * m") == ["mul", "fma", "mul", "fma"]
    assert contract_ops("g - 3 * w") == ["fma", "fma"]
    powersign = "def f(p, g, *, lr):\n    return p - lr * exp(g) * g"
    assert contract_ops(powersign) == ["exp", "mul", "fma"]
    shared = "def f(p, g, m, *, lr):\n    x = g * m\n    return p + x, m + x"
    assert contract_ops(shared) == ["mul", "add", "add"]
    difference = "def f(p, g, m, *, lr):\n    return p - g * m, m"
    assert contract_ops(difference) == ["mul", "sub"]
    assert "fma" not in [op for op, *_ in nos_ext.compile_rule("g").code]


def test_contraction_changes_rounding_only() -> None:
    rng = np.random.default_rng(0)
    p, g = rng.standard_normal(1000), rng.standard_normal(1000)
    plain, fused = nos_ext.compile_rule("adam"), nos_ext.compile_rule("adam", contract=True)
    assert len(fused) < len(plain)
    results = []
    for program in (plain, fused):
        params = [p.copy()]
        nos_ext.apply_rule(program, params, [g], nos_ext.init_state(program, params), lr=0.1)
        results.append(params[0])
    assert np.allclose(*results, rtol=1e-13)


def test_contraction_keeps_the_order_of_draws() -> None:
    """The random numbers of a draw depend on how many come before it."""
    for text in (
        "def f(p, g, m, *, lr):\n    return p - lr * (drop(g, 0.5) + 0.1 * drop(m, 0.5)), m",
        "def f(p, g, m, *, lr):\n    return p - drop(m, 0.5) * (lr * drop(g, 0.5)), m",
    ):
        results = []
        for program in (nos_ext.compile_rule(text), nos_ext.compile_rule(text, contract=True)):
            params = [np.zeros(64)]
            nos_ext.apply_rule(program, params, [np.ones(64)], [[np.ones(64)]], lr=1.0, seed=3)
            results.append(params[0])
            assert nos_ext.compile_rule(program.to_text()).fingerprint == program.fingerprint
        assert np.allclose(*results, rtol=1e-15)
    assert contract_ops("g + 2 * drop(w, 0.5)") == ["drop", "fma", "fma"]
