"""The library: every rule reads, matches torch.optim where torch has it, and says where it comes from."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import nos_ext
from nos_ext.optim import library

Make = Callable[[list[torch.Tensor]], torch.optim.Optimizer]
LR = 0.01

TORCH: list[tuple[str, dict[str, float], Make]] = [
    ("sgd", {}, lambda p: torch.optim.SGD(p, LR)),
    ("sgd", {"weight_decay": 0.1}, lambda p: torch.optim.SGD(p, LR, weight_decay=0.1)),
    ("momentum", {}, lambda p: torch.optim.SGD(p, LR, momentum=0.9)),
    ("momentum", {"momentum": 0.5, "dampening": 0.3}, lambda p: torch.optim.SGD(p, LR, momentum=0.5, dampening=0.3)),
    ("momentum", {"weight_decay": 0.1}, lambda p: torch.optim.SGD(p, LR, momentum=0.9, weight_decay=0.1)),
    ("nesterov", {}, lambda p: torch.optim.SGD(p, LR, momentum=0.9, nesterov=True)),
    (
        "nesterov",
        {"weight_decay": 0.1},
        lambda p: torch.optim.SGD(p, LR, momentum=0.9, nesterov=True, weight_decay=0.1),
    ),
    ("adam", {}, lambda p: torch.optim.Adam(p, LR)),
    (
        "adam",
        {"beta1": 0.8, "beta2": 0.95, "eps": 1e-3},
        lambda p: torch.optim.Adam(p, LR, betas=(0.8, 0.95), eps=1e-3),
    ),
    ("adam", {"weight_decay": 0.1}, lambda p: torch.optim.Adam(p, LR, weight_decay=0.1)),
    ("adamw", {}, lambda p: torch.optim.AdamW(p, LR)),
    ("adamw", {"weight_decay": 0.3}, lambda p: torch.optim.AdamW(p, LR, weight_decay=0.3)),
    ("rmsprop", {}, lambda p: torch.optim.RMSprop(p, LR)),
    ("rmsprop", {"alpha": 0.9, "weight_decay": 0.1}, lambda p: torch.optim.RMSprop(p, LR, alpha=0.9, weight_decay=0.1)),
    ("adagrad", {}, lambda p: torch.optim.Adagrad(p, LR)),
    (
        "adagrad",
        {"lr_decay": 0.05, "weight_decay": 0.1},
        lambda p: torch.optim.Adagrad(p, LR, lr_decay=0.05, weight_decay=0.1),
    ),
]


@pytest.mark.parametrize(("name", "hyper", "make"), TORCH, ids=[f"{name}-{hyper}" for name, hyper, _ in TORCH])
def test_fifty_steps_of_torch(name: str, hyper: dict[str, float], make: Make) -> None:
    program = library.get(name).compile()
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(31, generator=generator, dtype=torch.float64)
    theirs, ours = start.clone(), [start.clone()]
    optimizer = make([theirs])
    state = nos_ext.init_state(program, ours)
    for step in range(1, 51):
        g = torch.randn(31, generator=generator, dtype=torch.float64)
        g[::7] = 0
        theirs.grad = g.clone()
        optimizer.step()
        nos_ext.apply_rule(program, ours, [g], state, lr=LR, step=step, **hyper)
    assert torch.allclose(ours[0], theirs, rtol=1e-12, atol=1e-12)


def test_defaults_are_torch_s() -> None:
    expected: dict[str, Any] = {
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "rmsprop": torch.optim.RMSprop,
        "adagrad": torch.optim.Adagrad,
    }
    for name, optimizer in expected.items():
        defaults = optimizer([torch.zeros(1)]).defaults
        mine = dict(library.get(name).hyperparameters)
        if "betas" in defaults:
            defaults["beta1"], defaults["beta2"] = defaults["betas"]
        for key, value in mine.items():
            assert key == "lr" or value == defaults[key], (name, key)


def run(name: str, lr: float, gradients: list[float], **arguments: Any) -> list[float]:
    program = library.get(name).compile()
    params = [np.array([1.0])]
    state = nos_ext.init_state(program, params)
    out = []
    for step, g in enumerate(gradients, 1):
        decay = arguments.get("sign_decay", lambda s: 1.0)(step - 1)
        rest = {key: value for key, value in arguments.items() if key != "sign_decay"}
        params, state = program.reference(params, [np.array([g])], state, lr=lr, step=step, sign_decay=decay, **rest)
        out.append(float(params[0][0]))
    return out


TENSORFLOW = [0.1] * 4 + [-0.1] * 3


def test_tensorflow_s_power_sign_and_add_sign() -> None:
    """The cases of TensorFlow's own tests; the decay there counts steps from 0."""
    from nos_ext.schedules import linear_decay

    linear = linear_decay(10)
    power = [0.8912687269, 0.8949475213, 0.8986263157, 0.9258091340]
    assert np.allclose(run("powersign", 0.1, TENSORFLOW)[3:], power, atol=5e-11)
    assert np.allclose(run("powersign", 0.1, TENSORFLOW, base=10, beta=0.8)[3:], [0.6, 0.601, 0.602, 0.702], atol=1e-12)
    linear_power = [0.9058282142, 0.9113163306, 0.9173816372, 0.9322998842]
    assert np.allclose(run("powersign", 0.1, TENSORFLOW, sign_decay=linear)[3:], linear_power, atol=5e-11)
    assert np.allclose(run("addsign", 0.1, TENSORFLOW)[3:], [0.92, 0.92, 0.92, 0.94], atol=1e-12)
    small = [0.9956, 0.9947, 0.9938, 0.9949]
    assert np.allclose(run("addsign", 0.01, TENSORFLOW, alpha=0.1, beta=0.8)[3:], small, atol=1e-12)
    assert np.allclose(run("addsign", 0.1, TENSORFLOW, sign_decay=linear)[3:], [0.926, 0.93, 0.935, 0.949], atol=1e-12)


