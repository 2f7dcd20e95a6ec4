"""Owns OptimizerCase, which describes the optimizer under test, and small helpers of the suite."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
import torch
from torch.optim import Optimizer

Tensors = list[torch.Tensor]


@dataclass(frozen=True)
class OptimizerCase:
    """An OptimizerCase describes an optimizer under test.

    Args:
        name: for messages.
        make: the class, or a function with the same arguments: ``make(params, lr=..., maximize=..., ...)``.
        lr: a learning rate at which it trains a small network.
        hyper: a hyperparameter other than lr, or None.
        values: two different values of it.
        states: names of the state tensors beside ``step``.
        numbers: those of the states that are one number per parameter, a tensor of shape ().
        spans: what the update of an element depends on: "element" for its own gradient and states alone, "tensor" for
            those of the whole parameter, as with a norm, and "all" for those of all parameters.
        wide_state: whether state of half-precision parameters is float32.
        any_strides: whether gradients may have other strides than their parameters and no parameter is copied.
        refuses: keyword arguments that must raise ValueError with the argument's name in the message.
        amp: whether GradScaler leaves unscaling and skipping to step() when fused=True is asked for.
        extra: keyword arguments for every construction.
    """

    name: str
    make: Callable[..., Optimizer]
    lr: float = 0.01
    hyper: str | None = None
    values: tuple[Any, Any] = (0.9, 0.5)
    states: Sequence[str] = ()
    numbers: Sequence[str] = ()
    spans: Literal["element", "tensor", "all"] = "element"
    wide_state: bool = False
    any_strides: bool = True
    refuses: Sequence[str] = ()
    amp: bool = False
    extra: dict[str, Any] = field(default_factory=dict)

    def __call__(self, params: Any, **keywords: Any) -> Optimizer:
        return self.make(params, **{"lr": self.lr, **self.extra, **keywords})

    def __str__(self) -> str:
        return self.name

    def skip_if_together(self) -> None:
        """Skips a test in which parameters are updated as if the others were not there."""
        if self.spans == "all":
            pytest.skip("the update of a parameter depends on the others")

    def shape_of(self, name: str, param: torch.Tensor) -> torch.Size:
        """Returns the shape of the state `name` of a parameter."""
        return torch.Size() if name in self.numbers else param.shape


def parameters(*shapes: Sequence[int], dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensors:
    """Makes leaf tensors whose values depend on the seed only."""
    make = torch.Generator().manual_seed(seed)
    sizes = shapes or ((4, 3), (5,), ())
    return [torch.randn(tuple(s), generator=make).to(dtype).requires_grad_() for s in sizes]


def set_grads(params: Sequence[torch.Tensor], seed: int = 1, scale: float = 1.0) -> None:
    """Sets new gradients whose values depend on the seed only."""
    make = torch.Generator().manual_seed(seed)
    for p in params:
        p.grad = (torch.randn(p.shape, generator=make) * scale).to(p.dtype)


def grads_of(params: Sequence[torch.Tensor]) -> Tensors:
    """Lists the gradients that there are."""
    return [p.grad for p in params if p.grad is not None]


def steps(optimizer: Optimizer, params: Sequence[torch.Tensor], count: int, first: int = 0) -> None:
    """Takes `count` steps with the gradients of the seeds first, first + 1, ..."""
    for i in range(count):
        set_grads(params, seed=100 + first + i)
        optimizer.step()


def copies(params: Sequence[torch.Tensor]) -> Tensors:
    """Makes new leaf tensors with the same values."""
    return [p.detach().clone().requires_grad_(p.requires_grad) for p in params]


def values(params: Sequence[torch.Tensor]) -> Tensors:
    """Copies the values, to compare them later."""
    return [p.detach().clone() for p in params]


def same(a: Sequence[torch.Tensor], b: Sequence[torch.Tensor]) -> bool:
    """Tells whether dtypes and bits are equal."""
    return len(a) == len(b) and all(x.dtype == y.dtype and torch.equal(x, y) for x, y in zip(a, b, strict=True))


def state_of(optimizer: Optimizer) -> Tensors:
    """Lists all state tensors, in the order of the parameters."""
    out = []
    for group in optimizer.param_groups:
        for p in group["params"]:
            out += [v for _, v in sorted(optimizer.state[p].items()) if isinstance(v, torch.Tensor)]
    return out


def network(seed: int = 0) -> torch.nn.Sequential:
    """Makes a small network."""
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))


def problem() -> tuple[torch.Tensor, torch.Tensor]:
    """Makes inputs and classes for `network`."""
    make = torch.Generator().manual_seed(5)
    x = torch.randn(64, 4, generator=make)
    return x, (x[:, 0] * x[:, 1] > 0).long()


def loss_of(net: torch.nn.Module) -> torch.Tensor:
    """Returns the loss of `net` on `problem`."""
    x, y = problem()
    return torch.nn.functional.cross_entropy(net(x), y)


def backward(loss: torch.Tensor, **keywords: Any) -> None:
    """Calls loss.backward(), with types."""
    torch.autograd.backward(loss, **keywords)


def frozen(state_dict: dict[str, Any]) -> dict[str, Any]:
    """Returns a copy that later steps do not change."""
    return copy.deepcopy(state_dict)
