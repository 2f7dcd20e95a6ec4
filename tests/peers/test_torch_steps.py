"""PyTorch's optimizer tests of what a step does, over an OptimizerInfo for each of our optimizers and torch's own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import Parameter
from torch.testing._internal.common_optimizers import OptimizerInfo

from tests.peers import intent
from tests.peers.infos import for_all, for_all_inputs, fresh, is_ours


def problem(contiguous: bool = True, device: str = "cpu") -> tuple[Parameter, Parameter, torch.Tensor]:
    """Weight, bias and input of the least-squares problem of torch's tests."""
    make = torch.Generator(device).manual_seed(3)
    if contiguous:
        weight = Parameter(torch.randn((10, 5), generator=make, device=device))
        bias = Parameter(torch.randn((10,), generator=make, device=device))
    else:
        weight = Parameter(torch.randn((10, 5, 2), generator=make, device=device)[..., 0])
        bias = Parameter(torch.randn((10, 2), generator=make, device=device)[..., 0])
    return weight, bias, 0.1 * torch.randn(5, generator=make, device=device)  # within reach of every default lr


def closure_of(optimizer: torch.optim.Optimizer, loss: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    return closure


def trained(
    optimizer: torch.optim.Optimizer, loss: Callable[[], torch.Tensor], steps: int, schedulers: Any = ()
) -> None:
    closure = closure_of(optimizer, loss)
    for _ in range(steps):
        value = optimizer.step(closure)
        for scheduler in schedulers:
            if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
                scheduler.step(value)
            else:
                scheduler.step()


def goes_right_direction(keywords: dict[str, Any], before: float, after: float) -> bool:
    return after > before if keywords.get("maximize") else after < before


@pytest.mark.parametrize("contiguous", [True, False], ids=["contiguous", "gaps"])
@for_all_inputs
def test_goes_right_direction(info: OptimizerInfo, keywords: dict[str, Any], contiguous: bool) -> None:
    for schedulers in ([], *info.scheduler_inputs):
        weight, bias, x = problem(contiguous)
        loss = lambda w=weight, b=bias, x=x: (w.mv(x) + b).pow(2).sum()  # noqa: E731
        optimizer = info.optim_cls([weight, bias], **fresh(keywords))
        before = loss().item()
        trained(optimizer, loss, 20, [make(optimizer) for make in schedulers])
        assert goes_right_direction(keywords, before, loss().item())


@for_all_inputs
def test_groups_with_schedulers_go_right_direction(info: OptimizerInfo, keywords: dict[str, Any]) -> None:
    for schedulers in info.scheduler_inputs:
        weight, bias, x = problem()
        idle = Parameter(torch.randn(2, 3))
        loss = lambda w=weight, b=bias, x=x: (w.mv(x) + b).pow(2).sum()  # noqa: E731
        optimizer = info.optim_cls([{"params": [weight]}, {"params": [bias, idle], "lr": 0.01}], **fresh(keywords))
        before, untouched = loss().item(), idle.detach().clone()
        trained(optimizer, loss, 20, [make(optimizer) for make in schedulers])
        assert goes_right_direction(keywords, before, loss().item())
        assert torch.equal(idle, untouched)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)], ids=str)
@for_all_inputs
def test_tensor_lr_equals_number(info: OptimizerInfo, keywords: dict[str, Any], shape: tuple[int, ...]) -> None:
    results = []
    for lr in (0.01, torch.full(shape, 0.01, dtype=torch.float64)):
        weight, bias, x = problem()
        loss = lambda w=weight, b=bias, x=x: (w.mv(x) + b).pow(2).sum()  # noqa: E731
        optimizer = info.optim_cls([weight, bias], **{**fresh(keywords), "lr": lr})
        schedulers = [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)]
        trained(optimizer, loss, 5, schedulers)
        results.append((weight.detach(), bias.detach()))
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-6)


@for_all
def test_weight_decay_of_a_group(info: OptimizerInfo) -> None:
    weight, bias, x = problem()
    if "weight_decay" not in info.optim_cls([weight]).defaults:
        pytest.skip("has no weight decay")
    loss = lambda: (weight.mv(x) + bias).pow(2).sum()  # noqa: E731
    optimizer = info.optim_cls([{"params": [weight]}, {"params": [bias], "weight_decay": 0.3}], weight_decay=0.0)
    before = loss().item()
    trained(optimizer, loss, 20)
    assert loss().item() < before
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0, 0.3]


@for_all_inputs
def test_no_step_without_gradients(info: OptimizerInfo, keywords: dict[str, Any]) -> None:
    params = [Parameter(torch.randn(2, 3)) for _ in range(2)]
    before = [p.detach().clone() for p in params]
    optimizer = info.optim_cls(params, **fresh(keywords))
    optimizer.step()
    assert all(map(torch.equal, params, before))
    optimizer.step(lambda: torch.tensor(1.0))
    assert all(map(torch.equal, params, before))
    assert not any(optimizer.state.values())


