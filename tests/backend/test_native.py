"""The native tier gives the interpreter's bits (NaN payloads aside) on every instruction set and writes nowhere else.

The tier is chosen when the module is loaded, so each configuration runs the same cases in a process of its own and the
results are compared here.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nos_ext
from nos_ext import _C

OPS = {row["name"]: row["code"] for row in _C.op_table()}
ARITY = {row["name"]: row["arity"] for row in _C.op_table()}
ELEMENTWISE = [row["name"] for row in _C.op_table() if row["domain"] == "any"]
S = 0x8000
T, TOTAL, LR = S, S | 1, S | 2
CONSTANTS = (1.0, 0.0, -0.0, 0.9, -2.5, float("inf"), float("-inf"), 1e-40, 3e38, 1e-60)
FIRST_CONSTANT = S | 3

EDGES = np.array(
    [
        np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1e-45, -1e-45, 1.17549435e-38,
        -1.17549435e-38, 1e-40, -3e-39, 3.4028235e38, -3.4028235e38, 8388607.5, -8388608.5, 16777216.0, 2.5, -2.5,
        88.7, -103.9, 1e-8, 1 + 2**-23, 0.99999994, -1.5, 3.0, 7.0, 1e20, -1e20,
    ],
    np.float32,
)  # fmt: skip


def program(code: list[tuple[int, ...]], outputs: list[int], states: int = 0) -> nos_ext.Program:
    """A program of (opcode, a, b, c) with the scalars t, T, lr and CONSTANTS."""

    def text(s: str) -> bytes:
        return struct.pack("<H", len(s)) + s.encode()

    out = b"NOSP" + struct.pack("<6H", 1, states, 1, len(CONSTANTS), 0, len(code)) + text("r")
    out += b"".join(text(f"s{i}") for i in range(states)) + text("lr") + struct.pack("<Bd", 0, 0.0)
    out += b"".join(struct.pack("<d", c) for c in CONSTANTS)
    out += b"".join(struct.pack("<BBHHH", op, 0, a, b, c) for op, a, b, c in code)
    return nos_ext.Program.from_bytes(out + b"".join(struct.pack("<H", o) for o in outputs))


BF16 = np.uint16  # bfloat16 travels as its bits


def canonical(x: np.ndarray) -> np.ndarray:
    """The bits, with one NaN for all."""
    if x.dtype == BF16:
        return np.where(x & 0x7FFF > 0x7F80, np.uint16(0x7FC0), x)
    x = np.where(np.isnan(x), np.nan, x).astype(x.dtype)
    return x.view({2: np.uint16, 4: np.uint32, 8: np.uint64}[x.itemsize])


def values(rng: np.random.Generator, n: int, dtype: type = np.float32) -> np.ndarray:
    kind = rng.integers(0, 4)
    x = rng.standard_normal(n).astype(np.float32)
    if kind == 1:
        x = rng.choice(EDGES, n)
    elif kind == 2:
        x = rng.integers(0, 2**32, n, dtype=np.uint32).view(np.float32)
    elif kind == 3:
        x = np.where(rng.random(n) < 0.1, rng.choice(EDGES, n), x)
    if dtype is BF16:
        return (x.view(np.uint32) >> 16).astype(BF16)
    with np.errstate(all="ignore"):
        return x.astype(dtype)


PAD = 24  # canaries on either side, elements


def run(p: nos_ext.Program, tensors: list[list[np.ndarray]], offset: int = 0, **kw: Any) -> Iterator[np.ndarray]:
    """Applies p to copies that lie `offset` elements off alignment between canaries. Yields every tensor afterwards."""
    memory: list[tuple[np.ndarray, int]] = []
    views: list[list[Any]] = []
    for slot in tensors:
        views.append([])
        for x in slot:
            m = np.full(x.size + 2 * PAD + offset, 77, x.dtype)
            v = m[PAD + offset : PAD + offset + x.size]
            v[:] = x
            memory.append((m, x.size))
            views[-1].append(torch.from_numpy(v.view(np.int16)).view(torch.bfloat16) if v.dtype == BF16 else v)
    with np.errstate(all="ignore"):
        nos_ext.apply_rule(p, views[0], views[1], views[2:], lr=0.1, step=3, total_steps=10, seed=5, **kw)
    for m, n in memory:
        assert (m[: PAD + offset] == 77).all()
        assert (m[PAD + offset + n :] == 77).all()
        yield m[PAD + offset : PAD + offset + n]


# ---- cases: each yields arrays to compare ----------------------------------------------------------------------------
def every_op() -> Iterator[np.ndarray]:
    """Every op with every kind of operand on all pairs and triples of edge values."""
    n = len(EDGES)
    a, b, c = (x.ravel() for x in np.meshgrid(EDGES, EDGES, EDGES, indexing="ij"))
    assert a.size == n**3
    for name in ELEMENTWISE:
        arity = ARITY[name]
        size = n**arity
        slots = [a[-size:], b[-size:], c[-size:]] if arity == 3 else [b[:size], c[:size], c[:size]]
        if arity == 1:
            slots = [EDGES] * 3
        for mask in range(2**arity - 1):
            for constant in range(len(CONSTANTS)) if mask else [0]:
                args = [FIRST_CONSTANT + (constant + k) % len(CONSTANTS) if mask >> k & 1 else k for k in range(arity)]
                args += [0] * (3 - arity)
                p = program([(OPS[name], *args)], [3, 2], states=1)
                yield from run(p, [[x] for x in slots])


def random_program(rng: random.Random, length: int, states: int, wide: bool = False) -> nos_ext.Program:
    """wide: keeps many values alive until the end."""
    code: list[tuple[int, ...]] = []
    inputs = 2 + states
    cheap = [op for op in ELEMENTWISE if op not in ("exp", "log", "pow", "tanh")]
    expensive = rng.choice((0.0, 0.0, 0.1, 0.3))
    scalars = [T, TOTAL, LR, *(FIRST_CONSTANT + i for i in range(len(CONSTANTS)))]
    for site in range(length):
        count = inputs + len(code)

        def value() -> int:
            if rng.random() < 0.5 and not wide:
                return rng.randrange(max(0, count - 4), count)  # noqa: B023
            return rng.randrange(count)  # noqa: B023

        kind = rng.random()
        if kind < expensive / 3:
            if rng.random() < 0.5:
                code.append((OPS["drop"], value() if rng.random() < 0.8 else LR, FIRST_CONSTANT + 3, site))
            else:
                code.append((OPS["normal"], LR, 0, site))
            continue
        name = rng.choice(("exp", "log", "pow", "tanh")) if kind < expensive else rng.choice(cheap)
        if rng.random() < 0.15:
            name = rng.choice(("sign", "mul", "where", "lt", "fma"))
        args = [value() if rng.random() < 0.75 else rng.choice(scalars) for _ in range(ARITY[name])]
        if all(x & S for x in args):
            args[rng.randrange(len(args))] = value()
        code.append((OPS[name], *args, *[0] * (3 - len(args))))
    if wide:  # a second half that reads all of the first
        half = len(code)
        for i in range(half):
            code.append((OPS[rng.choice(("add", "sub", "max", "mul"))], inputs + i, inputs + len(code) - 1, 0))
    count = inputs + len(code)
    outputs = [rng.randrange(max(0, count - 8), count) if rng.random() < 0.9 else rng.choice([LR, *range(inputs)])
               for _ in range(1 + states)]  # fmt: skip
    return program(code, outputs, states)


SIZES = [0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127, 128, 129, 200, 511, 512, 513, 1025]


def random_programs() -> Iterator[np.ndarray]:
    rng, numbers = random.Random(1), np.random.default_rng(1)
    for case in range(400):
        states = rng.randrange(9)
        p = random_program(rng, rng.choice((1, 2, 3, 5, 8, 15, 30, 60)), states)
        sizes = rng.sample(SIZES, 3)
        tensors = [[values(numbers, n) for n in sizes] for _ in range(2 + states)]
        factor = {"maximize": True} if case % 5 == 0 else {"grad_scale": 3.0} if case % 5 == 1 else {}
        _C.set_tuning(
            block=rng.choice((0, 0, 4, 12, 128)), chunk=rng.choice((0, 0, 16, 132)), threads=rng.choice((0, 1, 2))
        )
        yield from run(p, tensors, offset=rng.randrange(4), **factor)
    _C.set_tuning()


def pressure() -> Iterator[np.ndarray]:
    """More values at once than there are registers."""
    rng, numbers = random.Random(2), np.random.default_rng(2)
    for length in (10, 20, 30, 60, 100):
        for _ in range(4):
            p = random_program(rng, length, 4, wide=True)
            yield from run(p, [[values(numbers, 147)] for _ in range(6)])


def dtypes() -> Iterator[np.ndarray]:
    rng, numbers = random.Random(3), np.random.default_rng(3)
    for case in range(200):
        states = rng.randrange(4)
        p = random_program(rng, rng.choice((1, 2, 5, 12)), states)
        kinds = [[rng.choice((np.float16, np.float32, BF16)) for _ in range(3)] for _ in range(2 + states)]
        if case % 7 == 0:
            kinds = [[np.float64] * 3 for _ in kinds]
        sizes = rng.sample(SIZES, 3)
        tensors = [[values(numbers, n, k) for n, k in zip(sizes, kind, strict=True)] for kind in kinds]
        yield from run(p, tensors, **({"maximize": True} if case % 3 == 0 else {}))


def guard_pages() -> Iterator[np.ndarray]:
    """Tensors that fill a page up to its first or last byte, between pages that may not be touched at all."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    page = mmap.PAGESIZE
    rng, numbers = random.Random(5), np.random.default_rng(5)

    def guarded(n: int, dtype: type, at_end: bool) -> np.ndarray:
        memory = np.frombuffer(mmap.mmap(-1, 3 * page), np.uint8)
        for guard in (0, 2 * page):
            assert libc.mprotect(memory.ctypes.data + guard, page, 0) == 0
        size = n * np.dtype(dtype).itemsize
        return memory[2 * page - size : 2 * page].view(dtype) if at_end else memory[page : page + size].view(dtype)

    for _ in range(40):
        p = random_program(rng, rng.choice((3, 10, 25)), 2)
        n = rng.choice((1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 100, 1024))
        at_end = rng.random() < 0.7
        slots = [guarded(n, rng.choice((np.float32, np.float16)), at_end) for _ in range(4)]
        for x in slots:
            x[:] = values(numbers, n, x.dtype.type)
        with np.errstate(all="ignore"):
            nos_ext.apply_rule(p, [slots[0]], [slots[1]], [[x] for x in slots[2:]], lr=0.1, step=3, total_steps=10)
        yield from (x.copy() for x in slots)


