"""Captured steps on the host: the prologue's scalars, rules loaded in place, populations, against the CPU engine."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nos_ext
from nos_ext.optim import library
from nos_ext.rule import Rule
from tests.backend.conformance.call import canonical
from tests.backend.conformance.cases import normal, tensor
from tests.backend.cuda import host
from tests.reference.strategies import rules


def both(lists: list[list[np.ndarray]]) -> list[list[np.ndarray]]:
    return [[a.copy() for a in one] for one in lists]


def assert_same(ours: list[list[np.ndarray]], theirs: list[list[np.ndarray]]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(canonical(x), canonical(y))


@pytest.mark.parametrize("dtypes", [("float32",) * 4, ("float64",) * 4, ("float16", "float16", "float32", "float32")])
def test_a_rule_loaded_in_place_runs_as_if_it_had_been_captured(dtypes: tuple[str, ...]) -> None:
    make = np.random.default_rng(2)
    adam, lion = (
        nos_ext.compile_rule(library.adam),
        nos_ext.compile_rule("cd * g * exp(sign(g) * sign(m)) + normal(0.1)"),
    )
    lists = [[normal(make, n, np.dtype(d)) for n in (3, 2051)] for d in dtypes]
    lists[3] = [abs(v) for v in lists[3]]
    copies = both(lists)
    host.apply(adam, lists[0], lists[1], lists[2:], groups=[{"lr": 0.1, "beta2": 0.99}], seeds=[7],
               captured=host.Captured(3, lion, 0, {"lr": 0.3}, 2))  # fmt: skip
    for step in (1, 2, 3):
        nos_ext.apply_rule(adam, copies[0], copies[1], copies[2:], lr=0.1, beta2=0.99, step=step, seed=7)
    for step in (1, 2):
        nos_ext.apply_rule(lion, copies[0], copies[1], copies[2:3], lr=0.3, step=step, seed=7, total_steps=10_000)
    assert_same(lists, copies)


def test_the_cpu_has_no_graphs() -> None:
    p, g = ([np.ones(3, np.float32)] for _ in range(2))
    with pytest.raises(
        ValueError, match="params are on the CPU, which has no CUDA graphs; use apply_rule, or move the"
    ):
        nos_ext.CapturedStep("g", p, g, [], lr=0.1)
    with pytest.raises(ValueError, match="no parameter has a gradient and elements; there is nothing to capture"):
        nos_ext.CapturedStep("g", [], [], [], lr=0.1)


def test_numbers_of_steps_end_at_32_bits() -> None:
    """A replay has nobody to tell: the last number stays, and does not start again at 0."""
    rule = nos_ext.compile_rule("def f(p, g, *, lr):\n    return p - lr * where(t > 4294967294, g, -g) + normal(0.1)\n")
    make, last = np.random.default_rng(4), 2**32 - 1
    lists = [[normal(make, 70)] for _ in range(2)]
    copies = both(lists)
    host.apply(rule, lists[0], lists[1], lists[2:], groups=[{"lr": 0.1}], seeds=[7], step=last - 1,
               captured=host.Captured(4))  # fmt: skip
    for step in (last - 1, last, last, last):
        nos_ext.apply_rule(rule, copies[0], copies[1], copies[2:], lr=0.1, step=step, seed=7)
    assert_same(lists, copies)


@pytest.mark.parametrize("threads", [1, 32, 96])
@pytest.mark.parametrize("backwards", [False, True])
def test_population(threads: int, backwards: bool) -> None:
    """Neither the order of a prologue's blocks and threads nor the size of its blocks shows."""
    make = np.random.default_rng(3)
    programs = [
        nos_ext.compile_rule(t) for t in ("g", "adam", "drop(g, 0.5) + cd * m", "v_hat")
    ] * 40  # more rows than a block has threads
    lists = [[normal(make, len(programs) * n) for n in (5, 70)] for _ in range(4)]
    copies = both(lists)
    shaped = [[a.reshape(len(programs), -1) for a in one] for one in copies]
    lr = [0.01 * (k + 1) for k in range(len(programs))]
    seeds = list(range(len(programs)))
    later = nos_ext.compile_rule("clip(m_hat, lr)")
    host.apply(programs, lists[0], lists[1], lists[2:], groups=[{"lr": x} for x in lr], seeds=seeds, step=5,
               captured=host.Captured(2, later, 9, {"lr": 0.5}, 1, threads=threads, backwards=backwards))  # fmt: skip
    for step in (5, 6, 1):
        if step == 1:
            programs[9], lr[9] = later, 0.5
        nos_ext.apply_population(
            programs, shaped[0], shaped[1], shaped[2:], lr=lr, seed=seeds, step=step, total_steps=10_000
        )
    assert_same(lists, copies)


def test_a_rule_beyond_the_capacity_is_refused() -> None:
    x = [np.ones(3, np.float32)]
    big = nos_ext.compile_rule("+".join(f"g**{k}*sin({k}*lr)" for k in range(200)))
    with pytest.raises(ValueError, match="room for 512; make it with a larger max_instructions="):
        host.apply(big, x, [x[0].copy()], [], groups=[{"lr": 1}], captured=host.Captured(1))
    many = nos_ext.compile_rule("g*(" + "+".join(f"sin(lr*{k})" for k in range(200)) + ")")
    with pytest.raises(ValueError, match="and the captured step has room for 128; make it with a larger max_scalars="):
        host.apply(many, x, [x[0].copy()], [], groups=[{"lr": 1}], captured=host.Captured(1))


def test_scalar_code_of_random_rules() -> None:
    """The prologue's interpreter of scalar code gives the host's doubles."""

    @settings(max_examples=200)
    @given(
        rule=rules(max_ops=40),
        seed=st.integers(0, 2**64 - 1),
        step=st.integers(1, 10_000),
        threads=st.integers(1, 64),
        backwards=st.booleans(),
    )
    def check(rule: Rule, seed: int, step: int, threads: int, backwards: bool) -> None:
        program = nos_ext.compile_rule(rule)
        make = np.random.default_rng(seed % 2**32)
        lists = [[tensor(make, 9)] for _ in range(2 + len(program.state_names))]
        copies = both(lists)
        host.apply(
            program,
            lists[0],
            lists[1],
            lists[2:],
            groups=[{"lr": 0.1}],
            step=step,
            seeds=[seed],
            captured=host.Captured(1, temporaries=60, threads=threads, backwards=backwards),
        )
        nos_ext.apply_rule(program, copies[0], copies[1], copies[2:], lr=0.1, step=step, seed=seed, total_steps=10_000)
        assert_same(lists, copies)

    check()


def test_a_rule_with_as_many_scalars_as_a_program_may_have() -> None:
    """More than any block has threads; max_scalars is cut to what programs can have."""
    terms = "+".join(f"sin(lr*{0.001 * k:.3f})" for k in range(1, 340))
    program = nos_ext.compile_rule(f"g*({terms})")
    make = np.random.default_rng(5)
    lists = [[normal(make, 70)] for _ in range(2)]
    copies = both(lists)
    host.apply(program, lists[0], lists[1], [], groups=[{"lr": 0.1}], captured=host.Captured(1, scalars=2**32 - 1))
    nos_ext.apply_rule(program, copies[0], copies[1], [], lr=0.1)
    assert_same(lists, copies)
