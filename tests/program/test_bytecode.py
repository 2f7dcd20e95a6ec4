"""Program.from_bytes: a valid program or ValueError, whatever the bytes."""

from __future__ import annotations

import random
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nos_ext
from nos_ext import _C
from nos_ext.optim import library
from tests.fuzz.make_corpus import REDUCING
from tests.reference.named import ONE_PROGRAM

OPS = {row["name"]: row["code"] for row in _C.op_table()}
S = 0x8000  # the scalar bit of an operand
LR, ONE = S | 2, S | 3  # scalars of the programs below: t, T, lr, then the constant 1


def instr(op: str, a: int = 0, b: int = 0, c: int = 0) -> bytes:
    return struct.pack("<BBHHH", OPS[op], 0, a, b, c)


def assemble(
    code: list[bytes],
    outputs: list[int],
    scalar_code: tuple[bytes, ...] = (),
    states: tuple[str, ...] = (),
    hypers: tuple[tuple[str, float | None], ...] = (("lr", None),),
    constants: tuple[float, ...] = (1.0,),
    name: str = "r",
    per_tensor: tuple[int, ...] | None = None,
) -> bytes:
    """The bytes of a program: of version 2 with a flag for each state, if `per_tensor` is given."""

    def text(s: str) -> bytes:
        return struct.pack("<H", len(s.encode())) + s.encode()

    out = (
        b"NOSP"
        + struct.pack(
            "<6H", 1 if per_tensor is None else 2, len(states), len(hypers), len(constants), len(scalar_code), len(code)
        )
        + text(name)
    )
    for i, state in enumerate(states):
        out += text(state) + (b"" if per_tensor is None else bytes([per_tensor[i]]))
    out += b"".join(text(n) + struct.pack("<Bd", d is not None, 0.0 if d is None else d) for n, d in hypers)
    out += b"".join(struct.pack("<d", c) for c in constants) + b"".join(scalar_code) + b"".join(code)
    return out + b"".join(struct.pack("<H", o) for o in outputs)


SGD = assemble([instr("mul", LR, 1), instr("sub", 0, 2)], [3])


def test_hand_made_program_runs() -> None:
    program = nos_ext.Program.from_bytes(SGD)
    assert program.bytecode == SGD
    assert len(program) == 2
    p = [np.ones(3, np.float32)]
    nos_ext.apply_rule(program, p, [np.full(3, 2.0, np.float32)], {}, lr=0.25)
    assert p[0].tolist() == [0.5] * 3


BAD = {
    "empty": (b"", "ends inside the magic number"),
    "magic": (b"PK\x03\x04" + SGD[4:], "does not start with 'NOSP'"),
    "version": (SGD[:4] + b"\x09\x00" + SGD[6:], "version 9; this build reads versions 1 and 2"),
    "truncated": (SGD[:-1], "ends inside the outputs"),
    "trailing": (SGD + b"\0", "1 bytes too many at the end"),
    "opcode": (SGD.replace(instr("mul", LR, 1), b"\xfa" + instr("mul", LR, 1)[1:]), "opcode 250 does not exist"),
    "pad byte": (SGD.replace(instr("mul", LR, 1), instr("mul", LR, 1)[:1] + b"\1" + instr("mul", LR, 1)[2:]), "second byte"),
    "undefined value": (assemble([instr("mul", LR, 5)], [2]), r"instruction 0 \(mul\): value 5 is not defined yet"),
    "self reference": (assemble([instr("mul", LR, 2)], [2]), "value 2 is not defined yet"),
    "undefined scalar": (assemble([instr("mul", S | 9, 1)], [2]), "scalar 9 is not defined yet"),
    "undefined output": (assemble([instr("mul", LR, 1)], [3]), "output 0: value 3 is not defined yet"),
    "all scalars": (assemble([instr("mul", LR, ONE)], [2]), "belongs in the scalar code"),
    "value in scalar code": (assemble([], [0], (instr("mul", LR, 1),)), "reads a per-element value"),
    "scalar op on tensor": (assemble([instr("cos", 1)], [2]), "works on scalars only"),
    "random scalar": (assemble([], [0], (instr("normal", ONE),)), "works on tensors only"),
    "shared site": (assemble([instr("drop", 1, ONE, 3), instr("drop", 1, ONE, 3)], [2]), "site 3 is used twice"),
    "site range": (assemble([instr("drop", 1, ONE, 4095)], [2]), "site 4095 is out of range"),
    "tensor prob": (assemble([instr("drop", 1, 0, 0)], [2]), "its last operand must be a scalar"),
    "unused operand": (assemble([instr("neg", 1, 1)], [2]), "an unused operand must be 0"),
    "no lr": (assemble([], [0], hypers=(("beta", 0.9),)), "first hyperparameter must be lr"),
    "lr default": (assemble([], [0], hypers=(("lr", 0.1),)), "first hyperparameter must be lr, without a default"),
    "no default": (assemble([], [0], hypers=(("lr", None), ("b", None))), "hyperparameter 'b' has no default"),
    "NaN default": (assemble([], [0], hypers=(("lr", None), ("b", float("nan")))), "default of hyperparameter 'b' is NaN"),
    "NaN constant": (assemble([], [0], constants=(float("nan"),)), "a constant is NaN"),
    "same names": (assemble([], [0, 2], states=("lr",)), "the name 'lr' is used twice"),
    "reserved name": (assemble([], [0, 2], states=("t",)), "'t' belongs to the rule language and cannot name a state"),
    "argument name": (assemble([], [0], hypers=(("lr", None), ("seed", 1.0))), "'seed' is an argument of nos_ext.apply_rule"),
    "name": (assemble([], [0], name="no good"), "'no good' cannot name a rule; use ASCII letters"),
    "hidden name": (assemble([], [0], name="\u0430"), r"'\\xd0\\xb0' cannot name a rule; use ASCII letters"),
    "bytes that are no text": (
        assemble([], [0], hypers=(("lr", None), ("b", 1.0))).replace(b"\1\0b\1", b"\1\0\xff\1"), r"'\\xff' cannot name a hyperparameter"),
    "flag of a name that is no text": (
        assemble([], [0], hypers=(("lr", None), ("b", 1.0))).replace(b"\1\0b\1", b"\1\0\xff\2"), r"default flag of hyperparameter '\\xff'"),
    "too many states": (SGD[:6] + b"\x09\x00" + SGD[8:], "number of states is 9; the limit is 8"),
    "huge code": (SGD[:14] + b"\xff\xff" + SGD[16:], "length of the code is 65535; the limit is 4096"),
}  # fmt: skip


