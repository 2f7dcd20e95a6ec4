"""Owns the values of a param group: what a hyperparameter may be, what a rule may be, and the flags that are refused.

A hyperparameter is a number, a tensor of one element (read at every step), or, but for lr, a function of the step
counted from 0. Functions do not go into checkpoints.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import torch

from ..program import Program
from ..rule import Expr, Rule, RuleError, compile_rule

Scalar = float | torch.Tensor | Callable[[int], float]
RuleSource = str | Callable[..., Any] | Expr | Rule | Program

# Keys of a param group that mean something to torch or to the optimizer; no hyperparameter can have such a name.
GROUP_KEYS: Final = frozenset(
    ("params", "param_names", "initial_lr", "rule", "seed", "total_steps", "stochastic_rounding")
) | frozenset(("maximize", "capturable", "differentiable", "foreach", "fused"))
# What stands in a checkpoint for a hyperparameter that is a function.
FUNCTION: Final = "<function of the step; not saved>"


def as_program(rule: RuleSource) -> Program:
    """The program of a rule. RuleError for names that torch needs for itself."""
    program = rule if isinstance(rule, Program) else compile_rule(rule)
    if "step" in program.state_names:
        raise RuleError(
            f"rule '{program.name}' has a state named 'step', where torch keeps the number of steps; rename it"
        )
    for name in program.hyperparameters:
        if name in GROUP_KEYS:
            raise RuleError(
                f"rule '{program.name}' has a hyperparameter named '{name}', which is a key of torch's param groups; "
                "rename it"
            )
    return program


def same_rule(saved: str, mine: str) -> bool:
    """Whether two rule texts compile to the same program, names of the rules aside."""
    if saved == mine:
        return True
    try:
        return compile_rule(saved).fingerprint == compile_rule(mine).fingerprint
    except RuleError:
        return False


def check_names(program: Program, given: Iterable[str]) -> None:
    """TypeError if a keyword argument is no hyperparameter of the rule."""
    for name in given:
        if name not in program.hyperparameters:
            close = difflib.get_close_matches(name, program.hyperparameters, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"it has {', '.join(program.hyperparameters)}"
            raise TypeError(f"rule '{program.name}' has no hyperparameter '{name}'; {hint}")


def check_scalar(name: str, value: Any) -> None:
    """TypeError or ValueError unless `value` can be the hyperparameter `name`."""
    if isinstance(value, torch.Tensor):
        if value.numel() != 1:
            what = "Tensor lr must be 1-element" if name == "lr" else f"{name} is a tensor"
            raise ValueError(f"{what}; its shape is {tuple(value.shape)}, pass a number or a tensor of one element")
    elif callable(value):
        if name == "lr":
            raise TypeError(f"lr is {value!r}; pass a number or a tensor, and change it with an LRScheduler")
        return
    try:
        number = float(value)
    except (TypeError, ValueError):
        also = "" if name == "lr" else ", or a function of the step counted from 0"
        raise TypeError(f"{name} is {value!r}; pass a number or a tensor of one element{also}") from None
    if name == "lr" and not number >= 0.0:
        raise ValueError(f"Invalid learning rate: {value}; pass a number that is not negative")


def check_flags(values: Mapping[str, Any]) -> None:
    """Refuse what the engine cannot do, and settings that have no meaning."""
    if values.get("differentiable"):
        raise ValueError(
            "differentiable is True; the engine updates memory in place and records no graph: leave it False, and use "
            "rule.reference(...) where you need to differentiate through a step"
        )
    if values.get("foreach"):
        raise ValueError(
            "foreach is True; all tensors already go through one fused pass: leave it None, or take the plain "
            "optimizer that program.to_pytorch() writes"
        )
    seed = values.get("seed", 0)
    if not isinstance(seed, int) or not 0 <= seed < 2**64:
        raise ValueError(f"seed is {seed!r}; pass an integer from 0 to 2**64 - 1")
    total = values.get("total_steps")
    if total is not None and not (isinstance(total, int | float) and total > 0):
        raise ValueError(f"total_steps is {total!r}; pass the length of the training in steps, or None")


def check_capturable(name: str, value: Any) -> None:
    """TypeError for a value that a CUDA graph cannot read."""
    if callable(value) and not isinstance(value, torch.Tensor):
        raise TypeError(
            f"{name} is a function of the step, which a CUDA graph cannot call; with capturable=True pass a number "
            "or a tensor, or write the decay into the rule (ld, cd, rd)"
        )


def to_number(name: str, value: Any) -> float:
    """The float that a hyperparameter's value is."""
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} is {value!r}; pass a number or a tensor of one element") from None


def needs_reading(value: Scalar) -> bool:
    """Whether the value can change from step to step while the object stays the same."""
    return isinstance(value, torch.Tensor) or callable(value)
