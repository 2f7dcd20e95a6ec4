"""PowerSign, AddSign and friends against TensorFlow: its own test cases, and the outputs of its raw ops.

tf_ops.json holds three steps of tf.raw_ops.ResourceApply* (TensorFlow 2.21.0) for fixed inputs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nos_ext
from nos_ext import schedules
from nos_ext.optim import library

# Unit roundoff of one stored parameter: each step rounds the parameter once, and the update a few times in fp32.
ROUNDOFF = {torch.float64: 2.0**-53, torch.float32: 2.0**-24, torch.bfloat16: 2.0**-9, torch.float16: 2.0**-11}


def bound(dtype: torch.dtype, steps: int, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Per element: every step rounds p and its gradient once (u each) and the fp32 update at most 8 times (docs/numerics.md)."""
    u, u32 = ROUNDOFF[dtype], max(ROUNDOFF[torch.float32], 2.0**-53)
    moved = np.abs(end - start) + 1.0  # no step of these cases moves a parameter by more than 1
    compute = 2.0**-53 if dtype == torch.float64 else u32
    return steps * (u * (np.maximum(np.abs(start), np.abs(end)) + moved) + 8 * compute * moved)


# (rule, lr, hyperparameters, linear decay?, var0[0] after steps 4, 5, 6, 7, var1[0] after steps 4, 7): the inputs are those of
# TensorFlow's powersign_test.py and addsign_test.py, the outputs computed from the definition in float64.
TF_CASES = [
    ("powersign", 0.1, {"base": np.e, "beta": 0.9}, False,
     (0.8912687269, 0.8949475213, 0.8986263157, 0.9258091340), (2.9891268727, 2.9925809134)),
    ("powersign", 0.1, {"base": 10.0, "beta": 0.8}, False, (0.6, 0.601, 0.602, 0.702), (2.96, 2.9702)),
    ("powersign", 0.1, {"base": np.e, "beta": 0.9}, True,
     (0.9058282142, 0.9113163306, 0.9173816372, 0.9322998842), (2.9905828214, 2.9932299884)),
    ("powersign", 0.01, {"base": 2.0, "beta": 0.8}, False, (0.992, 0.9925, 0.993, 0.995), (2.9992, 2.9995)),
    ("addsign", 0.1, {"alpha": 1.0, "beta": 0.9}, False, (0.92, 0.92, 0.92, 0.94), (2.992, 2.994)),
    ("addsign", 0.01, {"alpha": 0.1, "beta": 0.8}, False, (0.9956, 0.9947, 0.9938, 0.9949), (2.99956, 2.99949)),
    ("addsign", 0.1, {"alpha": 1.0, "beta": 0.9}, True, (0.926, 0.93, 0.935, 0.949), (2.9926, 2.9949)),
]  # fmt: skip


@pytest.mark.parametrize("dtype", list(ROUNDOFF), ids=lambda d: str(d).removeprefix("torch."))
@pytest.mark.parametrize(
    "case", TF_CASES, ids=lambda c: f"{c[0]}-{c[1]}-{next(iter(c[2].values())):.3g}-{'ld' if c[3] else 'const'}"
)
def test_tensorflow_cases(case: Any, dtype: torch.dtype) -> None:
    rule, lr, hyper, linear, var0, var1 = case
    program = nos_ext.compile_rule(getattr(library, rule))
    params = [torch.tensor([1.0, 2.0], dtype=dtype), torch.tensor([3.0, 4.0], dtype=dtype)]
    grads = [torch.tensor([0.1, 0.1], dtype=dtype), torch.tensor([0.01, 0.01], dtype=dtype)]
    state = nos_ext.init_state(program, params)
    decay = schedules.linear_decay(10) if linear else lambda step: 1.0
    seen: dict[int, tuple[float, float]] = {}
    for step in range(1, 8):
        sign = 1 if step <= 4 else -1
        nos_ext.apply_rule(
            program, params, [sign * g for g in grads], state, lr=lr, step=step, sign_decay=decay(step - 1), **hyper
        )
        seen[step] = (params[0][0].item(), params[1][0].item())
        one = params[0][1].item() - params[0][0].item()
        assert abs(one - 1.0) <= 2 * bound(dtype, step, np.array(2.0), np.array(2.0))
    printed = 6e-11  # the tables above have ten digits
    for step, expected in zip((4, 5, 6, 7), var0, strict=True):
        assert abs(seen[step][0] - expected) <= bound(dtype, step, np.array(1.0), np.array(expected)) + printed
    for step, expected in zip((4, 7), var1, strict=True):
        assert abs(seen[step][1] - expected) <= bound(dtype, step, np.array(3.0), np.array(expected)) + printed


