"""Text, bytecode and graph are three forms of one thing: going around gives the same bytes."""

from __future__ import annotations

import inspect
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nos_ext
from nos_ext.ops import OPS
from nos_ext.optim import library
from nos_ext.rule import Rule, apply, constant, hyper, state
from nos_ext.rule.canonical import canonical_key
from nos_ext.rule.expr import GRAD, PARAM, Expr
from nos_ext.rule.printers.latex import LatexFormatter
from tests.reference.named import ONE_PROGRAM
from tests.reference.strategies import rules

relaxed = settings(max_examples=100)
EVERY_RULE = st.one_of(rules(), rules(ops=tuple(OPS)))  # the latter with reductions


@relaxed
@given(EVERY_RULE)
def test_text_compiles_back_to_the_same_bytecode(rule: Rule) -> None:
    program = rule.compile()
    text = program.to_text()
    assert nos_ext.compile_rule(text).bytecode == program.bytecode, text
    assert rule.to_text() == text


@relaxed
@given(EVERY_RULE)
def test_contracted_programs_round_trip_too(rule: Rule) -> None:
    program = rule.compile(contract=True)
    assert nos_ext.compile_rule(program.to_text()).bytecode == program.bytecode


@relaxed
@given(EVERY_RULE)
def test_decompiled_rule_compiles_to_the_same_bytecode(rule: Rule) -> None:
    program = rule.compile()
    assert program.rule.compile().bytecode == program.bytecode
    assert pickle.loads(pickle.dumps(rule)).compile().bytecode == program.bytecode


@relaxed
@given(EVERY_RULE)
def test_simplifying_is_idempotent(rule: Rule) -> None:
    again = Rule(rule.name, rule.state_names, rule.hyperparameters, rule.simplified)
    assert again.compile().bytecode == rule.compile().bytecode


@pytest.mark.parametrize("name", library.names())
def test_library_round_trips(name: str) -> None:
    program = library.get(name).compile()
    assert program.name == name
    assert nos_ext.compile_rule(program.to_text()) == program
    if name in ONE_PROGRAM:
        assert nos_ext.Program.from_bytes(program.bytecode) == program


READABLE = {
    "state updates stand before the return": (
        "def f(p, g, m, *, lr, beta=0.9):\n    m = beta * m + (1 - beta) * g\n    return p - lr * m, m\n"
    ),
    "a state whose old value is needed last moves into the return": (
        "def f(p, g, m, *, lr, beta=0.9):\n    return p - lr * sign(m), beta * m + (1 - beta) * g\n"
    ),
    "shared values get a line": ("def f(p, g, *, lr):\n    x1 = exp(g)\n    return p - lr * x1 * x1\n"),
    "a shared new value beside its old one gets a name of its own": (
        "def f(p, g, m, v, *, lr):\n    m_new = m + g\n    v = v * m + m_new\n    return p - lr * m_new, m_new, v\n"
    ),
    "states may swap": ("def f(p, g, m, v, *, lr):\n    return p - lr * g, v, m\n"),
    "brackets only where Python needs them": (
        "def f(p, g, m, *, lr, a=-0.5, b=inf, c=e):\n"
        "    return p - (g - m) * (lr + a * -2) / (b * g) + (-g) ** -m ** 2, m / (-(lr + t) % (lr * 2))\n"
    ),
}


@pytest.mark.parametrize("text", READABLE.values(), ids=READABLE.keys())
def test_readable_text_prints_as_it_was(text: str) -> None:
    assert nos_ext.compile_rule(text).to_text() == text


def test_names_never_collide() -> None:
    text = (
        "def f(p, g, x1, m, m_new, *, lr, x2=1):\n"
        "    a = exp(g) + m\n"
        "    b = tanh(a * a) + x2\n"
        "    return p - a * b * b * m, b + x1, a, m_new\n"
    )
    program = nos_ext.compile_rule(text)
    assert nos_ext.compile_rule(program.to_text()) == program


def test_long_programs_print() -> None:
    lines = ["    x = exp(g)"] + [f"    x = x * exp(x + {i})" for i in range(1, 1000)]
    program = nos_ext.compile_rule("\n".join(["def f(p, g, *, lr):", *lines, "    return p - lr * x"]))
    assert len(program) == 3 * 999 + 3
    assert nos_ext.compile_rule(program.to_text()) == program


EXTREMES = [-0.0, 0.0, math.inf, -math.inf, 5e-324, -5e-324, 1e308, -1e-310, 1e16, 2.0**70, -math.pi, math.e]


@pytest.mark.parametrize("value", EXTREMES, ids=str)
def test_extreme_numbers_keep_every_bit(value: float) -> None:
    """As a default and as a constant, through every form that a rule can take."""
    outputs = [apply("fma", GRAD, hyper("b"), PARAM) / constant(value)]
    rule = Rule("f", [], {"lr": None, "b": value}, outputs)
    program = rule.compile()
    forms = {
        "bytecode": nos_ext.Program.from_bytes(program.bytecode),
        "text": nos_ext.compile_rule(program.to_text()),
        "graph": program.rule.compile(),
        "pickle": pickle.loads(pickle.dumps(rule)).compile(),
        "contracted": nos_ext.compile_rule(rule, contract=True),
    }
    for name, form in forms.items():
        assert form.bytecode == program.bytecode, name
    assert repr(program.hyperparameters["b"]) == repr(value)
    first = program.disassemble().splitlines()[0]
    assert repr(float(first.partition("b=")[2].rstrip(")"))) == repr(value)
    namespace: dict[str, Any] = {}
    exec(program.to_pytorch(), namespace)
    assert repr(float(inspect.signature(namespace["F"]).parameters["b"].default)) == repr(value)
    assert LatexFormatter().number(value).text.startswith("-") == (math.copysign(1.0, value) < 0)


def test_the_sign_of_zero_in_latex_has_brackets() -> None:
    assert r"\left(-0\right)" in nos_ext.compile_rule("g * -0.0").to_latex()


def _chain(step: Callable[[Expr, int], Expr], count: int = 4090) -> Rule:
    """A rule as deep as a program may be long."""
    x = GRAD
    for i in range(count):
        x = step(x, i)
    return Rule("deep", ["m"], {"lr": None}, [PARAM - hyper("lr") * x, state("m")])


DEEP: dict[str, Callable[[Expr, int], Expr]] = {
    "call": lambda x, i: apply("tanh", x),
    "left": lambda x, i: x + state("m"),
    "right": lambda x, i: state("m") - x,
    "power": lambda x, i: apply("pow", GRAD, x),
    "choice": lambda x, i: apply("where", x, GRAD, state("m")),
    "shared": lambda x, i: x * x,
    "draw": lambda x, i: apply("drop", x, 0.5),
}


@pytest.mark.slow
@pytest.mark.parametrize("shape", DEEP)
def test_the_deepest_programs_print_and_come_back(shape: str) -> None:
    rule = _chain(DEEP[shape])
    program = rule.compile()
    assert len(program) > 4090
    assert nos_ext.compile_rule(program.to_text()) == program
    assert pickle.loads(pickle.dumps(rule)).compile() == program
    assert program.disassemble().count("\n") > 4090
    assert program.to_latex().startswith(r"\begin{aligned}")
    compile(program.to_pytorch(), "exported.py", "exec")
    assert len(canonical_key(rule)) == len(canonical_key(program)) > 0
    assert repr(rule.outputs[0]).startswith("Expr(")
    assert nos_ext.compile_rule(rule, contract=True).rule.name == "deep"
