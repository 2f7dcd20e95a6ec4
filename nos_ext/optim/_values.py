"""Owns the values of a param group: what a hyperparameter and a rule may be, and which flags are refused.

A hyperparameter is a number, a tensor of one element (read at every step), or, but for lr, a function of the step
counted from 0. Functions do not go into checkpoints.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import torch

from .._memory import is_emptied
from .._numbers import LAST_STEP, flag, integer, number, plain, shown
from .._state_dtypes import checked_state_dtype
from ..rule import Expr, MatrixProgram, Program, Rule, RuleError, compile_rule
from ..rule.master import MASTER
from . import library
from ._clipping import KEY as CLIP
from ._clipping import checked_clip_norm
from ._entry import ANY, MADE_WITH, MODE, Range
from ._hollow import is_hollow
from ._torch import in_fake_mode

Group = dict[str, Any]  # a param group
Scalar = float | torch.Tensor | Callable[[int], float]
RuleSource = str | Callable[..., Any] | Expr | Rule | Program | MatrixProgram

# The text that stands in a checkpoint for a hyperparameter that is a function.
FUNCTION: Final = "<function of the step; not saved>"
# Flags of a param group with their defaults, which hold for checkpoints that are older than a flag.
_BOOLS: Final = dict.fromkeys(
    ("maximize", "capturable", "differentiable", "stochastic_rounding", "master_weights"), False
)
_CHOICES: Final = {"foreach": None, "fused": None}
FLAG_DEFAULTS: Final[Mapping[str, Any]] = {
    **_BOOLS,
    **_CHOICES,
    "seed": 0,
    "total_steps": None,
    "state_dtype": None,
    CLIP: None,
}
# Keys of a param group that mean something to torch or to the optimizer; no hyperparameter can have such a name.
GROUP_KEYS: Final = frozenset((*FLAG_DEFAULTS, "params", "param_names", "initial_lr", "rule", "self", MODE, MADE_WITH))
_SCALAR: Final = "a number or a tensor of one element"
_LENGTH: Final = "the length of the training in steps, or None"


def as_program(rule: RuleSource) -> Program | MatrixProgram:
    """Returns the program of a rule. Raises RuleError for names that torch needs for itself."""
    try:
        program = rule if isinstance(rule, Program | MatrixProgram) else compile_rule(rule)
    except RuleError as error:
        if isinstance(rule, str) and rule.strip().lower() in library.ENTRIES:  # "lion", which is no expression
            name = rule.strip().lower()
            raise RuleError(f"{error}\nto use the rule of the library pass library.{name}, not its name") from None
        raise
    for name, what in (("step", "torch keeps the number of steps"), (MASTER, "master weights are kept")):
        if name in program.state_names:
            raise RuleError(f"rule '{program.name}' has a state named '{name}', where {what}; rename it")
    for name in program.hyperparameters:
        if name in GROUP_KEYS:
            raise RuleError(
                f"rule '{program.name}' has a hyperparameter named '{name}', a name that optimizers have for something "
                "else; rename it"
            )
    return program


def same_rule(saved: str, mine: str) -> bool:
    """Tells whether two rule texts compile to the same program, apart from the names of the rules."""
    if saved == mine:
        return True
    if not isinstance(saved, str):
        return False
    try:
        return compile_rule(saved).fingerprint == compile_rule(mine).fingerprint
    except RuleError:
        return False


def check_names(program: Program | MatrixProgram, given: Iterable[str]) -> None:
    """Raises TypeError if a keyword argument is no hyperparameter of the rule."""
    for name in given:
        if name not in program.hyperparameters:
            close = difflib.get_close_matches(name, program.hyperparameters, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"it has {', '.join(program.hyperparameters)}"
            raise TypeError(f"rule '{program.name}' has no hyperparameter '{name}'; {hint}")


def check_scalar(name: str, value: Any) -> None:
    """Raises TypeError or ValueError unless `value` can be the hyperparameter `name`. The value may come from a
    checkpoint, so it may be negative, as a schedule can make it so."""
    if isinstance(value, torch.Tensor):
        check_tensor(name, value)
    elif callable(value):
        if name == "lr":
            raise TypeError(f"lr is {shown(value)}; pass a number or a tensor, and change it with an LRScheduler")
        return
    else:
        also = "" if name == "lr" else ", or a function of the step counted from 0"
        number(name, value, _SCALAR + also)
    check_range(name, value, ANY)


def check_range(name: str, value: Any, limits: Range) -> None:
    """Raises ValueError for a value out of range. Functions have no range, nor have tensors of a kind that has no
    values."""
    if isinstance(value, torch.Tensor):
        if is_hollow(value) or in_fake_mode():
            return
        value = _item(name, value)
    if not callable(value) and not limits.low <= float(value) <= limits.high:
        what = "learning rate" if name == "lr" else name
        raise ValueError(f"Invalid {what}: {value}; pass a number {limits.wanted}")


def check_values_there(name: str, value: Any, params: Iterable[Any]) -> None:
    """Raises ValueError for a tensor of a kind that has no values, beside parameters that have some."""
    if isinstance(value, torch.Tensor) and is_hollow(value) and not all(map(is_hollow, params)):
        raise ValueError(
            f"{name} is {shown(value)}, which is on the meta device or fake and has no value for parameters that have "
            "values; pass a number or a tensor of one element"
        )


def check_tensor(name: str, value: torch.Tensor) -> None:
    """Raises TypeError or ValueError unless the tensor `value` stands for a number."""
    if is_emptied(value):
        raise _no_memory(name, value)
    if value.numel() != 1:
        what = "Tensor lr must be 1-element" if name == "lr" else f"{name} is a tensor"
        raise ValueError(f"{what}; its shape is {tuple(value.shape)}, pass a number or a tensor of one element")
    if value.is_complex():
        raise TypeError(f"{name} is a tensor of {value.dtype}; pass a real one")


def checked_flags(group: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the keys of a param group that are not hyperparameters, with their values as Python's.

    Raises:
        TypeError, ValueError: a value has no meaning, or the engine cannot do what it asks for.
    """
    out: dict[str, Any] = {name: flag(name, group[name]) for name in _BOOLS}
    out |= {name: None if group[name] is None else flag(name, group[name]) for name in _CHOICES}
    out["seed"] = integer("seed", group["seed"], 0, 2**64 - 1)
    total = plain(group["total_steps"])
    if total is not None and not number("total_steps", total, _LENGTH) > 0:
        raise ValueError(f"total_steps is {shown(total)}; pass {_LENGTH}")
    out["total_steps"] = total
    out["state_dtype"] = checked_state_dtype(group["state_dtype"])
    out[CLIP] = checked_clip_norm(group[CLIP])
    if out["differentiable"]:
        raise ValueError(
            "differentiable is True; the engine updates memory in place and records no graph: leave it False. To "
            "differentiate through a step call the function update in what program.to_pytorch() writes"
        )
    if out["foreach"]:
        raise ValueError(
            "foreach is True; all tensors already go through one fused pass: leave it None, or take the plain "
            "optimizer that program.to_pytorch() writes"
        )
    return out


