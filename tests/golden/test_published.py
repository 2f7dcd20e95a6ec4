"""Published and derived vectors: MindSpore's ApplyPowerSign, Keras' Lion, the paper's operands and found rules, Rosenbrock."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import nos_ext
from nos_ext.optim import library

U32 = 2.0**-24


def test_mindspore_apply_power_sign() -> None:
    """The documentation example of mindspore.ops.ApplyPowerSign; its logbase is the logarithm itself, so base = e^e."""
    program = nos_ext.compile_rule(library.powersign)
    hyper = {"base": np.e**np.e, "sign_decay": 0.99, "beta": 0.9}
    for lr, expected in (
        (0.001, [[0.59557569, 0.389676481], [0.0985252112, 0.488201708]]),
        (0.01, [[0.5557564, 0.29676488], [0.08525213, 0.38201702]]),
    ):
        for dtype in (np.float32, np.float64):
            var = np.array([[0.6, 0.4], [0.1, 0.5]], dtype)
            m = np.array([[0.6, 0.5], [0.2, 0.6]], dtype)
            grad = np.array([[0.3, 0.7], [0.1, 0.8]], dtype)
            nos_ext.apply_rule(program, [var], [grad], {"m": [m]}, lr=lr, **hyper)
            # eight digits printed from fp32 results, and our own fp32 roundings
            assert np.abs(var - expected).max() < 8 * U32
            assert np.abs(m - [[0.57, 0.52], [0.19, 0.62]]).max() < 4 * U32


def test_keras_lion() -> None:
    program = nos_ext.compile_rule(library.lion)
    x, grads = np.ones(10), [np.full(10, 0.01), *[np.arange(0.1, 1.05, 0.1)] * 4]
    state = nos_ext.init_state(program, [x])
    for step, (g, expected) in enumerate(zip(grads, (0.999, 0.998, 0.997, 0.996, 0.995), strict=True), start=1):
        nos_ext.apply_rule(program, [x], [g], state, lr=0.001, step=step)
        assert np.abs(x - expected).max() < 1e-15 * step


W0, GRADS = (1.0, -2.0, 0.5), ((0.5, -0.25, 2e-5), (-0.1, -0.25, -3e-5), (0.2, 0.4, 1e-5))

# Computed from the definitions in float64: betas .9/.999/.999 from zero, bias-corrected, eps 1e-8, lr 0.1, after 3 steps.
FOUND_RULES = {
    "g": (0.94, -1.99, 0.5),
    "g * exp(sign(g) * sign(m_hat))": (0.8133990664, -1.878801086, 0.5000023504),
    "g * (1 + sign(g) * sign(m_hat))": (0.86, -1.9, 0.500002),
    "m_hat * exp(v_hat)": (0.8938207158, -1.945659351, 0.4999986611),
    "clip(m_hat, 1e-4) * exp(v_hat)": (0.9999647212, -1.999967713, 0.4999986611),
    "(exp(sign(g) * sign(m_hat)) + clip(g, 1e-4)) * g": (0.8133910664, -1.878810086, 0.5000023503),
    "m_hat * exp(g ** 2)": (0.8974132965, -1.945584445, 0.4999986611),
    "g - clip(g ** 2, 1e-4)": (0.94003, -1.98997, 0.5000000001),
    "exp(g) - exp(m_hat)": (1.028532295, -2.050192099, 0.5000013389),
    "adam": (0.7887814028, -1.796708255, 0.426176484),
    "rmsprop": (0.8644737117, -1.929754933, 0.4713876624),
    "adam * exp(sign(g) * sign(m_hat))": (0.5459600134, -1.455132688, 0.2961161383),
    "sign(adam)": (0.7, -1.7, 0.6),
    "y_hat": (0.9769070528, -1.997969323, 0.5),
}


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=lambda d: str(d)[6:]
)
@pytest.mark.parametrize("rule", FOUND_RULES)
def test_found_rules(rule: str, dtype: torch.dtype) -> None:
    """Half precision: gradients and states are kept wide, so that the parameter's three roundings are the only ones."""
    program = nos_ext.compile_rule(rule)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    w = [torch.tensor(W0, dtype=dtype)]
    state = nos_ext.init_state(program, w)
    for step, g in enumerate(GRADS, start=1):
        nos_ext.apply_rule(program, w, [torch.tensor(g, dtype=wide)], state, lr=0.1, step=step)
    roundoff = {torch.float64: 2**-53, torch.float32: 2**-24, torch.bfloat16: 2**-9, torch.float16: 2**-11}[dtype]
    compute = 0.0 if dtype == torch.float64 else 2**-24
    printed = 6e-10  # ten digits in the table
    # per step: one rounding of a parameter of magnitude < 2, and at most 16 fp32 roundings of an update of magnitude < 1.
    # The third component cancels to 1e-5 of the running averages, which magnifies their relative error by no more than 4.
    bound = 3 * (roundoff * 2 + 16 * 4 * compute * 0.3) + printed
    assert (w[0].double() - torch.tensor(FOUND_RULES[rule], dtype=torch.float64)).abs().max() <= bound


@pytest.mark.parametrize(
    ("rule", "values"),
    [
        ("sgd", {1: 19.1795848139, 10: 5.6215943736, 100: 4.1074178248, 1000: 3.8174768855}),
        ("powersign", {1: 12.3618032616, 10: 4.1419689094, 100: 4.0618301534, 1000: 3.2323855787}),
        ("addsign", {1: 14.9415562317, 10: 4.2352156844, 100: 4.0830761138, 1000: 3.4866868380}),
    ],
)  # fmt: skip
def test_rosenbrock(rule: str, values: dict[int, float]) -> None:
    """f = (1-x)^2 + 100 (y-x^2)^2 from (-1.2, 1), lr 1e-4, float64: the value after 1, 10, 100 and 1000 steps."""
    program = nos_ext.compile_rule(getattr(library, rule))
    p = np.array([-1.2, 1.0])
    state = nos_ext.init_state(program, [p])
    for step in range(1, 1001):
        x, y = p
        grad = np.array([-2 * (1 - x) - 400 * x * (y - x * x), 200 * (y - x * x)])
        nos_ext.apply_rule(program, [p], [grad], state, lr=1e-4, step=step)
        if step in values:
            x, y = p
            assert (1 - x) ** 2 + 100 * (y - x * x) ** 2 == pytest.approx(values[step], abs=1e-9)
