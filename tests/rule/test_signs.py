"""Which states are shown never to be negative."""

from __future__ import annotations

import pytest

import nos_ext
from nos_ext.optim import library

KNOWN = {
    "adam": {"v"},
    "adamw": {"v"},
    "rmsprop": {"v"},
    "adagrad": {"s"},
    "amsgrad": {"v", "top"},
    "adamax": {"u"},
    "adadelta": {"v", "d"},
    "adabelief": {"s"},
    "adan": {"v"},
    "rprop": {"size"},
    "adafactor": {"v"},
    "lamb": {"v"},
    "lion": set(),
    "momentum": set(),
    "powersign": set(),
    "schedule_free_adamw": {"v"},
}


@pytest.mark.parametrize("name", KNOWN)
def test_library(name: str) -> None:
    assert nos_ext.compile_rule(library.get(name)).non_negative_states == KNOWN[name]


def test_matrices() -> None:
    assert nos_ext.compile_rule(library.muon).non_negative_states == frozenset()


def found(new: str, arguments: str = "b=0.9") -> bool:
    text = f"def rule(p, g, s, *, lr, {arguments}):\n    return p - lr * g, {new}\n"
    return "s" in nos_ext.compile_rule(text).non_negative_states


@pytest.mark.parametrize(
    "new",
    [
        "b * s + (1 - b) * g ** 2",
        "s + (1 - b) * (g ** 2 - s)",
        "s + (g * g - s) * b",
        "fma(1 - b, abs(g) - s, s)",
        "max(b * s, abs(g))",
        "s * exp(g)",
        "sqrt(s) * drop(abs(g), 0.3)",
        "where(g > 0, s, 2.5)",
        "clip(g, 0, 1)",
        "s + norm(g) * sign(abs(g)) + (g > 0)",
        "s / (1 + s) + tanh(s) + floor(s)",
        "s * (1 - b ** t) / max(t, 3)",
        "min(s, 1) * rsqrt(abs(g))",
        "s * (1 - t ** -0.8)",
    ],
)
def test_never_negative(new: str) -> None:
    assert found(new)


@pytest.mark.parametrize(
    ("new", "arguments"),
    [
        ("b * s + (1 - b) * g", "b=0.9"),
        ("b * s + (1 - b) * g ** 2", "b=1.5"),  # 1 - b may be below 0
        ("b * s + g ** 2", "b=-0.5"),
        ("s + b * (g ** 2 - s)", "b=1.5"),
        ("s + b * (g - s)", "b=0.5"),
        ("s - g ** 2", "b=0.9"),
        ("s / g", "b=0.9"),
        ("s * p", "b=0.9"),
        ("log(s)", "b=0.9"),
        ("s + normal(b)", "b=0.9"),
        ("max(g, -1)", "b=0.9"),
        ("s + sum(g)", "b=0.9"),
        ("where(g > 0, s, g)", "b=0.9"),
    ],
)
def test_may_be_negative(new: str, arguments: str) -> None:
    assert not found(new, arguments)


def test_states_that_depend_on_each_other_fall_together() -> None:
    text = "def rule(p, g, a, b, c, *, lr):\n    return p - lr * g, a + b, b + g, c + g ** 2\n"
    assert nos_ext.compile_rule(text).non_negative_states == {"c"}