def rounding(flags: Mapping[str, Any]) -> bool | str:
    """Returns what the engine gets as `stochastic_rounding`. States that are stored in a smaller dtype are always
    rounded stochastically: an average that moves by a thousandth would otherwise stand still."""
    return flags["stochastic_rounding"] or ("states" if flags["state_dtype"] else False)


def is_capturable(groups: Iterable[Mapping[str, Any]]) -> bool:
    """Tells whether capturable is True. Raises ValueError unless it is the same in all param groups, and TypeError for
    what is neither True nor False."""
    flags = {flag("capturable", group["capturable"]) for group in groups}
    if len(flags) > 1:
        raise ValueError("capturable is True in some param groups only; set it for all of them")
    return True in flags


def check_capturable(name: str, value: Any) -> None:
    """Raises TypeError for a value that a CUDA graph cannot read."""
    if callable(value) and not isinstance(value, torch.Tensor):
        raise TypeError(
            f"{name} is a function of the step, which a CUDA graph cannot call; with capturable=True pass a number "
            "or a tensor, or write the decay into the rule (ld, cd, rd)"
        )


def step_count(where: str, value: Any) -> int:
    """Returns the number of steps that have been taken, from a number or a tensor of one element.

    Raises:
        TypeError: it is neither.
        ValueError: it is no whole number from 0 to LAST_STEP.
    """
    if isinstance(value, torch.Tensor) and value.numel() == 1 and not value.is_complex():
        value = _item(where, value)
    return integer(where, value, 0, LAST_STEP, f"the number of steps taken, a whole number from 0 to {LAST_STEP}")


def to_number(name: str, value: Any) -> float:
    """Returns the value of a hyperparameter as a float."""
    if isinstance(value, torch.Tensor) and value.numel() == 1 and not value.is_complex():
        value = _item(name, value)
    return number(name, value, _SCALAR)


def needs_reading(value: Scalar) -> bool:
    """Tells whether the value can change from step to step while the object stays the same."""
    return isinstance(value, torch.Tensor) or callable(value)


def _item(name: str, value: torch.Tensor) -> float | int:
    if is_emptied(value):
        raise _no_memory(name, value)
    try:
        return value.item()
    except RuntimeError:  # torch's text may be followed by the frames of a C++ stack
        raise TypeError(f"{name} is a tensor on {value.device}, which has no value to read; pass a number") from None


def _no_memory(name: str, value: torch.Tensor) -> ValueError:
    return ValueError(f"{name} is {shown(value)}, whose storage was resized to less than that; pass a number")
