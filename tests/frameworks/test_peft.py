"""PEFT: adapters beside frozen weights, and LoRA+, which makes its own groups of a class and arguments."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nos_ext.optim import PowerSign, RuleOptimizer, library
from tests.frameworks.training import MAKERS, assert_close, assert_same, examples, loss_of, network, torch_adamw

peft = pytest.importorskip("peft")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::")]


def adapted() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return peft.get_peft_model(network(), peft.LoraConfig(r=4, target_modules=["0", "2"], init_lora_weights=True))


def train(model: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: int = 60) -> None:
    x, y = examples()
    before = loss_of(model)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
    assert loss_of(model) < 0.7 * before


def frozen(model: torch.nn.Module) -> list[torch.Tensor]:
    return [p for name, p in model.named_parameters() if "lora" not in name]


@pytest.mark.parametrize("name", MAKERS)
def test_only_adapters_learn(name: str) -> None:
    """Also where the optimizer is given all parameters, and with a state for the adapters alone."""
    model = adapted()
    optimizer = MAKERS[name](model.parameters())
    train(model, optimizer)
    assert_same(frozen(model), frozen(adapted()))
    assert len(optimizer.state) == 4
    if name == "adamw":
        other = adapted()
        train(other, torch_adamw(other.parameters()))
        assert_close(model, other)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [(PowerSign, {}), (RuleOptimizer, {"rule": library.adamw, "betas": (0.9, 0.99)})],
    ids=["powersign", "adamw"],
)
def test_lora_plus(kind: Any, arguments: dict[str, Any]) -> None:
    from peft.optimizers import create_loraplus_optimizer

    model = adapted()
    optimizer = create_loraplus_optimizer(model, optimizer_cls=kind, lr=0.01, loraplus_lr_ratio=4.0, **arguments)
    assert {0.01, 0.04} <= {group["lr"] for group in optimizer.param_groups}
    train(model, optimizer)
