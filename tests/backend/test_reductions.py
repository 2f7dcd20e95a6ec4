"""Rules with reductions on the CPU: to the bit what docs/numerics.md says, in whatever way the work is cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import nos_ext
from nos_ext import _C
from nos_ext.rule import Rule
from nos_ext.rule.table import REDUCTIONS
from tests.reference import exact
from tests.reference.strategies import rules

SIZES = [1, 2, 3, 127, 128, 129, 255, 256, 257, 511, 512, 513, 65535, 65536, 65537, 70_000, 300_000]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
EDGES = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-40, 3e38, -1e20]


@pytest.fixture(autouse=True)
def restore_tuning() -> Iterator[None]:
    yield
    _C.set_tuning()


def bits(x: torch.Tensor) -> torch.Tensor:
    """With one NaN for all."""
    x = torch.where(x.isnan(), torch.full_like(x, float("nan")), x)
    return x.contiguous().view({2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()])


def array(x: torch.Tensor) -> np.ndarray:
    """In memory order, in the type that the engine computes in."""
    return exact.memory_order((x if x.dtype == torch.float64 else x.float()).numpy())


def numbers(make: torch.Generator, shape: Any, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Of so many magnitudes that sums in double are rounded, and the order shows (but of float16, which are exact)."""
    most = 4 if dtype == torch.float16 else 8
    x = torch.randn(shape, generator=make, dtype=torch.float64)
    return (x * 10.0 ** torch.randint(-most, most, x.shape, generator=make)).to(dtype)


def three_parts(reduction: str) -> nos_ext.Program:
    """Its states become a double in three parts: what is left of the reduction after those before it."""
    return nos_ext.compile_rule(
        f"def parts(p, g, a, b, c, *, lr):\n    s = {reduction}\n    return p, s, s - a, s - a - b\n"
    )


def double_of(program: nos_ext.Program, params: list[Any], grads: list[Any]) -> list[float]:
    """A reduction of every tensor, with all bits of the engine's double. The states may be fp32."""
    state = nos_ext.init_state(program, params)
    for _ in range(3):
        nos_ext.apply_rule(program, params, grads, state, lr=0.1)
    return [sum(float(state[name][i]) for name in "abc") for i in range(len(params))]


# --- the order of sums ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("op", ["sum", "mean", "norm", "rms", "max_abs", "dot"])
def test_order_of_sums(op: str, dtype: torch.dtype) -> None:
    make = torch.Generator().manual_seed(1)
    params, grads = ([numbers(make, n, dtype) for n in SIZES] for _ in "pg")
    operands = ("g", "p") if op == "dot" else ("g",)
    found = double_of(three_parts(f"{op}({', '.join(operands)})"), params, grads)
    lists = {"g": grads, "p": params}
    expected = [exact.reduced(op, *(array(lists[x][i]) for x in operands)) for i in range(len(SIZES))]
    assert found == expected
    if op == "sum" and dtype != torch.float16:
        assert expected != [np.sum(array(g), dtype=np.float64) for g in grads], "the order does not show"


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_order_of_a_sum_over_all_tensors(dtype: torch.dtype) -> None:
    """Each tensor for itself, then one after the other, without those that are empty or have no gradient."""
    make = torch.Generator().manual_seed(2)
    params, grads = ([numbers(make, n, dtype) for n in (0, *SIZES, 5)] for _ in "pg")
    with_gradient: list[Any] = [*grads[:-1], None]
    for op, operands in {"global_sum": [grads], "global_norm": [grads], "global_dot": [grads, params]}.items():
        found = double_of(three_parts(f"{op}({', '.join('gp'[: len(operands)])})"), params, with_gradient)
        total = sum(exact.added_up(op, [array(x[i]) for x in operands]) for i in range(1, len(SIZES) + 1))
        assert found == [0, *[exact.finished(op, total, 0)] * len(SIZES), 0]


def test_order_is_that_of_memory() -> None:
    make = torch.Generator().manual_seed(3)
    program = three_parts("sum(g)")
    for p in (torch.zeros(30, 50).t(), torch.zeros(2, 3, 20, 30).to(memory_format=torch.channels_last)):
        g = torch.empty_like(p).copy_(numbers(make, p.shape))
        (found,) = double_of(program, [p], [g])
        assert found == exact.joined(array(g)) != exact.joined(g.numpy().ravel())


@pytest.mark.parametrize(
    "values", [[np.nan], [np.inf], [-np.inf], [np.inf, -np.inf], [np.nan, np.inf], [-0.0]], ids=str
)
@pytest.mark.parametrize("op", sorted(REDUCTIONS))
@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_special_values_spread_as_in_numpy(op: str, values: list[float], dtype: torch.dtype) -> None:
    program = nos_ext.compile_rule(
        f"def f(p, g, k, *, lr):\n    return p - 0 * g, {op}({'g, g' if op.endswith('dot') else 'g'})\n"
    )
    for size in (len(values), 300, 70_000):
        g = torch.zeros(size, dtype=dtype) if values == [-0.0] else torch.ones(size, dtype=dtype)
        g[-1], g[0] = values[-1], values[0]
        p, k = torch.zeros_like(g), torch.zeros((), dtype=dtype)
        nos_ext.apply_rule(program, [p], [g], [[k]], lr=0.1)
        x = g.double().numpy()
        with np.errstate(all="ignore"):
            expected = {
                "sum": np.sum(x), "mean": np.mean(x), "norm": np.sqrt(np.sum(x * x)), "dot": np.sum(x * x),
                "rms": np.sqrt(np.mean(x * x)), "max_abs": np.max(np.abs(x)),
            }[op.removeprefix("global_")]  # fmt: skip
        assert np.isnan(expected) if k.isnan() else float(k) == expected
        assert values != [-0.0] or (float(k) == 0 and not k.signbit()), "a reduction is not -0"


