"""What is the native tier's alone: memory for its code, and its quotient. Its bits are the conformance suite's."""

from __future__ import annotations

import numpy as np
import pytest

import nos_ext
from tests.backend.conformance.backends import OtherProcess, Reference, answers
from tests.backend.conformance.call import canonical
from tests.backend.conformance.cases import EDGES


def test_no_executable_memory() -> None:
    """A system that refuses it gets the interpreter."""
    refused = OtherProcess("no executable memory", {"NOS_TEST_REFUSE_EXEC": "1"})
    assert refused.answers(["pressure"]) == answers(Reference(), ["pressure"])


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
