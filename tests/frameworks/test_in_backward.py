"""Optimizers that step in the backward pass, and containers of several optimizers, as torchtune and torchtitan write
them: one optimizer for each parameter or part of a model, behind the face of a single one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.optim import _apply_optimizer_in_backward

from nos_ext.optim import PowerSign, RuleOptimizer, library
from tests.frameworks.training import MAKERS, TEXT, assert_same, examples, network

Make = Callable[[Any], torch.optim.Optimizer]
CLASSES: dict[str, tuple[Any, dict[str, Any]]] = {
    "powersign": (PowerSign, {"lr": 0.05}),
    "adamw": (RuleOptimizer, {"rule": library.adamw, "lr": 0.02, "betas": (0.9, 0.95), "weight_decay": 0.1}),
    "text": (RuleOptimizer, {"rule": TEXT, "lr": 0.05}),
}


def backward(net: torch.nn.Module) -> None:
    x, y = examples()
    torch.nn.functional.mse_loss(net(x), y).backward()


def trained(net: torch.nn.Module, make: Make, steps: int) -> list[torch.Tensor]:
    """Trains with one optimizer, in an ordinary loop."""
    optimizer = make(net.parameters())
    for _ in range(steps):
        backward(net)
        optimizer.step()
        optimizer.zero_grad()
    return list(net.parameters())


def hook(net: torch.nn.Module, make: Make) -> dict[str, torch.optim.Optimizer]:
    """Gives every parameter an optimizer that steps when its gradient is ready."""
    optimizers = {name: make([p]) for name, p in net.named_parameters()}
    for name, p in net.named_parameters():

        def step(_: torch.Tensor, optimizer: torch.optim.Optimizer = optimizers[name]) -> None:
            optimizer.step()
            optimizer.zero_grad()

        p.register_post_accumulate_grad_hook(step)
    return optimizers


@pytest.mark.parametrize("name", MAKERS)
def test_steps_are_those_of_one_optimizer(name: str) -> None:
    """Bit for bit, also after a checkpoint of all of them, as torchtune's OptimizerInBackwardWrapper saves it."""
    net = network()
    optimizers = hook(net, MAKERS[name])
    for _ in range(3):
        backward(net)
    assert all(p.grad is None for p in net.parameters())
    assert_same(list(net.parameters()), trained(network(), MAKERS[name], 3))

    resumed = network()
    resumed.load_state_dict(net.state_dict())
    loaded = hook(resumed, MAKERS[name])
    for key, saved in {key: copy.deepcopy(opt.state_dict()) for key, opt in optimizers.items()}.items():
        loaded[key].load_state_dict(saved)
    for _ in range(2):
        backward(resumed)
    assert_same(list(resumed.parameters()), trained(network(), MAKERS[name], 5))


def test_a_schedule_is_copied_to_all_of_them() -> None:
    """torchtune drives one of the optimizers with a schedule, and writes its lr into the others."""
    net = network()
    optimizers = list(hook(net, MAKERS["powersign"]).values())
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizers[0], 0.5)
    single = network()
    optimizer = MAKERS["powersign"](single.parameters())
    expected = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    for _ in range(3):
        backward(net)
        schedule.step()
        for other in optimizers:
            for group in other.param_groups:
                group["lr"] = schedule.get_last_lr()[0]
        backward(single)
        optimizer.step()
        optimizer.zero_grad()
        expected.step()
    assert_same(list(net.parameters()), list(single.parameters()))


@pytest.mark.parametrize("name", CLASSES)
def test_torch_s_own_helper(name: str) -> None:
    kind, arguments = CLASSES[name]
    net = network()
    _apply_optimizer_in_backward(kind, net.parameters(), arguments)
    for _ in range(3):
        backward(net)
    assert_same(list(net.parameters()), trained(network(), lambda p: kind(p, **arguments), 3))


