"""Programs with reductions by the CUDA back-end's kernels on the host. That every back-end has the same bits is the
conformance suite's; here the sums have those of the tree of csrc/backend/cuda/interpreter/fold.h, and odd programs and captured steps are run."""

from __future__ import annotations

import numpy as np
import pytest

import nos_ext
from nos_ext.optim import library
from nos_ext.rule.program import split
from tests.backend.conformance.call import canonical
from tests.backend.conformance.cases import EDGES
from tests.backend.cuda import host

SIZES = [1, 2, 128, 129, 255, 256, 257, 5000, 65_536, 65_537, 600_001]  # the last has a first level of its own
ALL_SUMS = nos_ext.compile_rule(
    """
def f(p, g, a, b, c, d, h, i, *, lr):
    return p, sum(g), mean(g), norm(g), rms(g), max_abs(g), dot(p, g)
"""
)


def tree(terms: np.ndarray, join: np.ufunc = np.add) -> float:
    """256 at a time: element i + 128 is added to element i, then i + 64, and at last the two that are left."""
    while True:
        level = np.zeros(-(-terms.size // 256) * 256)
        level[: terms.size] = terms
        units = level.reshape(-1, 256)
        for half in (128, 64, 32, 16, 8, 4, 2, 1):
            units = join(units[:, :half], units[:, half : 2 * half])
        terms = units[:, 0]
        if terms.size == 1:
            return float(terms[0]) + 0.0


def expected(p: np.ndarray, g: np.ndarray) -> list[float]:
    p, g = p.astype(np.float64), g.astype(np.float64)
    total, squares = tree(g), tree(g * g)
    return [total, total / g.size, np.sqrt(squares), np.sqrt(squares / g.size), tree(abs(g), np.maximum), tree(p * g)]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("size", SIZES)
def test_sums_have_the_bits_of_the_tree(size: int, dtype: type) -> None:
    make = np.random.default_rng(size)
    p, g = (make.standard_normal(size).astype(dtype) * 10.0 ** make.integers(-3, 4, size) for _ in range(2))
    p, g = p.astype(dtype), g.astype(dtype)
    for chunk in (0, 256, 2048):
        states = [[np.zeros((), dtype)] for _ in range(6)]
        host.apply(ALL_SUMS, [p.copy()], [g], states, groups=[{"lr": 0.1}], chunk=chunk)
        assert [s[0].item() for s in states] == [float(dtype(x)) for x in expected(p, g)]


def test_sums_of_floats_are_kept_in_double() -> None:
    """What is left when the number that float32 has room for is subtracted."""
    program = nos_ext.compile_rule("def f(p, g, s, d, *, lr, a=0.0, b=0.0):\n    return p, sum(g) - a, dot(p, g) - b")
    make = np.random.default_rng(1)
    for size in SIZES:
        p, g = (make.standard_normal(size).astype(np.float32) for _ in range(2))
        total, _, _, _, _, product = expected(p, g)
        a, b = float(np.float32(total)), float(np.float32(product))
        states = [[np.zeros((), np.float32)] for _ in range(2)]
        host.apply(program, [p.copy()], [g], states, groups=[{"lr": 0.1, "a": a, "b": b}])
        assert [s[0].item() for s in states] == [np.float32(total - a), np.float32(product - b)]


@pytest.mark.parametrize("size", [300, 5000])
def test_edge_values(size: int) -> None:
    """Every one of them in turn among zeros that are positive or negative, as the first element, the last, or between."""
    for value in EDGES:
        for zero, at in ((0.0, 0), (-0.0, size - 1), (-0.0, size // 2)):
            p, g = np.ones(size, np.float32), np.full(size, zero, np.float32)
            g[at] = value
            states = [[np.zeros((), np.float32)] for _ in range(6)]
            with np.errstate(all="ignore"):
                host.apply(ALL_SUMS, [p.copy()], [g], states, groups=[{"lr": 0.1}])
                wanted = np.array(expected(p, g), np.float32)
            np.testing.assert_array_equal(canonical(np.array([s[0] for s in states])), canonical(wanted))


def test_global_sums_are_added_in_the_order_of_the_tensors() -> None:
    """Of tensors that have a gradient, whatever their dtype."""
    program = nos_ext.compile_rule(
        "def f(p, g, a, b, *, lr):\n    return p, global_sum(g), global_norm(g) * 0 + global_dot(p, g)"
    )
    make = np.random.default_rng(2)
    sizes = [5, 700, 0, 1, 5000, 300, 2] * 40
    dtypes = [np.float32, np.float64, np.float16]
    lists = [[make.standard_normal(n).astype(dtypes[i % 3]) for i, n in enumerate(sizes)] for _ in range(2)]
    grads = [None if i % 11 == 3 else g for i, g in enumerate(lists[1])]
    states = [[np.full((), 7, np.float64 if g.dtype == np.float64 else np.float32) for g in lists[1]] for _ in "ab"]
    totals = np.zeros(2)
    for p, g in zip(lists[0], grads, strict=True):
        if g is not None and g.size:
            totals += [expected(p, g)[0], expected(p, g)[-1]]
    host.apply(program, lists[0], grads, states, groups=[{"lr": 0.1}])
    for one, total in zip(states, totals, strict=True):
        for state, g in zip(one, grads, strict=True):
            assert state == (7 if g is None or not g.size else state.dtype.type(total))


def test_param_groups() -> None:
    """Tensors of one call with hyperparameters of their own, and a reduction of all of them."""
    program = nos_ext.compile_rule("def f(p, g, k, *, lr):\n    return p - lr * g / norm(g), lr * global_norm(g)")
    make = np.random.default_rng(3)
    params, grads = ([make.standard_normal(n).astype(np.float32) for n in (10, 300, 257)] for _ in range(2))
    rates, group_of = [0.5, 0.125], [0, 1, 1]
    found = [p.copy() for p in params]
    state = [np.zeros((), np.float32) for _ in params]
    host.apply(program, found, grads, [state], groups=[{"lr": lr} for lr in rates], group_of=group_of)
    square = sum(expected(p, g)[2] ** 2 for p, g in zip(params, grads, strict=True))
    for i, group in enumerate(group_of):
        p = [params[i].copy()]
        nos_ext.apply_rule(program, p, [grads[i]], [[np.zeros((), np.float32)]], lr=rates[group])
        np.testing.assert_array_equal(found[i], p[0])
        np.testing.assert_allclose(state[i], rates[group] * np.sqrt(square), rtol=1e-6)


# Of three rules the first reductions differ, two have one of their own over all tensors, and one has no reduction.
RULES = [
    nos_ext.compile_rule("def a(p, g, m, *, lr):\n    m = 0.5 * m + g\n    return p - lr * m / global_norm(g), m"),
    nos_ext.compile_rule(
        "def b(p, g, m, k, *, lr):\n    m = 0.25 * m + g\n"
        "    return p - lr * norm(p) * m / (global_norm(g) + global_norm(m)), m, 0.5 * k + norm(g)"
    ),
    nos_ext.compile_rule(
        "def c(p, g, k, *, lr):\n    return p - lr * g / (1 + global_norm(p + k)), 0.5 * k + max_abs(g)"
    ),
    nos_ext.compile_rule("def d(p, g, m, *, lr):\n    m = 0.5 * m + g\n    return p - lr * m, m"),
]


@pytest.mark.parametrize("program_of", [[0, 1, 2, 3, 0, 1], [1, 0, 0, 2, 3, 3], [3, 3, 3, 1, 1, 0]])
def test_param_groups_with_rules_of_their_own(program_of: list[int]) -> None:
    """What is reduced of p and g alone is so over the tensors of all rules that do it, and the rest over those of one
    rule. One slot is a number per tensor in some rules, and has every element in others."""
    make = np.random.default_rng(5)
    shapes = [10, 300, 1, 5000, 257, 700]
    params, grads, slow = ([make.standard_normal(n).astype(np.float32) for n in shapes] for _ in range(3))
    numbers = [np.full((), 3 + i, np.float32) for i in range(6)]
    first = [{0: m, 1: m, 2: k, 3: m}[kind] for kind, m, k in zip(program_of, slow, numbers, strict=True)]
    second = [k if kind == 1 else None for kind, k in zip(program_of, numbers, strict=True)]
    found = [p.copy() for p in params]
    states = [[x.copy() for x in first], [None if x is None else x.copy() for x in second]]
    rates = [0.5, 0.25, 0.125, 1.0]
    used = sorted(set(program_of))
    host.apply(
        RULES, found, grads, states, groups=[{"lr": rates[kind]} for kind in used],
        group_of=[used.index(kind) for kind in program_of], program_of=program_of,
    )  # fmt: skip

    def norm(arrays: list[np.ndarray]) -> float:
        return float(np.sqrt(sum(np.sum(x.astype(np.float64) ** 2) for x in arrays)))

    decay = {0: 0.5, 1: 0.25, 3: 0.5}
    new = [decay.get(kind, 0) * m + g for kind, m, g in zip(program_of, slow, grads, strict=True)]
    common = norm([g for kind, g in zip(program_of, grads, strict=True) if kind in (0, 1)])
    own = norm([m for kind, m in zip(program_of, new, strict=True) if kind == 1])
    moved = norm([p + k for kind, p, k in zip(program_of, params, numbers, strict=True) if kind == 2])
    for i, kind in enumerate(program_of):
        p, g, lr = params[i], grads[i], rates[kind]
        step = {
            0: new[i] / common, 1: norm([p]) * new[i] / (common + own), 2: g / (1 + moved), 3: new[i],
        }[kind]  # fmt: skip
        np.testing.assert_allclose(found[i], p - lr * step, rtol=1e-5, atol=1e-6)
        number = 0.5 * numbers[i] + (abs(g).max() if kind == 2 else norm([g]))
        np.testing.assert_allclose(states[0][i], number if kind == 2 else new[i], rtol=1e-6, atol=1e-6)
        if kind == 1:
            np.testing.assert_allclose(states[1][i], number, rtol=1e-6)


def test_a_state_that_becomes_a_number_of_the_step() -> None:
    """Nothing is reduced for it any more, and yet it is one number per tensor."""
    code = bytearray(nos_ext.compile_rule("def f(p, g, k, *, lr):\n    return p - lr * g * k, norm(g)").bytecode)
    code[-2:] = (0x8000 | 2).to_bytes(2, "little")  # the state's new value: lr
    program = nos_ext.Program.from_bytes(bytes(code))
    p, g, k = np.ones(300, np.float32), np.full(300, 2, np.float32), np.full((), 3, np.float32)
    host.apply(program, [p], [g], [[k]], groups=[{"lr": 0.5}])
    assert k == 0.5
    assert p.tolist() == [1 - 0.5 * 2 * 3] * 300


def test_values_beyond_the_registers() -> None:
    """Overflow slots of the kernel that has reductions, in blocks of every size that the device has room for."""
    lines = [f"    a{k} = exp(g * {0.01 * k}) + p" for k in range(40)]
    total = " + ".join(f"a{k} * a{39 - k}" for k in range(40))
    norms = " + ".join(f"norm(a{k})" for k in range(40))
    program = nos_ext.compile_rule(
        "def f(p, g, *, lr):\n" + "\n".join(lines) + f"\n    return p - lr * ({total}) / ({norms})"
    )
    make = np.random.default_rng(6)
    for dtype in (np.float32, np.float64):
        p, g = (make.standard_normal(5000).astype(dtype) for _ in range(2))
        wanted = p.copy()
        nos_ext.apply_rule(program, [wanted], [g], [], lr=1e-3)
        for limit in (host.SHARED_LIMIT, 90_000):
            found = p.copy()
            host.apply(program, [found], [g], [], groups=[{"lr": 1e-3}], shared_limit=limit)
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_captured_steps(dtype: type) -> None:
    """A rule that reads t and keeps a number, and a population of rules of which one has no reductions."""
    averaged = nos_ext.compile_rule(
        """
def f(p, g, k, *, lr, beta=0.9):
    k = beta * k + (1 - beta) * norm(g)
    return p - lr * drop(g, 0.5) / (k / (1 - pow(beta, t)) + global_norm(p)), k
"""
    )
    texts = ("g / norm(g)", "drop(g, 0.5)", "g * min(1, 1 / global_norm(g - mean(g)))")
    population = [averaged, *(nos_ext.compile_rule(text) for text in texts)]
    make = np.random.default_rng(8)
    for programs in ([averaged], population):
        slices = len(programs)
        lists = [[make.standard_normal(slices * n).astype(dtype) for n in (3, 2051)] for _ in range(2)]
        lists.append([np.zeros(slices, dtype) for _ in range(2)])
        copies = [[x.copy() for x in one] for one in lists]
        seeds, groups = [7 + k for k in range(slices)], [{"lr": 0.1 * (k + 1)} for k in range(slices)]
        host.apply(
            programs if slices > 1 else programs[0], lists[0], lists[1], lists[2:], groups=groups, seeds=seeds,
            captured=host.Captured(3),
        )  # fmt: skip
        for step in (1, 2, 3):
            for k, program in enumerate(programs):
                p, g, (*state,) = ([x.reshape(slices, -1)[k] for x in one] for one in copies)
                numbers = [[x.reshape(()) for x in state]] if program.state_names else []
                nos_ext.apply_rule(program, p, g, numbers, step=step, seed=seeds[k], **groups[k])
        for ours, theirs in zip(lists, copies, strict=True):
            for x, y in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(x, y)


def test_nothing_is_loaded_into_a_captured_step_with_reductions() -> None:
    """Nor a rule with reductions into another one: each keeps its launches."""
    plain, reducing = nos_ext.compile_rule("g"), nos_ext.compile_rule("g / norm(g)")
    for program, later, whose in ((reducing, plain, "a rule of this captured step"), (plain, reducing, "it")):
        p = np.ones(5, np.float32)
        with pytest.raises(ValueError, match=f"rule 'rule' cannot be loaded, as {whose} has reductions, and steps of"):
            host.apply(
                program, [p], [p.copy()], [], groups=[{"lr": 0.1}], captured=host.Captured(0, later, 0, {"lr": 0.1}, 1)
            )
        assert p.tolist() == [1] * 5


def test_arithmetic_after_the_last_reduction_needs_no_pass() -> None:
    """A state that is made of a norm is known when the sums of the pass are, so p is written in that pass."""
    rules = {
        1: "def f(p, g, s, *, lr):\n    return p - lr * g, 0.9 * norm(g) + 0.1",
        2: "def f(p, g, s, *, lr):\n    n = norm(g)\n    return p - lr / n * g, 0.9 * n + 0.1",
    }
    for passes, text in rules.items():
        p, g, s = np.ones(100), np.full(100, 0.5), np.zeros(())
        assert host.apply(nos_ext.compile_rule(text), [p], [g], [[s]], groups=[{"lr": 0.1}]) == passes
        assert s == 0.9 * 5 + 0.1
        np.testing.assert_array_equal(p, 1 - 0.1 / (1 if passes == 1 else 5.0) * g)


def test_stages_of_a_rule_that_is_cut_at_its_reductions() -> None:
    """They write numbers in float64 beside parameters in fp32, and read them, each in one pass."""
    program = split(library.adamh.compile())
    make = np.random.default_rng(4)
    sizes = (5, 700, 5000)
    given = {name: [make.standard_normal(n).astype(np.float32) for n in sizes] for name in "pgmv"}
    given["v"] = [x * x for x in given["v"]]
    given["size"] = [np.full((), 2 + i, np.float32) for i in range(len(sizes))]
    given |= {name: [np.full((), 1.1 + i) for i in range(len(sizes))] for name in program.stages[-1].state_names[3:]}
    for stage, results in zip(program.stages, program.results, strict=True):
        names = ["p", *stage.state_names]
        wanted, found = ([[x.copy() for x in given[name]] for name in names] for _ in range(2))
        nos_ext.apply_rule(stage, wanted[0], given["g"], wanted[1:], lr=0.1, step=3)
        blocks = host.apply(stage, found[0], given["g"], found[1:], groups=[{"lr": 0.1}], step=3)
        assert blocks == 1 + 1 + 3  # of up to 2048 elements
        written = [name for name, _ in results] or ["p", "m", "v"]
        for name, ours, theirs in zip(names, found, wanted, strict=True):
            for x, y, old in zip(ours, theirs, given[name], strict=True):
                np.testing.assert_array_equal(x, y)
                assert np.array_equal(x, old) == (name not in written)
