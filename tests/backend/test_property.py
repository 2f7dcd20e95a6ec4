"""Random rules, random inputs with edge values: the engine stays within the bound of the running error analysis."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nos_ext
from nos_ext.ops import OPS
from nos_ext.rule import Rule
from nos_ext.rule.table import REDUCTIONS
from tests.reference import bounds
from tests.reference.oracle import ORACLE
from tests.reference.strategies import ELEMENTWISE, rules

EDGES = [0.0, -0.0, 1.0, -1.0, 0.5, 2.0, -3.0, 1e-3, -1e-3, 1e-8, 1e-30, -1e-30, 1e-40, 1e-45, 1e10, -1e10, 3e38, 88.7, -104.0,
         np.inf, -np.inf, np.nan]  # fmt: skip
SIZE = 67


def inputs(seed: int, count: int, dtype: type, size: int = SIZE, edges: float = 0.15) -> list[np.ndarray]:
    """Arrays that mix edge values with numbers of everyday magnitude, all of them exact in fp32."""
    make = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        x = make.standard_normal(size) * 10.0 ** make.integers(-3, 2, size)
        edge = make.random(size) < edges
        x[edge] = make.choice(EDGES, edge.sum())
        out.append(x.astype(np.float32).astype(dtype))
    return out


# Numbers of elements for rules with reductions: the engine sums up to 256 at once.
SIZES = (1, SIZE, 700)


@pytest.mark.parametrize("reductions", [False, True], ids=["elementwise", "reductions"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_engine_within_the_derived_bound(dtype: type, reductions: bool) -> None:
    ops = tuple(ORACLE) if reductions else ELEMENTWISE
    fmt = bounds.F32 if dtype is np.float32 else bounds.F64
    seen: Counter[str] = Counter()

    @settings(max_examples=400)
    @given(rule=rules(ops=ops), seed=st.integers(0, 2**64 - 1), step=st.integers(1, 10_000))
    def check(rule: Rule, seed: int, step: int) -> None:
        program = nos_ext.compile_rule(rule)
        # A NaN or infinity among the elements would decide every reduction, so there they are rare.
        size, edges = (SIZES[seed % len(SIZES)], 0.001) if reductions else (SIZE, 0.15)
        arrays = inputs(seed % 2**32, 2 + len(program.state_names), dtype, size, edges)
        for i, name in enumerate(program.state_names, 2):
            if name in program.per_tensor_states:
                arrays[i] = arrays[i][:1].reshape(())
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
    assert seen["decided"] > 0.5 * seen["all"], seen  # a test of undecided elements would say nothing
    expected_ops = {name for name in ops if OPS[name].domain != "scalar"}
    assert expected_ops <= set(seen), expected_ops - set(seen)


def test_every_op_has_a_bound() -> None:
    assert {*bounds.PROPAGATE, "drop", "normal", *REDUCTIONS} == set(ORACLE)
