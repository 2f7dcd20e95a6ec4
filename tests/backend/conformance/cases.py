"""Owns the calls that every back-end must make with the same bits: a function per group, in GROUPS by name."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

import nos_ext
from nos_ext.optim import library

from .. import programs as pg
from .call import BF16, Call, Lists

F16, F32, F64 = (np.dtype(t) for t in (np.float16, np.float32, np.float64))
EDGES = np.array(
    [
        np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1e-45, -1e-45, 1.17549435e-38,
        -1.17549435e-38, 1e-40, -3e-39, 3.4028235e38, -3.4028235e38, 8388607.5, -8388608.5, 16777216.0, 2.5, -2.5,
        88.7, -103.9, 1e-8, 1 + 2**-23, 0.99999994, -1.5, 3.0, 7.0, 1e20, -1e20,
    ],
    np.float32,
)  # fmt: skip
SIZES = [0, 1, 2, 3, 5, 7, 8, 9, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127, 128, 129, 255, 257, 511, 513, 1025]
LONG = [2047, 2048, 2049, 4095, 8193]


# ---- what calls are made of ------------------------------------------------------------------------------------------
def stored(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Float32 numbers in a dtype; bfloat16 by truncation."""
    if dtype == BF16:
        return (np.asarray(x, np.float32).view(np.uint32) >> 16).astype(BF16)
    with np.errstate(all="ignore"):
        return x.astype(dtype)


def tensor(make: np.random.Generator, n: int, dtype: np.dtype = F32) -> np.ndarray:
    """Normal numbers, edge values, any bits at all, or normal numbers with edge values among them."""
    kind = make.integers(0, 4)
    x = make.standard_normal(n).astype(np.float32)
    if kind == 1:
        x = make.choice(EDGES, n)
    elif kind == 2:
        x = make.integers(0, 2**32, n, dtype=np.uint32).view(np.float32)
    elif kind == 3:
        x = np.where(make.random(n) < 0.1, make.choice(EDGES, n), x)
    return stored(x, dtype)


def normal(make: np.random.Generator, n: int, dtype: np.dtype = F32) -> np.ndarray:
    """Numbers of everyday size."""
    return stored(make.standard_normal(n).astype(np.float32), dtype)


def positive(make: np.random.Generator, n: int, dtype: np.dtype = F32) -> np.ndarray:
    """Numbers of everyday size, none of them negative: what Adam's second moment may be."""
    return np.abs(normal(make, n, dtype)) if dtype != BF16 else stored(np.abs(make.standard_normal(n)), dtype)


def lists_of(
    make: np.random.Generator, sizes: Sequence[int], dtypes: Sequence[np.dtype], how: Callable = tensor
) -> Lists:
    return [[how(make, n, d) for n in sizes] for d in dtypes]


def rule(body: str, states: str = "m", options: str = "") -> nos_ext.Program:
    """A rule of one body; states: their letters."""
    return nos_ext.compile_rule(f"def f(p, g, {''.join(s + ', ' for s in states)}*, lr{options}):\n    {body}\n")


# draws, and has the same bits in double on every device
DRAWING = nos_ext.compile_rule("drop(g * (1 + sign(g) * sign(m)), 0.25) + normal(0.01)")
DTYPES = [
    (F32, F32, F32), (F64, F64, F64), (BF16, BF16, F32), (F16, F16, F32), (BF16, F32, F16), (F16, BF16, BF16), (F32, BF16, F32),
]  # fmt: skip


# ---- programs --------------------------------------------------------------------------------------------------------
def every_op() -> Iterator[Call]:
    """Every op with every kind of operand, on all pairs and triples of edge values."""
    constants = (1.0, 0.0, -0.0, 0.9, -2.5, float("inf"), float("-inf"), 1e-40, 3e38, 1e-60)
    first = pg.S | 3
    pairs = [x.ravel() for x in np.meshgrid(EDGES, EDGES, indexing="ij")]
    triples = [x.ravel() for x in np.meshgrid(EDGES, EDGES, EDGES, indexing="ij")]
    for name in pg.ELEMENTWISE:
        arity = pg.ARITY[name]
        for mask in range(2**arity - 1):
            tensors = triples if arity - mask.bit_count() == 3 else [*pairs, pairs[0]]
            for k in range(len(constants) if mask else 1):
                # the operands that are tensors are p, g and m in turn, so that every pair meets
                slots = iter(range(3))
                operands = [first + (k + i) % len(constants) if mask >> i & 1 else next(slots) for i in range(arity)]
                code = [(pg.OPS[name], *(operands + [0, 0])[:3])]
                yield Call([pg.assemble(code, [3, 2], constants)], [[x] for x in tensors])
        lists = [[x.astype(F64)] for x in (*pairs, pairs[0])]
        yield Call([pg.assemble([(pg.OPS[name], *range(arity), *[0] * (3 - arity))], [3, 2])], lists)
    for name in pg.RANDOM:
        for dtypes in DTYPES:
            yield Call([pg.of_op(name)], lists_of(np.random.default_rng(1), [1000], [*dtypes, dtypes[-1]]))


