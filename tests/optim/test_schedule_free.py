"""The two sets of weights of schedule_free_adamw, by the sequences x, y and z of the paper."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch

from nos_ext.optim import create
from nos_ext.testing._case import copies, parameters, same, set_grads, steps

OPTIONS: dict[str, Any] = {"lr": 0.05, "betas": (0.8, 0.9), "weight_decay": 0.1, "warmup_steps": 5}


def make(params: list[torch.Tensor]) -> Any:
    return create("schedule_free_adamw", params, **OPTIONS)


def sequences(count: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Returns y and x of algorithm 1 after `count` steps of the gradients that `steps` sets."""
    ys = [p.detach().clone() for p in parameters(dtype=torch.float64)]
    xs, zs, vs = (list(map(torch.clone, ys)) for _ in range(3))
    vs = [v * 0 for v in vs]
    total = 0.0
    for k in range(1, count + 1):
        rate = OPTIONS["lr"] * min(1, k / OPTIONS["warmup_steps"])
        total += rate**2
        params = parameters(dtype=torch.float64)
        set_grads(params, seed=100 + k - 1)
        for i, p in enumerate(params):
            assert p.grad is not None
            vs[i] = 0.9 * vs[i] + 0.1 * p.grad**2
            zs[i] = zs[i] - rate * (p.grad / ((vs[i] / (1 - 0.9**k)).sqrt() + 1e-8) + 0.1 * ys[i])
            xs[i] = xs[i] + rate**2 / total * (zs[i] - xs[i])
            ys[i] = 0.2 * zs[i] + 0.8 * xs[i]
    return ys, xs


def with_other_weight(ys: list[torch.Tensor], xs: list[torch.Tensor], then: float, now: float) -> list[torch.Tensor]:
    """Returns what y is with another beta1, by its definition from x and z."""
    return [now * x + (1 - now) * (y - then * x) / (1 - then) for y, x in zip(ys, xs, strict=True)]


def assert_close(a: Any, b: Any) -> None:
    for p, q in zip(a, b, strict=True):
        torch.testing.assert_close(p.detach(), q.detach(), rtol=1e-11, atol=1e-12)


def test_weights_for_training_and_evaluation() -> None:
    params = parameters(dtype=torch.float64)
    optimizer = make(params)
    steps(optimizer, params, 12)
    y, x = sequences(12)
    assert_close(params, y)
    optimizer.eval()
    assert_close(params, x)
    assert not torch.allclose(x[0], y[0])
    optimizer.eval()
    assert_close(params, x)
    optimizer.train()
    optimizer.train()
    assert_close(params, y)
    steps(optimizer, params, 8, first=12)
    assert_close(params, sequences(20)[0])


def test_no_step_with_weights_for_evaluation() -> None:
    params = parameters()
    optimizer = make(params)
    steps(optimizer, params, 2)
    optimizer.eval()
    before = copies(params)
    with pytest.raises(RuntimeError, match=r"have the weights for evaluation; call optimizer.train\(\)"):
        steps(optimizer, params, 1)
    assert same(params, before)


@pytest.mark.parametrize("through_a_checkpoint", [False, True])
def test_another_weight_of_the_average_changes_no_average(through_a_checkpoint: bool) -> None:
    """beta1 says how y is made of x and z. Whenever it is changed, x stays what it is, and y follows."""
    y, x = sequences(6)
    params = parameters(dtype=torch.float64)
    optimizer = make(params)
    steps(optimizer, params, 6)
    optimizer.param_groups[0]["beta1"] = 0.6  # as OneCycleLR does after a step
    if through_a_checkpoint:
        others = copies(params)
        resumed = make(others)
        resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        params, optimizer = others, resumed
    optimizer.eval()
    assert_close(params, x)
    optimizer.train()
    assert_close(params, with_other_weight(y, x, 0.8, 0.6))
    optimizer.eval()
    optimizer.param_groups[0]["beta1"] = 0.7
    optimizer.train()
    assert_close(params, with_other_weight(y, x, 0.8, 0.7))
    optimizer.eval()
    assert_close(params, x)


def test_a_step_follows_another_weight_of_the_average() -> None:
    """Changed between two steps it gives what a change between eval() and train() gives."""
    found = []
    for aside in (False, True):
        params = parameters(dtype=torch.float64)
        optimizer = make(params)
        optimizer.param_groups[0]["beta1"] = 0.5  # nothing has been made with the first one
        optimizer.param_groups[0]["beta1"] = 0.8
        steps(optimizer, params, 4)
        if aside:
            optimizer.eval()
        optimizer.param_groups[0]["betas"] = (0.6, 0.9)
        if aside:
            optimizer.train()
        steps(optimizer, params, 3, first=4)
        found.append(copies(params))
        optimizer.eval()
        found[-1] += copies(params)
    assert_close(*found)