RAW = json.loads((Path(__file__).parent / "tf_ops.json").read_text())
RAW_RULES: dict[str, tuple[str, dict[str, str]]] = {  # TensorFlow's op -> rule text, TF's slot -> state
    "ResourceApplyPowerSign": (
        "def r(p, g, m, *, lr, logbase=1.0, sign_decay=1.0, beta=0.9):\n"
        "    m = beta * m + (1 - beta) * g\n"
        "    return p - lr * exp(logbase * sign_decay * sign(g) * sign(m)) * g, m\n", {"m": "m"}),
    "ResourceApplyAddSign": (
        "def r(p, g, m, *, lr, alpha=1.0, sign_decay=1.0, beta=0.9):\n"
        "    m = beta * m + (1 - beta) * g\n"
        "    return p - lr * (alpha + sign_decay * sign(g) * sign(m)) * g, m\n", {"m": "m"}),
    "ResourceApplyMomentum": (
        "def r(p, g, accum, *, lr, momentum=0.9):\n"
        "    accum = momentum * accum + g\n"
        "    return p - lr * accum, accum\n", {"accum": "accum"}),
    "ResourceApplyRMSProp": (
        "def r(p, g, ms, mom, *, lr, rho=0.9, momentum=0.0, epsilon=1e-8):\n"
        "    ms = ms + (g * g - ms) * (1 - rho)\n"
        "    mom = momentum * mom + lr * g / sqrt(ms + epsilon)\n"
        "    return p - mom, ms, mom\n", {"ms": "ms", "mom": "mom"}),
    "ResourceApplyAdam": (
        "def r(p, g, m, v, *, lr, beta1=0.9, beta2=0.999, epsilon=1e-8):\n"
        "    m = m + (g - m) * (1 - beta1)\n"
        "    v = v + (g * g - v) * (1 - beta2)\n"
        "    alpha = lr * sqrt(1 - beta2 ** t) / (1 - beta1 ** t)\n"
        "    return p - alpha * m / (sqrt(v) + epsilon), m, v\n", {"m": "m", "v": "v"}),
}  # fmt: skip


@pytest.mark.parametrize("case", RAW["cases"], ids=lambda c: f"{c['op'].removeprefix('ResourceApply')}-{c['dtype']}")
def test_raw_ops(case: Any) -> None:
    text, slots = RAW_RULES[case["op"]]
    program = nos_ext.compile_rule(text)
    dtype = np.dtype(case["dtype"])
    start = np.array(RAW["var0"])
    initial = {} if case["op"] == "ResourceApplyAdam" else {"m": "m0", "accum": "m0", "ms": "v0"}  # Adam starts at 0
    params = [start.astype(dtype)]
    state = {
        s: [np.array(RAW[initial[s]]).astype(dtype) if s in initial else np.zeros(16, dtype)] for s in slots.values()
    }
    for number, expected in enumerate(case["steps"], start=1):
        grads = [np.array(RAW["grads"][number - 1]).astype(dtype)]
        nos_ext.apply_rule(program, params, grads, state, step=number, **case["hyper"])
        torch_dtype = torch.float64 if dtype == np.float64 else torch.float32
        limit = bound(torch_dtype, 2 * number, start, np.array(expected["var"]))  # TensorFlow rounds as often again
        assert np.all(np.abs(params[0] - np.array(expected["var"])) <= limit)
        for slot, name in slots.items():
            assert np.all(np.abs(state[name][0] - np.array(expected[slot])) <= limit), slot
