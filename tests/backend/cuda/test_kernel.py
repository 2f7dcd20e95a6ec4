"""The kernel body on the host against the CPU engine, bit for bit: every op, size, alignment, dtype, chunking, overflow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nos_ext
from nos_ext.optim import library
from nos_ext.rule import Rule
from tests.backend.cuda import host
from tests.reference.strategies import rules

EDGES = [0.0, -0.0, 1.0, -1.0, 0.5, 2.0, -3.0, 1e-3, 1e-8, 1e-30, -1e-30, 1e-40, 1e-45, 1e10, 3e38, 88.7, -104.0,
         np.inf, -np.inf, np.nan]  # fmt: skip
# NaNs are one value (docs/numerics.md); the last bits of double functions are the library's, here the same one
BITS = {"float32": np.uint32, "float64": np.uint64, "float16": np.uint16, "uint16": np.uint16}


def aligned(size: int, dtype: str, offset: int) -> np.ndarray:
    """An empty array that starts `offset` elements past a multiple of 64 bytes."""
    item = np.dtype(dtype).itemsize
    raw = np.empty(size * item + 128 + offset * item, np.uint8)
    start = -raw.ctypes.data % 64 + offset * item
    return raw[start : start + size * item].view(dtype)


def to_bf16(x: np.ndarray) -> np.ndarray:
    return (x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def data(make: np.random.Generator, size: int, dtype: str, offset: int = 0, edges: float = 0.1) -> np.ndarray:
    x = make.standard_normal(size) * 10.0 ** make.integers(-3, 2, size)
    edge = make.random(size) < edges
    x[edge] = make.choice(EDGES, int(edge.sum()))
    out = aligned(size, dtype, offset)
    with np.errstate(over="ignore"):
        out[:] = to_bf16(x) if dtype == "uint16" else x.astype(np.float32)
    return out


def canonical(x: np.ndarray) -> np.ndarray:
    """Bits, every NaN replaced by one."""
    bits = x.view(BITS[x.dtype.name]).copy()
    nan = (bits & 0x7FFF) > 0x7F80 if x.dtype.name == "uint16" else np.isnan(x)
    bits[nan] = bits.dtype.type(-1 % 2 ** (8 * bits.itemsize))
    return bits


def engine_arrays(arrays: Sequence[np.ndarray]) -> list[Any]:
    """What nos_ext takes: bfloat16 as torch tensors over the same memory."""
    if not any(a.dtype == np.uint16 for a in arrays):
        return list(arrays)
    torch = pytest.importorskip("torch")
    return [torch.from_numpy(a).view(torch.bfloat16) if a.dtype == np.uint16 else a for a in arrays]


def compare(
    program: nos_ext.Program,
    lists: list[list[np.ndarray]],
    hypers: dict[str, float],
    *,
    step: int = 3,
    seed: int = 0,
    tensor_index: int = 0,
    maximize: bool = False,
    grad_scale: float | None = None,
    stochastic_rounding: bool = False,
    **tuning: Any,
) -> int:
    """One step by both engines from the same inputs, then every array of both must have the same bits. Returns how many
    blocks the kernel had."""
    copies = []
    for one in lists:
        copies.append([])
        for a in one:
            b = aligned(a.size, a.dtype.name, a.ctypes.data % 64 // a.itemsize)
            b[:] = a
            copies[-1].append(b)
    device = [engine_arrays(one) for one in copies]
    nos_ext.apply_rule(program, device[0], device[1], device[2:], step=step, total_steps=10_000, seed=seed,
                       tensor_index=tensor_index, maximize=maximize, grad_scale=grad_scale,
                       stochastic_rounding=stochastic_rounding, **hypers)  # fmt: skip
    factor = (-1 if maximize else 1) / (grad_scale or 1)
    blocks = host.apply(program, lists[0], lists[1], lists[2:], groups=[hypers], step=step, seeds=[seed],
                        tensor_index=tensor_index, factor=factor, stochastic_rounding=stochastic_rounding, **tuning)  # fmt: skip
    for k, (ours, theirs) in enumerate(zip(lists, copies, strict=True)):
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            same = canonical(a) == canonical(b)
            where = np.flatnonzero(~same)
            assert same.all(), (
                f"list {k} tensor {i} element {where[0]}: kernel {a[where[0]]!r}, CPU {b[where[0]]!r}\n"
                f"{program.disassemble()}\n" + "\n".join(host.listing(program, tuning.get("registers", 9))[0])
            )
    return blocks


# ---- op by op --------------------------------------------------------------------------------------------------------
UNARY = [row["name"] for row in nos_ext.op_table() if row["arity"] == 1 and row["domain"] == "any"]
BINARY = [row["name"] for row in nos_ext.op_table() if row["arity"] == 2 and row["domain"] == "any"]
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


@pytest.mark.parametrize("registers", [9, 0])
def test_every_op(registers: int) -> None:
    make = np.random.default_rng(7)
    for call in CALLS:
        program = nos_ext.compile_rule(f"def f(p, g, m, *, lr, beta=0.75):\n    return {call}, m")
        for dtype in ("float32", "float64"):
            lists = [[data(make, 257, dtype, edges=0.4)] for _ in range(3)]
            compare(program, lists, {"lr": 0.37}, seed=99, registers=registers)


def test_device_code_is_short() -> None:
    """What lab counts and predictions of speed rest on."""
    for rule, most in ((library.powersign, 16), (library.adam, 21), (library.lion, 11), (library.sgd, 8)):
        code, overflow = host.listing(nos_ext.compile_rule(rule))
        assert len(code) <= most, code
        assert overflow == 0


# ---- outputs ---------------------------------------------------------------------------------------------------------
OUTPUTS = [
    "return m, p",  # swap
    "return m, v, p",  # rotation
    "return g, p",
    "return lr, 2.0",
    "return p, m",  # nothing changes
    "return p + m, p + m",  # one value, two slots
    "q = p * m\n    return q, p",
    "q = p * m\n    r = q + g\n    return r, q",
    "return p + m, p - m",  # the old values are read after the first output
    "n = m + g\n    return p * m - n, n",
]


@pytest.mark.parametrize("body", OUTPUTS)
@pytest.mark.parametrize("registers", [9, 0])
def test_outputs(body: str, registers: int) -> None:
    states = ["m", "v"][: body.splitlines()[-1].count(",")]
    program = nos_ext.compile_rule(f"def f(p, g, {', '.join(states)}, *, lr):\n    {body}")
    make = np.random.default_rng(3)
    compare(program, [[data(make, 300, "float32")] for _ in range(2 + len(states))], {"lr": 0.5}, registers=registers)


def test_eight_states() -> None:
    """States beyond the register slots go through memory; here every state moves to its neighbour."""
    names = "abcdfhij"
    body = ", ".join(f"{y} + 0.5 * {x} * g" for x, y in zip(names, names[1:] + names[:1], strict=True))
    program = nos_ext.compile_rule(f"def f(p, g, {', '.join(names)}, *, lr):\n    return p - lr * a * i, {body}")
    make = np.random.default_rng(4)
    for dtype in ("float32", "float64", "float16"):
        for offset in (0, 1):
            lists = [[data(make, 3001, dtype, offset, edges=0)] for _ in range(10)]
            compare(program, lists, {"lr": 0.5}, chunk=1024)


# ---- sizes, alignments, dtypes, chunks -------------------------------------------------------------------------------
SIZES = [1, 2, 3, 4, 5, 7, 8, 31, 32, 33, 127, 128, 129, 255, 256, 257, 1000, 2047, 2048, 2049, 4095, 8191, 8192, 8193]
RULE = nos_ext.compile_rule("drop(g * exp(sign(g) * sign(m)), 0.25) + normal(0.01)")


@pytest.mark.parametrize("dtypes", [("float32",) * 3, ("float64",) * 3, ("uint16", "uint16", "float32"),
                                    ("float16", "float16", "float32"), ("uint16", "float32", "float16")])  # fmt: skip
@pytest.mark.parametrize("chunk", [0, 32, 1024, 4096])
def test_sizes_alignments_dtypes_and_chunks(dtypes: tuple[str, ...], chunk: int) -> None:
    make = np.random.default_rng(chunk)
    for offsets in ((0, 0, 0), (1, 1, 1), (0, 3, 2)):
        lists = [[data(make, n, d, o) for n in SIZES] for d, o in zip(dtypes, offsets, strict=True)]
        compare(RULE, lists, {"lr": 0.1}, seed=2**63 + 5, tensor_index=11, chunk=chunk)


def test_kinds_of_tensors_in_one_call() -> None:
    """float32, half and float64 parameters side by side: one launch for each kind."""
    make = np.random.default_rng(0)
    kinds = ["float32", "float64", "uint16", "float16", "float32", "float64"]
    lists = [[data(make, 40 + i, d) for i, d in enumerate(kinds)] for _ in range(3)]
    compare(RULE, lists, {"lr": 0.1}, seed=1)


@pytest.mark.parametrize(("maximize", "scale"), [(True, None), (False, 1024.0), (True, 3.0), (False, 0.1)])
def test_gradient_factor(maximize: bool, scale: float | None) -> None:
    make = np.random.default_rng(1)
    for dtype in ("float32", "float64", "float16"):
        lists = [[data(make, 500, dtype)] for _ in range(3)]
        compare(RULE, lists, {"lr": 0.1}, maximize=maximize, grad_scale=scale)


@pytest.mark.parametrize(
    "dtypes", [("uint16", "uint16", "float16"), ("float16", "float32", "uint16"), ("float32",) * 3]
)
@pytest.mark.parametrize("offset", [0, 1])
def test_stochastic_rounding(dtypes: tuple[str, ...], offset: int) -> None:
    make = np.random.default_rng(8)
    lists = [[data(make, n, d, offset) for n in (5, 2049, 4096)] for d in dtypes]
    compare(RULE, lists, {"lr": 0.1}, seed=2**40 + 1, tensor_index=3, chunk=1024, stochastic_rounding=True)
    names = "abcdfh"  # more states than register slots: the last ones are written in the middle of the rule
    program = nos_ext.compile_rule(
        f"def f(p, g, {', '.join(names)}, *, lr):\n    return p - lr * g, {', '.join(n + ' + 0.1 * g' for n in names)}"
    )
    lists = [[data(make, 2049, "uint16", offset, edges=0)] for _ in range(8)]
    compare(program, lists, {"lr": 0.1}, stochastic_rounding=True)


# ---- chunks ----------------------------------------------------------------------------------------------------------
def test_the_most_elements_of_a_block_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the environment, for benches; no bit depends on it. The host's device has four blocks at once."""
    blocks = {}
    for most in ("2048", "", "32768"):
        monkeypatch.setenv("NOS_CUDA_MOST_CHUNK", most)
        lists = [[data(np.random.default_rng(9), 100_000, "float32", edges=0)] for _ in range(3)]
        blocks[most] = compare(nos_ext.compile_rule("drop(g, 0.5) + m"), lists, {"lr": 0.1}, seed=3)
    assert blocks == {"2048": 49, "": 7, "32768": 5}
    x = [np.ones(5, np.float32)]
    for wrong in ("0", "-2048", "2047", "2048k", " 2048", "2097152", "1e4", "99999999999999999999"):
        monkeypatch.setenv("NOS_CUDA_MOST_CHUNK", wrong)
        with pytest.raises(ValueError, match=f"NOS_CUDA_MOST_CHUNK is '{wrong}'; expected a multiple of 2048 up to"):
            host.apply(nos_ext.compile_rule("g"), x, [x[0].copy()], [], groups=[{"lr": 1}])
    assert x[0].tolist() == [1] * 5


