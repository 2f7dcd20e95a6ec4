"""Function, text and expression objects mean the same, and each refuses what is no rule."""

from __future__ import annotations

import copy
import functools
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nos_ext
from nos_ext import Rule, RuleError, ops
from nos_ext.rule import OPERANDS, apply, as_rule, constant, hyper, operand, state
from nos_ext.rule.expr import GRAD, PARAM

LISTING = """\
rule powersign(p, g, m, *, lr, beta=0.9, base=2.718281828459045, decay=1)
  s0 = log base
  s1 = mul s0 decay
  s2 = sub 1 beta
  v0 = sign g
  v1 = mul s1 v0
  v2 = mul beta m
  v3 = mul s2 g
  v4 = add v2 v3
  v5 = sign v4
  v6 = mul v1 v5
  v7 = exp v6
  v8 = mul lr v7
  v9 = mul v8 g
  v10 = sub p v9
  p <- v10
  m <- v4
"""
TEXT = """
@nos_ext.rule
def powersign(p, g, m, *, lr, beta=0.9, base=e, decay=1.0):
    '''PowerSign.'''
    m = beta * m + (1 - beta) * g  # first, as TensorFlow does
    return p - lr * exp(log(base) * decay * sign(g) * sign(m)) * g, m
"""
exp = "not a function"  # the vocabulary of rules wins over globals


@nos_ext.rule
def powersign(p, g, m, *, lr, beta=0.9, base=ops.e, decay=1.0):  # type: ignore[no-untyped-def]
    """PowerSign."""
    m = beta * m + (1 - beta) * g
    return p - lr * exp(log(base) * decay * sign(g) * sign(m)) * g, m  # type: ignore[name-defined] # noqa: F821


def test_three_front_ends_give_the_same_program() -> None:
    from_text = nos_ext.compile_rule(TEXT)
    assert from_text.disassemble() == LISTING
    assert nos_ext.compile_rule(powersign).bytecode == from_text.bytecode
    lr, beta, base, decay, m = hyper("lr"), hyper("beta"), hyper("base"), hyper("decay"), state("m")
    new_m = beta * m + (1 - beta) * GRAD
    new_p = PARAM - lr * apply("exp", ops.log(base) * decay * ops.sign(GRAD) * ops.sign(new_m)) * GRAD
    built = Rule("powersign", ["m"], {"lr": None, "beta": 0.9, "base": ops.e, "decay": 1}, [new_p, new_m])
    assert built.compile().bytecode == from_text.bytecode
    assert powersign.doc == "PowerSign."


def make(source: str) -> Callable[..., Any]:
    """The function of a source, as a module would have it."""
    names: dict[str, Any] = {}
    exec(source, names)
    function: Callable[..., Any] = names["f"]
    return function


SAME = [
    "def f(p, g, *, lr):\n    return p - lr * 2 ** 0.5 * g / 3 * (1 / 3)",
    "def f(p, g, *, lr):\n    k = 2\n    return p - lr * (g ** k + (-g) ** 3 + 2 ** g + g ** 2.0)",
    "def f(p, g, *, lr, a=1 - 0.1, b=-2e-3, c=1 / 3, d=2 ** 0.5):\n    return p - lr * g * a * b * c * d",
    "def f(p, g, *, lr):\n    p = p * (1 - lr)\n    g += 0.1 * p\n    g *= 2\n    return p - lr * g",
    "def f(p, g, m, *, lr):\n    return p - lr * where(g > m, min(g, m), max(abs(g), 1)) * (g != 0), clip(g, 0.5)",
    "def f(p, g, *, lr):\n    return p - lr * (-g + +g - -1) * (1 < g) * (2 >= g) * (g == t)",
    "def f(p, g, *, lr):\n    x = exp(g)\n    return x * x + exp(g) - (g + p) * (p + g)",
    "def f(p, g, *, lr):\n    return drop(g, 0.5) - drop(g, 0.5) + normal(lr) * T + cos(pi * t / T) + sin(t % 3)",
    "def f(p, g, *, lr):\n    return p - lr * g * exp(1) * log(2) * sqrt(2) * pow(2, 3)",
    "def f(p, g, m, *, beta=0.5, lr, eps=1e-8):\n    return p, m * beta + eps",
    "def f(p, g, *, lr):\n    return p * inf - e",
]


@pytest.mark.parametrize("source", SAME)
def test_text_and_function_agree(source: str) -> None:
    assert nos_ext.compile_rule(make(source)).bytecode == nos_ext.compile_rule(source).bytecode


def test_square_is_written_as_a_power_of_two() -> None:
    assert [op for op, *_ in nos_ext.compile_rule("g ** 2").code] == ["square", "mul", "sub"]
    assert [op for op, *_ in nos_ext.compile_rule("pow(g, 2)").code] == ["pow", "mul", "sub"]
    assert nos_ext.compile_rule("clip(g, 1e-4)") == nos_ext.compile_rule("clip(g, -1e-4, 1e-4)")


