"""PowerSign and AddSign, the classes, on the test cases of TensorFlow's contrib optimizers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from nos_ext import schedules
from nos_ext.optim import AddSign, PowerSign

# class, arguments, linear decay?, var0[0] after steps 4 to 7, var1[0] after steps 4 and 7. Inputs: TensorFlow's
# powersign_test.py and addsign_test.py; outputs: from the definition, in float64.
CASES = [
    (PowerSign, {}, False, (0.8912687269, 0.8949475213, 0.8986263157, 0.9258091340), (2.9891268727, 2.9925809134)),
    (PowerSign, {"base": 10.0, "beta": 0.8}, False, (0.6, 0.601, 0.602, 0.702), (2.96, 2.9702)),
    (PowerSign, {}, True, (0.9058282142, 0.9113163306, 0.9173816372, 0.9322998842), (2.9905828214, 2.9932299884)),
    (PowerSign, {"lr": 0.01, "base": 2.0, "beta": 0.8}, False, (0.992, 0.9925, 0.993, 0.995), (2.9992, 2.9995)),
    (AddSign, {}, False, (0.92, 0.92, 0.92, 0.94), (2.992, 2.994)),
    (AddSign, {"lr": 0.01, "alpha": 0.1, "beta": 0.8}, False, (0.9956, 0.9947, 0.9938, 0.9949), (2.99956, 2.99949)),
    (AddSign, {}, True, (0.926, 0.93, 0.935, 0.949), (2.9926, 2.9949)),
]
# A few roundings of numbers up to 4 in the dtype, for each of seven steps.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-6, torch.bfloat16: 0.06, torch.float16: 0.008}


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("number", range(len(CASES)))
def test_tensorflow(number: int, dtype: torch.dtype) -> None:
    kind, keywords, linear, var0, var1 = CASES[number]
    params = [torch.tensor(x, dtype=dtype, requires_grad=True) for x in ([1.0, 2.0], [3.0, 4.0])]
    make: Any = kind
    optimizer = make(params, sign_decay=schedules.linear_decay(10) if linear else None, **keywords)
    seen = {}
    for step in range(1, 8):
        for p, g in zip(params, (0.1, 0.01), strict=True):
            p.grad = torch.full((2,), g if step <= 4 else -g, dtype=dtype)
        optimizer.step()
        seen[step] = [p[0].item() for p in params]
        assert params[0][1].item() - params[0][0].item() == pytest.approx(1.0, abs=TOLERANCE[dtype])
    assert [seen[step][0] for step in (4, 5, 6, 7)] == pytest.approx(var0, abs=TOLERANCE[dtype])
    assert [seen[step][1] for step in (4, 7)] == pytest.approx(var1, abs=TOLERANCE[dtype])


def test_defaults_are_tensorflow_s() -> None:
    p = torch.zeros(1, requires_grad=True)
    shared = {"lr": 0.1, "beta": 0.9, "sign_decay": None, "weight_decay": 0.0, "maximize": False}
    assert {**shared, "base": math.e}.items() <= PowerSign([p]).defaults.items()
    assert {**shared, "alpha": 1.0}.items() <= AddSign([p]).defaults.items()


def test_first_step() -> None:
    p = torch.ones(1, dtype=torch.float64, requires_grad=True)
    p.grad = torch.full((1,), 0.1, dtype=torch.float64)
    PowerSign([p]).step()
    assert p.item() == pytest.approx(1 - 0.01 * math.e, abs=1e-15)
