"""Program as a Python object, and the constants that Python shares with the C++ sources."""

from __future__ import annotations

import pickle
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import nos_ext
from nos_ext import Program
from nos_ext.optim import library
from nos_ext.rule import compile as compiler
from nos_ext.rule import definition

SOURCES = Path(__file__).parents[2] / "csrc"


def test_object() -> None:
    program = library.powersign.compile()
    assert type(program) is Program
    assert program.name == "powersign"
    assert program.state_names == ("m",)
    assert list(program.hyperparameters) == ["lr", "beta", "base", "sign_decay", "weight_decay"]
    assert repr(program) == f"<nos_ext.Program powersign: 12 instructions, states m, {program.fingerprint[:8]}>"
    assert len(program.fingerprint) == 32
    assert program.rule.name == "powersign"


def test_equality_hash_and_pickle() -> None:
    one, other = library.adam.compile(), library.adam.compile()
    assert one == other
    assert hash(one) == hash(other)
    assert one != library.adamw.compile()
    assert one != one.bytecode
    copy = pickle.loads(pickle.dumps(one))
    assert type(copy) is Program
    assert copy == one
    renamed = nos_ext.compile_rule(library.adam, name="other")
    assert renamed != one
    assert renamed.fingerprint == one.fingerprint


def test_from_bytes() -> None:
    program = library.lion.compile()
    for kind in (bytes, bytearray, memoryview):
        assert Program.from_bytes(kind(program.bytecode)) == program
    for wrong in ("text", None, [1, 2], program):
        with pytest.raises(TypeError, match="pass the bytes"):
            Program.from_bytes(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="bytecode"):
        Program.from_bytes(program.bytecode[:-1])


def test_programs_of_foreign_make() -> None:
    """Bytecode that no compiler here wrote: its own order, its own sites; read back as it is."""
    program = nos_ext.compile_rule("drop(g, 0.5) * 2")
    assert program.code[0] == ("drop", 1, program.code[0][2], 0)
    foreign = program.bytecode.replace(
        bytes([29, 0]) + b"".join(x.to_bytes(2, "little") for x in program.code[0][1:]),
        bytes([29, 0]) + b"".join(x.to_bytes(2, "little") for x in (*program.code[0][1:3], 77)),
    )
    other = Program.from_bytes(foreign)
    assert other.code[0][3] == 77
    import numpy as np

    p = [np.zeros(1000)]
    g = [np.ones(1000)]
    (expected,), _ = other.reference(p, g, lr=1.0, seed=5)
    nos_ext.apply_rule(other, p, g, {}, lr=1.0, seed=5)
    assert np.array_equal(p[0], expected)
    (usual,), _ = program.reference([np.zeros(1000)], g, lr=1.0, seed=5)
    assert not np.array_equal(usual, expected)


def test_limits_are_those_of_the_bytecode() -> None:
    header = (SOURCES / "program" / "bytecode.h").read_text(encoding="utf-8")
    limits = {name: int(value) for name, value in re.findall(r"\bk(\w+) = (\d+)[,;]", header)}
    assert limits["Elementwise"] == compiler.ELEMENTWISE
    assert limits["WithReductions"] == compiler.WITH_REDUCTIONS
    assert limits["MaxStates"] == definition.MAX_STATES
    assert limits["MaxHypers"] == definition.MAX_HYPERS
    assert limits["MaxConstants"] == compiler.MAX_CONSTANTS
    assert limits["MaxScalarCode"] == compiler.MAX_SCALAR_CODE
    assert limits["MaxCode"] == compiler.MAX_CODE
    assert limits["MaxSites"] == compiler.MAX_SITES


def calls_of(function: Callable[[], object]) -> int:
    """How many functions a call of this one calls, Python's and C's: the same number on every machine."""
    count = 0

    def profile(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    function()  # what is done once per process
    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(before)
    return count


def test_compiling_is_little_work() -> None:
    """Thousands of rules are compiled in a search. 918 calls when this was written, with Python 3.11."""
    assert calls_of(lambda: nos_ext.compile_rule(library.ENTRIES["powersign"].text)) < 2000


def test_the_work_of_compiling_grows_with_the_rule() -> None:
    short, long = (
        calls_of(lambda n=n: nos_ext.compile_rule("g" + "".join(f" + {i} * m" for i in range(n)))) for n in (200, 800)
    )
    assert long < 4.4 * short