def signs() -> Iterator[np.ndarray]:
    """Functions of sign products, which become look-ups, at all combinations of edge values and for odd scalars."""
    g, m = (x.ravel() for x in np.meshgrid(EDGES, EDGES, indexing="ij"))
    rules = [
        "p - lr * exp(c * sign(g) * sign(m)) * g",
        "p + exp(sign(g) * sign(m)) + tanh(c * sign(m))",
        "pow(sign(g) * sign(m), c) + log(sign(g) * c)",
        "where(exp(-(c * sign(g))) > 1, pow(c, sign(m)), log(sign(m) * sign(g) * sign(m)))",
        "log(1 / (sign(g) * sign(m))) * exp(c * (sign(g) * c) * sign(m))",
        "tanh(sign(g)) + exp(sign(m)) + exp(c + sign(g) * sign(g)) + exp(sign(g) * abs(m))",
        "pow(c, sign(g) * sign(m)) + exp(exp(sign(g) * sign(m)) * sign(g))",
    ]
    for rule in rules:
        p = nos_ext.compile_rule(f"def r(p, g, m, *, lr, c=1.0):\n    return {rule}, m\n")
        for c in (0.0, -0.0, 1.0, -3.0, 0.3, 1e-30, 1e38, float("inf"), float("-inf")):
            yield from run(p, [[g], [g], [m]], c=c)


