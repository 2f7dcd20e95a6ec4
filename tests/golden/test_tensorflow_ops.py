"""PowerSign and AddSign beside TensorFlow's own ops, run here: `make test-tensorflow` installs TensorFlow and runs this.

TensorFlow's contrib optimizers, the authors' release, were thin shells around ResourceApplyPowerSign and
ResourceApplyAddSign. NumPy arrays go into both; torch is not needed.
"""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
import pytest

import nos_ext
from nos_ext import schedules
from nos_ext.optim import library

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
tf: Any = pytest.importorskip("tensorflow", reason="tensorflow is not installed; make test-tensorflow installs it")

STEPS, SIZE, LR = 30, 4096, 0.01
DECAYS = {
    "constant": lambda step: 1.0,
    "linear": schedules.linear_decay(STEPS),
    "cosine": schedules.cosine_decay(STEPS),
    "restart": schedules.restart_decay(STEPS, num_periods=3),
}


def apply_tensorflow(rule: str, var: Any, m: Any, grad: Any, decay: float, beta: float, hyper: float) -> None:
    number = lambda x: tf.constant(x, var.dtype)  # noqa: E731
    shared = {"var": var.handle, "m": m.handle, "lr": number(LR), "beta": number(beta), "grad": tf.constant(grad)}
    if rule == "powersign":
        tf.raw_ops.ResourceApplyPowerSign(logbase=number(math.log(hyper)), sign_decay=number(decay), **shared)
    else:
        tf.raw_ops.ResourceApplyAddSign(alpha=number(hyper), sign_decay=number(decay), **shared)


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize(
    ("rule", "name", "hyper", "beta"),
    [
        ("powersign", "base", math.e, 0.9),
        ("powersign", "base", 10.0, 0.5),
        ("addsign", "alpha", 1.0, 0.9),
        ("addsign", "alpha", 0.25, 0.99),
    ],
)
def test_side_by_side(rule: str, name: str, hyper: float, beta: float, dtype: Any, decay: str) -> None:
    """Thirty steps on 4096 elements; both sides round each step a few times."""
    make = np.random.default_rng(0)
    program = nos_ext.compile_rule(getattr(library, rule))
    p = make.normal(size=SIZE).astype(dtype)
    start, m = p.copy(), np.zeros(SIZE, dtype)
    var, slot = tf.Variable(p.copy()), tf.Variable(m.copy())
    unit = np.finfo(dtype).eps / 2
    bound = np.zeros(SIZE)
    decided = np.ones(SIZE, bool)  # the sign of the running average does not hang on its last bits
    for step in range(STEPS):
        grad = (make.normal(size=SIZE) * 10.0 ** make.integers(-3, 1, SIZE)).astype(dtype)
        grad[::97] = 0.0
        apply_tensorflow(rule, var, slot, grad, DECAYS[decay](step), beta, hyper)
        before = p.astype(np.float64)
        nos_ext.apply_rule(
            program, [p], [grad], {"m": [m]},
            lr=LR, step=step + 1, sign_decay=DECAYS[decay](step), beta=beta, **{name: hyper},
        )  # fmt: skip
        decided &= np.abs(m) > 64 * unit * np.abs(grad)
        bound += unit * (
            2 * np.abs(p) + 16 * np.abs(p - before)
        )  # one rounding of p, a few of the update, on each side
    assert decided.mean() > 0.95
    assert (np.abs(p - var.numpy()) <= bound)[decided].all()
    assert np.abs(m - slot.numpy())[decided].max() <= 8 * STEPS * unit
    assert np.abs(p - start).max() > 100 * bound.max()  # something was compared


@pytest.mark.parametrize("rule", ["powersign", "addsign"])
def test_edges(rule: str) -> None:
    """Zero gradients, averages that cancel, infinities and NaN: the same numbers come out."""
    program = nos_ext.compile_rule(getattr(library, rule))
    p = np.array([1.0, -2.0, 0.5, 0.0, 3.0, 1.0, 1.0, 1.0])
    m = np.array([0.1, -0.2, 0.3, 0.0, -0.5, np.nan, 0.5, 1.0])
    grad = np.array([0.2, 0.4, -0.1, 0.3, 0.0, 0.1, np.nan, np.inf])
    var, slot = tf.Variable(p.copy()), tf.Variable(m.copy())
    hyper = math.e if rule == "powersign" else 1.0
    apply_tensorflow(rule, var, slot, grad, 0.5, 0.9, hyper)
    nos_ext.apply_rule(program, [p], [grad], {"m": [m]}, lr=LR, beta=0.9, sign_decay=0.5)
    np.testing.assert_allclose(p, var.numpy(), rtol=1e-15, atol=0)
    np.testing.assert_allclose(m, slot.numpy(), rtol=1e-15, atol=0)
