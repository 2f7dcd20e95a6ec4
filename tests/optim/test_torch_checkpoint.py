"""Checkpoints of torch's optimizers continue in ours, and ours in torch's, as if nothing had happened."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from nos_ext.optim import create, library
from nos_ext.testing._case import copies, parameters, same, state_of, steps

LR = 0.01
Options = dict[str, Any]
CASES: list[tuple[str, Options, type[torch.optim.Optimizer], Options]] = [
    (
        "adamw",
        {"betas": (0.8, 0.95), "weight_decay": 0.1},
        torch.optim.AdamW,
        {"betas": (0.8, 0.95), "weight_decay": 0.1},
    ),
    ("adam", {"eps": 1e-3, "weight_decay": 0.1}, torch.optim.Adam, {"eps": 1e-3, "weight_decay": 0.1}),
    ("amsgrad", {}, torch.optim.Adam, {"amsgrad": True}),
    ("sgd", {"weight_decay": 0.1}, torch.optim.SGD, {"weight_decay": 0.1}),
    ("momentum", {"momentum": 0.8, "dampening": 0.3}, torch.optim.SGD, {"momentum": 0.8, "dampening": 0.3}),
    ("nesterov", {"momentum": 0.8}, torch.optim.SGD, {"momentum": 0.8, "nesterov": True}),
    ("rmsprop", {"alpha": 0.9}, torch.optim.RMSprop, {"alpha": 0.9}),
    ("adagrad", {"lr_decay": 0.1}, torch.optim.Adagrad, {"lr_decay": 0.1}),
    ("nadam", {"momentum_decay": 0.1}, torch.optim.NAdam, {"momentum_decay": 0.1}),
    ("radam", {"betas": (0.8, 0.95)}, torch.optim.RAdam, {"betas": (0.8, 0.95)}),
    ("adamax", {"maximize": True}, torch.optim.Adamax, {"maximize": True}),
    ("adadelta", {"rho": 0.8}, torch.optim.Adadelta, {"rho": 0.8}),
    ("rprop", {"eta_plus": 1.5, "step_max": 0.1}, torch.optim.Rprop, {"etas": (0.5, 1.5), "step_sizes": (1e-6, 0.1)}),
    ("muon", {"momentum": 0.8, "weight_decay": 0.2}, torch.optim.Muon, {"momentum": 0.8, "weight_decay": 0.2}),
]
for_all = pytest.mark.parametrize(("name", "options", "kind", "theirs"), CASES, ids=[case[0] for case in CASES])


@pytest.fixture(autouse=True)
def in_float64() -> Iterator[None]:
    """torch keeps NAdam's product of all momenta in the default dtype."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def through_a_file(saved: Options) -> Any:
    file = io.BytesIO()
    torch.save(saved, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def start(kind: Any = None) -> list[torch.Tensor]:
    shapes = ((4, 3), (3, 6)) if kind is torch.optim.Muon else ((4, 3), (5,), ())
    return parameters(*shapes, dtype=torch.float64)


def in_torch(
    kind: Callable[..., torch.optim.Optimizer], options: Options, count: int
) -> tuple[Any, list[torch.Tensor]]:
    params = start(kind)
    optimizer = kind(params, lr=LR, **options)
    steps(optimizer, params, count)
    return optimizer, params


def assert_equal(got: list[torch.Tensor], expected: list[torch.Tensor], kind: Any = None) -> None:
    for a, b, s in zip(got, expected, start(kind), strict=True):
        assert not torch.equal(b, s)
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


def test_every_twin_is_tested() -> None:
    assert {case[0] for case in CASES} == {name for name, entry in library.ENTRIES.items() if entry.torch}


@for_all
def test_from_torch(name: str, options: Options, kind: Any, theirs: Options) -> None:
    optimizer, params = in_torch(kind, theirs, 10)
    resumed = create(name, params, lr=1.0)
    resumed.load_torch_state_dict(through_a_file(optimizer.state_dict()))
    assert resumed.param_groups[0]["lr"] == LR
    for key, value in options.items():
        assert resumed.param_groups[0][key] == value
    steps(resumed, params, 10, first=10)
    assert_equal(params, in_torch(kind, theirs, 20)[1], kind)


@for_all
def test_to_torch(name: str, options: Options, kind: Any, theirs: Options) -> None:
    params = start(kind)
    optimizer = create(name, params, lr=LR, **options)
    steps(optimizer, params, 10)
    resumed = kind(params, lr=1.0)
    resumed.load_state_dict(through_a_file(optimizer.torch_state_dict()))
    steps(resumed, params, 10, first=10)
    assert_equal(params, in_torch(kind, theirs, 20)[1], kind)
    expected = kind(start(kind), lr=LR, **theirs).state_dict()["param_groups"]
    assert optimizer.torch_state_dict()["param_groups"] == expected


@for_all
def test_there_and_back(name: str, options: Options, kind: Any, theirs: Options) -> None:
    """What comes back is what went, but for the number of steps, which SGD and Muon do not keep."""
    params = start(kind)
    optimizer = create(name, params, lr=LR, **options)
    steps(optimizer, params, 3)
    back = create(name, copies(params), lr=1.0)
    back.load_torch_state_dict(optimizer.torch_state_dict())
    before, after = state_of(optimizer), state_of(back)
    if kind in (torch.optim.SGD, torch.optim.Muon):
        before, after = [[x for x in states if x.shape != () or x != x.round()] for states in (before, after)]
    assert same(before, after)
    assert back.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]


