"""Text, bytecode and graph are three forms of one thing: going around gives the same bytes."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given, settings

import nos_ext
from nos_ext.optim import library
from nos_ext.rule import Rule
from tests.reference.strategies import rules

relaxed = settings(max_examples=100)


@relaxed
@given(rules())
def test_text_compiles_back_to_the_same_bytecode(rule: Rule) -> None:
    program = rule.compile()
    text = program.to_text()
    assert nos_ext.compile_rule(text).bytecode == program.bytecode, text
    assert rule.to_text() == text


@relaxed
@given(rules())
def test_contracted_programs_round_trip_too(rule: Rule) -> None:
    program = rule.compile(contract=True)
    assert nos_ext.compile_rule(program.to_text()).bytecode == program.bytecode


@relaxed
@given(rules())
def test_decompiled_rule_compiles_to_the_same_bytecode(rule: Rule) -> None:
    program = rule.compile()
    assert program.rule.compile().bytecode == program.bytecode
    assert pickle.loads(pickle.dumps(rule)).compile().bytecode == program.bytecode


@relaxed
@given(rules())
def test_simplifying_is_idempotent(rule: Rule) -> None:
    again = Rule(rule.name, rule.state_names, rule.hyperparameters, rule.simplified)
    assert again.compile().bytecode == rule.compile().bytecode


@pytest.mark.parametrize("name", library.names())
def test_library_round_trips(name: str) -> None:
    program = library.get(name).compile()
    assert program.name == name
    assert nos_ext.compile_rule(program.to_text()) == program
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
