"""Param groups with rules of their own, in one optimizer and one step."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch

import nos_ext
from nos_ext import _C, optim
from nos_ext.optim import PowerSign, RuleOptimizer, library
from nos_ext.testing._case import copies, parameters, same, set_grads, state_of, steps, values

AVERAGED = """
def averaged(p, g, k, m, *, lr, beta=0.8):
    k = beta * k + (1 - beta) * norm(g)
    m = beta * m + g
    return p - lr * m / (k + 0.01), k, m
"""
NOISY = "drop(g, 0.3) * (1 + 0.5 * sign(g))"
# Rules with two, one, no and other states (k is one number per tensor, in the slot where others have tensors).
OWN: list[dict[str, Any]] = [
    {"rule": library.adamw, "lr": 0.02, "weight_decay": 0.1, "betas": (0.8, 0.9)},
    {"rule": library.lion.to_text(), "weight_decay": 0.2},
    {"rule": nos_ext.compile_rule(AVERAGED), "maximize": True},
    {},
]


def mixed(
    params: list[torch.Tensor], own: list[dict[str, Any]] = OWN, rule: Any = library.sgd, **options: Any
) -> RuleOptimizer:
    groups = [{"params": [p], **group} for p, group in zip(params, own, strict=True)]
    return RuleOptimizer(groups, rule, 0.05, **options)


def some(dtype: torch.dtype = torch.float32, seed: int = 0) -> list[torch.Tensor]:
    return parameters((4, 3), (300,), (5,), (7,), dtype=dtype, seed=seed)


def apart(params: list[torch.Tensor]) -> list[RuleOptimizer]:
    out = []
    for p, group in zip(params, OWN, strict=True):
        given = {"rule": library.sgd, "lr": 0.05, **group}
        out.append(RuleOptimizer([p], **given))
    return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_steps_are_those_of_an_optimizer_for_each_rule(dtype: torch.dtype) -> None:
    """Bit for bit, also where gradients are missing at some steps."""
    params = some(dtype)
    other = copies(params)
    optimizer, others = mixed(params), apart(other)
    for i in range(8):
        set_grads(params, seed=i)
        params[i % 3].grad = None
        for p, q in zip(params, other, strict=True):
            q.grad = None if p.grad is None else p.grad.clone()
        optimizer.step()
        for one in others:
            one.step()
        assert same(params, other)
    assert same(state_of(optimizer), [x for one in others for x in state_of(one)])
    names = [set(optimizer.state[p]) for p in params]
    assert names == [{"step", "m", "v"}, {"step", "m"}, {"step", "k", "m"}, {"step"}]
    assert optimizer.state[params[2]]["k"].shape == ()


def test_draws_are_those_of_the_parameters_number() -> None:
    params = parameters((50,), (50,))
    other = copies(params)
    optimizer = RuleOptimizer(
        [{"params": params[:1]}, {"params": params[1:], "rule": NOISY}], library.lion, 0.1, seed=3
    )
    expected = RuleOptimizer(other, NOISY, 0.1, seed=3)
    steps(optimizer, params, 3)
    steps(expected, other, 3)
    assert torch.equal(params[1], other[1])


def test_one_engine_call(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    stepper = _C.Stepper

    class Counting:
        def __init__(self, *arguments: Any) -> None:
            self.inner = stepper(*arguments)

        def divide(self, parts: Any, *arguments: Any) -> None:
            made.append(len(parts))
            self.inner.divide(parts, *arguments)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

    monkeypatch.setattr(_C, "Stepper", Counting)
    params = some()
    own = [{**group, "maximize": False} for group in OWN]
    steps(mixed(params, own), params, 3)
    assert made == [1]


def test_keys_of_the_groups() -> None:
    """A group has the hyperparameters of its rule and no others; values it does not give are the rule's own."""
    optimizer = mixed(some(), rule=library.adamw, weight_decay=0.5, eps=1e-3)
    adamw, lion, averaged, default = optimizer.param_groups
    assert (adamw["weight_decay"], adamw["eps"], adamw["betas"], adamw["lr"]) == (0.1, 1e-3, (0.8, 0.9), 0.02)
    assert (default["weight_decay"], default["eps"]) == (0.5, 1e-3)
    assert (lion["weight_decay"], lion["beta2"], lion["lr"]) == (0.2, 0.99, 0.05)
    assert "eps" not in lion
    assert (averaged["beta"], averaged["betas"]) == (0.8, (0.8,))
    assert not {"weight_decay", "eps", "beta1", "beta2"} & set(averaged)
    lion["betas"] = (0.5, 0.6)
    assert (lion["beta1"], lion["beta2"]) == (0.5, 0.6)
    assert optimizer.program.name == "adamw"
    assert "rule: lion" in repr(optimizer)
    assert "rule: averaged" in repr(optimizer)


