"""Programs for tests, made of instructions: one for each op, and random ones of the kinds that a search makes."""

from __future__ import annotations

import random
import struct

import nos_ext
from nos_ext import _C

OPS = {row["name"]: row["code"] for row in _C.op_table()}
ARITY = {row["name"]: row["arity"] for row in _C.op_table()}
ELEMENTWISE = [row["name"] for row in _C.op_table() if row["domain"] == "any"]
RANDOM = [row["name"] for row in _C.op_table() if row["domain"] == "random"]
CHEAP = ["add", "sub", "mul", "div", "fma", "min", "max", "sign", "abs", "neg", "where", "lt", "sqrt", "square"]
DEAR = ["exp", "log", "tanh", "pow", "rsqrt"]
S = 0x8000
T, TOTAL, LR = S, S | 1, S | 2
CONSTANTS = (1.0, 0.5, -0.0, 0.9, -2.5, 1e-8, 0.3, 1e-40)
SCALARS = 3 + len(CONSTANTS)


def assemble(code: list[tuple[int, ...]], outputs: list[int], constants: tuple[float, ...] = CONSTANTS) -> _C.Program:
    """A program of (opcode, a, b, c) with the scalars t, T, lr and the constants; one state per further output."""

    def text(s: str) -> bytes:
        return struct.pack("<H", len(s)) + s.encode()

    states = len(outputs) - 1
    out = b"NOSP" + struct.pack("<6H", 1, states, 1, len(constants), 0, len(code)) + text("r")
    out += b"".join(text(f"s{i}") for i in range(states)) + text("lr") + struct.pack("<Bd", 0, 0.0)
    out += b"".join(struct.pack("<d", c) for c in constants)
    out += b"".join(struct.pack("<BBHHH", op, 0, a, b, c) for op, a, b, c in code)
    return nos_ext.Program.from_bytes(out + b"".join(struct.pack("<H", o) for o in outputs))


def of_op(name: str, scalars: int = 0) -> _C.Program:
    """p <- op(...) of p, g and two states; bit k of `scalars` makes operand k the scalar 0.3 (or lr)."""
    operands = [(S | 9) if scalars >> k & 1 else (1, 2, 3)[k] for k in range(ARITY[name])]
    if name in RANDOM:
        operands = [1, S | 9][-ARITY[name] :] + [7][: 3 - ARITY[name]] if name == "drop" else [LR, 0, 7]
    code = [(OPS[name], *(operands + [0, 0])[:3])]
    return assemble(code, [4, 2, 3])


def random_program(
    rng: random.Random, ops: int, states: int, *, draws: bool = True, dear: float = 0.2, wide: bool = False
) -> _C.Program:
    """`ops` instructions, each on values that few others have read; every state gets a new value.

    dear: the share of instructions that are slow functions, at least; at 0 there are none. wide: as many instructions
    again read all the values in turn, which are alive together until then.
    """
    first = 2 + states
    unread = list(range(first))
    code: list[tuple[int, ...]] = []
    others = ELEMENTWISE if dear else [name for name in ELEMENTWISE if name not in DEAR]
    for pc in range(ops):

        def value(pc: int = pc) -> int:
            if unread and rng.random() < 0.8:
                return unread.pop(rng.randrange(len(unread)))
            return rng.randrange(first + pc)

        def scalar() -> int:
            return S | rng.randrange(SCALARS)

        kind = rng.random()
        name = rng.choice(CHEAP if kind < 0.5 else DEAR if kind < 0.5 + dear else others)
        if draws and kind > 0.96:
            name = rng.choice(RANDOM)
            code.append((OPS[name], value(), S | 9, pc) if name == "drop" else (OPS[name], LR, 0, pc))
        else:
            operands = [value()] + [scalar() if rng.random() < 0.3 else value() for _ in range(ARITY[name] - 1)]
            rng.shuffle(operands)
            code.append((OPS[name], *(operands + [0, 0])[:3]))
        unread.append(first + pc)
    for i in range(ops if wide else 0):
        code.append((OPS[rng.choice(("add", "sub", "max", "mul"))], first + i, first + len(code) - 1, 0))
    results = [first + len(code) - 1 - k if k < len(code) else k for k in range(1 + states)]
    if states and rng.random() < 0.2:
        results[-1] = rng.choice([0, 1, 2, S | 5])  # an input, or a scalar, as a state's new value
    return assemble(code, results)


def random_rules(seed: int, count: int) -> list[_C.Program]:
    """Of 3 to 16 instructions, each fortieth of 40."""
    rng = random.Random(seed)
    lengths = [rng.choice((3, 5, 8, 12, 16)) if i % 40 else 40 for i in range(count)]
    return [random_program(rng, length, rng.randint(0, 3)) for length in lengths]
