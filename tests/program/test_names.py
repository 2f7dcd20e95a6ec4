"""One rule for names: what bytecode may call a rule, a state or a hyperparameter is what the rule language may."""

from __future__ import annotations

import inspect
import keyword
import random
import string
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import nos_ext
from nos_ext import _C, RuleError, captured, ops
from nos_ext.optim import library
from nos_ext.rule import Rule
from nos_ext.rule.expr import GRAD, PARAM, hyper, state
from tests.program.test_bytecode import assemble
from tests.reference.named import ONE_PROGRAM

TABLE = _C.name_table()
KINDS = ("rule", "state", "hyperparameter")
# identifiers that Python or another tool gives a meaning, but not as keywords
LEGAL = (
    "true",
    "none",
    "super",
    "match",
    "case",
    "type",
    "_",
    "__",
    "print",
    "self",
    "__class__",
    "lambda_",
    "x1",
    "m_new",
)
CALLS = {"apply_rule": nos_ext.apply_rule, "apply_population": nos_ext.apply_population}


def bytecode(kind: str, name: str) -> bytes:
    if kind == "rule":
        return assemble([], [0], name=name)
    if kind == "state":
        return assemble([], [0, 2], states=(name,))
    return assemble([], [0], hypers=(("lr", None), (name, 1.0)))


def rule(kind: str, name: str) -> Rule:
    states = {name: None} if kind == "state" else {}
    hypers: dict[str, float | None] = {"lr": None, **({name: 1.0} if kind == "hyperparameter" else {})}
    return Rule(name if kind == "rule" else "r", list(states), hypers, [PARAM, *map(state, states)])


def text(kind: str, name: str) -> str:
    arguments = {"rule": "p, g, *, lr", "state": f"p, g, {name}, *, lr", "hyperparameter": f"p, g, *, lr, {name}=1"}
    result = f"p, {name}" if kind == "state" else "p"
    return f"def {name if kind == 'rule' else 'r'}({arguments[kind]}):\n    return {result}\n"


def accepts(make: Any, *arguments: Any) -> bool:
    try:
        make(*arguments)
    except ValueError:
        return False
    return True


def all_agree(kind: str, name: str) -> bool:
    """Whether bytecode, graph and text take the name, which they must do alike."""
    ways = [
        accepts(nos_ext.Program.from_bytes, bytecode(kind, name)),
        accepts(rule, kind, name),
        accepts(nos_ext.compile_rule, text(kind, name)),
    ]
    assert ways in ([True] * 3, [False] * 3), (kind, name, ways)
    return ways[0]


@pytest.mark.parametrize("kind", KINDS)
def test_names_that_are_taken(kind: str) -> None:
    refused = set(TABLE["python"]) | {"lr"} if kind != "rule" else set(TABLE["python"])
    if kind != "rule":
        refused |= set(TABLE["language"])
    if kind == "hyperparameter":
        refused |= set(TABLE["arguments"])
    for name in {*TABLE["python"], *TABLE["language"], *TABLE["arguments"], *LEGAL, "lr"}:
        if kind == "hyperparameter" and name == "lr":
            continue  # every rule has it
        assert all_agree(kind, name) == (name not in refused), name


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(KINDS), st.text(string.ascii_letters + string.digits + "_é\u0430\u212a", min_size=1, max_size=6))
@example("rule", "x" * 128)
@example("rule", "x" * 129)
@example("state", "\u212a")  # NFKC makes it K
def test_bytecode_and_language_agree(kind: str, name: str) -> None:
    if name != "lr":
        all_agree(kind, name)


def test_the_table_is_true() -> None:
    assert set(keyword.kwlist) <= set(TABLE["python"]), "a newer Python has keywords that csrc/program/names.cc lacks"
    assert set(TABLE["python"]) - set(keyword.kwlist) <= {"__debug__"}
    assert set(TABLE["language"]) == {"p", "g", *ops.CONSTANTS, *ops.OPS}
    called = {name for call in CALLS.values() for name in inspect.signature(call).parameters}
    assert set(TABLE["arguments"]) == called - {"lr", "hyperparameters"}


@pytest.mark.parametrize("function", CALLS)
def test_every_argument_is_described(function: str) -> None:
    doc = CALLS[function].__doc__ or ""
    for name, parameter in inspect.signature(CALLS[function]).parameters.items():
        stars = "**" if parameter.kind is parameter.VAR_KEYWORD else ""
        assert f"\n    {stars}{name}: " in doc, name


