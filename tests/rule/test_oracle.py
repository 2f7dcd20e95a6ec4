"""The oracle knows every op, and the evaluators that share nothing with it agree with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import nos_ext
from nos_ext.ops import OPS
from nos_ext.rule import Rule, philox
from nos_ext.rule.table import DRAWS, REDUCTIONS, numpy_function, torch_function
from tests.reference import oracle
from tests.reference.strategies import rules

EDGES = [0.0, -0.0, 1.0, -1.0, 0.5, 2.0, -2.5, 3.0, 1e-310, 1e300, -1e300, 1e-8, 0.1, 710.0, math.pi]
EDGES += [math.inf, -math.inf, math.nan]


def test_every_op_has_an_oracle_line() -> None:
    assert list(oracle.ORACLE) == list(OPS)
    for name, function in oracle.ORACLE.items():
        extra = OPS[name].domain == "random"
        assert function.__code__.co_argcount == OPS[name].arity + extra


ZERO_SIGN_OPEN = ("min", "max", "clip")  # NumPy and torch do not order the zeros
ELEMENTWISE = [op for op in OPS.values() if op.domain != "random" and op.name not in REDUCTIONS]


def same(a: Any, b: Any, zeros: bool) -> bool:
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    close = np.isclose(a, b, rtol=1e-14, atol=0, equal_nan=True)
    if zeros:
        close &= np.isnan(a) | (np.signbit(a) == np.signbit(b))
    return bool(np.all(close))


@pytest.mark.parametrize("op", ELEMENTWISE, ids=lambda op: op.name)
def test_templates_of_the_table(op: Any) -> None:
    """The NumPy and torch columns say what the doc column says, at the edges too."""
    grids = np.meshgrid(*[np.array(EDGES)] * op.arity, indexing="ij")
    operands = [x.ravel() for x in grids]
    function: Callable[..., Any] = oracle.ORACLE[op.name]
    with np.errstate(all="ignore"):
        if op.domain == "scalar":
            expected = np.array([function(*map(np.float64, row)) for row in zip(*operands, strict=True)])
        else:
            expected = function(*operands)
        zeros = op.name not in ZERO_SIGN_OPEN
        numpy_result = numpy_function(op.name)(*operands)
        torch_result = torch_function(op.name)(*map(torch.from_numpy, operands), _F=torch.float64)
    usable = np.ones(len(expected), dtype=bool)
    if op.name == "mod":  # the libraries differ where a quotient overflows
        usable = np.all([(np.abs(x) < 1e10) & ((np.abs(x) > 1e-10) | (x == 0)) for x in operands], axis=0)
    if op.name == "fma":  # two roundings in the table: products may overflow, subnormal sums differ
        with np.errstate(all="ignore"):
            usable = ~(np.isinf(operands[0] * operands[1]) & np.isinf(operands[2])) & ~(np.abs(expected) < 1e-300)
    expected, numpy_result, torch_result = expected[usable], numpy_result[usable], torch_result[usable]
    assert same(numpy_result, expected, zeros)
    assert same(torch_result, expected, zeros and op.name != "mod")


VECTORS = {
    "plain": [0.5, -2.0, 1e-8, 3.0, -0.0],
    "one element": [-2.0],
    "zeros": [0.0, -0.0],
    "an infinity": [1.0, -math.inf, 2.0],
    "two infinities": [math.inf, -math.inf],
    "NaN": [1.0, math.nan, -5.0],
}


@pytest.mark.parametrize("values", VECTORS.values(), ids=VECTORS.keys())
@pytest.mark.parametrize("name", sorted(REDUCTIONS))
def test_reductions_of_the_table(name: str, values: list[float]) -> None:
    operands = [np.array(values), np.array(values[::-1]) + 1.0][: OPS[name].arity]
    with np.errstate(all="ignore"):
        expected = oracle.ORACLE[name](*operands)
        assert same(numpy_function(name)(*operands), expected, zeros=False)
    result = torch_function(name)(*map(torch.from_numpy, operands), _F=torch.float64)
    assert result.shape == ()
    assert same(result, expected, zeros=False)


@settings(max_examples=100)
@given(rules(max_states=3, ops=tuple(OPS)), st.integers(0, 2**64 - 1), st.booleans())
def test_reference_of_reductions_agrees_with_the_oracle(rule: Rule, seed: int, on_torch: bool) -> None:
    """Several tensors, as a global reduction takes all of them, and one without gradient, which has no part in it."""
    rng = np.random.default_rng(seed % 1000)
    params, grads = ([rng.standard_normal(shape) for shape in [(3, 4), (5,), (1,)]] for _ in "pg")
    program = rule.compile()
    states = {
        name: [rng.standard_normal(() if name in program.per_tensor_states else p.shape) for p in params]
        for name in program.state_names
    }
    expected = oracle.evaluate_all(
        program, params, grads, list(states.values()), {"lr": 0.1}, 3, 100.0, seed=seed, tensor=1
    )
    make: Callable[[Any], Any] = torch.tensor if on_torch else np.array
    new_p, new_states = program.reference(
        [make(x) for x in [*params, np.ones(2), np.zeros((0, 3))]],
        [*[make(x) for x in grads], None, make(np.zeros((0, 3)))],
        {k: [make(x) for x in [*v, np.array(0.5), np.array(0.5)]] for k, v in states.items()},
        lr=0.1, step=3, total_steps=100.0, seed=seed, tensor_index=1,
    )  # fmt: skip
    close: list[bool] = []
    for got, wanted in zip([new_p, *new_states.values()], expected, strict=True):
        for a, b in zip(got[:3], wanted, strict=True):
            assert a.shape == b.shape
            with np.errstate(all="ignore"):
                close += np.isclose(np.asarray(a), b, rtol=1e-6, atol=1e-9, equal_nan=True).ravel().tolist()
    assert np.mean(close) > 0.5, program.disassemble()  # a last bit may be carried far, as above and by all tensors
    assert (np.asarray(new_p[3]) == 1).all()
    assert all(float(x) == 0.5 for tensors in new_states.values() for x in tensors[3:])


@settings(max_examples=150)
@given(rules(max_states=3), st.integers(0, 2**64 - 1), st.integers(1, 2**31))
def test_reference_agrees_with_the_oracle(rule: Rule, seed: int, step: int) -> None:
    rng = np.random.default_rng(seed % 1000)
    arrays = [rng.standard_normal(23) for _ in range(2 + len(rule.state_names))]
    p, g, *states = arrays
    program = rule.compile()
    arguments: dict[str, Any] = {"lr": 0.1, "step": step, "total_steps": 100.0, "seed": seed, "tensor_index": 3}
    expected_p, expected_states = oracle.evaluate(program, p, g, states, {"lr": 0.1}, step, 100.0, seed=seed, tensor=3)
    for source in (rule, program):
        new_p, new_states = source.reference([p], [g], [[s] for s in states], **arguments)
        results = [new_p[0], *[new_states[name][0] for name in rule.state_names]]
        for got, expected in zip(results, [expected_p, *expected_states], strict=True):
            # libraries differ in the last bit of exp and the like, which 40 ops may carry far
            with np.errstate(all="ignore"):
                decided = np.isclose(got, expected, rtol=1e-6, atol=1e-12, equal_nan=True)
            assert decided.mean() > 0.5, program.disassemble()


def test_philox_agrees_with_the_oracle_and_the_engine() -> None:
    for seed, step, tensor, site, count in [(0, 1, 0, 0, 8), (2**64 - 1, 2**32 - 1, 7, 4094, 9), (12345, 3, 2, 1, 1)]:
        words = philox.words(seed, step, tensor, site, count)
        assert list(words[:count]) == oracle.words(seed, step, tensor, site, count)[:count]
        first = nos_ext._C.philox(0, site << 20, tensor, step, seed & 0xFFFFFFFF, seed >> 32)
        assert tuple(words[:4]) == first
        like = np.empty(count)
        for op in ("drop", "normal"):
            got = philox.draw(DRAWS[op], like, seed, step, tensor, site)
            assert np.allclose(got, oracle.draws(op, seed, step, tensor, site, count), rtol=1e-13, atol=1e-15)


def test_draws_are_numbered_in_memory_order() -> None:
    flat = philox.draw("uniform", np.empty(24), 1, 2, 3, 4)
    like = np.empty((4, 3, 2)).transpose(2, 0, 1)
    assert np.array_equal(philox.draw("uniform", like, 1, 2, 3, 4), flat.reshape(4, 3, 2).transpose(2, 0, 1))
