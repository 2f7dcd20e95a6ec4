"""RuleOptimizer with rules that have norms and other reductions: states that are one number per tensor, and reductions
over all parameters."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch

from nos_ext.optim import RuleOptimizer
from nos_ext.testing._case import parameters, set_grads, steps

AVERAGED = """
def averaged(p, g, m, k, *, lr, beta=0.9):
    k = beta * k + (1 - beta) * norm(g)
    m = beta * m + g
    return p - lr * m / (k / (1 - beta ** t) + 0.01), m, k
"""
CLIPPED = """
def clipped(p, g, *, lr, most=0.5):
    return p - lr * g * min(1, most / (global_norm(g) + 1e-6))
"""


def optimizer_of(dtype: torch.dtype = torch.float32) -> tuple[list[torch.Tensor], RuleOptimizer]:
    params = parameters((4, 3), (5,), (), dtype=dtype)
    return params, RuleOptimizer(params, AVERAGED, lr=0.1)


def test_steps_are_those_of_the_formula() -> None:
    params, optimizer = optimizer_of(torch.float64)
    ours = [p.detach().clone() for p in params]
    m, k = [torch.zeros_like(p) for p in ours], [torch.zeros((), dtype=torch.float64) for _ in ours]
    for t in range(1, 6):
        set_grads(params, seed=t)
        for i, p in enumerate(params):
            assert p.grad is not None
            k[i] = 0.9 * k[i] + 0.1 * p.grad.norm()
            m[i] = 0.9 * m[i] + p.grad
            ours[i] = ours[i] - 0.1 * m[i] / (k[i] / (1 - 0.9**t) + 0.01)
        optimizer.step()
        for i, p in enumerate(params):
            torch.testing.assert_close(p.detach(), ours[i], rtol=1e-13, atol=1e-14)
            torch.testing.assert_close(optimizer.state[p]["k"], k[i], rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_a_state_that_is_one_number(dtype: torch.dtype) -> None:
    params, optimizer = optimizer_of(dtype)
    steps(optimizer, params, 1)
    for p in params:
        k = optimizer.state[p]["k"]
        assert (k.shape, k.dtype) == ((), torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize("through", ["state_dict", "deepcopy", "pickle"])
def test_checkpoints_go_on_with_the_same_bits(through: str) -> None:
    params, optimizer = optimizer_of()
    steps(optimizer, params, 3)
    if through == "state_dict":
        others, other = optimizer_of()
        for p, q in zip(params, others, strict=True):
            q.data.copy_(p.data)
        other.load_state_dict(optimizer.state_dict())
    else:
        copied: Any = copy.deepcopy(optimizer) if through == "deepcopy" else pickle.loads(pickle.dumps(optimizer))
        other, others = copied, copied.param_groups[0]["params"]
    for one, tensors in ((optimizer, params), (other, others)):
        steps(one, tensors, 2, first=3)
        one.add_param_group({"params": parameters((2, 2), seed=5)})
        steps(one, [*tensors, *one.param_groups[1]["params"]], 1)
    for group, same in zip(optimizer.param_groups, other.param_groups, strict=True):
        for p, q in zip(group["params"], same["params"], strict=True):
            assert torch.equal(p, q)
            assert torch.equal(optimizer.state[p]["k"], other.state[q]["k"])


def test_a_state_of_another_shape_is_refused() -> None:
    params, optimizer = optimizer_of()
    steps(optimizer, params, 1)
    saved = copy.deepcopy(optimizer.state_dict())
    saved["state"][1]["k"] = torch.zeros(5)
    with pytest.raises(ValueError, match=r"parameter 1: k has shape \(5,\), but the rule keeps one number per tensor"):
        optimizer.load_state_dict(saved)


def test_global_reductions_are_over_all_parameters() -> None:
    """Also over those with other numbers of steps, another sign of the gradient, or half precision."""
    params = [*parameters((4, 3), (5,)), *parameters((7,), dtype=torch.bfloat16, seed=3)]
    groups: list[dict[str, Any]] = [
        {"params": params[:1]},
        {"params": params[1:2], "maximize": True, "lr": 0.2},
        {"params": params[2:], "seed": 1},
    ]
    optimizer = RuleOptimizer(groups, CLIPPED, lr=0.1)
    for i in range(4):
        set_grads(params, seed=i)
        if i in (0, 2):
            params[i // 2].grad = None
        grads = {p: p.grad.double() for p in params if p.grad is not None}
        norm = torch.stack([g.norm() for g in grads.values()]).norm()
        rates = dict(zip(params, (0.1, -0.2, 0.1), strict=True))
        expected = {
            p: p.detach().double() - rates[p] * g * (0.5 / (norm + 1e-6)).clamp(max=1) for p, g in grads.items()
        }
        optimizer.step()
        for p in grads:
            eps = torch.finfo(p.dtype).eps
            torch.testing.assert_close(p.detach().double(), expected[p], rtol=2 * eps, atol=2 * eps)