@pytest.mark.parametrize("name", sorted(set(TABLE["arguments"])))
def test_a_hyperparameter_cannot_be_shadowed_by_an_argument(name: str) -> None:
    """Else its value would go to one or the other, and not to the same in the two calls."""
    with pytest.raises(RuleError, match=f"'{name}' is an argument of nos_ext.apply_rule"):
        Rule("r", [], {"lr": None, name: 0.5}, [PARAM - hyper(name) * GRAD])


def shows(program: nos_ext.Program) -> nos_ext.Program:
    """The program that its text compiles to; LaTeX and an export are there too."""
    again = nos_ext.compile_rule(program.to_text())
    assert nos_ext.compile_rule(again.to_text()) == again
    assert program.to_latex().startswith("\\begin{aligned}")
    compile(program.to_pytorch(), program.name, "exec")
    return again


def results(program: nos_ext.Program) -> list[bytes]:
    lists = [[np.linspace(-2, 2, 37).astype(np.float32)] for _ in range(2 + len(program.state_names))]
    for slot, name in enumerate(program.state_names, 2):
        if name in program.per_tensor_states:
            lists[slot] = [np.array(0.5, np.float32)]
    with np.errstate(all="ignore"):
        nos_ext.apply_rule(program, lists[0], lists[1], lists[2:], lr=0.1, step=3, total_steps=10)
    return [np.where(np.isnan(x), np.float32(np.nan), x).tobytes() for (x,) in (lists[0], *lists[2:])]


def test_whatever_is_accepted_can_be_shown() -> None:
    """Mutants of the library: text that means the same, bit for bit, LaTeX and an export."""
    rng = random.Random(5)
    corpus = [library.get(name).compile().bytecode for name in ONE_PROGRAM]
    found = set()
    while len(found) < 400:
        data = bytearray(rng.choice(corpus))
        for _ in range(rng.choice((1, 1, 2, 4))):
            at = rng.randrange(len(data))
            match rng.randrange(3):
                case 0:
                    data[at] = rng.randrange(256)
                case 1:
                    del data[at : at + rng.choice((1, 8))]
                case 2:
                    data[at:at] = data[at : at + rng.choice((1, 8))]
        if bytes(data) in found or not accepts(nos_ext.Program.from_bytes, bytes(data)):
            continue
        found.add(bytes(data))
        program = nos_ext.Program.from_bytes(bytes(data))
        again = shows(program)
        assert again.name == program.name
        assert again.state_names == program.state_names
        assert dict(again.hyperparameters) == dict(program.hyperparameters)
        if not program.uses_random:  # text numbers the draws anew
            assert results(again) == results(program), program.disassemble()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LEGAL)
def test_names_that_look_odd_can_be_shown(kind: str, name: str) -> None:
    program = nos_ext.Program.from_bytes(bytecode(kind, name))
    if kind != "rule" and (name == "self" or name.startswith("__")):  # a method of a class cannot have such an argument
        with pytest.raises(nos_ext.RuleError, match=f"'{name}'"):
            program.to_pytorch()
        return
    assert shows(program).identity() == nos_ext.compile_rule(text(kind, name)).identity()


@pytest.mark.parametrize("name", ONE_PROGRAM)
def test_the_library_still_loads(name: str) -> None:
    program = library.get(name).compile()
    assert nos_ext.Program.from_bytes(program.bytecode) == program


@pytest.mark.parametrize("name", ["rule", "index", "max_scalars"])
def test_a_captured_step_has_arguments_of_its_own(name: str) -> None:
    program = rule("hyperparameter", name).compile()
    with pytest.raises(ValueError, match=f"'{name}', which is an argument of CapturedStep"):
        nos_ext.CapturedStep(program, [], [], [], lr=0.1)


def test_the_own_arguments_of_a_captured_step_are_all_known() -> None:
    calls = (nos_ext.CapturedStep.__init__, nos_ext.CapturedStep.set, nos_ext.CapturedStep.load)
    named = {name for call in calls for name in inspect.signature(call).parameters}
    own = named - set(TABLE["arguments"]) - {"self", "lr", "hyper", "hyperparameters"}
    assert own == captured._OWN
