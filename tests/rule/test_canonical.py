"""The canonical key: equal by algebra, equal key; equal key, equal function."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import nos_ext
from nos_ext.ops import OPS
from nos_ext.optim import library
from nos_ext.rule import Rule, as_rule
from nos_ext.rule.canonical import canonical_key
from nos_ext.rule.table import REDUCTIONS
from tests.reference.strategies import rules

SAME = [
    ("g * m", "m * g"),
    ("g * m * v", "v * (g * m)"),
    ("g + m + v", "v + (m + g)"),
    ("g - g + m", "m"),
    ("2 * g - g", "g"),
    ("g / g * m", "m"),
    ("(g + m) / (m + g)", "1"),
    ("2 * (g + m)", "g * 2 + m + m"),
    ("(2 * g + 2 * m) * v", "(g + m) * (v * 2)"),
    ("g - (m - v)", "g + v - m"),
    ("g / m", "g * (1 / m)"),
    ("g / (m / v)", "g * v / m"),
    ("g * 0 + m", "m"),
    ("sign(sign(g))", "sign(g)"),
    ("sign(2 * g)", "sign(g)"),
    ("sign(-g)", "-sign(g)"),
    ("sign(g * m)", "sign(m) * sign(g)"),
    ("sign(g + m)", "sign(3 * m + 3 * g)"),
    ("sign(exp(g)) * m", "m"),
    ("sign(g) * g", "abs(g)"),
    ("sign(g) * abs(g)", "g"),
    ("sign(g) * sign(g) * g", "g"),
    ("sign(g) ** 2 * sign(g)", "sign(g)"),
    ("sign(g) * sign(m) * g * m", "abs(g * m)"),
    ("abs(-g)", "abs(g)"),
    ("abs(g * m)", "abs(m) * abs(g)"),
    ("abs(g) * abs(g)", "g ** 2"),
    ("abs(sign(g))", "sign(g) ** 2"),
    ("g ** 2 * g", "pow(g, 3)"),
    ("pow(g, -1)", "1 / g"),
    ("sqrt(g ** 2)", "abs(g)"),
    ("sqrt(4 * g)", "2 * sqrt(g)"),
    ("rsqrt(g)", "1 / sqrt(g)"),
    ("sqrt(exp(g))", "exp(g / 2)"),
    ("exp(g) * exp(m)", "exp(g + m)"),
    ("exp(g) / exp(g)", "1"),
    ("exp(g + 1)", "e * exp(g)"),
    ("exp(log(abs(g)))", "abs(g)"),
    ("log(exp(g))", "g"),
    ("log(g ** 2)", "2 * log(abs(g))"),
    ("log(2 * abs(g))", "log(2) + log(abs(g))"),
    ("2 ** g", "exp(g * log(2))"),
    ("clip(2 * g, 2)", "2 * clip(g, 1)"),
    ("clip(-g, 1e-4)", "-clip(g, 1e-4)"),
    ("clip(sign(g), 1e-4)", "1e-4 * sign(g)"),
    ("clip(sign(g), 2)", "sign(g)"),
    ("clip(g, lr)", "min(max(g, -lr), lr)"),
    ("max(g, m)", "-min(-m, -g)"),
    ("max(g, max(m, g))", "max(m, g)"),
    ("where(g == 0, m, v)", "where(g, v, m)"),
    ("where(g, -m, -v)", "-where(2 * g, m, v)"),
    ("g < m", "m > g"),
    ("g < m", "0 < m - g"),
    ("2 * g <= 2 * m", "g <= m"),
    ("g == m", "m - g == 0"),
    ("tanh(-g)", "-tanh(g)"),
    ("cos(-t) * g", "cos(t) * g"),
    ("fma(g, m, v)", "v + m * g"),
    ("m_hat", "m / (1 - beta1 ** t)"),
    ("drop(2 * g, 0.1)", "2 * drop(g, 0.1)"),
    ("drop(g, 0)", "g"),
    ("normal(0.02)", "2 * normal(0.01)"),
]
DIFFERENT = [
    ("g", "m"),
    ("g", "2 * g"),
    ("g", "-g"),
    ("m", "m_hat"),
    ("sqrt(g) * sqrt(g)", "g"),  # NaN for g < 0
    ("exp(log(g))", "g"),
    ("sqrt(g * m)", "sqrt(g) * sqrt(m)"),
    ("sqrt(g ** 2)", "g"),
    ("sign(g) * sign(g)", "1"),  # 0 at 0
    ("sign(abs(g))", "1"),
    ("drop(g, 0.1)", "drop(g, 0.3)"),
    ("drop(g, 0.1) - drop(g, 0.1)", "0 * g"),
    ("noise - 2 * noise", "noise"),
    ("noise + noise", "noise + annealed_noise"),
    ("clip(g, 1e-4)", "clip(g, 1e-3)"),
    ("clip(sign(g) + g, 1)", "sign(g) + g"),
    ("g < m", "g <= m"),
    ("where(g, m, v)", "where(g, v, m)"),
    ("max(g, m)", "min(g, m)"),
    ("exp(g) * exp(m)", "exp(g * m)"),
    ("1e-4 * w", "1e-3 * w"),
    ("g + 1e-8", "g"),
]


def key(source: Any) -> str:
    return canonical_key(as_rule(source))


@pytest.mark.parametrize(("a", "b"), SAME, ids=[f"{a} = {b}" for a, b in SAME])
def test_equal_by_algebra(a: str, b: str) -> None:
    assert key(a) == key(b)


@pytest.mark.parametrize(("a", "b"), DIFFERENT, ids=[f"{a} != {b}" for a, b in DIFFERENT])
def test_not_equal(a: str, b: str) -> None:
    assert key(a) != key(b)


def test_states() -> None:
    """Their names and order do not matter, nor do states without effect on the parameter."""
    text = (
        "def f(p, g, {a}, {b}, *, lr):\n    a = 0.9 * a + 0.1 * g\n    b = 0.99 * b + 0.01 * g\n"
        "    return p - lr * a * exp(b), {a}, {b}\n"
    )
    expected = key(text.format(a="a", b="b"))
    assert key(text.format(a="b", b="a")) == expected
    assert key(text.format(a="a", b="b").replace("a", "q").replace("def f", "def z").replace("qnd", "and")) == expected
    dead = "def f(p, g, a, d, b, *, lr):\n    a = 0.9 * a + 0.1 * g\n    b = 0.99 * b + 0.01 * g\n"
    assert key(dead + "    return p - lr * a * exp(b) + (d - d), a, d + g, b") == expected
    assert key(dead + "    return p - lr * a * exp(b) + d, a, d + g, b") != expected
    swapped = text.format(a="a", b="b").replace("a * exp(b)", "b * exp(a)")
    assert key(swapped) != expected


def test_symmetric_states() -> None:
    one = "def f(p, g, a, b, *, lr):\n    return p - lr * a * b, a + b, a - b"
    other = "def f(p, g, b, a, *, lr):\n    return p - lr * b * a, a + b, b - a"
    assert key(one) == key(one.replace("a * b", "b * a"))
    assert isinstance(key(other), str)


def test_defaults_count_and_names_of_rules_do_not() -> None:
    text = "def f(p, g, m, *, lr, beta={}):\n    m = beta * m + (1 - beta) * g\n    return p - lr * m, m"
    assert key(text.format(0.9)) != key(text.format(0.99))
    assert key(text.format(0.9)) == key(text.format(0.9).replace("def f", "def h"))
    unused = text.format(0.9).replace("*, lr", "*, lr, gamma=3")
    assert key(unused) == key(text.format(0.9))


def test_programs_and_rules_have_the_same_key() -> None:
    for rule in library.rules():
        assert canonical_key(rule.compile()) == canonical_key(rule)
    found = [canonical_key(rule) for rule in library.rules()]
    assert len(set(found)) == len(found)


def test_keys_do_not_depend_on_the_process() -> None:
    code = "from nos_ext.rule.canonical import canonical_key as k\nfrom nos_ext.optim import library\n"
    code += "print([k(r) for r in library.rules()])"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == str([canonical_key(r) for r in library.rules()])


# Rounding must not decide a comparison: either no op jumps, or every op is exact on numbers of few bits.
CONTINUOUS = ("add", "sub", "mul", "div", "pow", "min", "max", "neg", "abs", "exp", "log", "sqrt", "rsqrt", "square")
CONTINUOUS += ("tanh", "fma", "clip", "cos", "sin")
EXACT = ("add", "sub", "mul", "min", "max", "lt", "le", "gt", "ge", "eq", "ne", "neg", "abs", "sign", "square", "fma")
EXACT += ("where", "clip", "floor")
REDUCING = ("add", "sub", "mul", "neg", "abs", "square", "sqrt", "div", *sorted(REDUCTIONS))
# odd multiples of 1/128: never 0, 1 or -1, where thin exceptions lie
POINTS = np.round(np.random.default_rng(7).standard_normal((12, 400)) * 64) / 64 + 1 / 128
NUMBERS = st.sampled_from([0.0, 1.0, -1.0, 2.0, 0.5, -2.0, 3.0, 0.25])


def values(rule: Rule) -> list[Any]:
    """The parameter after each of two steps from the same point, so that updates of states show."""
    numbers = rule.per_tensor_states
    state = {name: [POINTS[2 + i][0] if name in numbers else POINTS[2 + i]] for i, name in enumerate(rule.state_names)}
    out = []
    for step in (1, 2):
        params, state = rule.reference([POINTS[0]], [POINTS[1]], state, lr=0.375, step=step, total_steps=10)
        out.append(params[0])
        if not all(np.isfinite(x).all() for tensors in state.values() for x in tensors):
            break  # what a rule makes of states that are no numbers does not count
    return out


@contextlib.contextmanager
def noting_overflow() -> Iterator[list[Any]]:
    """What overflows meanwhile in the reference, which is quiet about it."""
    found: list[Any] = []
    quiet = np.errstate

    def noting(**_: Any) -> Any:
        return quiet(all="ignore", over="call", call=lambda *what: found.append(what))

    with mock.patch.object(np, "errstate", noting):
        yield found


def agree(a: Any, b: Any) -> bool:
    """NaN where the other is NaN, and equal, but for points where rounding or overflow decides."""
    usable = ~(np.isinf(a) | np.isinf(b) | (np.abs(a) > 1e6) | (np.abs(b) > 1e6))
    close = np.isclose(a[usable], b[usable], rtol=1e-5, atol=1e-6, equal_nan=True)
    return bool(np.mean(close) > 0.98) if usable.any() else True


@pytest.mark.parametrize("ops", [CONTINUOUS, EXACT, REDUCING], ids=["continuous", "exact", "reducing"])
def test_equal_keys_are_equal_functions(ops: tuple[str, ...]) -> None:
    """Rules of a small space, so that keys often meet; each is compared with the first of its key."""
    seen: dict[str, tuple[list[Any], Rule]] = {}

    @settings(max_examples=400)
    @given(rules(ops=ops, max_ops=6, max_states=1, numbers=NUMBERS))
    def check(rule: Rule) -> None:
        assume({"beta", "eps"}.isdisjoint(rule.hyperparameters))
        with noting_overflow() as found:
            value = values(rule)
        assume(not found)  # x - x is 0 in the canonical form, and NaN where x is infinite
        first, other = seen.setdefault(canonical_key(rule), (value, rule))
        assert all(map(agree, first, value)), f"{other.to_text()}{rule.to_text()}"

    check()


@settings(max_examples=150)
@given(st.one_of(rules(max_states=3), rules(max_states=3, ops=tuple(OPS))))
def test_any_rule_has_a_key(rule: Rule) -> None:
    assert canonical_key(rule) == canonical_key(nos_ext.compile_rule(rule.to_text()))


@pytest.mark.parametrize("update", ["normal(1e-310 * lr + t)", "normal(1e-310 * t - lr)", "drop(1e-310 * g + w, 0.5)"])
def test_a_draw_of_what_cannot_be_scaled_has_a_key(update: str) -> None:
    """A factor below 1e-308 has no reciprocal, so nothing can be taken out of the sum; two draws stay two."""
    source = "def rule(p, g, *, lr):\n    return p - ({})\n"
    text = source.format(update.replace("w", "p"))
    key = canonical_key(nos_ext.compile_rule(text))
    assert key == canonical_key(nos_ext.compile_rule(text))
    twice = source.format(f"{update} + {update}".replace("w", "p"))
    assert canonical_key(nos_ext.compile_rule(twice)) != canonical_key(
        nos_ext.compile_rule(source.format(f"2 * {update}".replace("w", "p")))
    )