@for_all_inputs
def test_zero_gradients(info: OptimizerInfo, keywords: dict[str, Any]) -> None:
    """Only weight decay moves a parameter whose gradient is zero from the first step on."""
    param = Parameter(torch.randn(5, 1))
    optimizer = info.optim_cls([param], **fresh(keywords))
    param.grad = torch.zeros_like(param)
    before = param.detach().clone()
    optimizer.step()
    assert torch.equal(param, before) != bool(optimizer.defaults.get("weight_decay"))


@for_all_inputs
def test_float64_follows_float32(info: OptimizerInfo, keywords: dict[str, Any]) -> None:
    """In the place of torch's comparison of implementations: mixed dtypes in one optimizer equal one after another."""
    make = torch.Generator().manual_seed(5)
    values = [torch.randn(7, 3, dtype=torch.float64, generator=make) for _ in range(2)]
    grads = [[torch.randn(7, 3, dtype=torch.float64, generator=make) for _ in range(2)] for _ in range(7)]

    def run(dtypes: list[torch.dtype]) -> list[torch.Tensor]:
        params = [Parameter(v.to(d)) for v, d in zip(values, dtypes, strict=True)]
        optimizer = info.optim_cls(params, **fresh(keywords))
        for step in grads:
            for p, g in zip(params, step, strict=True):
                p.grad = g.to(p.dtype)
            optimizer.step()
        return [p.detach() for p in params]

    mixed, low, high = (run(d) for d in ([torch.float32, torch.float64], [torch.float32] * 2, [torch.float64] * 2))
    assert torch.equal(mixed[0], low[0])
    assert torch.equal(mixed[1], high[1])
    torch.testing.assert_close(low[1].double(), high[1], rtol=1e-4, atol=1e-5)


@for_all
def test_complex_parameters(info: OptimizerInfo) -> None:
    param = Parameter(torch.randn(3, dtype=torch.complex64))
    param.grad = torch.randn_like(param)
    before = param.detach().clone()
    if not is_ours(info):
        info.optim_cls([param]).step()
        assert not torch.equal(param, before)
        return
    assert intent.DIFFERENCES["complex parameters"]
    with pytest.raises(RuntimeError, match="does not support complex parameters"):
        info.optim_cls([param]).step()
    assert torch.equal(param, before)


@for_all
def test_sparse_gradients(info: OptimizerInfo) -> None:
    if info.supports_sparse:
        pytest.skip("torch's SGD takes them")
    param = Parameter(torch.randn(3, 2))
    param.grad = torch.ones(3, 2).to_sparse()
    before = param.detach().clone()
    with pytest.raises((RuntimeError, TypeError, ValueError), match="sparse"):
        info.optim_cls([param]).step()
    assert torch.equal(param, before)


@for_all_inputs
def test_step_in_pieces(info: OptimizerInfo, keywords: dict[str, Any]) -> None:
    """A deep copy in the middle goes on as the original does."""
    weight, bias, x = problem()
    loss = lambda: (weight.mv(x) + bias).pow(2).sum()  # noqa: E731
    optimizer = info.optim_cls([weight, bias], **fresh(keywords))
    trained(optimizer, loss, 3)
    optimizer.zero_grad()
    loss().backward()
    other = copy.deepcopy(optimizer)
    both = list(zip(optimizer.param_groups[0]["params"], other.param_groups[0]["params"], strict=True))
    for mine, its in both:
        assert mine is not its
        its.grad = mine.grad.clone()  # which torch does not copy
    optimizer.step()
    other.step()
    for mine, its in both:
        assert torch.equal(mine, its)


@for_all
def test_closure_result_and_gradients(info: OptimizerInfo) -> None:
    weight, bias, x = problem()
    optimizer = info.optim_cls([weight, bias])
    with torch.no_grad():
        value = optimizer.step(closure_of(optimizer, lambda: (weight.mv(x) + bias).pow(2).sum()))
    assert value is not None
    assert value.requires_grad
    assert weight.grad is not None


@for_all
def test_channels_last_after_the_first_step(info: OptimizerInfo) -> None:
    if is_ours(info) and info.optim_cls([Parameter(torch.zeros(1))]).program.uses_random:
        pytest.skip(intent.DIFFERENCES["random draws"])
    make = torch.Generator().manual_seed(7)
    grads = [torch.randn(4, 3, 2, 2, generator=make) for _ in range(4)]
    results = []
    for change in (False, True):
        module = torch.nn.Conv2d(3, 4, 2)
        with torch.no_grad():
            module.weight.fill_(0.5)
        optimizer = info.optim_cls([module.weight])
        for step, grad in enumerate(grads):
            if change and step == 2:
                module.to(memory_format=torch.channels_last)
            module.weight.grad = grad.clone(memory_format=torch.preserve_format)
            optimizer.step()
        results.append(module.weight.detach().contiguous())
    torch.testing.assert_close(results[0], results[1], rtol=1e-6, atol=1e-7)