def test_large_numbers_of_fp32_do_not_overflow() -> None:
    g = torch.full((1000,), 3e38)
    (found,) = double_of(three_parts("norm(g) / 1e10"), [torch.zeros(1000)], [g])
    assert found == pytest.approx(3e28 * 1000**0.5, rel=1e-6)


# --- whole rules ------------------------------------------------------------------------------------------------------

KINDS = [
    (torch.float32, torch.float32, torch.float32), (torch.float64, torch.float64, torch.float64),
    (torch.bfloat16, torch.bfloat16, torch.float32), (torch.float16, torch.float32, torch.bfloat16),
    (torch.float32, torch.bfloat16, torch.float32), (torch.float32, torch.float32, torch.float16),
]  # fmt: skip


class Case:
    """A call on four tensors, and one without gradient among them. `kinds`: the dtypes of p, g and the states."""

    def __init__(self, program: nos_ext.Program, make: np.random.Generator, edges: float) -> None:
        self.program = program
        self.kinds = [KINDS[k] for k in make.integers(0, len(KINDS), 4)]
        self.sizes = [int(n) for n in make.choice([1, 2, 7, 100, 255, 256, 257, 600, 1030, 3000], 4)]

        def tensor(size: Any, dtype: torch.dtype) -> torch.Tensor:
            x = make.standard_normal(size)
            return torch.from_numpy(np.where(make.random(size) < edges, make.choice(EDGES, size), x)).to(dtype)

        both = list(zip(self.sizes, self.kinds, strict=True))
        self.lists = [[tensor(n, kind[slot]) for n, kind in both] for slot in (0, 1)]
        for name in program.state_names:
            if name in program.per_tensor_states:
                types = [torch.float64 if kind[0] == torch.float64 else torch.float32 for kind in self.kinds]
                self.lists.append([tensor(1, dtype)[0] for dtype in types])
            else:
                self.lists.append([tensor(n, kind[2]) for n, kind in both])

    def expected(self, **keywords: Any) -> list[list[torch.Tensor]]:
        params, grads, *states = [[array(x) for x in one] for one in self.lists]
        new = exact.evaluate(self.program, params, grads, states, {"lr": 0.1}, indices=[3, 4, 6, 7], **keywords)
        results = [self.lists[0], *self.lists[2:]]
        return [
            [torch.from_numpy(np.array(x)).to(like.dtype) for x, like in zip(a, b, strict=True)]
            for a, b in zip(new, results, strict=True)
        ]

    def run(self, **keywords: Any) -> list[list[torch.Tensor]]:
        third = [torch.ones(3), None, *[torch.zeros(like[0].shape) for like in self.lists[2:]]]
        params, grads, *states = [[*one[:2], x, *one[2:]] for one, x in zip(self.lists, third, strict=True)]
        nos_ext.apply_rule(self.program, params, grads, states, lr=0.1, tensor_index=3, **keywords)
        assert torch.equal(params[2], torch.ones(3))
        return [self.lists[0], *self.lists[2:]]


