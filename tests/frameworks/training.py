"""What the tests of this folder share: the optimizers that a framework is given, and the problem that it trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from nos_ext.optim import PowerSign, RuleOptimizer, create

TEXT = "g * (1 + sign(g) * sign(m))"

# A class, a rule by name, and a rule by text. What a framework does with the second is compared with torch's AdamW.
MAKERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "powersign": lambda params: PowerSign(params, lr=0.05),
    "adamw": lambda params: create("adamw", params, lr=0.02, weight_decay=0.1),
    "text": lambda params: RuleOptimizer(params, TEXT, lr=0.05),
}


def torch_adamw(params: Any) -> torch.optim.Optimizer:
    """Makes the optimizer of torch that computes what "adamw" of MAKERS computes."""
    return torch.optim.AdamW(params, lr=0.02, weight_decay=0.1)


def network() -> torch.nn.Sequential:
    """Makes a small network, the same one every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))


def examples(number: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Makes inputs and targets that the network can learn."""
    x = torch.randn(number, 4, generator=torch.Generator().manual_seed(1))
    return x, x[:, :1] - 0.5 * x[:, 1:2] + 0.2 * x[:, 2:3] * x[:, 3:]


def loss_of(net: torch.nn.Module) -> float:
    x, y = examples()
    with torch.no_grad():
        return torch.nn.functional.mse_loss(net(x), y).item()


def assert_learnt(net: torch.nn.Module) -> None:
    """The network is better than a new one, by far."""
    assert loss_of(net) < 0.7 * loss_of(network())


def assert_close(net: torch.nn.Module, other: torch.nn.Module) -> None:
    """Two trainings are the same but for rounding."""
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)


def assert_same(values: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> None:
    """Every bit is the same."""
    for p, q in zip(values, others, strict=True):
        assert torch.equal(p, q)