# ---- groups and populations ------------------------------------------------------------------------------------------
def test_groups_in_one_launch() -> None:
    make = np.random.default_rng(5)
    program = nos_ext.compile_rule(library.adamw)
    sizes = [5, 1000, 64, 4097, 33]
    lists = [[data(make, n, "float32", edges=0) for n in sizes] for _ in range(4)]
    lists[3] = [abs(v) for v in lists[3]]
    copies = [[a.copy() for a in one] for one in lists]
    groups = [{"lr": 0.1}, {"lr": 0.01, "weight_decay": 0.3}, {"lr": 1.0, "eps": 1e-3}]
    group_of = [0, 1, 2, 1, 0]
    host.apply(program, lists[0], lists[1], lists[2:], groups=groups, group_of=group_of, seeds=[0] * 3, step=7)
    for i, g in enumerate(group_of):
        nos_ext.apply_rule(
            program, [copies[0][i]], [copies[1][i]], [[copies[2][i]], [copies[3][i]]], step=7, **groups[g]
        )
        for ours, theirs in zip(lists, copies, strict=True):
            np.testing.assert_array_equal(ours[i], theirs[i])


@pytest.mark.parametrize("size", [1, 37, 64, 2051])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_population_of_many_programs(size: int, dtype: str) -> None:
    """Enough rows that the step block does not fit the kernel's arguments; odd sizes misalign every other slice."""
    make = np.random.default_rng(size)
    texts = [
        "g * exp(sign(g) * sign(m))", "rmsprop + drop(g, 0.5)", "g", "clip(adam, 1e-2) + m_hat", "v_hat * normal(0.1)",
        "where(g < m, v, y)", "pow(abs(g), 0.3) * sign(g)",
    ]  # fmt: skip
    programs = [nos_ext.compile_rule(texts[k % len(texts)]) for k in range(63)]
    most = max(len(p.state_names) for p in programs)
    lists = [[data(make, len(programs) * n, dtype, edges=0) for n in (size, 3)] for _ in range(2 + most)]
    copies = [[a.copy() for a in one] for one in lists]
    shaped = [[a.reshape(len(programs), -1) for a in one] for one in copies]
    lr = [0.1 * (k + 1) for k in range(len(programs))]
    seeds = list(range(100, 100 + len(programs)))
    nos_ext.apply_population(programs, shaped[0], shaped[1], shaped[2:], lr=lr, seed=seeds, step=4)
    host.apply(programs, lists[0], lists[1], lists[2:], groups=[{"lr": x} for x in lr], seeds=seeds, step=4)
    for ours, theirs in zip(lists, copies, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(canonical(a), canonical(b))


# ---- overflow --------------------------------------------------------------------------------------------------------
def wide_rule(values: int) -> nos_ext.Program:
    """A rule that keeps `values` values alive at once."""
    lines = [f"    a{k} = exp(g * {0.01 * k}) + p" for k in range(values)]
    total = " + ".join(f"a{k} * a{values - 1 - k}" for k in range(values))
    return nos_ext.compile_rule("def f(p, g, *, lr):\n" + "\n".join(lines) + f"\n    return p - lr * ({total})")


@pytest.mark.parametrize(("values", "limit"), [(20, host.SHARED_LIMIT), (80, host.SHARED_LIMIT), (40, 40_000)])
def test_overflow_slots(values: int, limit: int) -> None:
    """Blocks get smaller when the overflow slots would not fit."""
    program = wide_rule(values)
    assert host.listing(program)[1] > 3
    make = np.random.default_rng(6)
    for dtype in ("float32", "float64"):
        lists = [[data(make, 5000, dtype, edges=0)] for _ in range(2)]
        compare(program, lists, {"lr": 1e-3}, shared_limit=limit)


def test_a_rule_too_big_for_the_device() -> None:
    make = np.random.default_rng(6)
    lists = [[data(make, 50, "float32")] for _ in range(2)]
    before = lists[0][0].copy()
    with pytest.raises(ValueError, match=r"temporaries beyond the registers.*move the tensors to the CPU"):
        host.apply(wide_rule(60), lists[0], lists[1], [], groups=[{"lr": 1}], shared_limit=16_000)
    np.testing.assert_array_equal(lists[0][0], before)


# ---- random rules ----------------------------------------------------------------------------------------------------
def test_random_rules() -> None:
    @settings(max_examples=800)
    @given(
        rule=rules(max_ops=60), seed=st.integers(0, 2**64 - 1), step=st.integers(1, 10_000), registers=st.integers(0, 9)
    )
    def check(rule: Rule, seed: int, step: int, registers: int) -> None:
        program = nos_ext.compile_rule(rule)
        make = np.random.default_rng(seed % 2**32)
        lists = [[data(make, 67, "float32")] for _ in range(2 + len(program.state_names))]
        compare(program, lists, {"lr": 0.1}, step=step, seed=seed, tensor_index=5, registers=registers)

    check()