def library() -> Iterator[np.ndarray]:
    numbers = np.random.default_rng(4)
    for rule in nos_ext.optim.library.rules() if hasattr(nos_ext, "optim") else ():
        p = nos_ext.compile_rule(rule)
        sizes = [10_007, 70_001, 5]
        tensors = [
            [numbers.standard_normal(n).astype(np.float32) for n in sizes] for _ in range(2 + len(p.state_names))
        ]
        yield from run(p, tensors)


GROUPS = {f.__name__: f for f in (every_op, random_programs, pressure, dtypes, guard_pages, signs, library)}


def dump(group: str, path: str) -> None:
    import nos_ext.optim.library  # noqa: F401

    arrays = [canonical(x) for x in GROUPS[group]()]
    np.savez(path, *arrays)


def results(group: str, path: Path, **env: str) -> list[np.ndarray]:
    code = "import sys; sys.path.insert(0, sys.argv[1]); import test_native as t; t.dump(*sys.argv[2:])"
    subprocess.run(
        [sys.executable, "-c", code, os.path.dirname(__file__), group, str(path)], env={**os.environ, **env}, check=True
    )
    with np.load(path) as f:
        return [f[f"arr_{i}"] for i in range(len(f.files))]


ISAS = [isa for isa in nos_ext.build_info()["cpu"]["isas"] if isa in ("avx2", "avx512")]