@pytest.mark.parametrize("default", ["sgd", "adamw"])
def test_clipping_is_by_the_norm_of_all_groups(default: str) -> None:
    params = some(torch.float64)
    other = copies(params)
    ours = mixed(params, rule=library.get(default), clip_norm=0.7)
    theirs = mixed(other, rule=library.get(default))
    for i in range(10):
        set_grads(params, seed=i)
        params[i % 3].grad = None
        for p, q in zip(params, other, strict=True):
            q.grad = None if p.grad is None else p.grad.clone()
        norm = torch.nn.utils.clip_grad_norm_(other, 0.7)
        ours.step()
        theirs.step()
        assert ours.grad_norm == pytest.approx(float(norm), rel=1e-12)
        torch.testing.assert_close(params, other, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("through", ["state_dict", "deepcopy", "pickle"])
def test_checkpoints_go_on_with_the_same_bits(through: str) -> None:
    params = some()
    optimizer = mixed(params)
    steps(optimizer, params, 3)
    if through == "state_dict":
        others = copies(params)
        other = mixed(others)
        other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    else:
        other = copy.deepcopy(optimizer) if through == "deepcopy" else pickle.loads(pickle.dumps(optimizer))
        others = [p for group in other.param_groups for p in group["params"]]
    assert [dict(group) for group in optimizer.state_dict()["param_groups"]] == [
        dict(group) for group in other.state_dict()["param_groups"]
    ]
    steps(optimizer, params, 2)
    steps(other, others, 2)
    assert same(params, others)
    assert same(state_of(optimizer), state_of(other))


def test_checkpoints_of_other_rules() -> None:
    params = some()
    optimizer = mixed(params)
    steps(optimizer, params, 1)
    saved = copy.deepcopy(optimizer.state_dict())
    others = some()
    other = mixed(others, [OWN[0], OWN[2], OWN[1], OWN[3]])
    steps(other, others, 1)
    before = values(state_of(other))
    message = (
        r"(?s)param_groups\[1\] of the checkpoint was made with another rule:\ndef lion.*this group has\ndef averaged"
    )
    with pytest.raises(ValueError, match=message):
        other.load_state_dict(saved)
    assert same(state_of(other), before)
    del saved["state"][2]["k"]
    with pytest.raises(ValueError, match=r"parameter 2 has the keys .* but not \['k'\], which rule 'averaged' needs"):
        mixed(some()).load_state_dict(saved)


def test_wrong_rules_and_values() -> None:
    params = some()
    optimizer = mixed(params)
    late = parameters((3,), seed=9)
    with pytest.raises(nos_ext.RuleError, match="unknown"):
        optimizer.add_param_group({"params": late, "rule": "g * unheard_of"})
    with pytest.raises(ValueError, match=r"Invalid beta2: 1\.5"):
        optimizer.add_param_group({"params": late, "rule": library.adamw, "beta2": 1.5})
    with pytest.raises(TypeError, match=r"betas is 0\.9"):
        optimizer.add_param_group({"params": late, "rule": library.adamw, "betas": 0.9})
    assert len(optimizer.param_groups) == 4
    steps(optimizer, params, 1)
    optimizer.add_param_group({"params": late, "rule": library.momentum, "momentum": 0.5})
    steps(optimizer, [*params, *late], 2)
    assert set(optimizer.state[late[0]]) == {"step", "m"}


def test_the_rule_of_a_group_stays() -> None:
    params = some()
    optimizer = mixed(params)
    steps(optimizer, params, 1)
    mine = optimizer.param_groups[1]["rule"]
    before = values(params)
    for text in ("g", optimizer.param_groups[0]["rule"]):
        optimizer.param_groups[1]["rule"] = text
        set_grads(params)
        with pytest.raises(ValueError, match="the rule of a group stays what it was made with"):
            optimizer.step()
        assert same(params, before)
    optimizer.param_groups[1]["rule"] = mine
    steps(optimizer, params, 1)


def test_a_function_of_the_step_in_one_group() -> None:
    params = parameters((3,), (3,))
    groups: list[dict[str, Any]] = [
        {"params": params[:1], "rule": library.powersign, "sign_decay": lambda step: 1.0 / (step + 1)},
        {"params": params[1:]},
    ]
    optimizer = RuleOptimizer(groups, library.sgd, 0.1)
    other = copies(params)
    expected = PowerSign(other[:1], lr=0.1, sign_decay=lambda step: 1.0 / (step + 1))
    steps(optimizer, params, 3)
    for i in range(3):
        set_grads(other, seed=100 + i)
        expected.step()
    assert torch.equal(params[0], other[0])
    saved = optimizer.state_dict()
    assert saved["param_groups"][0]["sign_decay"] == "<function of the step; not saved>"
    optimizer.load_state_dict(copy.deepcopy(saved))
    assert callable(optimizer.param_groups[0]["sign_decay"])


def test_schedule_free_in_one_group() -> None:
    params = parameters((3,), (3,))
    groups: list[dict[str, Any]] = [
        {"params": params[:1], "rule": library.get("schedule_free_adamw")},
        {"params": params[1:]},
    ]
    optimizer = RuleOptimizer(groups, library.adamw, 0.1)
    steps(optimizer, params, 3)
    before = values(params)
    optimizer.eval()
    assert not torch.equal(params[0], before[0])
    assert torch.equal(params[1], before[1])
    with pytest.raises(RuntimeError, match=r"call optimizer\.train"):
        optimizer.step()
    optimizer.train()
    torch.testing.assert_close(params[0].detach(), before[0])
    steps(optimizer, params, 1)


def test_what_torch_cannot_hold() -> None:
    params = some()
    optimizer = mixed(params)
    with pytest.raises(ValueError, match="torch has no optimizer of several rules"):
        optimizer.torch_state_dict()
    with pytest.raises(ValueError, match="torch has no optimizer of several rules"):
        optimizer.load_torch_state_dict(torch.optim.SGD(params).state_dict())


def test_parameters_without_memory() -> None:
    params = [torch.empty(3, 4, device="meta").requires_grad_() for _ in OWN]
    optimizer = mixed(params)
    for p in params:
        p.grad = torch.empty(3, 4, device="meta")
    optimizer.step()
    assert [set(optimizer.state[p]) - {"step"} for p in params] == [{"m", "v"}, {"m"}, {"k", "m"}, set()]


def test_create_and_infinite_limit() -> None:
    """`create` takes such groups as well, and a limit of inf tells the norm only."""
    params = parameters((3,), (3,))
    groups: list[dict[str, Any]] = [{"params": params[:1]}, {"params": params[1:], "rule": library.lion}]
    optimizer = optim.create("adamw", groups, lr=0.1, clip_norm=math.inf)
    steps(optimizer, params, 1)
    assert optimizer.grad_norm == pytest.approx(
        float(torch.stack([p.grad.norm() for p in params if p.grad is not None]).norm()), rel=1e-6
    )