UNARY = [name for name in pg.ELEMENTWISE if pg.ARITY[name] == 1]
BINARY = [name for name in pg.ELEMENTWISE if pg.ARITY[name] == 2]
CALLS = (
    [f"{op}(g)" for op in UNARY]
    # both operands tensors, either one a scalar, either one a tree, both trees, twice the same
    + [f"{op}({a}, {b})" for op in BINARY for a, b in
       [("g", "p"), ("g", "lr"), ("lr", "g"), ("abs(g)", "p"), ("p", "abs(g)"), ("abs(g)", "-p"), ("g", "g"), ("lr", "abs(g)")]]
    + [f"{op}({a}, {b}, {c})" for op in ("fma", "where", "clip") for a, b, c in
       [("g", "p", "m"), ("lr", "p", "m"), ("g", "lr", "m"), ("g", "p", "lr"), ("lr", "beta", "g"), ("lr", "g", "beta"),
        ("g", "lr", "beta"), ("abs(g)", "-p", "m"), ("g", "-p", "abs(m)"), ("abs(g)", "-p", "m*m"), ("g", "g", "g"), ("lr", "abs(g)", "-m")]]
    + ["lr * g + m", "m + g * lr", "beta * m + lr * g", "m - lr * g", "m - abs(g) * lr", "m + lr * abs(g)", "lr * (m - g)",
       "drop(g, 0.3)", "drop(g * m, 0.7)", "drop(lr, 0.5) + g", "normal(0.1) + g", "normal(lr) * drop(g, beta)"]
)  # fmt: skip


def expressions() -> Iterator[Call]:
    """Rules of one expression, of every shape that a lowering treats in its own way."""
    make = np.random.default_rng(7)
    for text in CALLS:
        program = rule(f"return {text}, m", options=", beta=0.75")
        for dtype in (F32, F64):
            yield Call([program], lists_of(make, [257], [dtype] * 3), [{"lr": 0.37}])


def outputs() -> Iterator[Call]:
    """New values that stay, move to another slot, are scalars, or stand in two slots."""
    make = np.random.default_rng(3)
    for states, body in (
        ("m", "return m, p"),
        ("mv", "return m, v, p"),
        ("m", "return g, p"),
        ("m", "return lr, 2.0"),
        ("m", "return p, m"),
        ("m", "return p + m, p + m"),
        ("m", "q = p * m\n    return q, p"),
        ("m", "q = p * m\n    r = q + g\n    return r, q"),
        ("m", "return p + m, p - m"),
        ("m", "n = m + g\n    return p * m - n, n"),
        # more states than any back-end has registers for, each of which moves to its neighbour
        ("abcdfhij", "return p - lr * a * i, " + ", ".join(f"{y} + 0.5 * {x} * g" for x, y in zip("abcdfhij", "bcdfhija", strict=True))),
    ):  # fmt: skip
        for dtype, offset in itertools.product((F32, F64, F16), (0, 1)):
            yield Call([rule(body, states)], lists_of(make, [300, 3001], [dtype] * (2 + len(states))), offset=offset)


