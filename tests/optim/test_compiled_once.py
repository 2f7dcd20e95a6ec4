"""A rule is compiled once for all optimizers that have it, as some trainings make one for each parameter; and what only
looks like the same rule is compiled anew."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch

import nos_ext
from nos_ext.optim import AddSign, RuleOptimizer, _values, create, library
from nos_ext.testing._case import parameters, same, set_grads

MAKERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "class": lambda p: AddSign(p, lr=0.1, alpha=0.5),
    "name": lambda p: create("adan", p, lr=0.1),
    "text": lambda p: RuleOptimizer(p, "g * tanh(m) * 1.0625", lr=0.1),
    "rule": lambda p: RuleOptimizer(p, library.lion, lr=0.1),
    "matrices": lambda p: create("muon", p, lr=0.1),
}


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Lists what is compiled."""
    sources: list[Any] = []

    def compile_rule(source: Any) -> Any:
        sources.append(source)
        return nos_ext.compile_rule(source)

    monkeypatch.setattr(_values, "compile_rule", compile_rule)
    return sources


@pytest.mark.parametrize("name", MAKERS)
def test_two_hundred_optimizers_of_one_rule(name: str, compiled: list[Any]) -> None:
    optimizers = [MAKERS[name](parameters((3, 2))) for _ in range(200)]
    assert len(compiled) <= 1  # another test may have been the first
    for other in (copy.deepcopy(optimizers[0]), pickle.loads(pickle.dumps(optimizers[0]))):
        other.load_state_dict(optimizers[1].state_dict())
    assert len(compiled) <= 2  # they have the rule's text


def test_a_function_is_read_anew() -> None:
    """It reads a variable, which has changed in the meantime."""
    factor = 1.0

    def scaled(p, g, *, lr):  # type: ignore[no-untyped-def]
        return p - lr * factor * g

    for value in (1.0, 3.0):
        factor = value
        params = [torch.zeros(2, requires_grad=True)]
        optimizer = RuleOptimizer(params, scaled, lr=0.5)
        params[0].grad = torch.ones(2)
        optimizer.step()
        assert params[0].tolist() == [-0.5 * value] * 2


def test_a_rule_that_was_changed_is_another_one() -> None:
    """It has the name and the states of one that has been compiled."""
    first, second = (
        nos_ext.Rule(rule.name, rule.state_names, {**rule.hyperparameters, "weight_decay": decay}, rule.outputs)
        for rule, decay in ((library.adamw, 0.01), (library.adamw, 0.5))
    )
    made = [RuleOptimizer(parameters(), rule, lr=0.1) for rule in (first, second, first)]
    assert [optimizer.defaults["weight_decay"] for optimizer in made] == [0.01, 0.5, 0.01]


def test_optimizers_of_one_rule_share_nothing_that_changes() -> None:
    params, other = parameters(), parameters()
    first, second = create("adamw", params, lr=0.1), create("adamw", other, lr=0.1)
    before = copy.deepcopy(second.state_dict())
    first.defaults["beta1"] = 0.5
    first.param_groups[0]["betas"] = (0.1, 0.2)
    first.add_param_group({"params": parameters((2,)), "rule": library.lion})
    set_grads(params)
    first.step()
    assert second.state_dict() == before
    assert second.defaults["beta1"] == 0.9
    assert same(other, parameters())
    second.param_groups[0]["rule"] = first.param_groups[1]["rule"]
    set_grads(other)
    with pytest.raises(ValueError, match="the rule of another optimizer"):
        second.step()
