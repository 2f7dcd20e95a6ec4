"""Program.from_bytes: a valid program or ValueError, whatever the bytes."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nos_ext
from nos_ext import _C
from nos_ext.optim import library

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
) -> bytes:
    def text(s: str) -> bytes:
        return struct.pack("<H", len(s.encode())) + s.encode()

    out = (
        b"NOSP"
        + struct.pack("<6H", 1, len(states), len(hypers), len(constants), len(scalar_code), len(code))
        + text(name)
    )
    out += b"".join(map(text, states))
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
    "version": (SGD[:4] + b"\x09\x00" + SGD[6:], "version 9; this build reads version 1"),
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


@pytest.mark.parametrize("name", BAD)
def test_refused_bytes(name: str) -> None:
    data, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        nos_ext.Program.from_bytes(data)


@pytest.mark.parametrize("default", [5.2e-313, 1e308, float("inf"), -0.0, 0.1], ids=str)
def test_listing_of_extreme_numbers(default: float) -> None:
    program = nos_ext.Program.from_bytes(assemble([], [0], hypers=(("lr", None), ("b", default))))
    assert f"b={default}".removesuffix(".0").replace("1e308", "1e+308") in program.disassemble()


@pytest.mark.parametrize("value", ["NOSP", None, 3, [1]])
def test_not_bytes(value: object) -> None:
    with pytest.raises(TypeError, match="bytes"):
        nos_ext.Program.from_bytes(value)  # type: ignore[arg-type]


def seeds() -> list[bytes]:
    return [nos_ext.compile_rule(getattr(library, name)).bytecode for name in library.names()]


def survive(data: bytes) -> bool:
    """Parses; a valid program also has to run and to list itself. True if it was valid."""
    try:
        program = nos_ext.Program.from_bytes(data)
    except ValueError:
        return False
    assert program.bytecode == data
    assert program.disassemble().startswith("rule ")
    for dtype in (np.float32, np.float64, np.float16):
        tensors = [[np.linspace(-2, 2, 37).astype(dtype)] for _ in range(2 + len(program.state_names))]
        with np.errstate(all="ignore"):
            nos_ext.apply_rule(program, tensors[0], tensors[1], tensors[2:], lr=0.1, step=3, total_steps=10)
    return True


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    survive(data)
    survive(SGD[:20] + data)


def test_mutated_programs() -> None:
    """20,000 mutants of the library's programs; `make fuzz` does a million under ASan and UBSan."""
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