def signs() -> Iterator[Call]:
    """Functions of sign products, which may become look-ups, at all pairs of edge values and for odd scalars."""
    g, m = (x.ravel() for x in np.meshgrid(EDGES, EDGES, indexing="ij"))
    for text in (
        "p - lr * exp(c * sign(g) * sign(m)) * g",
        "p + exp(sign(g) * sign(m)) + tanh(c * sign(m))",
        "pow(sign(g) * sign(m), c) + log(sign(g) * c)",
        "where(exp(-(c * sign(g))) > 1, pow(c, sign(m)), log(sign(m) * sign(g) * sign(m)))",
        "log(1 / (sign(g) * sign(m))) * exp(c * (sign(g) * c) * sign(m))",
        "tanh(sign(g)) + exp(sign(m)) + exp(c + sign(g) * sign(g)) + exp(sign(g) * abs(m))",
        "pow(c, sign(g) * sign(m)) + exp(exp(sign(g) * sign(m)) * sign(g))",
    ):
        program = rule(f"return {text}, m", options=", c=1.0")
        for c in (0.0, -0.0, 1.0, -3.0, 0.3, 1e-30, 1e38, float("inf"), float("-inf")):
            yield Call([program], [[g], [g], [m]], [{"lr": 0.1, "c": c}])
    for calls in (61, 62, 63, 64, 300):  # a look-up has room for so many, and not for more
        long = "u = exp(c * sign(g) * sign(m))\n    " + "u = tanh(u) + c\n    " * (calls // 2)
        program = rule(long + f"return p - lr * {'u' if calls % 2 else 'exp(u)'} * g, m", options=", c=1.0")
        yield Call([program], [[g], [g], [m]], [{"lr": 0.1, "c": 0.3}])


def library_rules() -> Iterator[Call]:
    """Every rule of the library in every dtype."""
    make = np.random.default_rng(4)
    for source, dtype in itertools.product(library.rules(), (F32, F64, BF16, F16)):
        program = nos_ext.compile_rule(source)
        if isinstance(program, nos_ext.MatrixProgram):
            continue  # it is several calls of the engine
        dtypes = (dtype, dtype, F64 if dtype == F64 else F32)
        yield Call([program], reducing_lists(make, program, [1029, 3], [dtypes] * 2), total_steps=100.0)


def random_programs() -> Iterator[Call]:
    """Programs of 1 to 60 instructions and up to 8 states, in every dtype, on tensors that are aligned or not."""
    rng, make = random.Random(1), np.random.default_rng(1)
    for case in range(500):
        states = rng.randrange(9)
        program = pg.random_program(
            rng, rng.choice((1, 2, 3, 5, 8, 15, 30, 60)), states, dear=rng.choice((0.0, 0.0, 0.1, 0.3))
        )
        dtypes = [F32] * (2 + states)
        if case % 3 == 0:
            dtypes = [rng.choice((F16, F32, BF16)) for _ in dtypes]
        elif case % 7 == 0:
            dtypes = [F64] * len(dtypes)
        factor = {"maximize": True} if case % 5 == 0 else {"grad_scale": 3.0} if case % 5 == 1 else {}
        lists = lists_of(make, rng.sample(SIZES, 3), dtypes)
        yield Call([program], lists, offset=rng.randrange(4), seeds=[rng.randrange(2**64)], **factor)


def pressure() -> Iterator[Call]:
    """More values alive at once than there are registers."""
    rng, make = random.Random(2), np.random.default_rng(2)
    for length, _ in itertools.product((10, 20, 30, 60, 100), range(4)):
        program = pg.random_program(rng, length, 4, wide=True)
        yield Call([program], lists_of(make, [147], [F32] * 6))


REDUCED = (
    # LAMB, with states of their own shape
    """
def lamb(p, g, m, v, *, lr, b1=0.9, b2=0.999, wd=0.01):
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g * g
    u = (m / (1 - pow(b1, t))) / (sqrt(v / (1 - pow(b2, t))) + 1e-6) + wd * p
    a = norm(p)
    b = norm(u)
    return p - lr * where(a * b > 0, a / b, 1) * u, m, v
""",
    # an average of norms, which is read before it is known
    "def f(p, g, k, *, lr):\n    n = 0.9 * k + 0.1 * norm(g)\n    return p - lr * g / (n + sqrt(k) + 1e-3), n",
    # numbers and tensors among the states, more of them than the CUDA interpreter has register slots for
    """
def f(p, g, a, k, b, c, d, l, h, *, lr):
    k = 0.5 * k + rms(a * g)
    l = l + max_abs(p - d)
    return p - lr * tanh(g / (k + l)), b + g, k, c - g, d * 0.5, a, l, h + g * dot(h, g) / (1 + square(k))
""",
    # every reduction, two of them of the same tensors
    "def f(p, g, k, *, lr):\n    s = sum(g) + mean(g) + norm(g) + rms(g) + max_abs(g) + dot(g, g) + dot(p, g) + sum(p * g)\n"
    "    return p - lr * s * 0.01, s",
    # one after the other
    "def f(p, g, *, lr):\n    a = g / norm(g)\n    b = a - mean(a)\n    return p - lr * (b / max_abs(b) + rms(p) * b)",
    # draws, in every pass the same; one of them by a number of the tensor
    "def f(p, g, *, lr):\n    x = drop(g, 0.5) + normal(0.01)\n    return p - lr * normal(norm(x) * 0.1) * x / norm(x)",
    # clipped by what all tensors have
    "def f(p, g, m, *, lr, most=1.0):\n    m = 0.9 * m + g * min(1, most / global_norm(g))\n    return p - lr * m, m",
    # of all tensors, then of each, then of all, then kept
    """
def f(p, g, k, *, lr):
    a = g / (1 + global_norm(g) + global_sum(abs(g)))
    b = a - mean(a) * global_dot(a, p)
    k = 0.5 * k + global_sum(b * norm(b))
    return p - lr * b * k, k
""",
    # one sum, finished in two ways
    "def f(p, g, k, *, lr):\n    return p - lr * g / (1 + global_dot(g, g)), global_norm(g) + norm(g) + dot(g, g)",
    # p and a state that stay, and a reduction of what is written
    "def f(p, g, m, k, *, lr):\n    return p, m, k + sum(m)",
    "def f(p, g, k, *, lr):\n    q = p - lr * g\n    return q, norm(q)",
)  # fmt: skip
REDUCED_SIZES = [1, 2, 127, 128, 129, 255, 256, 257, 511, 513, 5000]


def passes() -> Iterator[Call]:
    """Numbers of tensors: of every size and dtype, with gradients that are missing or scaled, and in populations."""
    make = np.random.default_rng(13)
    rules = [nos_ext.compile_rule(text) for text in REDUCED]
    layouts = [(F32, F32), (F64, F64), (BF16, F32), (F16, F32)]
    for number, program in enumerate(rules):
        for dtype, state in layouts:
            how = tensor if number % 3 == 1 else positive
            call = reducing_call(make, [program], REDUCED_SIZES, dtype, state, how)
            yield replace(call, tensor_index=2, offset=number % 3, maximize=number % 2 == 0)
            missing = [None if i % 3 == 1 else g for i, g in enumerate(call.lists[1])]
            yield replace(call, lists=[call.lists[0], missing, *call.lists[2:]], grad_scale=3.0)
    for number, program in enumerate(rules):
        # a sum of sums of sums in some of them
        call = reducing_call(make, [program], [0, 65_537 if number % 4 == 3 else 5000, 3, 0, 257], F32, F32, positive)
        yield replace(call, earlier=[g + g for g in call.lists[1]])
        yield reducing_call(make, [program], [0, 0], F32, F32, positive)
        yield replace(
            reducing_call(make, [program], [5, 2049], BF16, BF16 if not program.per_tensor_states else F32, positive),
            stochastic_rounding=True,
        )
    plain = nos_ext.compile_rule("drop(g, 0.5)")
    for chosen, dtype in (
        ([0, 6, 0], F32),
        ([4, 5, 8, 8, 7, 1, 1], F32),
        ([1, 7, 8], F64),
        ([3, 1, 10], BF16),
        ([4, 5], F16),
    ):
        for size in (1, 256, 601):
            programs = [rules[i] for i in chosen] + [plain]
            state = F64 if dtype == F64 else F32
            call = reducing_call(make, programs, [size, 0, 300], dtype, state, positive)
            rows = [{"lr": 0.1 * (i + 1)} for i in range(len(programs))]
            yield replace(call, rows=rows, seeds=[100 + i for i in range(len(programs))])
    everything = [F32, F64, BF16, F16, F32, F64]
    for program in rules:
        calls = [
            reducing_call(make, [program], [n], d, F64 if d == F64 else F32, positive)
            for n, d in zip((40, 300, 257, 43, 1, 900), everything, strict=True)
        ]
        yield replace(
            calls[0], lists=[[one[k][0] for one in (c.lists for c in calls)] for k in range(len(calls[0].lists))]
        )


def reducing_call(
    make: np.random.Generator, programs: list[nos_ext.Program], sizes: Sequence[int], dtype: np.dtype,
    state: np.dtype, how: Callable,
) -> Call:  # fmt: skip
    """A population where there are several programs. A state that is one number per tensor has one for each of them."""
    k = len(programs)
    call = Call(programs, [], [{"lr": 0.1}], population=k > 1)
    states = max(len(p.state_names) for p in programs)
    lists = lists_of(make, [k * n for n in sizes], [dtype, dtype], how)
    for number in range(2, 2 + states):
        lists.append([how(make, k if number in call.numbers else k * n, state) for n in sizes])
    return replace(call, lists=lists)


# ---- tensors ---------------------------------------------------------------------------------------------------------
def layouts() -> Iterator[Call]:
    """Sizes, dtypes and alignments, of the tensors of one call together."""
    for dtypes, offset in itertools.product(DTYPES, (0, 1, 3)):
        lists = lists_of(np.random.default_rng(offset), [*SIZES, *LONG], dtypes)
        yield Call([DRAWING], lists, seeds=[2**63 + 5], tensor_index=11, offset=offset)


def cuts() -> Iterator[Call]:
    """The same call as often as a back-end has ways to cut the work."""
    for dtypes, _ in itertools.product(DTYPES[:4], range(13)):
        lists = lists_of(np.random.default_rng(2), [0, 1, 5, 17, 64, 129, 513, 2049, 8193], dtypes, normal)
        yield Call([DRAWING], lists, tensor_index=2)


def edges_of_memory() -> Iterator[Call]:
    """Tensors next to memory that may not even be read."""
    rng, make = random.Random(5), np.random.default_rng(5)
    for case in range(40):
        program = pg.random_program(rng, rng.choice((3, 10, 25)), 2)
        n = rng.choice((1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 100, 1024))
        lists = lists_of(make, [n], [rng.choice((F32, F16)) for _ in range(4)])
        yield Call([program], lists, guarded="before" if case % 3 == 0 else "behind")


def kinds_together() -> Iterator[Call]:
    """Every dtype in one call; empty tensors, and gradients that are missing, among them: draws do not shift."""
    make = np.random.default_rng(6)
    dtypes = [F32, F64, BF16, F16, F32, F64, F32]
    lists = [[positive(make, n, d) for n, d in zip((40, 41, 0, 43, 1, 5, 900), dtypes, strict=True)] for _ in range(3)]
    for missing in ((), (0,), (1, 3), (0, 2, 6), range(7)):
        grads = [None if i in missing else g for i, g in enumerate(lists[1])]
        yield Call([DRAWING], [lists[0], grads, lists[2]])
    yield Call([DRAWING], [[], [], []])


def factors() -> Iterator[Call]:
    """Gradients that are negated or scaled."""
    make = np.random.default_rng(8)
    for (maximize, scale), dtypes in itertools.product(
        ((True, None), (False, 1024.0), (True, 3.0), (False, 0.1)), DTYPES
    ):
        yield Call([DRAWING], lists_of(make, [500], dtypes), maximize=maximize, grad_scale=scale)


def stochastic_rounding() -> Iterator[Call]:
    """Results in half precision, where two parameters of one call draw for themselves; wide ones are not touched."""
    make = np.random.default_rng(9)
    every_size = np.ldexp(make.uniform(-2, 2, 20_000), make.integers(-30, 17, 20_000)).astype(np.float32)
    for dtype in (BF16, F16):
        yield Call([rule("return lr * g", "")], [[stored(every_size, dtype)], [every_size]], stochastic_rounding=True)
    many = "abcdfh"  # more states than the CUDA interpreter has register slots
    wide = rule(f"return p - lr * g, {', '.join(n + ' + 0.1 * g' for n in many)}", many)
    for dtypes, offset in itertools.product(DTYPES, (0, 1)):
        call = Call([DRAWING], lists_of(make, [5, 2049, 4096], dtypes), seeds=[2**40 + 1], offset=offset)
        yield replace(call, tensor_index=3, stochastic_rounding=True)
        yield replace(call, stochastic_rounding="states")
        lists = lists_of(make, [1030], [dtypes[0], dtypes[1], *[dtypes[2]] * 6], positive)
        yield Call([wide], lists, offset=offset, stochastic_rounding=True)


# ---- calls -----------------------------------------------------------------------------------------------------------
def param_groups() -> Iterator[Call]:
    """Groups with hyperparameters of their own, in a second step whose gradients lie elsewhere than in the first."""
    make = np.random.default_rng(10)
    for source, dtype in itertools.product((library.adamw, library.drop_g_exp_signs), (F32, F64, BF16, F16)):
        program = nos_ext.compile_rule(source)
        rows = [{**program.hyperparameters, "lr": lr} for lr in (0.1, 0.01, 1.0)]
        sizes = [5, 1000, 64, 4097, 33]
        earlier, *lists = lists_of(make, sizes, [dtype] * 3, positive)
        state = F64 if dtype == F64 else F32
        lists += [[np.zeros(n, state) for n in sizes] for _ in program.state_names]
        yield Call([program], lists, rows, [0, 0, 1, 1, 2], step=2, earlier=earlier)


def moved_gradients() -> Iterator[Call]:
    """Two steps, the second one with gradients at other addresses."""
    make = np.random.default_rng(11)
    for dtypes in DTYPES:
        earlier, *lists = lists_of(make, [1, 70, 0, 3000], [dtypes[1], *dtypes])
        yield Call([DRAWING], lists, earlier=earlier)


def populations() -> Iterator[Call]:
    """Many programs, whose scalars are more than a kernel's arguments hold; odd slices misalign every other one."""
    texts = [
        "g * exp(sign(g) * sign(m))", "rmsprop + drop(g, 0.5)", "g", "clip(adam, 1e-2) + m_hat", "v_hat * normal(0.1)",
        "where(g < m, v, y)", "pow(abs(g), 0.3) * sign(g)", "adam * ld + rmsprop * w",
        "def r(p, g, a, b, c, *, lr, beta=0.5):\n    return p - lr * beta * g, g, a, b\n",
    ]  # fmt: skip
    for k, size, dtypes in (
        (63, 1, (F32, F32)), (63, 37, (F32, F32)), (63, 64, (F64, F64)), (63, 2051, (F32, F32)), (10, 600, (BF16, F32)),
        (10, 601, (F16, F16)), (1, 33, (F32, F32)),
    ):  # fmt: skip
        make = np.random.default_rng(size)
        programs = [nos_ext.compile_rule(texts[i % len(texts)]) for i in range(k)]
        most = max(len(p.state_names) for p in programs)
        lists = lists_of(make, [k * n for n in (size, 3, 0)], [dtypes[0], dtypes[0], *[dtypes[1]] * most], positive)
        beta = any("beta" in p.hyperparameters for p in programs)
        rows = [{"lr": 0.1 * (i + 1), **({"beta": 0.5 + 0.01 * i} if beta else {})} for i in range(k)]
        call = Call(programs, lists, rows, population=True, seeds=[100 + i for i in range(k)], step=4)
        yield call
        yield replace(call, stochastic_rounding=True, maximize=True, earlier=[g + g for g in lists[1]])
        yield replace(call, seeds=[7])


# What the passes of a rule do: read a state back that an earlier pass has written, compute a value or draw it anew, or
# read p and the old states until the last one.
REDUCING = [
    "def lamb(p, g, m, v, *, lr):\n    m = 0.9 * m + 0.1 * g\n    v = 0.99 * v + 0.01 * g ** 2\n"
    "    u = m / (sqrt(v) + 1e-6) + 0.01 * p\n    return p - lr * norm(p) / norm(u) * u, m, v\n",
    "def chain(p, g, *, lr):\n    u = g / norm(g)\n    w = u - dot(u, p) * p\n    return p - lr * exp(-abs(w)) * w / max_abs(w)\n",
    "def average(p, g, m, k, *, lr):\n    k = 0.9 * k + 0.1 * rms(g)\n    m = 0.9 * m + g / k\n    return p - lr * m, m, k\n",
    "def draws(p, g, m, k, *, lr):\n    q = drop(g, 0.3) + normal(0.1 * k)\n    k = 0.5 * k + mean(abs(q))\n"
    "    return p - lr * drop(q, 0.2 * k) / norm(q), m + q, k\n",
    "def old(p, g, m, k, *, lr):\n    n = 0.5 * m + g\n    return p - lr * m * sum(n) / (1 + max_abs(n)), n, max(k, max_abs(m))\n",
]  # fmt: skip
GLOBALLY = [
    "def clipped(p, g, m, *, lr):\n    m = 0.9 * m + g * min(1, 1 / global_norm(g))\n    return p - lr * m, m\n",
    "def two(p, g, m, k, *, lr):\n    m = 0.9 * m + 0.1 * g\n    u = m / (norm(m) + 1e-3)\n"
    "    return p - lr * u / (1e-3 + global_norm(u)) * global_dot(m, g), m, 0.5 * k + norm(u)\n",
    "def kept(p, g, m, k, *, lr):\n    return p - lr * g * k, m + g, 0.5 * k + global_sum(g * p)\n",
    "def draws(p, g, m, k, *, lr):\n    q = drop(g + m, 0.5)\n    return p - lr * q / global_norm(q), q, rms(q)\n",
]
FOLDED = [1, 2, 127, 128, 129, 255, 256, 257, 511, 513, 1025, 3000, 66_000]


def reducing_lists(
    make: np.random.Generator, program: nos_ext.Program, sizes: Sequence[int], dtypes: Sequence[Sequence[np.dtype]],
    slices: int = 1, how: Callable = positive,
) -> Lists:  # fmt: skip
    """Tensors of `slices` slices; dtypes: of p, g and the states of every tensor."""
    lists = [[how(make, slices * n, d[s]) for n, d in zip(sizes, dtypes, strict=True)] for s in (0, 1)]
    for name in program.state_names:
        number = name in program.per_tensor_states
        lists.append([how(make, slices * (1 if number else n), d[2]) for n, d in zip(sizes, dtypes, strict=True)])
    return lists


def mixed(sizes: Sequence[int]) -> list[Sequence[np.dtype]]:
    return [DTYPES[i % len(DTYPES)] for i in range(len(sizes))]


def reductions() -> Iterator[Call]:
    """Rules that reduce each tensor for itself: sizes about those of the units of sums, cut in every way."""
    make = np.random.default_rng(13)
    for text, dtypes, offset in itertools.product(REDUCING, DTYPES, (0, 1)):
        program, sizes = nos_ext.compile_rule(text), [0, *FOLDED]
        lists = reducing_lists(make, program, sizes, [dtypes] * len(sizes))
        lists[1] = [None if n == 129 else g for n, g in zip(sizes, lists[1], strict=True)]
        factor = {"maximize": True} if offset else {"grad_scale": 3.0}
        yield Call([program], lists, tensor_index=11, offset=offset, stochastic_rounding=bool(offset), **factor)
        lists = reducing_lists(make, program, [5, 300, 700], [dtypes] * 3, how=tensor)
        yield Call([program], lists, offset=offset, earlier=[np.flip(g).copy() for g in lists[1]])
    programs = [nos_ext.compile_rule(t) for t in [*REDUCING[2:], "m * g + sign(g)", REDUCING[3], REDUCING[1]]]
    for (size, dtypes), stochastic in itertools.product(
        ((37, DTYPES[0]), (2051, DTYPES[2]), (600, DTYPES[1])), (False, True)
    ):
        lists = reducing_lists(make, programs[0], [size, 3, 256], [dtypes] * 3, len(programs))
        rows = [{"lr": 0.1 * (i + 1)} for i in range(len(programs))]
        yield Call(programs, lists, rows, population=True, stochastic_rounding=stochastic)


def global_reductions() -> Iterator[Call]:
    """Rules that reduce all tensors together, where dtypes decide how each of them goes through the passes."""
    make = np.random.default_rng(14)
    for text, offset, missing in itertools.product(GLOBALLY, (0, 1), ((), (1, 4))):
        program, sizes = nos_ext.compile_rule(text), [0, *FOLDED]
        for dtypes in (mixed(sizes), [DTYPES[0]] * len(sizes)):
            lists = reducing_lists(make, program, sizes, dtypes)
            lists[1] = [None if i in missing else g for i, g in enumerate(lists[1])]
            yield Call([program], lists, offset=offset, maximize=bool(missing))
    programs = [
        nos_ext.compile_rule(t) for t in (GLOBALLY[1], REDUCING[2], GLOBALLY[3], "m * g", GLOBALLY[2], GLOBALLY[1])
    ]
    for sizes in ([37, 3, 256], [300, 2051]):
        lists = reducing_lists(make, programs[0], sizes, mixed(sizes), len(programs))
        rows = [{"lr": 0.1 * (i + 1)} for i in range(len(programs))]
        yield Call(programs, lists, rows, population=True, seeds=[100 + i for i in range(len(programs))])


QUANTIZED = [0, 1, 3, 255, 256, 257, 511, 513, 1025, 2049, 5000]
Kept = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray | None]]  # a state and its scales


