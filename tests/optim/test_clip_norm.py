"""clip_norm: gradients are clipped inside the step, as torch.nn.utils.clip_grad_norm_ before it would."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode

import nos_ext
from nos_ext import optim
from nos_ext.optim import AddSign, PowerSign, RuleOptimizer, library
from nos_ext.optim._clipping import clipped
from nos_ext.optim._shards import _sum_of_squares
from nos_ext.testing._case import copies, parameters, same, set_grads, steps, values
from nos_ext.testing.optimizer import OptimizerCase, OptimizerConformance
from tests.reference.named import ONE_PROGRAM

Make = Callable[..., RuleOptimizer]


def named(name: str, **options: Any) -> Make:
    return lambda params, **keywords: optim.create(name, params, **{"lr": 0.05, **options, **keywords})


MAKERS: dict[str, Make] = {
    "adamw": named("adamw", weight_decay=0.1),
    "sgd": named("sgd"),
    "lion": named("lion", weight_decay=0.1),
    "momentum": named("momentum"),
    "powersign": PowerSign,
    "addsign": AddSign,
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("limit", [0.5, 2.0, 1e3, math.inf])
def test_steps_are_those_after_clip_grad_norm(name: str, limit: float) -> None:
    """In several groups, and with gradients that are missing at some steps: 20 steps in float64."""
    params = parameters((4, 3), (5,), (), (0,), (300,), dtype=torch.float64)
    other = copies(params)

    def groups(of: list[torch.Tensor]) -> list[dict[str, Any]]:
        return [{"params": of[:2]}, {"params": of[2:4], "lr": 0.02, "maximize": True}, {"params": of[4:]}]

    ours = MAKERS[name](groups(params), clip_norm=limit)
    theirs = MAKERS[name](groups(other))
    for i in range(20):
        set_grads(params, seed=i, scale=0.5 + i / 10)
        for k in (0, 1, 4):
            if (i + k) % 4 == 0:
                params[k].grad = None
        for p, q in zip(params, other, strict=True):
            q.grad = None if p.grad is None else p.grad.clone()
        norm = torch.nn.utils.clip_grad_norm_(other, limit)
        theirs.step()
        ours.step()
        assert ours.grad_norm == pytest.approx(float(norm), rel=1e-12)
        for p, q in zip(params, other, strict=True):
            torch.testing.assert_close(p, q, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_other_dtypes(dtype: torch.dtype) -> None:
    params = parameters((40,), (3, 4), dtype=dtype)
    exact = [p.detach().double().requires_grad_() for p in params]
    ours, theirs = MAKERS["momentum"](params, clip_norm=1.0), MAKERS["momentum"](exact)
    for i in range(3):
        set_grads(params, seed=i)
        for p, q in zip(params, exact, strict=True):
            assert p.grad is not None
            q.grad = p.grad.double()
        norm = torch.nn.utils.clip_grad_norm_(exact, 1.0)
        theirs.step()
        ours.step()
        assert ours.grad_norm == pytest.approx(float(norm), rel=1e-6)
    eps = torch.finfo(dtype).eps
    for p, q in zip(params, exact, strict=True):
        torch.testing.assert_close(p.detach().double(), q.detach(), rtol=8 * eps, atol=8 * eps)


def test_gradients_stay_as_they_are() -> None:
    params = parameters()
    set_grads(params, scale=10.0)
    before = [p.grad.clone() for p in params if p.grad is not None]
    PowerSign(params, clip_norm=0.1).step()
    assert all(p.grad is not None and torch.equal(p.grad, old) for p, old in zip(params, before, strict=True))


def test_the_norm_of_a_step() -> None:
    params = parameters()
    optimizer = PowerSign(params, clip_norm=0.1)
    found = [optimizer.grad_norm]
    optimizer.step()  # no parameter has a gradient
    found.append(optimizer.grad_norm)
    empty = torch.empty(0, requires_grad=True)
    optimizer.add_param_group({"params": [empty]})
    empty.grad = torch.empty(0)
    optimizer.step()
    found.append(optimizer.grad_norm)
    set_grads(params)
    optimizer.step()
    found.append(optimizer.grad_norm)
    norm = torch.stack([p.grad.norm() for p in params if p.grad is not None]).norm()
    assert found == [None, 0.0, 0.0, pytest.approx(float(norm), rel=1e-6)]
    assert type(found[-1]) is float


def test_no_norm_is_left_of_earlier_steps() -> None:
    params = parameters()
    optimizer = PowerSign(params, clip_norm=0.1)
    steps(optimizer, params, 1)
    assert optimizer.grad_norm is not None
    optimizer.param_groups[0]["clip_norm"] = None
    steps(optimizer, params, 1)
    assert optimizer.grad_norm is None


@pytest.mark.parametrize("rule", ["p", "0", "t", "sign(p)"])
def test_gradients_count_where_a_rule_does_not_read_them(rule: str) -> None:
    """In a group of its own, and alone. What the rule computes stays what it is, also with gradients that are NaN."""
    for gradient, norm in ((4.0, 5.0), (math.nan, math.nan)):
        one, two, expected = (torch.full((1,), 2.0, dtype=torch.float64, requires_grad=True) for _ in range(3))
        one.grad, two.grad, expected.grad = (torch.full_like(one, x).detach() for x in (3.0, gradient, gradient))
        groups = [{"params": [one]}, {"params": [two], "rule": rule}]
        optimizer = RuleOptimizer(groups, "g", lr=0.5, clip_norm=1.0)
        optimizer.step()
        assert optimizer.grad_norm == pytest.approx(norm, nan_ok=True)
        assert one.item() == pytest.approx(2 - 0.5 * 3 / (norm + 1e-6), nan_ok=True)
        RuleOptimizer([expected], rule, lr=0.5).step()
        assert two.item() == expected.item()
        alone = RuleOptimizer([expected], rule, lr=0.5, clip_norm=1.0)
        alone.step()
        assert alone.grad_norm == pytest.approx(gradient, nan_ok=True)


def test_draws_of_bytecode_keep_their_sites() -> None:
    """In bytecode that was not compiled here draws may come in any order, and some may be of no use."""
    text = "def f(p, g, *, lr):\n    return p - lr * (drop(g, 0.5) + 0.1 * normal(1.0)) * drop(g, 0.25)"
    code = bytearray(nos_ext.compile_rule(text).bytecode)
    plain = nos_ext.Program.from_bytes(bytes(code))
    first = len(code) - 2 - 8 * len(plain.code)  # before the output, instructions of four numbers with two bytes
    for k, (op, *operands) in enumerate(plain.code):
        if op in ("drop", "normal"):
            at = first + 8 * k + 6
            assert int.from_bytes(code[at : at + 2], "little") == operands[2]
            code[at : at + 2] = (2 - operands[2]).to_bytes(2, "little")
    moved = nos_ext.Program.from_bytes(bytes(code))
    results = []
    for program, clip_norm in ((plain, None), (moved, None), (moved, math.inf)):
        p = torch.nn.Parameter(torch.zeros(64))
        p.grad = torch.ones(64)
        RuleOptimizer([p], program, lr=1.0, seed=3, clip_norm=clip_norm).step()
        results.append(p.detach())
    assert not torch.equal(results[0], results[1])
    assert torch.equal(results[1], results[2])
    code[-2:] = bytes(2)  # the new p is p, and all draws are dead
    dead = nos_ext.Program.from_bytes(bytes(code))
    for flags in ({"clip_norm": 1.0}, {"master_weights": True}):
        p = torch.nn.Parameter(torch.full((4,), 2.0, dtype=torch.bfloat16))
        p.grad = torch.ones_like(p)
        RuleOptimizer([p], dead, lr=1.0, **flags).step()
        assert p.tolist() == [2.0] * 4


def test_without_clipping_nothing_changes() -> None:
    params = parameters()
    optimizer = PowerSign(params)
    steps(optimizer, params, 1)
    assert optimizer.grad_norm is None
    assert optimizer.param_groups[0]["clip_norm"] is None
    assert optimizer.program == nos_ext.compile_rule(library.powersign)


def test_a_large_limit_keeps_every_bit() -> None:
    params = parameters()
    other = copies(params)
    steps(PowerSign(params, clip_norm=1e6), params, 3)
    steps(PowerSign(other), other, 3)
    assert same(params, other)


@pytest.mark.parametrize("maximize", [False, True])
def test_the_norm_is_that_of_unscaled_gradients(maximize: bool) -> None:
    params = parameters()
    other = copies(params)
    ours = MAKERS["adamw"](params, clip_norm=1.0, fused=True, maximize=maximize)
    theirs = MAKERS["adamw"](other, clip_norm=1.0, maximize=maximize)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for i in range(4):
        set_grads(other, seed=i)
        set_grads(params, seed=i, scale=1024.0)
        if i == 2:
            assert params[0].grad is not None
            params[0].grad[0] = math.inf
        scaler.scale(torch.zeros(()))  # makes the scaler's own tensors
        before = values(params), ours.grad_norm
        scaler.step(ours)
        scaler.update(1024.0)
        if i == 2:  # a skipped step changes nothing
            assert same(params, before[0])
            assert ours.grad_norm == before[1]
            continue
        theirs.step()
        assert ours.grad_norm == theirs.grad_norm
        assert same(params, other)


def test_a_norm_that_is_nan_goes_everywhere() -> None:
    """As with clip_grad_norm_: nothing hides that the training has diverged."""
    params = parameters((3,), (2,))
    set_grads(params)
    assert params[0].grad is not None
    params[0].grad[1] = math.nan
    optimizer = MAKERS["sgd"](params, clip_norm=1.0)
    optimizer.step()
    assert all(p.isnan().all() for p in params)
    assert optimizer.grad_norm is not None
    assert math.isnan(optimizer.grad_norm)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (0, ValueError),
        (0.0, ValueError),
        (-1, ValueError),
        (math.nan, ValueError),
        (-math.inf, ValueError),
        (True, TypeError),
        (False, TypeError),
        ("x", TypeError),
        ("1.0", TypeError),
        ([1.0], TypeError),
        (torch.ones(()), TypeError),
        (lambda step: 1.0, TypeError),
    ],
    ids=lambda value: value.__name__ if callable(value) else str(value),  # the repr of a function has an address
)
def test_wrong_values(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^clip_norm is .*; pass a number above 0"):
        PowerSign(parameters(), clip_norm=value)
    params = parameters()
    optimizer = PowerSign(params, clip_norm=1.0)
    steps(optimizer, params, 1)
    with pytest.raises(error, match="clip_norm is"):
        optimizer.add_param_group({"params": parameters(seed=4), "clip_norm": value})
    assert len(optimizer.param_groups) == 1
    saved = copy.deepcopy(optimizer.state_dict())
    saved["param_groups"][0]["clip_norm"] = value
    with pytest.raises(error, match=r"param_groups\[0\] of the checkpoint: clip_norm is"):
        optimizer.load_state_dict(saved)
    before = values(params)
    optimizer.param_groups[0]["clip_norm"] = value
    set_grads(params)
    with pytest.raises(error, match="clip_norm is"):
        optimizer.step()
    assert same(params, before)


def test_groups_may_not_differ() -> None:
    params = parameters((3,), (2,))
    message = r"clip_norm is 1.0 in param_groups\[0\] and 2.0 in param_groups\[1\].*the same value in all of them"
    groups: list[dict[str, Any]] = [{"params": params[:1], "clip_norm": 1.0}, {"params": params[1:], "clip_norm": 2.0}]
    with pytest.raises(ValueError, match=message):
        PowerSign(groups)
    optimizer = PowerSign([{"params": params[:1]}, {"params": params[1:]}], clip_norm=1.0)
    steps(optimizer, params, 1)
    optimizer.param_groups[1]["clip_norm"] = 2.0
    before = values(params)
    set_grads(params)
    with pytest.raises(ValueError, match=message):
        optimizer.step()
    assert same(params, before)
    optimizer.param_groups[0]["clip_norm"] = 2.0
    optimizer.step()
    assert not same(params, before)


@pytest.mark.parametrize(("first", "second"), [(0.5, 2.0), (0.5, None), (None, 0.5)])
def test_the_limit_may_change_between_steps(first: float | None, second: float | None) -> None:
    params = parameters(dtype=torch.float64)
    other = copies(params)
    ours, theirs = PowerSign(params, clip_norm=first), PowerSign(other)
    for i, limit in enumerate((first, first, second, second)):
        ours.param_groups[0]["clip_norm"] = limit
        set_grads(params, seed=i)
        set_grads(other, seed=i)
        if limit is not None:
            torch.nn.utils.clip_grad_norm_(other, limit)
        ours.step()
        theirs.step()
    torch.testing.assert_close(params, other, rtol=1e-12, atol=1e-13)


def test_numbers_are_stored_as_pythons() -> None:
    optimizer = PowerSign(parameters(), clip_norm=np.float32(0.5))
    assert type(optimizer.param_groups[0]["clip_norm"]) is float


def test_checkpoints() -> None:
    """The limit is in the checkpoint. One that is older than clip_norm leaves the optimizer's."""
    params = parameters()
    optimizer = PowerSign(params, clip_norm=0.5)
    steps(optimizer, params, 2)
    saved = copy.deepcopy(optimizer.state_dict())
    assert saved["param_groups"][0]["clip_norm"] == 0.5
    for other in (pickle.loads(pickle.dumps(optimizer)), copy.deepcopy(optimizer)):
        tensors = other.param_groups[0]["params"]
        assert other.param_groups[0]["clip_norm"] == 0.5
        again = copies(params)
        loaded = PowerSign(again)
        loaded.load_state_dict(saved)
        steps(other, tensors, 2)
        steps(loaded, again, 2)
        assert same(tensors, again)
    del saved["param_groups"][0]["clip_norm"]
    old = PowerSign(parameters(), clip_norm=3.0)
    old.load_state_dict(saved)
    assert old.param_groups[0]["clip_norm"] == 3.0


