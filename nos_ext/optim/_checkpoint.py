"""Owns what goes into a state_dict and how it comes back: every tensor in its own dtype, and a check of the rule.

torch's `load_state_dict` casts state to the dtype of the parameter, which would round float32 state of bfloat16
parameters. Here the state travels around that cast.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

import torch

from ..program import Program
from ._lists import Group, state_dtype
from ._values import FUNCTION, same_rule


def without_functions(groups: Iterable[Group], names: Iterable[str]) -> None:
    """Replace functions in packed groups, so that a checkpoint holds plain types only."""
    for group in groups:
        for name in names:
            value = group.get(name)
            if callable(value) and not isinstance(value, torch.Tensor):
                group[name] = FUNCTION


def check_rule(saved: Iterable[Group], text: str) -> None:
    """ValueError if a checkpoint was made with another rule."""
    for group in saved:
        if "rule" in group and not same_rule(group["rule"], text):
            raise ValueError(
                f"the checkpoint was made with another rule:\n{group['rule']}\nthis optimizer has\n{text}\n"
                "make the optimizer with the rule of the checkpoint: RuleOptimizer(params, "
                'state_dict["param_groups"][0]["rule"], lr)'
            )


def with_functions(saved: Iterable[Group], groups: Iterable[Group], names: Iterable[str]) -> list[Group]:
    """Saved groups, with the optimizer's own functions put back where the checkpoint had some."""
    out = [dict(group) for group in saved]
    for group, own in zip(out, groups, strict=False):  # torch compares the numbers of groups next
        for name in names:
            if isinstance(group.get(name), str) and group[name] == FUNCTION:
                if not callable(own[name]):
                    raise ValueError(
                        f"{name} was a function of the step when the checkpoint was made, and functions are not "
                        f"saved; make the optimizer with the same {name}=function and load again"
                    )
                group[name] = own[name]
    return out


def sizes(groups: Iterable[Group]) -> list[int]:
    """The numbers of parameters in groups."""
    return [len(group["params"]) for group in groups]


def restored(saved: Mapping[str, Any], groups: Iterable[Group], program: Program) -> dict[Any, Any]:
    """The state of a checkpoint, copied to the devices and into the layouts of the parameters of `groups`."""
    ids = chain.from_iterable(group["params"] for group in saved["param_groups"])
    param_of = dict(zip(ids, chain.from_iterable(group["params"] for group in groups), strict=True))
    state: dict[Any, Any] = {}
    for key, entry in saved["state"].items():
        if key not in param_of:
            state[key] = entry  # belongs to no parameter: as it is, like torch
            continue
        missing = [name for name in ("step", *program.state_names) if name not in entry]
        if missing and entry:
            raise ValueError(
                f"the checkpoint's state of parameter {key} has the keys {sorted(entry)} but not {missing}, which rule "
                f"'{program.name}' needs; load a checkpoint that was made with this rule"
            )
        state[param_of[key]] = {name: _restored(name, value, param_of[key]) for name, value in entry.items()}
    return state


def _restored(name: str, value: Any, param: torch.Tensor) -> Any:
    if name == "step":
        return torch.tensor(float(value), dtype=torch.float32)
    if not isinstance(value, torch.Tensor):
        return value
    dtype = value.dtype
    if (dtype == torch.float64) != (param.dtype == torch.float64):  # the engine does not mix float64 with others
        dtype = state_dtype(param)
    with torch.no_grad():
        if value.shape != param.shape:  # not a state of the rule; somebody else's
            return value.to(device=param.device, copy=True)
        return torch.empty_like(param, dtype=dtype, memory_format=torch.preserve_format).copy_(value)
