"""Random rules, random inputs with edge values: the engine stays within the bound of the running error analysis."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nos_ext
from nos_ext.rule import Rule
from tests.reference import bounds
from tests.reference.oracle import GLOBAL, ORACLE, REDUCTIONS
from tests.reference.strategies import rules

EDGES = [0.0, -0.0, 1.0, -1.0, 0.5, 2.0, -3.0, 1e-3, -1e-3, 1e-8, 1e-30, -1e-30, 1e-40, 1e-45, 1e10, -1e10, 3e38, 88.7, -104.0,
         np.inf, -np.inf, np.nan]  # fmt: skip
SIZE = 67


def inputs(seed: int, count: int, dtype: type, edges: float = 0.15) -> list[np.ndarray]:
    """Arrays that mix edge values with numbers of everyday magnitude, all of them exact in fp32."""
    make = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        x = make.standard_normal(SIZE) * 10.0 ** make.integers(-3, 2, SIZE)
        edge = make.random(SIZE) < edges
        x[edge] = make.choice(EDGES, edge.sum())
        out.append(x.astype(np.float32).astype(dtype))
    return out


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_engine_within_the_derived_bound(dtype: type) -> None:
    seen = check_rules(rules(), dtype, 400, (0.15,))
    assert seen["decided"] > 0.5 * seen["all"], seen  # a test of undecided elements would say nothing
    elementwise = {row["name"] for row in nos_ext.op_table() if row["domain"] in ("any", "random")}
    assert elementwise <= set(seen), elementwise - set(seen)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_reductions_within_the_derived_bound(dtype: type) -> None:
    """One edge value decides a whole tensor, so most of these have none."""
    ops = tuple(name for name in ORACLE if name not in ("exp", "pow"))  # which lead to infinity too often
    seen = check_rules(rules(max_ops=12, max_states=3, ops=(*ops, *REDUCTIONS)), dtype, 400, (0.0, 0.0, 0.05))
    assert seen["decided"] > 0.5 * seen["all"], seen
    assert sum(seen[op] for op in REDUCTIONS) > 100


def check_rules(which: st.SearchStrategy[Rule], dtype: type, count: int, edges: tuple[float, ...]) -> Counter[str]:
    """Compares results with their bounds. What was seen: ops, and elements that are decided and all of them."""
    fmt = bounds.F32 if dtype is np.float32 else bounds.F64
    seen: Counter[str] = Counter()

    @settings(max_examples=count)
    @given(rule=which, seed=st.integers(0, 2**64 - 1), step=st.integers(1, 10_000), share=st.sampled_from(edges))
    def check(rule: Rule, seed: int, step: int, share: float) -> None:
        program = nos_ext.compile_rule(rule)
        arrays = inputs(seed % 2**32, 2 + len(program.state_names), dtype, share)
        for slot, name in enumerate(program.state_names, 2):
            if name in program.per_tensor_states:
                arrays[slot] = arrays[slot][:1].reshape(())
        expected = bounds.evaluate(
            program, arrays[0], arrays[1], arrays[2:], {"lr": 0.1}, step, 10_000.0, fmt, seed=seed, tensor=5
        )
        nos_ext.apply_rule(
            program, [arrays[0]], [arrays[1]], [[a] for a in arrays[2:]],
            lr=0.1, step=step, total_steps=10_000, seed=seed, tensor_index=5,
        )  # fmt: skip
        for got, (v, e) in zip([arrays[0], *arrays[2:]], expected, strict=True):
            wide = got.astype(np.float64)
            decided = np.isfinite(e)
            with np.errstate(invalid="ignore"):
                good = (wide == v) | (np.isnan(wide) & np.isnan(v)) | (np.abs(wide - v) <= e)
            bad = decided & ~good
            assert not bad.any(), (
                f"{program.disassemble()}\nengine {wide[bad][:3]}\noracle {v[bad][:3]}\nbound {e[bad][:3]}"
            )
            seen["decided"] += int(decided.sum())
            seen["all"] += decided.size
        seen.update({op for op, *_ in program.code})

    check()
    return seen


def test_every_op_has_a_bound() -> None:
    assert {*bounds.PROPAGATE, "drop", "normal", *REDUCTIONS, *GLOBAL} == set(ORACLE)