@pytest.mark.parametrize("group", GROUPS)
def test_bits_of_the_interpreter(group: str, tmp_path: Path) -> None:
    expected = results(group, tmp_path / "interpreted.npz", NOS_NATIVE="0")
    assert expected
    for isa in ISAS:
        got = results(group, tmp_path / f"{isa}.npz", NOS_ISA=isa, NOS_NATIVE="1")
        assert len(got) == len(expected)
        for i, (a, b) in enumerate(zip(got, expected, strict=True)):
            where = np.flatnonzero(a != b)
            assert where.size == 0, (
                f"{isa}, array {i} of size {a.size}, first at {where[:5]}: {a[where[:5]]} {b[where[:5]]}"
            )


def test_no_executable_memory(tmp_path: Path) -> None:
    """A system that refuses it gets the interpreter."""
    expected = results("pressure", tmp_path / "interpreted.npz", NOS_NATIVE="0")
    got = results("pressure", tmp_path / "refused.npz", NOS_TEST_REFUSE_EXEC="1")
    assert all(map(np.array_equal, got, expected))


@pytest.mark.parametrize(
    "divisor",
    [1.0, 3.0, 1.9999999, 1.0000001, 0.031606961, 2.0**-30, 2.0**30, 2.0**-31, 1e-38, 1e-45, 3e38,
     -3.0, 0.0, -0.0, float("inf"), float("-inf"), float("nan"), *np.random.default_rng(8).uniform(1, 2, 6)],
)  # fmt: skip
def test_quotient_by_a_scalar_is_correctly_rounded(divisor: float) -> None:
    """The divider is replaced by multiplications where these round alike: over all mantissas, and all edges.

    Only in rules that use the divider otherwise too; test_machine_code.py shows that this one does.
    """
    c = np.float32(divisor)
    numbers = np.random.default_rng(int(c.view(np.uint32)))
    mantissas = np.arange(1 << 23, dtype=np.uint32)
    exponents = numbers.integers(0, 256, mantissas.size, dtype=np.uint32)
    if 1 <= divisor <= 2:
        exponents[::2] = 127  # every second one where all is exact but the last rounding
    signs = numbers.integers(0, 2, mantissas.size, dtype=np.uint32)
    x = np.concatenate([(mantissas | exponents << 23 | signs << 31).view(np.float32), np.tile(EDGES, 100)])
    p, m = np.zeros_like(x), np.ones_like(x)
    rule = "def r(p, g, m, *, lr):\n    return g / lr, sqrt(m) / m\n"
    nos_ext.apply_rule(nos_ext.compile_rule(rule), [p], [x], [[m]], lr=float(c))
    with np.errstate(all="ignore"):
        expected = x / c
    assert np.array_equal(canonical(p), canonical(expected))
    assert (m == 1).all()