# Version 2, with the states m, a tensor, and k, one number per tensor: k is the scalar after the constant 1.
TWO = ("m", "k")
K, NORM = S | 4, S | 5  # the state k, and the first tensor scalar of the code


def reducing(
    code: list[bytes], outputs: list[int], flags: tuple[int, ...] = (0, 1), scalars: tuple[bytes, ...] = ()
) -> bytes:
    return assemble(code, outputs, scalars, states=TWO, per_tensor=flags)


AVERAGED = reducing([instr("norm", 1), instr("add", K, NORM), instr("mul", S | 6, 2)], [4, 2, S | 6])
BAD_REDUCTIONS = {
    "a flag that is none": (reducing([instr("norm", 1)], [0, 2, NORM], (0, 2)), "the flag of state 'k' is not 0 or 1"),
    "ends in a flag": (AVERAGED[:29], "ends inside"),
    "in version 1": (assemble([instr("norm", 1)], [0]), r"instruction 0 \(norm\): a reduction needs version 2"),
    "in scalar code": (reducing([instr("norm", 1)], [0, 2, K], scalars=(instr("norm", ONE),)), "a reduction works on tensors only"),
    "global in scalar code": (
        reducing([instr("norm", 1)], [0, 2, K], scalars=(instr("global_sum", ONE),)), "a reduction works on tensors only"),
    "of a scalar": (reducing([instr("norm", ONE)], [0, 2, NORM]), r"instruction 0 \(norm\): a reduction reads per-element values only"),
    "of a number per tensor": (reducing([instr("norm", K)], [0, 2, NORM]), "a reduction reads per-element values only"),
    "dot of a scalar": (reducing([instr("dot", 1, LR)], [0, 2, NORM]), "a reduction reads per-element values only"),
    "a state that is no value": (
        reducing([instr("norm", 3)], [0, 2, NORM]), "reads state 'k', one number per tensor, as a per-element value"),
    "a state that is no value, by an op": (
        reducing([instr("norm", 1), instr("add", 1, 3)], [0, 2, NORM]), r"instruction 1 \(add\): reads state 'k', one number"),
    "a state that is no value, as p": (reducing([instr("norm", 1)], [3, 2, NORM]), "output 0: reads state 'k', one number"),
    "undefined number": (reducing([instr("norm", 1), instr("add", K, S | 6)], [0, 2, NORM]), "scalar 6 is not defined yet"),
    "read before the code": (
        reducing([instr("norm", 1)], [0, 2, NORM], scalars=(instr("neg", S | 6),)), "scalar 6 is not defined yet"),
    "a value of an instruction that gives none": (
        reducing([instr("norm", 1), instr("add", 1, 4)], [0, 2, NORM]), "value 4 is not defined yet"),
    "no number": (
        reducing([instr("neg", 1)], [4, 2, 3], (0, 0)), "version 2 is for programs with reductions or states .*, and there is neither"),
    "scalars only": (reducing([instr("norm", 1), instr("mul", LR, ONE)], [0, 2, NORM]), "belongs in the scalar code"),
    "cosine of a tensor": (reducing([instr("norm", 1), instr("cos", 1)], [0, 2, NORM]), "works on scalars only"),
    "unused operand": (reducing([instr("norm", 1, 1)], [0, 2, NORM]), "an unused operand must be 0"),
    "p is a number": (reducing([instr("norm", 1)], [NORM, 2, NORM]), "output 0: is one number per tensor, but p or the state is not"),
    "a tensor state gets a number": (
        reducing([instr("norm", 1)], [0, K, NORM]), "output 1: is one number per tensor, but p or the state is not"),
    "a number gets a tensor": (
        reducing([instr("norm", 1)], [0, 2, 1]), "output 2: is a per-element value, but the state is one number per tensor"),
}  # fmt: skip
BAD |= {f"reductions: {name}": case for name, case in BAD_REDUCTIONS.items()}