def codes(dtype: type[np.integer]) -> Kept:
    """Any codes; blocks of everyday size, of zeros, of numbers that are nearly too small, and of NaN."""

    def made(make: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray | None]:
        least, most = (-127, 127) if dtype is np.int8 else (0, 255)
        scales = np.exp(make.normal(size=-(-n // 256))).astype(np.float32) * np.float32(1e-5)
        found = make.integers(least, most, n, dtype, endpoint=True)
        for k in range(len(scales)):
            kind = make.integers(0, 8)
            if kind < 3:
                scales[k] = (0, 1e-37, np.nan)[kind]
                found[256 * k : 256 * (k + 1)] *= kind == 1
        return found, scales

    return made


def floats(dtype: np.dtype) -> Kept:
    return lambda make, n: (positive(make, n, dtype), None)


I8, U8, WIDE = codes(np.int8), codes(np.uint8), floats(F32)


def quantized(
    make: np.random.Generator, program: nos_ext.Program, sizes: Sequence[int], kinds: Sequence[Sequence[Kept]],
    dtypes: Sequence[np.dtype] = (F32, F32), how: Callable = normal, **more: Any,
) -> Call:  # fmt: skip
    """kinds: how each state is kept, of one tensor after the other, over and over."""
    lists = [[how(make, n, d) for n in sizes] for d in dtypes]
    scales: Lists = []
    for s, name in enumerate(program.state_names):
        number = name in program.per_tensor_states
        pairs = [(WIDE if number else kinds[i % len(kinds)][s])(make, 1 if number else n) for i, n in enumerate(sizes)]
        lists.append([x for x, _ in pairs])
        scales.append([x for _, x in pairs])
    return Call([program], lists, scales=scales, **more)


def quantized_states() -> Iterator[Call]:
    """States in codes: blocks of every kind and parts of one, beside states that are none, in all places of states."""
    make = np.random.default_rng(15)
    roundings: tuple[Any, ...] = (False, True, "states")
    store, load = (rule(f"return p, {new}", "x") for new in ("g", "x"))
    many = "abcdfh"  # more states than the CUDA interpreter has register slots
    wide = rule(f"return p - lr * g, {', '.join(n + ' + 0.1 * abs(g)' for n in many)}", many)
    adam, drawing = nos_ext.compile_rule(library.adam), DRAWING
    for stochastic, kind, offset in itertools.product(roundings, (I8, U8), (0, 1)):
        own: dict[str, Any] = {"stochastic_rounding": stochastic, "offset": offset, "tensor_index": 3}
        yield quantized(make, store, QUANTIZED, [[kind]], how=tensor, **own)
        yield quantized(make, store, QUANTIZED, [[kind]], how=positive, seeds=[2**40 + 1], **own)
        yield quantized(make, load, QUANTIZED, [[kind]], **own)
        yield quantized(make, store, [70_001], [[kind]], how=positive, **own)
    for stochastic, offset in itertools.product(roundings, (0, 1)):
        own = {"stochastic_rounding": stochastic, "offset": offset}
        for dtypes in ((F32, F32), (BF16, BF16), (F16, F32)):
            call = quantized(make, adam, QUANTIZED, [[I8, U8]], dtypes, **own)
            yield call
            yield replace(call, maximize=True, earlier=[g + g for g in call.lists[1]] if dtypes[1] == F32 else None)
            kinds = [[I8, WIDE], [WIDE, WIDE], [floats(BF16), U8], [I8, floats(F16)], [U8, U8]]
            yield quantized(make, adam, [n + 7 for n in QUANTIZED], kinds, dtypes, **own)
        yield quantized(make, drawing, QUANTIZED, [[I8]], **own)
        yield quantized(
            make, wide, QUANTIZED, [[U8, I8, WIDE, U8, I8, U8], [WIDE, I8, U8, I8, U8, floats(BF16)]], **own
        )
        for text in (*REDUCING, *GLOBALLY):
            reducing = nos_ext.compile_rule(text)
            kinds = [[I8, U8], [WIDE, U8]] if text is REDUCING[0] else [[I8, I8]]
            yield quantized(make, reducing, QUANTIZED, kinds, **own)
    call = quantized(make, adam, QUANTIZED, [[I8, U8]])
    yield replace(call, lists=[[None if i in (1, 4) else x for i, x in enumerate(one)] if k == 1 else one
                               for k, one in enumerate(call.lists)])  # fmt: skip


def refusals() -> Iterator[Call]:
    """Calls that must raise an error and leave everything as it was."""
    make = np.random.default_rng(12)
    good = Call([DRAWING], lists_of(make, [20, 20], [F32] * 3))
    p, g, m = good.lists
    yield replace(good, shared=((0, 0), (0, 1)), refused="share memory")
    yield replace(good, shared=((0, 0), (2, 1)), refused="share memory")
    yield replace(good, shared=((2, 0), (1, 1)), refused="share memory")
    yield replace(good, lists=[p, [g[0], g[1].astype(F64)], m], refused="float64")
    yield replace(good, lists=[p, g, [m[0], m[1].astype(F64)]], refused="float64")
    yield replace(good, lists=[[p[0], p[1].astype(F64)], g, m], refused="float64")


GROUPS: dict[str, Callable[[], Iterator[Call]]] = {
    f.__name__: f
    for f in (
        every_op, expressions, outputs, signs, library_rules, random_programs, pressure, layouts, cuts, edges_of_memory,
        kinds_together, factors, stochastic_rounding, param_groups, moved_gradients, populations, passes, reductions,
        global_reductions, quantized_states, refusals,
    )
}  # fmt: skip