def test_a_checkpoint_knows_which_weights_were_saved() -> None:
    params = parameters(dtype=torch.float64)
    optimizer = make(params)
    steps(optimizer, params, 6)
    optimizer.eval()
    saved = copy.deepcopy(optimizer.state_dict())
    assert saved["param_groups"][0]["train_mode"] is False
    others = copies(params)
    resumed = make(others)
    resumed.load_state_dict(saved)
    with pytest.raises(RuntimeError, match=r"call optimizer.train\(\)"):
        steps(resumed, others, 1)
    resumed.train()
    assert_close(others, sequences(6)[0])
    saved["param_groups"][0]["train_mode"] = "no"
    with pytest.raises(TypeError, match="train_mode is 'no'; pass True or False"):
        resumed.load_state_dict(saved)
    saved["param_groups"][0] |= {"train_mode": True, "train_weight": 0.0}
    with pytest.raises(ValueError, match=r"train_weight is 0\.0; pass a number above 0, or None"):
        resumed.load_state_dict(saved)
    del saved["param_groups"][0]["train_weight"]  # as in older checkpoints
    resumed.load_state_dict(saved)


def test_half_precision_and_parameters_without_a_step() -> None:
    params = parameters((64,), (3,), dtype=torch.bfloat16)
    optimizer = make(params)
    steps(optimizer, params[:1], 4)
    y, idle = params[0].detach().float().clone(), params[1].detach().clone()
    z = optimizer.state[params[0]]["z"]
    optimizer.eval()
    expected = (y + (z - y) * (1 - 1 / 0.8)).bfloat16()
    torch.testing.assert_close(params[0].detach(), expected, rtol=0, atol=0.02)
    assert not torch.equal(params[0].detach().float(), y)
    assert torch.equal(params[1].detach(), idle)


def test_other_rules_have_one_set_of_weights() -> None:
    params = parameters()
    optimizer = create("adamw", params, lr=0.1)
    steps(optimizer, params, 2)
    before = copies(params)
    optimizer.eval()
    assert same(params, before)
    steps(optimizer, params, 1)
    optimizer.train()
    assert "train_mode" not in optimizer.param_groups[0]


@pytest.mark.parametrize("value", ["x", 0.0, -0.5, math.nan, torch.ones(2)])
def test_weights_are_changed_in_all_groups_or_in_none(value: Any) -> None:
    params = parameters()
    optimizer = make([{"params": params[:1]}, {"params": params[1:]}])  # type: ignore[list-item]
    steps(optimizer, params, 3)
    before = copies(params)
    optimizer.param_groups[1]["beta1"] = value
    with pytest.raises((TypeError, ValueError), match=r"beta1 is .*; pass a number"):
        optimizer.eval()
    assert same(params, before)
    assert [group["train_mode"] for group in optimizer.param_groups] == [True, True]


def test_the_weight_of_the_average_is_no_function() -> None:
    """The training would run, and only the first evaluation fail."""
    with pytest.raises(TypeError, match="beta1 is a function of the step, but"):
        create("schedule_free_adamw", parameters(), lr=0.1, beta1=lambda _: 0.9)
    create("schedule_free_adamw", parameters(), lr=0.1, beta2=lambda _: 0.9)


@pytest.mark.parametrize("wrong", ["lr", "grad"])
def test_a_refused_step_leaves_the_weights_for_training(wrong: str) -> None:
    params = parameters()
    optimizer = make(params)
    steps(optimizer, params, 3)
    before, group = copies(params), optimizer.param_groups[0]
    lr, beta1 = group["lr"], group["beta1"]
    group["beta1"] = 0.5
    if wrong == "lr":
        group["lr"] = "x"
    else:
        params[0].grad_dtype = None
        params[0].grad = torch.ones(params[0].shape, dtype=torch.int64)
    with pytest.raises((TypeError, ValueError)):
        optimizer.step()
    assert same(params, before)
    assert group["train_weight"] == beta1
    group["lr"], params[0].grad = lr, None
    optimizer.step()
    assert group["train_weight"] == 0.5


@pytest.mark.parametrize("wrong", ["missing", "shape", "emptied", "param"])
@pytest.mark.parametrize("how", ["eval", "step"])
def test_weights_are_changed_of_all_parameters_or_of_none(wrong: str, how: str) -> None:
    params = parameters()
    optimizer = make(params)
    steps(optimizer, params, 3)
    before, entry, last = copies(params), optimizer.state[params[-1]], params[-1]
    z = entry.pop("z")
    if wrong == "shape":
        entry["z"] = torch.ones(7)
    elif wrong != "missing":
        entry["z"] = z.clone()
        (entry["z"] if wrong == "emptied" else last.data).untyped_storage().resize_(0)
    optimizer.param_groups[0]["beta1"] = 0.5
    with pytest.raises(ValueError, match="of its group is"):
        getattr(optimizer, how)()
    assert same(params[:-1], before[:-1])
    assert optimizer.param_groups[0]["train_mode"] is True


@pytest.mark.parametrize(("key", "value"), [("train_mode", "x"), ("train_mode", None), ("train_weight", "x")])
def test_what_says_which_weights_there_are_is_checked(key: str, value: Any) -> None:
    params = parameters()
    optimizer = make(params)
    steps(optimizer, params, 3)
    before = copies(params)
    optimizer.param_groups[0][key] = value
    for call in (optimizer.eval, optimizer.step):
        with pytest.raises(TypeError, match=f"{key}.* is {value!r}"):
            call()
    assert same(params, before)