def test_lion_and_signum() -> None:
    program = library.lion.compile()
    params = [np.ones(10)]
    state = nos_ext.init_state(program, params)
    for step in range(1, 6):
        g = np.full(10, 0.01) if step == 1 else np.arange(1, 11) / 10
        params, state = program.reference(params, [g], state, lr=0.001, step=step)
        assert np.allclose(params[0], 1 - 0.001 * step, atol=1e-12)
    (p,), state = library.signum.reference([np.array([1.0, 2.0])], [np.array([3.0, -4.0])], [[np.zeros(2)]], lr=0.5)
    assert p.tolist() == [0.5, 2.5]
    assert np.allclose(state["m"][0], [0.3, -0.4])


def test_names_and_attributes() -> None:
    first = "sgd momentum nesterov adam adamw rmsprop adagrad lion signum powersign addsign"
    assert " ".join(library.names()[:11]) == first
    assert len(library.names()) == 27
    assert library.adamw is library.get("adamw")
    assert isinstance(library.adamw, nos_ext.Rule)
    assert set(library.names()) <= set(dir(library))
    with pytest.raises(AttributeError, match="did you mean 'adam'"):
        _ = library.adams
    with pytest.raises(KeyError, match="no rule 'zzz'"):
        library.get("zzz")
    for name in library.names():
        rule = library.get(name)
        assert rule.name == name
        assert rule.doc
        assert library.ENTRIES[name].source


def test_found_rules_run() -> None:
    """Every rule makes finite steps that depend on the gradient."""
    rng = np.random.default_rng(0)
    g = rng.standard_normal(64)
    for rule in library.rules():
        p = [np.full(64, 0.5)]
        state = [[np.zeros(64)] for _ in rule.state_names]
        first, states = rule.reference(p, [g], state, lr=0.1)
        (new,), _ = rule.reference(first, [0.5 * g], states, lr=0.1, step=2)
        assert np.isfinite(new).all(), rule.name
        assert not np.array_equal(new, p[0]), rule.name
    assert math.isclose(library.powersign.hyperparameters["base"] or 0, math.e)
