"""Owns the OptimizerInfo of each of our optimizers, in the form in which PyTorch describes its own to its tests.

Where torch has an optimizer of the same rule, its inputs are torch's, in our names; torch's own AdamW and SGD come along,
so that no test asks for what torch does not do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.testing._internal.common_optimizers import (
    ErrorOptimizerInput,
    OptimizerInfo,
    OptimizerInput,
    get_error_inputs_for_all_optims,
    optim_db,
)

from nos_ext.optim import AddSign, PowerSign, RuleOptimizer, library

DB = {info.name: info for info in optim_db}
TWINS = {  # a rule of the library: torch's class for it, and what that class must be given
    "sgd": ("SGD", {}),
    "momentum": ("SGD", {"momentum": 0.9}),
    "nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}),
    "adam": ("Adam", {}),
    "adamw": ("AdamW", {}),
    "rmsprop": ("RMSprop", {}),
    "adagrad": ("Adagrad", {}),
    "amsgrad": ("Adam", {"amsgrad": True}),
    "nadam": ("NAdam", {}),
    "radam": ("RAdam", {}),
    "adamax": ("Adamax", {}),
    "adadelta": ("Adadelta", {}),
    "rprop": ("Rprop", {}),
}
ALONE = ("lion", "signum", "drop_g_exp_signs", "clip_rmsprop_plus_drop_mhat")  # rules that torch does not have
OTHER_RULE = (
    "centered",
    "initial_accumulator_value",
    "decoupled_weight_decay",
)  # options that make torch's class another rule


def _class(rule: str, lr: float) -> type[RuleOptimizer]:
    """An optimizer class for a rule, with a default learning rate, as torch's classes are."""

    def __init__(self: Any, params: Any, lr: Any = lr, **keywords: Any) -> None:
        RuleOptimizer.__init__(self, params, getattr(library, rule), lr, **keywords)

    name = f"Rule_{rule}"
    made = type(name, (RuleOptimizer,), {"__init__": __init__, "__module__": __name__, "__qualname__": name})
    globals()[name] = made  # for pickle
    return made


def our_name(torch_class: str, keywords: dict[str, Any]) -> str | None:
    """The rule of the library that torch's class follows with these arguments; None when we have none."""
    if any(keywords.get(key) for key in OTHER_RULE) or (torch_class == "RMSprop" and keywords.get("momentum")):
        return None
    if keywords.get("amsgrad"):
        return "amsgrad" if torch_class == "Adam" else None
    if torch_class == "SGD":
        if keywords.get("nesterov") and keywords.get("dampening"):
            return None  # torch refuses the two together
        return "nesterov" if keywords.get("nesterov") else "momentum" if keywords.get("momentum") else "sgd"
    return next(rule for rule, (name, _) in TWINS.items() if name == torch_class)


def our_keywords(keywords: dict[str, Any]) -> dict[str, Any]:
    """Arguments of torch's classes in our names."""
    others = ("nesterov", "amsgrad", "etas", "step_sizes", *OTHER_RULE)
    out = {key: value for key, value in keywords.items() if key not in others}
    if "etas" in keywords:
        out["eta_minus"], out["eta_plus"] = keywords["etas"]
    if "step_sizes" in keywords:
        out["step_min"], out["step_max"] = keywords["step_sizes"]
    return out


def torch_inputs(rule: str) -> list[dict[str, Any]]:
    """What torch's tests give to the class of this rule, in torch's names."""
    name, fixed = TWINS[rule]
    inputs = [given.kwargs for given in DB[name].optim_inputs_func(device="cpu", dtype=torch.float32)]
    return [given for given in ({**fixed, **kwargs} for kwargs in inputs) if our_name(name, given) == rule]


def _inputs_func(rule: str) -> Any:
    def inputs(device: object = "cpu", dtype: object = None) -> list[OptimizerInput]:
        common = [
            {},
            {"lr": 0.02},
            {"lr": torch.tensor(0.001)},
            {"maximize": True},
            {"fused": True},
            {"foreach": False},
        ]
        found = common + ([our_keywords(given) for given in torch_inputs(rule)] if rule in TWINS else [])
        return [OptimizerInput(params=None, kwargs=given, desc=str(given)) for given in found]

    return inputs


def _error_inputs(device: object, dtype: object) -> list[ErrorOptimizerInput]:
    own = [
        ({"lr": float("nan")}, ValueError, "learning rate: nan|lr is nan"),
        ({"lr": "big"}, (TypeError, ValueError), "lr is 'big'"),
        ({"foreach": True}, (RuntimeError, ValueError), "foreach"),
        ({"differentiable": True}, (RuntimeError, ValueError), "differentiable"),
        ({"no_such_thing": 1}, TypeError, "no_such_thing"),
    ]
    return get_error_inputs_for_all_optims(device, dtype) + [
        ErrorOptimizerInput(OptimizerInput(None, kwargs, str(kwargs)), error_type=kind, error_regex=text)
        for kwargs, kind, text in own
    ]


def _info(cls: type[torch.optim.Optimizer], rule: str) -> OptimizerInfo:
    return OptimizerInfo(
        cls,
        optim_inputs_func=_inputs_func(rule),
        optim_error_inputs_func=_error_inputs,
        scheduler_inputs=DB["SGD"].scheduler_inputs,
        supported_impls=("fused",),
        supports_fused_on=("cpu", "cuda"),
        has_capturable_arg=True,
        supports_complex=False,
        supports_sparse=False,
    )


def _default_lr(rule: str) -> float:
    return float(DB[TWINS[rule][0]].optim_cls([torch.zeros(1)]).defaults["lr"]) if rule in TWINS else 0.01


OURS = {
    "PowerSign": _info(PowerSign, "powersign"),
    "AddSign": _info(AddSign, "addsign"),
    **{rule: _info(_class(rule, _default_lr(rule)), rule) for rule in (*TWINS, *ALONE)},
}
CONTROL = {"torch.AdamW": DB["AdamW"], "torch.SGD": DB["SGD"]}
ALL = {**OURS, **CONTROL}


def is_ours(info: OptimizerInfo) -> bool:
    return any(info is ours for ours in OURS.values())


def pairs() -> Iterator[Any]:
    """Each optimizer with each of its inputs, as parameters of a test."""
    for name, info in ALL.items():
        for given in info.optim_inputs_func(device="cpu", dtype=torch.float32):
            yield pytest.param(info, given.kwargs, id=f"{name}-{given.desc}")


def fresh(keywords: dict[str, Any]) -> dict[str, Any]:
    """A copy whose tensors are its own: schedulers write to a learning rate that is a tensor."""
    return {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in keywords.items()}


for_all = pytest.mark.parametrize("info", [pytest.param(info, id=name) for name, info in ALL.items()])
for_all_inputs = pytest.mark.parametrize(("info", "keywords"), list(pairs()))