@pytest.mark.parametrize("name", BAD)
def test_refused_bytes(name: str) -> None:
    data, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        nos_ext.Program.from_bytes(data)


def test_hand_made_program_with_reductions() -> None:
    program = nos_ext.Program.from_bytes(AVERAGED)
    assert (program.bytecode, program.state_names, program.per_tensor_states) == (AVERAGED, TWO, ("k",))
    assert program.disassemble().splitlines()[1:] == [
        "  n0 = norm g", "  n1 = add k n0", "  v0 = mul n1 m", "  p <- v0", "  m <- m", "  k <- n1",
    ]  # fmt: skip
    arguments: Any = ([np.zeros(2)], [np.array([3.0, 4.0])], [[np.array([1.0, 2.0])], [np.array(0.5)]])
    (p,), states = program.reference(*arguments, lr=0.1)
    assert (p.tolist(), states["k"][0].tolist(), states["m"][0].tolist()) == ([5.5, 11.0], 5.5, [1.0, 2.0])
    nos_ext.apply_rule(program, *arguments, lr=0.1)
    assert (arguments[0][0].tolist(), arguments[2][1][0].tolist()) == ([5.5, 11.0], 5.5)


@pytest.mark.parametrize("default", [5.2e-313, 1e308, float("inf"), -0.0, 0.1], ids=str)
def test_listing_of_extreme_numbers(default: float) -> None:
    program = nos_ext.Program.from_bytes(assemble([], [0], hypers=(("lr", None), ("b", default))))
    assert f"b={default}".removesuffix(".0").replace("1e308", "1e+308") in program.disassemble()


@pytest.mark.parametrize("value", ["NOSP", None, 3, [1]])
def test_not_bytes(value: object) -> None:
    with pytest.raises(TypeError, match="bytes"):
        nos_ext.Program.from_bytes(value)  # type: ignore[arg-type]


def seeds() -> list[bytes]:
    return [nos_ext.compile_rule(rule).bytecode for rule in [*map(library.get, ONE_PROGRAM), *REDUCING]]


def survive(data: bytes) -> bool:
    """Parses; a valid program also has to run and to list itself. True if it was valid."""
    try:
        program = nos_ext.Program.from_bytes(data)
    except ValueError:
        return False
    assert program.bytecode == data
    assert program.disassemble().startswith("rule ")
    for dtype in (np.float32, np.float64, np.float16):
        numbers = program.per_tensor_states
        tensors = [[np.linspace(-2, 2, 37).astype(dtype)] for _ in "pg"]
        for name in program.state_names:
            tensors.append([np.array(0.5, np.float32).astype(dtype) if name in numbers else tensors[0][0].copy()])
        with np.errstate(all="ignore"):
            nos_ext.apply_rule(program, tensors[0], tensors[1], tensors[2:], lr=0.1, step=3, total_steps=10)
    return True


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    survive(data)
    survive(SGD[:20] + data)


def test_mutated_programs() -> None:
    """20,000 mutants of the library's programs and of some with reductions; `make fuzz` does a million under ASan and UBSan."""
    rng = random.Random(0)
    corpus = seeds()
    valid = 0
    for _ in range(20_000):
        data = bytearray(rng.choice(corpus))
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            at = rng.randrange(len(data))
            match rng.randrange(4):
                case 0:
                    data[at] = rng.randrange(256)
                case 1:
                    data[at] = (data[at] + rng.choice((-1, 1))) % 256
                case 2:
                    del data[at : at + rng.choice((1, 2, 8))]
                case 3:
                    data[at:at] = data[at : at + rng.choice((1, 2, 8))]
        valid += survive(bytes(data))
    assert valid > 1000  # otherwise this test would only exercise the header