def test_the_exported_tensors_are_copies() -> None:
    params = start()
    optimizer = create("adamw", params, lr=LR)
    steps(optimizer, params, 2)
    kept = [x.clone() for x in state_of(optimizer)]
    others = copies(params)
    resumed = torch.optim.AdamW(others)
    resumed.load_state_dict(optimizer.torch_state_dict())
    steps(resumed, others, 2)
    assert same(state_of(optimizer), kept)


def test_groups_and_a_parameter_without_gradients() -> None:
    runs = []
    for split in (False, True):
        params = start()
        optimizer = torch.optim.AdamW(
            [{"params": params[:2]}, {"params": params[2:], "lr": 0.1, "betas": (0.5, 0.6)}], lr=LR
        )
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 0.5, total_iters=8)
        steps(optimizer, params[:1] + params[2:], 4)
        schedule.step()
        if split:
            resumed = create("adamw", [{"params": params[:2]}, {"params": params[2:]}], lr=1.0)
            resumed.load_torch_state_dict(optimizer.state_dict())
            assert [group["initial_lr"] for group in resumed.param_groups] == [LR, 0.1]
            assert resumed.param_groups[1]["betas"] == (0.5, 0.6)
            optimizer = resumed  # type: ignore[assignment]
        steps(optimizer, params, 4, first=4)
        runs.append(params)
    assert_equal(runs[1], runs[0])


def test_states_of_bfloat16_become_wide() -> None:
    params = parameters((4, 3), dtype=torch.bfloat16)
    optimizer = torch.optim.AdamW(params, lr=LR)
    steps(optimizer, params, 2)
    assert optimizer.state[params[0]]["exp_avg"].dtype == torch.bfloat16
    resumed = create("adamw", params, lr=LR)
    resumed.load_torch_state_dict(optimizer.state_dict())
    m = resumed.state[params[0]]["m"]
    assert m.dtype == torch.float32
    assert torch.equal(m, optimizer.state[params[0]]["exp_avg"].float())


def test_an_older_checkpoint_lacks_newer_keys() -> None:
    optimizer, params = in_torch(torch.optim.AdamW, {}, 3)
    saved = optimizer.state_dict()
    for key in ("decoupled_weight_decay", "fused", "maximize"):
        del saved["param_groups"][0][key]
    resumed = create("adamw", params, lr=1.0)
    resumed.load_torch_state_dict(saved)
    assert resumed.param_groups[0]["maximize"] is False


def test_how_torch_computes_is_left_out() -> None:
    optimizer, params = in_torch(torch.optim.AdamW, {"foreach": True}, 3)
    resumed = create("adamw", params, lr=1.0, fused=True)
    resumed.load_torch_state_dict(optimizer.state_dict())
    assert resumed.param_groups[0]["foreach"] is None
    assert resumed.param_groups[0]["fused"] is True