class Container(torch.optim.Optimizer):
    """A Container has an optimizer for each part of a model, and is an optimizer itself, as torchtitan's
    OptimizersContainer."""

    def __init__(self, parts: list[torch.nn.Module], kind: Any, arguments: dict[str, Any]) -> None:
        self.parts = parts
        self.optimizers = [kind([p for p in part.parameters() if p.requires_grad], **arguments) for part in parts]
        super().__init__([p for part in parts for p in part.parameters()], arguments)

    def step(self, *args: Any, **keywords: Any) -> None:  # type: ignore[override]
        for optimizer in self.optimizers:
            optimizer.step(*args, **keywords)

    def zero_grad(self, *args: Any, **keywords: Any) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(*args, **keywords)

    def state_dict(self) -> dict[str, Any]:
        options = StateDictOptions(flatten_optimizer_state_dict=True)
        out: dict[str, Any] = {}
        for part, optimizer in zip(self.parts, self.optimizers, strict=True):
            out.update(get_optimizer_state_dict(part, optimizer, options=options))
        return out

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        options = StateDictOptions(flatten_optimizer_state_dict=True)
        for part, optimizer in zip(self.parts, self.optimizers, strict=True):
            set_optimizer_state_dict(part, optimizer, optim_state_dict=state_dict, options=options)


class Part(torch.nn.Module):
    """A Part is one half of the network, whose parameters have names that the other half's have not."""

    def __init__(self, name: str, layer: torch.nn.Module) -> None:
        super().__init__()
        self.add_module(name, layer)


def container(net: torch.nn.Sequential, kind: Any, arguments: dict[str, Any]) -> Container:
    return Container([Part("first", net[0]), Part("second", net[2])], kind, arguments)


@pytest.mark.parametrize("name", CLASSES)
def test_a_container_and_its_flat_checkpoint(name: str) -> None:
    """torch makes the states by a step with lr=0 before it saves or loads them, and keys are one flat dict."""
    kind, arguments = CLASSES[name]
    net = network()
    optimizer = container(net, kind, arguments)
    for _ in range(3):
        backward(net)
        optimizer.step()
        optimizer.zero_grad()
    assert_same(list(net.parameters()), trained(network(), lambda p: kind(p, **arguments), 3))

    saved = copy.deepcopy(optimizer.state_dict())
    assert all(key.startswith(("state.", "param_groups.")) for key in saved)
    resumed = network()
    resumed.load_state_dict(net.state_dict())
    other = container(resumed, kind, arguments)
    other.load_state_dict(saved)
    assert_same(list(resumed.parameters()), list(net.parameters()))
    for _ in range(2):
        backward(resumed)
        other.step()
        other.zero_grad()
    assert_same(list(resumed.parameters()), trained(network(), lambda p: kind(p, **arguments), 5))


@pytest.mark.parametrize(
    "rule", ["g / norm(g)", "m / sqrt(v)", library.schedule_free_adamw, library.rprop, library.adamh]
)
def test_making_states_for_a_checkpoint_is_no_step(rule: Any) -> None:
    """The first two divide 0 by 0 there, and NaN times lr=0 is NaN; the others do in their first step what they do in no
    later one."""
    net = network()
    optimizer = RuleOptimizer(net.parameters(), rule, lr=0.1)
    saved = get_optimizer_state_dict(net, optimizer)
    assert_same(list(net.parameters()), list(network().parameters()))
    assert all(not value.any() for state in saved["state"].values() for value in state.values())
    for _ in range(3):
        backward(net)
        optimizer.step()
        optimizer.zero_grad()
    assert_same(list(net.parameters()), trained(network(), lambda p: RuleOptimizer(p, rule, lr=0.1), 3))


def test_a_step_with_a_gradient_or_with_lr_counts() -> None:
    """Only a step that has neither makes states alone."""
    for lr, value, count in ((0.0, 0.0, 0.0), (0.0, 1.0, 1.0), (0.1, 0.0, 1.0), (torch.tensor(0.0), 0.0, 0.0)):
        p = torch.ones(3, requires_grad=True)
        p.grad = torch.full_like(p, value)
        optimizer = PowerSign([p], lr=lr)
        optimizer.step()
        assert optimizer.state[p]["step"] == count
        optimizer.step()
        assert optimizer.state[p]["step"] == count + 1


def test_what_cannot_be_read_is_refused_as_in_any_step() -> None:
    """An lr or a gradient whose memory was taken away is not looked at."""
    for what in ("lr", "grad"):
        p = torch.ones(3, requires_grad=True)
        p.grad = torch.zeros(3)
        optimizer = PowerSign([p], lr=torch.tensor(0.0))
        gone = p.grad if what == "grad" else optimizer.param_groups[0]["lr"]
        gone.untyped_storage().resize_(0)
        with pytest.raises(ValueError, match=r"storage|no memory"):
            optimizer.step()
        assert not optimizer.state