def test_torchs_checkpoints() -> None:
    params = parameters()
    theirs = torch.optim.AdamW(params)
    steps(theirs, params, 1)
    optimizer = optim.create("adamw", params, lr=1e-3, clip_norm=0.5)
    optimizer.load_torch_state_dict(theirs.state_dict())
    assert optimizer.param_groups[0]["clip_norm"] == 0.5
    assert "clip_norm" not in optimizer.torch_state_dict()["param_groups"][0]


@pytest.mark.parametrize("name", ONE_PROGRAM)
def test_the_clipped_rule_of_every_rule(name: str) -> None:
    """Every g is clipped, and nothing else changes: the reference with clipped gradients says so."""
    program = nos_ext.compile_rule(library.get(name))
    make = np.random.default_rng(1)
    params = [make.uniform(0.5, 1.5, shape) for shape in ((3, 2), (4,))]
    grads = [make.normal(size=p.shape) for p in params]
    norm = math.sqrt(sum(float((g**2).sum()) for g in grads))
    fit = [g * min(1.0, 0.7 / (norm + 1e-6)) for g in grads]
    options: dict[str, Any] = {"lr": 0.1, "step": 3, "total_steps": 10}
    zeros = nos_ext.init_state(program, params)
    expected = program.reference(params, fit, zeros, **options)
    found = clipped(program).reference(params, grads, zeros, clip_norm=0.7, **options)
    for a, b in zip(expected[0], found[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    for state in program.state_names:
        for a, b in zip(expected[1][state], found[1][state], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "source",
    [
        "drop(g, 0.3) * exp(sign(g) * sign(m)) + noise",
        "def f(p, g, m, k, *, lr, beta=0.9):\n"
        "    k = beta * k + norm(g) / global_norm(g + p)\n"
        "    m = beta * m + normal(0.1) * g + drop(m, 0.5)\n"
        "    return p - lr * m / (k + 1), m, k",
    ],
)
def test_rules_with_draws_and_reductions(source: str) -> None:
    params = parameters((40,), (3, 4), dtype=torch.float64)
    other = copies(params)
    ours = RuleOptimizer(params, source, 0.1, clip_norm=0.5, seed=3, total_steps=10)
    theirs = RuleOptimizer(other, source, 0.1, seed=3, total_steps=10)
    for i in range(3):
        set_grads(params, seed=i)
        set_grads(other, seed=i)
        torch.nn.utils.clip_grad_norm_(other, 0.5)
        ours.step()
        theirs.step()
    torch.testing.assert_close(params, other, rtol=1e-11, atol=1e-12)


def test_names_that_clash() -> None:
    rule = "def f(p, g, clip_norm, *, lr):\n    return p - lr * clip_norm, clip_norm + g"
    RuleOptimizer(parameters(), rule, lr=0.1)
    with pytest.raises(nos_ext.RuleError, match="state named 'clip_norm'"):
        RuleOptimizer(parameters(), rule, lr=0.1, clip_norm=1.0)
    with pytest.raises(nos_ext.RuleError, match="hyperparameter named 'clip_norm'"):
        RuleOptimizer(parameters(), "def f(p, g, *, lr, clip_norm=1):\n    return p - lr * g * clip_norm", lr=0.1)


class TestConformance(OptimizerConformance):
    @pytest.fixture(params=["powersign", "adamw"])
    def case(self, request: pytest.FixtureRequest) -> OptimizerCase:
        return OptimizerCase(
            f"clipped-{request.param}",
            MAKERS[request.param],
            lr=0.02,
            hyper="weight_decay",
            values=(0.1, 0.2),
            states={"powersign": ("m",), "adamw": ("m", "v")}[request.param],
            spans="all",
            wide_state=True,
            refuses=("differentiable", "foreach"),
            amp=True,
            extra={"clip_norm": 1.0},
        )


def test_gradients_on_several_devices() -> None:
    """The norm is over all of them, and each engine call has tensors of one device. Fake tensors stand for devices."""
    with FakeTensorMode():
        grads: list[Any] = [torch.ones(3, device=place) for place in ("cuda:0", "cuda:1", "cpu", "cuda:0")]
        total = _sum_of_squares(grads, "cpu")
        assert (total.device, total.dtype, total.shape) == (torch.device("cuda:0"), torch.float64, ())
    here = [torch.full((2,), float(k)) for k in range(1, 4)]
    assert float(_sum_of_squares(here, "cpu")) == 28.0
    params = [nn.Parameter(torch.ones(3)) for _ in grads]
    optimizer = optim.create("muon", [nn.Parameter(torch.ones(3, 4))], lr=0.1, clip_norm=1.0)
    optimizer.add_param_group({"params": params, "rule": "g"})
    lists = optimizer._new_lists()
    lists._tensors[1:] = grads
    divided = lists._division.by([None, *grads], [0.0] * 5)
    assert [members for *_, members in divided] == [[1, 4], [2], [3]]


def emptied(grad: torch.Tensor) -> torch.Tensor:
    grad.untyped_storage().resize_(0)
    return grad


@pytest.mark.parametrize(
    ("grad", "error", "message"),
    [
        (lambda: emptied(torch.ones(3, 4)), ValueError, r"grads\[0\] has no memory"),
        (lambda: torch.ones(3, 4).to_sparse(), RuntimeError, r"does not support sparse gradients \(parameter 0\)"),
        (lambda: torch.ones(3, 4, dtype=torch.complex64), RuntimeError, "does not support complex gradients"),
        (lambda: torch.ones(3, 4, dtype=torch.int64), (TypeError, ValueError), r"grads\[0\]"),
        (lambda: torch.ones(3, 4).to(torch.float8_e4m3fn), (TypeError, ValueError), r"grads\[0\]"),
    ],
)
def test_the_norm_is_of_gradients_that_can_be_read(grad: Callable[[], torch.Tensor], error: Any, message: str) -> None:
    """Muon's norm is made before the engine looks at the gradients."""
    param = nn.Parameter(torch.ones(3, 4))
    param.grad_dtype = None
    optimizer = optim.create("muon", [param], lr=0.1, clip_norm=1.0)
    param.grad = grad()
    with pytest.raises(error, match=message):
        optimizer.step()
    assert torch.equal(param, torch.ones(3, 4))
    assert not optimizer.state


def test_a_scale_of_zero_is_refused_before_the_norm() -> None:
    param = nn.Parameter(torch.ones(3, 4))
    optimizer = optim.create("muon", [param], lr=0.1, clip_norm=1.0, fused=True)
    param.grad = torch.ones(3, 4)
    optimizer.grad_scale, optimizer.found_inf = torch.zeros(()), torch.zeros(())
    with pytest.raises(ValueError, match=r"grad_scale is .*; pass a number that is not 0"):
        optimizer.step()
    assert torch.equal(param, torch.ones(3, 4))
