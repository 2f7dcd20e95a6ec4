"""Numbers are taken as numbers, from Python and NumPy, and stored as Python's; everything else is refused by name."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

import nos_ext
from nos_ext import schedules
from nos_ext._numbers import shown
from nos_ext.optim import AddSign, PowerSign, RuleOptimizer, library
from nos_ext.testing._case import parameters, same, set_grads, state_of, steps, values

nan = math.nan
HUGE = 10**400
NUMBERS: list[tuple[Any, Any]] = [
    (1, 1), (0.5, 0.5), (True, True), (Fraction(1, 4), 0.25), (np.float64(0.5), 0.5), (np.float32(0.5), 0.5),
    (np.float16(0.5), 0.5), (np.int64(1), 1), (np.uint8(1), 1),
]  # fmt: skip
NO_NUMBERS: list[tuple[Any, type[Exception], str]] = [
    ("1e-3", TypeError, r"is '1e-3'; pass a number or a tensor of one element.*: float\('1e-3'\)"),
    ("fast", TypeError, r"is 'fast'; pass a number"),
    (b"1", TypeError, "is b'1'; pass a number"),
    (1j, TypeError, "is 1j; pass a number"),
    ([0.1], TypeError, r"is \[0.1\]; pass a number"),
    (Decimal("0.1"), TypeError, r"is Decimal\('0.1'\); pass a number"),
    (HUGE, ValueError, r"is 10+\.\.\. \(401 characters\), which is too large for a float; pass a smaller number"),
    (10**5000, ValueError, "is an integer of 16610 bits, which is too large for a float"),
    (torch.ones(2), ValueError, r"its shape is \(2,\), pass a number or a tensor of one element"),
    (torch.ones((), dtype=torch.complex64), TypeError, "is a tensor of torch.complex64; pass a real one"),
]


def adamw(params: Any, **options: Any) -> RuleOptimizer:
    return RuleOptimizer(params, library.adamw, **{"lr": 0.1, **options})


# Every hyperparameter of each, and how to make an optimizer with it.
HYPERS: list[tuple[Callable[..., Any], str]] = [
    *[(PowerSign, name) for name in ("lr", "base", "beta", "sign_decay", "weight_decay")],
    *[(AddSign, name) for name in ("lr", "alpha")],
    *[(adamw, name) for name in ("lr", "beta1", "eps")],
]
FLAGS: list[tuple[str, Any, str]] = [
    ("maximize", "no", "maximize is 'no'; pass True or False"),
    ("maximize", None, "maximize is None; pass True or False"),
    ("capturable", "false", "capturable is 'false'; pass True or False"),
    ("stochastic_rounding", 2, "stochastic_rounding is 2; pass True or False"),
    ("fused", "yes", "fused is 'yes'; pass True or False"),
    ("foreach", "no", "foreach is 'no'; pass True or False"),
    ("differentiable", "no", "differentiable is 'no'; pass True or False"),
    ("seed", "3", r"seed is '3'; pass an integer from 0 to 2\*\*64 - 1: float"),
    ("seed", 2.5, r"seed is 2.5; pass an integer from 0 to 2\*\*64 - 1"),
    ("seed", float("nan"), "seed is nan; pass an integer"),
    ("seed", 2**64, "seed is 18446744073709551616; pass an integer"),
    ("seed", None, "seed is None; pass an integer"),
    ("total_steps", "100", "total_steps is '100'; pass the length of the training in steps, or None: float"),
    ("total_steps", float("nan"), "total_steps is nan; pass the length"),
    ("total_steps", HUGE, "total_steps is 10+.*too large for a float"),
]


@pytest.mark.parametrize(("make", "name"), HYPERS, ids=lambda x: getattr(x, "__name__", x))
@pytest.mark.parametrize(("given", "stored"), NUMBERS, ids=repr)
def test_numbers_are_stored_as_python_s(make: Any, name: str, given: Any, stored: Any) -> None:
    if name in ("beta", "beta1") and stored == 1:  # which is out of range
        given, stored = type(given)(0), type(stored)(0)
    optimizer = make(parameters(), **{name: given})
    optimizer.add_param_group({"params": parameters(), name: given})
    for place in (optimizer.defaults, *optimizer.param_groups):
        assert place[name] == stored
        assert type(place[name]) is type(stored)


@pytest.mark.parametrize(("make", "name"), HYPERS, ids=lambda x: getattr(x, "__name__", x))
@pytest.mark.parametrize(("value", "error", "message"), NO_NUMBERS, ids=lambda x: getattr(x, "__name__", shown(x)[:20]))
def test_what_is_no_number(make: Any, name: str, value: Any, error: type[Exception], message: str) -> None:
    """At construction, in a group that is added, and where it is written into a group later."""
    if name == "sign_decay" and isinstance(value, str):
        error, message = ValueError, f"is {value!r}; pass 'linear', 'cosine'"
    said = ("Tensor lr" if name == "lr" and "shape" in message else name) + ".*" + message
    with pytest.raises(error, match=said):
        make(parameters(), **{name: value})
    params = parameters()
    optimizer = make(params)
    with pytest.raises(error, match=said):
        optimizer.add_param_group({"params": parameters(), name: value})
    assert len(optimizer.param_groups) == 1
    for count in (0, 2):
        steps(optimizer, params, count)
        set_grads(params)
        before, states = values(params), [s.clone() for s in state_of(optimizer)]
        good, optimizer.param_groups[0][name] = optimizer.param_groups[0][name], value
        with pytest.raises(error, match=said):
            optimizer.step()
        assert same(values(params), before)
        assert same(state_of(optimizer), states)
        optimizer.param_groups[0][name] = good
    optimizer.step()


@pytest.mark.parametrize(("name", "value", "message"), FLAGS, ids=lambda x: shown(x)[:20])
def test_flags_and_integers(name: str, value: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        PowerSign(parameters(), **{name: value})
    params = parameters()
    optimizer = PowerSign(params)
    with pytest.raises((TypeError, ValueError), match=message):
        optimizer.add_param_group({"params": parameters(), name: value})
    assert len(optimizer.param_groups) == 1
    steps(optimizer, params, 1)
    set_grads(params)
    before = values(params)
    optimizer.param_groups[0][name] = value
    with pytest.raises((TypeError, ValueError), match=message):
        optimizer.step()
    assert same(values(params), before)


@pytest.mark.parametrize("seed", [np.int64(3), np.uint8(3), 3.0, np.float64(3)], ids=repr)
def test_seeds(seed: Any) -> None:
    params, expected = parameters(), parameters()
    optimizer, plain = (RuleOptimizer(p, "drop(g, 0.5)", lr=0.1, seed=s) for p, s in ((params, seed), (expected, 3)))
    assert type(optimizer.param_groups[0]["seed"]) is int
    steps(optimizer, params, 2)
    steps(plain, expected, 2)
    optimizer.param_groups[0]["seed"], plain.param_groups[0]["seed"] = np.int32(4), 4
    steps(optimizer, params, 2)
    steps(plain, expected, 2)
    assert same(params, expected)


def test_numpy_s_bools() -> None:
    optimizer = PowerSign(parameters(), maximize=np.bool_(True), stochastic_rounding=np.False_)  # type: ignore[arg-type]
    assert optimizer.param_groups[0]["maximize"] is True
    assert optimizer.param_groups[0]["stochastic_rounding"] is False


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64], ids=str)
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_tensors_of_one_element(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    params, expected = parameters(), parameters()
    weight_decay = torch.full(shape, 1, dtype=dtype)
    optimizer, plain = PowerSign(params, weight_decay=weight_decay), PowerSign(expected, weight_decay=1)
    assert optimizer.param_groups[0]["weight_decay"] is weight_decay
    steps(optimizer, params, 2)
    steps(plain, expected, 2)
    assert same(params, expected)


def test_a_tensor_without_a_value_takes_one_line() -> None:
    params = parameters()
    nothing = torch.ones((), device="meta")
    with pytest.raises(
        ValueError, match=r"^lr is a float32 Tensor of shape \(\) on meta, .*; pass a number or a tensor"
    ):
        PowerSign(params, lr=nothing)
    optimizer = PowerSign(params)
    set_grads(params)
    optimizer.param_groups[0]["lr"] = nothing
    with pytest.raises(TypeError, match=r"^lr is .*; pass a number or a tensor of one element$"):
        optimizer.step()
    assert not optimizer.state
    optimizer = PowerSign(params)
    steps(optimizer, params, 1)
    for p in params:
        optimizer.state[p]["step"] = torch.ones((), device="meta")
    with pytest.raises(
        TypeError, match=r"^state of parameter 0: step is a tensor on meta, which has no value to read;"
    ):
        optimizer.step()


def test_a_scheduler_over_numpy_s_numbers() -> None:
    optimizer = PowerSign(parameters(), lr=np.float64(0.1))
    scheduler = lr_scheduler.LambdaLR(optimizer, lambda epoch: np.float64(0.5) ** epoch)
    steps(optimizer, optimizer.param_groups[0]["params"], 1)
    scheduler.step()
    steps(optimizer, optimizer.param_groups[0]["params"], 1)
    assert type(optimizer.state_dict()["param_groups"][0]["lr"]) is float
    assert type(scheduler.base_lrs[0]) is float


# ---- decays --------------------------------------------------------------------------------------------------------------

DECAYS: list[tuple[Any, dict[str, Any]]] = [
    (schedules.LinearCosineDecay, {"decay_steps": 10, "num_periods": 1, "alpha": 0, "beta": 0}),
    (schedules.NoisyLinearCosineDecay, {"decay_steps": 10, "initial_variance": 1, "variance_decay": 1, "seed": 2}),
    (schedules.CosineDecay, {"decay_steps": 10, "alpha": 0}),
    (schedules.StepDecay, {"step_size": 3, "gamma": 1}),
]


@pytest.mark.parametrize(("kind", "arguments"), DECAYS)
def test_arguments_of_schedulers(kind: Any, arguments: dict[str, Any]) -> None:
    plain = kind(PowerSign(parameters()), **arguments)
    given = {name: np.int64(value) for name, value in arguments.items()}
    scheduler = kind(PowerSign(parameters()), **given)
    assert scheduler.state_dict() == plain.state_dict()
    assert not any(isinstance(v, np.generic) for v in scheduler.state_dict().values())
    for name in arguments:
        for bad in ("10", None, HUGE, 1j, math.nan, math.inf):
            optimizer = PowerSign(parameters())
            with pytest.raises((TypeError, ValueError), match=f"{name} is "):
                kind(optimizer, **{**arguments, name: bad})
            assert "initial_lr" not in optimizer.param_groups[0]


@pytest.mark.parametrize("decay", [schedules.linear_decay, schedules.cosine_decay, schedules.restart_decay])
@pytest.mark.parametrize("bad", ["10", None, HUGE, float("nan"), 0], ids=lambda x: str(x)[:10])
def test_arguments_of_internal_decays(decay: Any, bad: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="decay_steps is "):
        decay(bad)


# ---- captured steps ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"lr": "0.1"}, r"lr is '0.1'; pass a number: float\('0.1'\)"),
        ({"lr": HUGE}, "lr is 10+.*too large for a float"),
        ({"lr": 0.1, "beta1": "0.9"}, "beta1 is '0.9'; pass a number"),
        ({"lr": 0.1, "step": "1"}, r"step is '1'; pass an integer from 1 to 2\*\*32 - 1"),
        ({"lr": 0.1, "step": 0}, "step is 0; pass an integer from 1"),
        ({"lr": 0.1, "step": 1.5}, "step is 1.5; pass an integer from 1"),
        ({"lr": 0.1, "seed": "7"}, "seed is '7'; pass an integer from 0"),
        ({"lr": 0.1, "seed": -1}, "seed is -1; pass an integer from 0"),
        ({"lr": 0.1, "total_steps": "9"}, "total_steps is '9'; pass a number"),
        ({"lr": 0.1, "total_steps": 0}, "total_steps is 0; pass a positive number"),
        ({"lr": 0.1, "grad_scale": "2"}, "grad_scale is '2'; pass a number"),
        ({"lr": 0.1, "grad_scale": 0}, "grad_scale is 0; pass a number that is not 0"),
        ({"lr": 0.1, "maximize": "no"}, "maximize is 'no'; pass True or False"),
    ],
    ids=str,
)
def test_arguments_of_captured_steps(keywords: dict[str, Any], message: str) -> None:
    """They are checked before the device is looked for."""
    params = [torch.zeros(3)]
    program = nos_ext.compile_rule(library.adamw)
    with pytest.raises((TypeError, ValueError), match=message):
        nos_ext.CapturedStep(program, params, params, nos_ext.init_state(program, params), **keywords)


def test_messages_have_one_line() -> None:
    for value, _, message in NO_NUMBERS:
        with pytest.raises((TypeError, ValueError)) as caught:
            PowerSign(parameters(), lr=value)
        assert "\n" not in str(caught.value)
        assert re.search(message.split(".*")[0], str(caught.value))


@pytest.mark.parametrize("wrap", [float, torch.tensor, lambda x: torch.tensor([x], dtype=torch.float64)])
@pytest.mark.parametrize(
    ("name", "value"),
    [("lr", nan), ("lr", -0.5), ("base", -2.0), ("base", 0.0), ("beta", 1.5), ("beta", 1.0), ("weight_decay", -1.0),
     ("weight_decay", math.inf), ("beta", nan)],
)  # fmt: skip
def test_tensors_have_the_ranges_of_numbers(name: str, value: float, wrap: Callable[[float], Any]) -> None:
    called = "learning rate" if name == "lr" else name
    with pytest.raises(ValueError, match=f"^Invalid {called}: {value}; pass a number"):
        PowerSign(parameters(), **{name: wrap(value)})
    optimizer = PowerSign(parameters())
    with pytest.raises(ValueError, match=f"^Invalid {called}: {value}; pass a number"):
        optimizer.add_param_group({"params": [torch.ones(2, requires_grad=True)], name: wrap(value)})
    assert len(optimizer.param_groups) == 1


def test_a_group_with_a_number_without_a_value_is_not_added() -> None:
    optimizer = PowerSign(parameters())
    group = {"params": [torch.ones(2, requires_grad=True)], "lr": torch.ones((), device="meta")}
    with pytest.raises(ValueError, match=r"lr is .* on meta, which is on the meta device or fake"):
        optimizer.add_param_group(group)
    assert len(optimizer.param_groups) == 1
    optimizer.add_param_group({"params": [torch.ones(2, device="meta", requires_grad=True)], "lr": group["lr"]})


def emptied(*shape: int) -> torch.Tensor:
    tensor = torch.ones(*shape)
    tensor.untyped_storage().resize_(0)
    return tensor


@pytest.mark.parametrize(
    "wrap", [lambda x: x, lambda x: [x], lambda x: {"a": (1, {"b": x})}], ids=["bare", "list", "dict"]
)
def test_messages_show_tensors_without_reading_them(wrap: Callable[[Any], Any]) -> None:
    text = shown(wrap(emptied(2, 10**5)))
    assert "\n" not in text
    assert "ensor" in text


def test_a_hyperparameter_without_memory_is_refused() -> None:
    with pytest.raises(ValueError, match=r"lr is a float32 Tensor of shape \(1,\) on cpu, whose storage was resized"):
        PowerSign(parameters(), lr=emptied(1))
    with pytest.raises(TypeError, match=r"seed is a float32 Tensor of shape \(2,\) on cpu; pass an integer"):
        PowerSign(parameters(), seed=emptied(2))  # type: ignore[arg-type]
    params = parameters()
    optimizer = PowerSign(params)
    set_grads(params)
    optimizer.param_groups[0]["lr"] = emptied(1)
    with pytest.raises(ValueError, match=r"lr is .*, whose storage was resized"):
        optimizer.step()


def test_a_hyperparameter_cannot_be_named_as_python_names_an_object() -> None:
    with pytest.raises(nos_ext.RuleError, match="has a hyperparameter named 'self'"):
        RuleOptimizer(parameters(), "def rule(p, g, *, lr, self=1.0): return p - lr * self * g", lr=0.1)


def test_states_are_made_for_dense_tensors() -> None:
    with pytest.raises(TypeError, match=r"params\[1\] is a .* in torch.sparse_coo; pass a dense tensor"):
        nos_ext.init_state(library.adamw.compile(), [torch.ones(2), torch.ones(2, 2).to_sparse()])