def test_names() -> None:
    assert nos_ext.compile_rule("g").name == "rule"
    assert nos_ext.compile_rule("g", name="mine").name == "mine"
    assert nos_ext.compile_rule(powersign, name="mine").name == "mine"
    assert nos_ext.compile_rule(TEXT, name="mine").fingerprint == nos_ext.compile_rule(TEXT).fingerprint
    for name in ("two words", "", "1st", "for", "\N{GREEK SMALL LETTER ALPHA}", "n" * 129):
        for source in ("g", TEXT, powersign):
            with pytest.raises(RuleError):
                nos_ext.compile_rule(source, name=name)


def test_closures_and_helpers_work() -> None:
    factor = 3.0

    def scaled(x: Any) -> Any:
        return abs(x) * factor

    @nos_ext.rule
    def f(p, g, *, lr):  # type: ignore[no-untyped-def]
        for k in range(3):
            g = scaled(g) + np.float64(k) * np.float32(1)
        return p - lr * g

    assert (
        f.compile().bytecode
        == nos_ext.compile_rule(
            "def f(p, g, *, lr):\n    g = abs(g) * 3 + 0\n    g = abs(g) * 3 + 1\n    g = abs(g) * 3 + 2\n"
            "    return p - lr * g"
        ).bytecode
    )


def bad(body: str = "return p", arguments: str = "p, g, *, lr") -> Callable[..., Any]:
    return make(f"import math\ndef f({arguments}):\n    {body}")


BAD_FUNCTIONS: list[tuple[Any, str]] = [
    (bad("return p if g > 0 else g"), "use where"),
    (bad("return p and g"), "use where"),
    (bad("return p - (0 < g < 1)"), "use where"),
    (bad("return p - __builtins__['min'](g, p)"), "use where"),
    (bad("return p - math.exp(g)"), "TypeError.*line 3.*nos_ext.ops"),
    (bad("return p - float(g)"), "TypeError"),
    (bad("return p.sum()"), "AttributeError"),
    (bad("return p - [1, 2] * g"), "cannot be part of a rule"),
    (bad("return p - 'x' * g"), "cannot be part of a rule"),
    (bad("return p - (1 > 2) * g"), "write 1 or 0"),
    (bad("return p - 1j * g"), "cannot be part of a rule"),
    (bad("return p - float('nan') * g"), "NaN"),
    (bad("return p - 10 ** 400 * g"), "too large"),
    (bad("return p - 1 / 0"), "ZeroDivisionError"),
    (bad("return None"), "^the new p: None cannot be part of a rule"),
    (bad("return p, 'x'", "p, g, m, *, lr"), "^the new m: 'x' cannot be part of a rule"),
    (bad("return p, g"), "returns 2 values; it must return 1"),
    (bad("return exp(g, g)"), "takes 1 argument"),
    (bad("e = g; return p - e"), "'e' belongs to the rule language"),
    (bad("yield p"), "plain function"),
    (bad(arguments="p, g, m, *, lr"), "must return 2"),
    (bad(arguments="p, g, *args, lr"), "\\* and \\*\\*"),
    (bad(arguments="p, g, *, lr, **more"), "\\* and \\*\\*"),
    (bad(arguments="w, g, *, lr"), "first two arguments"),
    (bad(arguments="p, g, m=0, *, lr"), "no defaults"),
    (bad(arguments="p, g, *, lr=0.1"), "lr has a default"),
    (bad(arguments="p, g, *, beta=0.1"), "no lr"),
    (bad(arguments="p, g, *, lr, beta"), "no default"),
    (bad(arguments="p, g, *, lr, beta='x'"), "default of hyperparameter 'beta': 'x' cannot be part of a rule"),
    (bad(arguments="p, g, *, lr, beta=True"), "default of hyperparameter 'beta': True is not .*write 1 or 0"),
    (bad(arguments="p, g, *, lr, beta=float('nan')"), "default of hyperparameter 'beta': NaN"),
    (bad(arguments="p, g, *, lr, beta=range(1000)"), "'beta': range\\(0, 1000\\) cannot"),
    (bad("return p - list(range(1000)) * g"), "^f: .{,90} cannot be part of a rule"),
    (bad(arguments="p, g, sign, *, lr"), "belongs to the rule language"),
    (bad(arguments="p, g, \N{GREEK SMALL LETTER MU}, *, lr"), "use ASCII"),
    (print, "written with def"),
    (functools.partial(max), "written with def"),
    (3, "pass the text of a rule"),
    (None, "pass the text of a rule"),
    (b"g", "pass the text of a rule"),
    (GRAD * hyper("fade"), "an update has no fade; it may use the operands g, w"),
    (GRAD * state("fade"), "an update has no fade; it may"),
    (GRAD * state("cd"), "an update has no cd; it may"),
    (GRAD * state("beta1"), "an update has no beta1; it may"),
]


@pytest.mark.parametrize(("source", "message"), BAD_FUNCTIONS, ids=[case[1] for case in BAD_FUNCTIONS])
def test_bad_functions(source: Any, message: str) -> None:
    with pytest.raises(RuleError, match=message):
        nos_ext.compile_rule(source)