@pytest.mark.parametrize(
    ("name", "kind", "options", "message"),
    [
        (
            "adam",
            torch.optim.Adam,
            {"amsgrad": True},
            "amsgrad=True, which rule 'adam' does not do; load it into library.amsgrad",
        ),
        ("adamw", torch.optim.AdamW, {"amsgrad": True}, "amsgrad=True, which rule 'adamw' does not do; no rule"),
        ("adamw", torch.optim.Adam, {}, "decoupled_weight_decay=False, .*; load it into library.adam$"),
        ("momentum", torch.optim.SGD, {"momentum": 0.9, "nesterov": True}, "load it into library.nesterov"),
        ("momentum", torch.optim.SGD, {}, "momentum=0, which rule 'momentum' does not do; load it into library.sgd"),
        ("sgd", torch.optim.SGD, {"momentum": 0.9}, "momentum=0.9, which .*; load it into library.momentum"),
        (
            "rmsprop",
            torch.optim.RMSprop,
            {"centered": True},
            "centered=True, which rule 'rmsprop' does not do; no rule",
        ),
        (
            "adamw",
            torch.optim.SGD,
            {},
            r"param_groups\[0\] of the checkpoint has no 'eps', which torch.optim.AdamW writes",
        ),
        ("adagrad", torch.optim.Adamax, {}, "has no 'lr_decay', which torch.optim.Adagrad writes"),
        ("radam", torch.optim.Adamax, {}, r"state of parameter 0 has the keys .* but not \['exp_avg_sq'\]"),
    ],
)
def test_refused(name: str, kind: Any, options: Options, message: str) -> None:
    optimizer, params = in_torch(kind, options, 2)
    ours = create(name, params, lr=LR)
    steps(ours, params, 1)
    before, groups = [x.clone() for x in state_of(ours)], copy.copy(ours.param_groups[0])
    with pytest.raises(ValueError, match=message):
        ours.load_torch_state_dict(optimizer.state_dict())
    assert same(state_of(ours), before)
    assert ours.param_groups[0] == groups


def test_torchs_checkpoint_in_load_state_dict_is_told_the_way() -> None:
    params = parameters()
    with pytest.raises(ValueError, match=r"has no 'beta1'.*or one of torch.optim with load_torch_state_dict"):
        create("adamw", params, lr=LR).load_state_dict(torch.optim.AdamW(params).state_dict())


def test_without_a_twin() -> None:
    optimizer = create("lion", start(), lr=LR)
    for call in (lambda: optimizer.load_torch_state_dict({}), optimizer.torch_state_dict):
        with pytest.raises(
            ValueError, match=r"rule 'lion' has no optimizer of the same numbers in torch.optim; .*adamw"
        ):
            call()


def test_what_torch_cannot_have() -> None:
    optimizer = create("adamw", start(), lr=LR, beta1=lambda step: 0.9)
    with pytest.raises(ValueError, match=r"beta1 of param group 0 is a function of the step, which torch.optim.AdamW"):
        optimizer.torch_state_dict()


def test_what_is_no_checkpoint_of_these_parameters() -> None:
    optimizer, params = in_torch(torch.optim.AdamW, {}, 2)
    ours = create("adamw", params[:2], lr=LR)
    with pytest.raises(ValueError, match="doesn't match the size of optimizer's group"):
        ours.load_torch_state_dict(optimizer.state_dict())
    with pytest.raises(ValueError, match=r"the checkpoint is a list"):
        ours.load_torch_state_dict([])  # type: ignore[arg-type]
    saved = optimizer.state_dict()
    saved["param_groups"][0]["betas"] = (0.9,)
    with pytest.raises(ValueError, match=r"betas is .*; it must be a tuple of 2 numbers"):
        ours.load_torch_state_dict(saved)


def test_states_without_memory_are_named() -> None:
    params = parameters()
    optimizer = create("adamw", params, lr=0.1)
    steps(optimizer, params, 2)
    saved = copy.deepcopy(optimizer.torch_state_dict())
    optimizer.state[params[1]]["m"].untyped_storage().resize_(0)
    with pytest.raises(ValueError, match=r"the state 'm' of a parameter is .*, whose storage was resized to less"):
        optimizer.torch_state_dict()
    saved["state"][1]["exp_avg"].untyped_storage().resize_(0)
    with pytest.raises(ValueError, match="whose storage was resized to less"):
        create("adamw", params, lr=0.1).load_torch_state_dict(saved)


@pytest.mark.parametrize("value", ["x", torch.ones(2)])
def test_a_number_that_is_none(value: Any) -> None:
    params = parameters()
    theirs = torch.optim.NAdam(params, lr=0.1)
    steps(theirs, params, 1)
    saved = theirs.state_dict()
    saved["state"][0]["mu_product"] = value
    with pytest.raises((TypeError, ValueError), match="mu_product of parameter 0 in the checkpoint is"):
        create("nadam", params, lr=0.1).load_torch_state_dict(saved)


@pytest.mark.parametrize("wrong", [None, 5])
def test_what_is_no_checkpoint_at_all(wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"the checkpoint is a .*; pass what optimizer.state_dict"):
        create("adamw", parameters(), lr=0.1).load_state_dict(wrong)
