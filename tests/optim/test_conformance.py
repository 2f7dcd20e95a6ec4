"""The shipped conformance suite on the optimizers of the package, and on torch's AdamW, which must pass it too."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

from nos_ext import optim
from nos_ext.optim import AddSign, HostOptimizer, PowerSign, RuleOptimizer, _masters, library
from nos_ext.optim._host import Link
from nos_ext.testing.optimizer import OptimizerCase, OptimizerConformance

OURS: dict[str, Any] = {"wide_state": True, "refuses": ("differentiable", "foreach"), "amp": True}
adamw = functools.partial(RuleOptimizer, rule=library.adamw)
lion = functools.partial(RuleOptimizer, rule=library.lion)
adan = functools.partial(optim.create, "adan")
LAYERED = """
def layered(p, g, m, k, *, lr, beta=0.9, weight_decay=0.0):
    k = beta * k + (1 - beta) * norm(g)
    m = beta * m + (1 - beta) * g / (k / (1 - beta ** t) + 0.01)
    return p * (1 - lr * weight_decay) - lr * m, m, k
"""
TOGETHER = """
def together(p, g, m, k, *, lr, beta=0.9):
    k = beta * k + (1 - beta) * global_norm(g)
    m = beta * m + (1 - beta) * g / (k / (1 - beta ** t) + 0.01)
    return p - lr * m, m, k
"""
host = functools.partial(HostOptimizer, rule=library.adamw)
layered = functools.partial(RuleOptimizer, rule=LAYERED)
together = functools.partial(RuleOptimizer, rule=TOGETHER)
NUMBERED: dict[str, Any] = {"hyper": "beta", "states": ("m", "k"), "numbers": ("k",), **OURS}
CASES = [
    OptimizerCase("PowerSign", PowerSign, lr=0.02, hyper="beta", states=("m",), **OURS),
    OptimizerCase("AddSign", AddSign, lr=0.02, hyper="alpha", values=(1.0, 2.0), states=("m",), **OURS),
    OptimizerCase("RuleOptimizer-adamw", adamw, hyper="beta1", states=("m", "v"), **OURS),
    OptimizerCase(
        "create-adan",
        adan,
        hyper="betas",
        values=((0.9, 0.9, 0.99), (0.8, 0.7, 0.9)),
        states=("m", "d", "v", "last"),
        **OURS,
    ),
    OptimizerCase("RuleOptimizer-lion", lion, lr=0.003, hyper="weight_decay", values=(0.1, 0.2), states=("m",), **OURS),
    OptimizerCase("RuleOptimizer-layered", layered, spans="tensor", **NUMBERED),
    OptimizerCase("RuleOptimizer-together", together, spans="all", **NUMBERED),
    OptimizerCase("HostOptimizer", host, hyper="beta1", states=("m", "v"), **OURS),
    OptimizerCase(
        "AdamW", torch.optim.AdamW, hyper="weight_decay", values=(0.1, 0.2), states=("exp_avg", "exp_avg_sq"), amp=True
    ),
]


def test_every_class_has_a_case() -> None:
    classes = {name for name in optim.__all__ if isinstance(getattr(optim, name), type)}
    assert classes <= {str(case).split("-")[0] for case in CASES}


class TestConformance(OptimizerConformance):
    @pytest.fixture(params=CASES, ids=str)
    def case(self, request: pytest.FixtureRequest) -> OptimizerCase:
        return request.param  # type: ignore[no-any-return]


class NoDevice(Link):
    """Takes the CPU for a device."""

    def is_away(self, tensor: torch.Tensor) -> bool:
        return not tensor.is_meta

    def buffer(self, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        return torch.full_like(tensor, torch.nan, dtype=dtype, requires_grad=False)

    def mark(self, device: torch.device) -> Any:
        return lambda: None


class FromDevice(HostOptimizer):
    _link = NoDevice()


MASTERED = [
    OptimizerCase("adamw", adamw, hyper="beta1", states=("m", "v", "master"), extra={"master_weights": True}, **OURS),
    OptimizerCase(
        "layered", layered, spans="tensor", extra={"master_weights": True},
        **{**NUMBERED, "states": ("m", "k", "master")},
    ),
    OptimizerCase(
        "together", together, spans="all", extra={"master_weights": True},
        **{**NUMBERED, "states": ("m", "k", "master")},
    ),
    OptimizerCase(
        "from a device", functools.partial(FromDevice, rule=library.adamw), hyper="beta1", states=("m", "v", "master"),
        **OURS,
    ),
]  # fmt: skip


class TestMasterWeights(OptimizerConformance):
    """Where parameters of every dtype get master weights, which else only those of 16 bits do."""

    @pytest.fixture(params=MASTERED, ids=str)
    def case(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> OptimizerCase:
        monkeypatch.setattr(_masters, "_NARROW", (torch.float32, torch.float64, torch.bfloat16, torch.float16))
        return request.param  # type: ignore[no-any-return]


class TestFromADevice(OptimizerConformance):
    """Without master weights, so that parameters go both ways."""

    @pytest.fixture
    def case(self) -> OptimizerCase:
        return OptimizerCase(
            "from a device", functools.partial(FromDevice, rule=library.adamw, master_weights=False), hyper="beta1",
            states=("m", "v"), **OURS,
        )  # fmt: skip