def test_a_variable_of_an_enclosing_function_may_not_hide_the_vocabulary() -> None:
    sign = 3.0

    def f(p, g, *, lr):  # type: ignore[no-untyped-def]
        return p - lr * g * sign

    with pytest.raises(RuleError, match="'sign'"):
        nos_ext.compile_rule(f)


def test_vocabulary_as_python_names() -> None:
    from nos_ext.ops import clip, normal, sqrt, where

    assert sqrt(4) == 2.0
    assert where(0, 1, 2) == 2.0
    assert isinstance(normal(0.1), nos_ext.Expr)
    assert repr(clip(GRAD, 1) * 2) == "Expr(clip(g, 1) * 2)"
    with pytest.raises(AttributeError, match="did you mean 'exp'"):
        _ = ops.expp
    with pytest.raises(AttributeError, match="build a new one"):
        GRAD.op = "param"
    assert (GRAD == 1).op == "eq"


def test_rule_checks_its_parts() -> None:
    with pytest.raises(RuleError, match="reads the state 'q', which the rule does not declare"):
        Rule("f", [], {"lr": None}, [state("q")])
    with pytest.raises(RuleError, match="reads the hyper 'q'"):
        Rule("f", [], {"lr": None}, [hyper("q")])
    with pytest.raises(RuleError, match="used twice"):
        Rule("f", ["m"], {"lr": None, "m": 1}, [PARAM, PARAM])
    with pytest.raises(RuleError, match="no op 'foo'"):
        apply("foo", GRAD)
    with pytest.raises(AttributeError):
        powersign.name = "x"  # type: ignore[misc]


def test_updates_use_only_the_operands_they_need() -> None:
    program = nos_ext.compile_rule("rmsprop * m")
    assert program.state_names == ("m", "v")
    assert program.hyperparameters == {"lr": None, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
    assert nos_ext.compile_rule("y + v").state_names == ("v", "y")
    assert nos_ext.compile_rule("g").hyperparameters == {"lr": None}
    assert nos_ext.compile_rule("g * beta1").hyperparameters == {"lr": None, "beta1": 0.9}
    assert nos_ext.compile_rule("w + p").disassemble().count("add p p") == 1
    assert nos_ext.compile_rule("ld").uses_total_steps
    assert not nos_ext.compile_rule("adam").uses_total_steps


def test_operands_used_twice_are_computed_once() -> None:
    listing = nos_ext.compile_rule("noise * noise + noise").disassemble()
    assert listing.count("normal") == 1
    assert nos_ext.compile_rule("normal(0.01) * normal(0.01)").disassemble().count("normal") == 2
    assert nos_ext.compile_rule("m * m_hat * adam").disassemble().count("mul beta1 m\n") == 1


@pytest.mark.parametrize("name", OPERANDS)
def test_every_operand_compiles_as_text_and_as_expression(name: str) -> None:
    assert as_rule(operand(name)).compile() == nos_ext.compile_rule(name)
    assert nos_ext.compile_rule(operand(name) * 2) == nos_ext.compile_rule(f"{name} * 2")


def test_updates_refuse_foreign_symbols() -> None:
    with pytest.raises(RuleError, match="an update has no q"):
        nos_ext.compile_rule(state("q") * 2)
    with pytest.raises(RuleError, match="an update has no alpha"):
        nos_ext.compile_rule(hyper("alpha") * constant(2))
    with pytest.raises(RuleError, match="the operands are g"):
        operand("q")


def test_an_update_may_read_the_state_of_the_last_step() -> None:
    rule = nos_ext.compile_rule(GRAD * state("m"))
    text = "def rule(p, g, m, *, lr, beta1=0.9):\n    return p - lr * (g * m), beta1 * m + (1 - beta1) * g"
    assert rule.fingerprint == nos_ext.compile_rule(text).fingerprint


def test_expressions_can_be_copied_and_pickled() -> None:
    noise = ops.normal(0.1)
    expression = GRAD * ops.exp(noise) + noise * PARAM + hyper("eps")
    rule = nos_ext.compile_rule(expression)
    for one in (copy.copy(expression), copy.deepcopy([expression])[0], pickle.loads(pickle.dumps(expression))):
        assert nos_ext.compile_rule(one) == rule
    assert copy.deepcopy({"a": noise})["a"] is noise


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("r", "m", {"lr": None}, [PARAM, GRAD]), "state_names is a str; pass a list of names"),
        (("r", None, {"lr": None}, [PARAM]), "state_names is a NoneType; pass a list of names"),
        (("r", [], ["lr"], [PARAM]), "hyperparameters is a list; pass a dict of defaults"),
        (("r", [], {"lr": None}, PARAM), "outputs is a Expr; pass a list of the new p"),
        (("r", [], {"lr": None}, None), "outputs is a NoneType; pass a list of the new p"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_arguments_of_rules(arguments: Any, message: str) -> None:
    with pytest.raises(RuleError, match=message):
        nos_ext.Rule(*arguments)
