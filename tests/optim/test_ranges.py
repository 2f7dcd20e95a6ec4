"""The values with which a training may start, as the library's entries have them and torch's optimizers check them."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch

import nos_ext
from nos_ext.optim import RuleOptimizer, create, library
from nos_ext.testing._case import parameters

OUT = [
    ("adamw", "eps", -1.0, "Invalid eps: -1.0; pass a number that is finite and at least 0"),
    ("adamw", "beta1", 1.0, "Invalid beta1: 1.0; pass a number that is at least 0 and below 1"),
    ("adamw", "beta2", -0.1, "Invalid beta2: -0.1; pass a number that is at least 0 and below 1"),
    ("adamw", "weight_decay", -0.1, "Invalid weight_decay: -0.1; pass a number that is finite and at least 0"),
    ("adamw", "weight_decay", math.inf, "Invalid weight_decay: inf"),
    ("adamw", "lr", -0.1, "Invalid learning rate: -0.1; pass a number that is not negative"),
    ("adamw", "eps", torch.tensor(-1.0), "Invalid eps: -1.0"),
    ("momentum", "momentum", -0.1, "Invalid momentum: -0.1"),
    ("rmsprop", "alpha", -0.1, "Invalid alpha: -0.1"),
    ("adagrad", "lr_decay", -0.1, "Invalid lr_decay: -0.1"),
    ("adadelta", "rho", 1.1, "Invalid rho: 1.1; pass a number from 0 to 1"),
    ("nadam", "momentum_decay", -0.1, "Invalid momentum_decay: -0.1"),
    ("rprop", "eta_minus", 1.0, "Invalid eta_minus: 1.0; pass a number between 0 and 1"),
    ("rprop", "eta_plus", 1.0, "Invalid eta_plus: 1.0; pass a number above 1"),
    ("signum", "beta", 1.0, "Invalid beta: 1.0"),
    ("powersign", "base", 0.0, "Invalid base: 0.0; pass a number above 0"),
    ("ademamix", "warmup_steps", -1, "Invalid warmup_steps: -1"),
    ("schedule_free_adamw", "beta1", 0.0, "Invalid beta1: 0.0; pass a number between 0 and 1"),
    ("mhat_exp_vhat", "beta2", 1.0, "Invalid beta2: 1.0"),
]


@pytest.mark.parametrize(("name", "hyper", "value", "message"), OUT, ids=[f"{o[0]}-{o[1]}-{o[2]}" for o in OUT])
def test_out_of_range(name: str, hyper: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create(name, parameters(), **{"lr": 0.1, hyper: value})
    optimizer = create(name, parameters(), lr=0.1)
    with pytest.raises(ValueError, match=message):
        optimizer.add_param_group({"params": parameters(), hyper: value})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(("name", "hyper", "value", "message"), OUT, ids=[f"{o[0]}-{o[1]}-{o[2]}" for o in OUT])
def test_checkpoints(name: str, hyper: str, value: Any, message: str) -> None:
    """What no scheduler writes is checked; lr and momentum may have left their ranges on a schedule."""
    optimizer = create(name, parameters(), lr=0.1)
    optimizer.param_groups[0][hyper] = value
    saved = copy.deepcopy(optimizer.state_dict())
    resumed = create(name, parameters(), lr=0.1)
    if hyper in ("lr", "momentum", "beta", "beta1"):
        resumed.load_state_dict(saved)
        assert resumed.param_groups[0][hyper] == value
        return
    before = dict(resumed.param_groups[0])
    with pytest.raises(ValueError, match=rf"param_groups\[0\] of the checkpoint: {message}"):
        resumed.load_state_dict(saved)
    assert resumed.param_groups[0] == before


def test_torch_refuses_the_same() -> None:
    """Where torch has the optimizer it draws the same lines, except at infinity, which it takes."""
    for name, hyper, value, _ in OUT:
        twin = library.ENTRIES[name].torch
        if twin is None or value == math.inf or isinstance(value, torch.Tensor):
            continue
        defaults = getattr(torch.optim, twin.optimizer)([torch.zeros(1)]).defaults
        given: dict[str, Any] = {"lr": 0.1, hyper: value}
        for key, names in twin.hypers.items():
            if hyper in names:
                given = {
                    "lr": 0.1,
                    key: tuple(value if n == hyper else x for n, x in zip(names, defaults[key], strict=True)),
                }
        with pytest.raises(ValueError, match="Invalid"):
            getattr(torch.optim, twin.optimizer)([torch.zeros(1)], **given)


def test_the_ends_are_in() -> None:
    create("adamw", parameters(), lr=0.0, betas=(0.0, math.nextafter(1.0, 0.0)), eps=0.0, weight_decay=0.0)
    create("adadelta", parameters(), lr=1.0, rho=1.0)
    create("momentum", parameters(), lr=0.1, momentum=1.5, dampening=-1.0)
    create("addsign", parameters(), lr=0.1, alpha=-1.0)


def test_contracted_programs_have_the_same_ranges() -> None:
    with pytest.raises(ValueError, match="Invalid eps"):
        RuleOptimizer(parameters(), nos_ext.compile_rule(library.adamw, contract=True), lr=0.1, eps=-1.0)


def test_a_rule_of_one_s_own_may_mean_something_else() -> None:
    rule = "def adamw(p, g, *, lr, eps=1e-8):\n    return p - lr * (g + eps)\n"
    assert RuleOptimizer(parameters(), rule, lr=0.1, eps=-1.0).param_groups[0]["eps"] == -1.0
    with pytest.raises(ValueError, match="Invalid learning rate"):
        RuleOptimizer(parameters(), rule, lr=-0.1)