def test_random_rules_to_the_bit() -> None:
    """Rules of ops that NumPy rounds as the engine does, on tensors of several dtypes, cut in several ways."""
    seen: Counter[str] = Counter()

    @settings(max_examples=300)
    @given(
        rule=rules(max_ops=16, max_states=3, ops=exact.OPS + tuple(sorted(REDUCTIONS)) * 2),
        seed=st.integers(0, 2**64 - 1),
        edges=st.sampled_from([0.0, 0.0, 0.02]),
    )
    def check(rule: Rule, seed: int, edges: float) -> None:
        program = rule.compile()
        make = np.random.default_rng(seed % 2**32)
        case = Case(program, make, edges)
        maximize, scale = bool(make.integers(2)), [None, 3.0][make.integers(2)]
        factor = (-1 if maximize else 1) / (scale or 1)
        expected = case.expected(t=7, total=100.0, factor=factor, seed=seed)
        tuning = {name: int(make.choice(values)) for name, values in
                  {"block": [0, 4, 256, 500], "chunk": [0, 16, 256, 1000], "threads": [0, 1, 2]}.items()}  # fmt: skip
        _C.set_tuning(**tuning)
        found = case.run(step=7, total_steps=100, seed=seed, maximize=maximize, grad_scale=scale)
        for slot, lists in enumerate(zip(found, expected, strict=True)):
            for i, (x, y) in enumerate(zip(*lists, strict=True)):
                differ = bits(x.reshape(-1)) != bits(y.reshape(-1))
                assert not differ.any(), (
                    f"output {slot} of tensor {i}: {x.reshape(-1)[differ][:3]}, not {y.reshape(-1)[differ][:3]}; "
                    f"{case.kinds[i]}, {case.sizes[i]}, {tuning}\n{program.to_text()}\n{program.disassemble()}"
                )
        seen.update({op for op, *_ in program.code})
        seen["finite"] += int(all(x.isfinite().all() for x in found[0]))
        seen["numbers"] += bool(program.per_tensor_states)

    check()
    assert sum(seen[op] for op in REDUCTIONS) > 50
    assert seen["finite"] > 50
    assert seen["numbers"] > 20


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_states_are_rounded_only_where_they_are_stored(dtype: torch.dtype) -> None:
    """A float32 state is written before the norm is known, and read back after; a bfloat16 one is computed twice."""
    program = nos_ext.compile_rule(
        "def f(p, g, m, *, lr):\n    m = 0.9 * m + 0.1 * g\n    return p - lr * m / norm(m), m\n"
    )
    make = torch.Generator().manual_seed(4)
    p, g, m = (torch.randn(1000, generator=make) for _ in range(3))
    m = m.to(dtype)
    f32 = np.float32
    new = f32(0.9) * m.float().numpy() + f32(0.1) * g.numpy()
    norm = f32(np.sqrt(exact.joined(new.astype(np.float64) ** 2)))
    expected = p.numpy() - f32(0.1) * new / norm
    nos_ext.apply_rule(program, [p], [g], [[m]], lr=0.1)
    assert np.array_equal(p.numpy(), expected)
    assert torch.equal(m, torch.from_numpy(new).to(dtype))


# --- all tensors together ---------------------------------------------------------------------------------------------

BY_ITSELF = "def f(p, g, m, k, *, lr):\n    m = 0.5 * m + g\n    return p - lr * m / norm(m), m, norm(m)\n"
TOGETHER = "def f(p, g, m, k, *, lr):\n    m = 0.5 * m + g\n    return p - lr * m / global_norm(m), m, 0.5 * k + global_norm(m)\n"
ONLY_KEPT = "def f(p, g, m, k, *, lr):\n    return p - lr * g, m, k + global_sum(g)\n"


def test_one_sum_over_tensors_of_all_dtypes() -> None:
    """Some write the state before the sum is complete, others compute it again: it is one sum all the same."""
    program = nos_ext.compile_rule(TOGETHER)
    types = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
    wide = [torch.float64 if t == torch.float64 else torch.float32 for t in types]
    params, grads = [torch.ones(1, dtype=t) for t in wide], [torch.full((1,), x) for x in (1.0, 2.0, 2.0, 4.0)]
    grads = [g.to(t) for g, t in zip(grads, wide, strict=True)]
    state = [[torch.zeros(1, dtype=t) for t in types], [torch.zeros((), dtype=t) for t in wide]]
    nos_ext.apply_rule(program, params, grads, state, lr=0.1)
    assert [float(k) for k in state[1]] == [5.0] * 4
    assert [float(p) for p in params] == pytest.approx([1 - 0.1 * x / 5 for x in (1, 2, 2, 4)])


def test_a_sum_whose_result_only_goes_to_a_state() -> None:
    program = nos_ext.compile_rule(ONLY_KEPT)
    params, grads = [torch.zeros(n) for n in (3, 0, 2)], [torch.ones(n) for n in (3, 0, 2)]
    state = nos_ext.init_state(program, params)
    for _ in range(2):
        nos_ext.apply_rule(program, params, grads, state, lr=0.5)
    assert [float(k) for k in state["k"]] == [10.0, 0.0, 10.0], "nothing of an empty tensor changes"
    assert params[0].tolist() == [-1.0] * 3


def test_slices_of_a_population_do_not_mix() -> None:
    """Programs with sums over all tensors, over each, and without sums; two slices of one program."""
    texts = [TOGETHER, "g * m", BY_ITSELF, TOGETHER, ONLY_KEPT, "g"]
    programs = [nos_ext.compile_rule(t) for t in texts]
    programs[3] = programs[0]
    make = torch.Generator().manual_seed(5)
    shapes = [(300,), (2, 3), (0,), (), (70_000,)]
    params, grads, m = ([torch.randn(len(texts), *s, generator=make) for s in shapes] for _ in range(3))
    state = [m, [torch.rand(len(texts), generator=make) for _ in shapes]]
    expected = [[x.clone() for x in one] for one in (params, *state)]
    for i, program in enumerate(programs):
        states = [[x[i] for x in one] for one in expected[1:]][: len(program.state_names)]
        nos_ext.apply_rule(program, [p[i] for p in expected[0]], [g[i] for g in grads], states, lr=0.1 * (i + 1))
    nos_ext.apply_population(programs, params, grads, state, lr=[0.1 * (i + 1) for i in range(len(texts))])
    for found, wanted in zip((params, *state), expected, strict=True):
        assert all(map(torch.equal, found, wanted))
