"""Owns the way between checkpoints of torch's own optimizers and those of library rules that compute the same numbers.

What torch calls things is in the `TorchTwin` of a rule's entry. Here is the form: torch's param groups have options
that are rules of their own here, and tuples of hyperparameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Final

import torch

from .._memory import is_emptied
from .._numbers import shown
from .._state_dtypes import SCALE
from ..rule import MatrixProgram, Program
from . import library
from ._betas import KEY
from ._checkpoint import check_form, sizes
from ._entry import TorchTwin
from ._hollow import state_dtype
from ._quantized import CODES, decoded
from ._values import FLAG_DEFAULTS, FUNCTION, Group, to_number

_OURS: Final = ("rule", KEY, *FLAG_DEFAULTS)  # keys of a param group that are no hyperparameters of the rule
_SHARED: Final = ("maximize", "capturable")  # flags that mean the same in torch


def twin_of(program: Program | MatrixProgram) -> TorchTwin:
    """Returns the twin of the rule. Raises ValueError if torch has no optimizer of the same numbers."""
    entry = library.entry_of(program)
    if entry is None or entry.torch is None:
        those = ", ".join(name for name, entry in library.ENTRIES.items() if entry.torch)
        raise ValueError(
            f"rule '{program.name}' has no optimizer of the same numbers in torch.optim; these rules of the library "
            f"have one: {those}"
        )
    return entry.torch


def from_torch(saved: Any, own: Sequence[Group], program: Program | MatrixProgram) -> dict[str, Any]:
    """Returns torch's checkpoint `saved` as one of the rule. torch's foreach, fused, capturable and differentiable say
    how and not what torch computed; they are left out for the values that the optimizer's groups, `own`, have.

    Raises:
        ValueError: the checkpoint is of another optimizer, or of options that this rule does not have.
    """
    twin = twin_of(program)
    check_form(saved)
    groups = [
        _group_from_torch(f"param_groups[{i}] of the checkpoint", group, own[min(i, len(own) - 1)], program, twin)
        for i, group in enumerate(saved["param_groups"])
    ]
    state = {}
    if sizes(groups) == sizes(own):  # load_state_dict refuses other sizes next
        ids = chain.from_iterable(group["params"] for group in groups)
        param_of = dict(zip(ids, chain.from_iterable(group["params"] for group in own), strict=True))
        for key, entry in saved["state"].items():
            known = key in param_of and isinstance(entry, Mapping)
            state[key] = _state_from_torch(key, entry, param_of[key], twin) if known else entry
    return {"state": state, "param_groups": groups}


def _group_from_torch(where: str, group: Group, own: Group, program: Program | MatrixProgram, twin: TorchTwin) -> Group:
    _check_options(where, group, program, twin)
    values: Group = {}
    for key, names in _torch_keys(program, twin).items():
        if key not in group:
            raise ValueError(
                f"{where} has no {key!r}, which torch.optim.{twin.optimizer} writes; it has the keys "
                f"{sorted(map(str, group))}; load a checkpoint of torch.optim.{twin.optimizer}"
            )
        parts = (group[key],) if names == (key,) else group[key]
        if not isinstance(parts, tuple | list) or len(parts) != len(names):
            raise ValueError(f"{where}: {key} is {shown(parts)}; it must be a tuple of {len(names)} numbers")
        values |= zip(names, parts, strict=True)
    flags = {name: own[name] for name in ("rule", *FLAG_DEFAULTS)}
    flags["maximize"] = group.get("maximize", own["maximize"])
    others = {key: value for key, value in group.items() if key not in _defaults(twin)}
    return {**others, **flags, **values}


def _check_options(where: str, group: Group, program: Program | MatrixProgram, twin: TorchTwin) -> None:
    wrong = [key for key, value in twin.options.items() if key in group and group[key] != value]
    wrong += [key for key, value in twin.unless.items() if group.get(key) == value]
    if wrong:
        key = wrong[0]
        fits = [
            name
            for name, entry in library.ENTRIES.items()
            if entry.torch and _related(entry.torch, twin) and _fits(group, entry.torch)
        ]
        remedy = f"load it into library.{fits[0]}" if fits else "no rule of the library computes that"
        raise ValueError(f"{where} has {key}={shown(group[key])}, which rule '{program.name}' does not do; {remedy}")


def _related(a: TorchTwin, b: TorchTwin) -> bool:
    """Tells whether checkpoints of the two have the same keys, as those of Adam and AdamW have."""
    first, second = getattr(torch.optim, a.optimizer), getattr(torch.optim, b.optimizer)
    return issubclass(first, second) or issubclass(second, first)


def _fits(group: Group, twin: TorchTwin) -> bool:
    same = all(key not in group or group[key] == value for key, value in twin.options.items())
    return same and not any(key in group and group[key] == value for key, value in twin.unless.items())


def _state_from_torch(key: Any, entry: Mapping[str, Any], param: torch.Tensor, twin: TorchTwin) -> dict[str, Any]:
    found: dict[str, Any] = {name: entry.get(theirs) for name, theirs in twin.states.items()}
    if not twin.counts:  # torch's SGD and Muon, which have no state until the first step, or none at all
        if not found or any(x is None for x in found.values()):
            return {}
        return {"step": 1, **_wide(found, param)}
    missing = [theirs for theirs in ("step", *twin.states.values()) if entry.get(theirs) is None]
    if missing and entry:
        raise ValueError(
            f"the checkpoint's state of parameter {key} has the keys {sorted(map(str, entry))} but not {missing}, "
            f"which torch.optim.{twin.optimizer} writes; load a checkpoint of that"
        )
    if not entry:
        return {}
    for name in twin.spread:
        value = to_number(f"{twin.states[name]} of parameter {key} in the checkpoint", found[name])
        found[name] = torch.full_like(param, value, requires_grad=False)
    return {"step": entry["step"], **_wide(found, param)}


def _wide(states: dict[str, Any], param: torch.Tensor) -> dict[str, Any]:
    """Returns states in the precision in which rules keep them, which is float32 where torch's may be bfloat16."""
    dtype = state_dtype(param)
    # Without memory they are left to load_state_dict, which refuses them by name.
    return {name: x.to(dtype) if isinstance(x, torch.Tensor) and not is_emptied(x) else x for name, x in states.items()}


def to_torch(packed: Mapping[str, Any], program: Program | MatrixProgram) -> dict[str, Any]:
    """Returns `packed`, a checkpoint of the rule, as one that torch's optimizer of the same numbers loads. Its tensors
    are copies, since torch's load_state_dict keeps those that it gets.

    Raises:
        ValueError: a hyperparameter is a function of the step.
    """
    twin = twin_of(program)
    groups = [_group_to_torch(i, group, program, twin) for i, group in enumerate(packed["param_groups"])]
    numbers = set(chain.from_iterable(group["params"] for group in groups))
    state = {
        key: _state_to_torch(entry, twin) if key in numbers and entry else entry
        for key, entry in packed["state"].items()
    }
    return {"state": state, "param_groups": groups}


def _group_to_torch(i: int, group: Group, program: Program | MatrixProgram, twin: TorchTwin) -> Group:
    values: Group = {}
    for key, names in _torch_keys(program, twin).items():
        for name in names:
            if group[name] == FUNCTION:
                raise ValueError(
                    f"{name} of param group {i} is a function of the step, which torch.optim.{twin.optimizer} cannot "
                    f"have; write a number into the param group first"
                )
        values[key] = group[key] if names == (key,) else tuple([group[name] for name in names])
    others = {key: x for key, x in group.items() if key not in _OURS and key not in program.hyperparameters}
    flags: Group = {key: group[key] for key in _SHARED if key in _defaults(twin)}
    return {**_defaults(twin), **others, **twin.options, **flags, **values}


def _state_to_torch(entry: Mapping[str, Any], twin: TorchTwin) -> dict[str, Any]:
    out: dict[str, Any] = {theirs: _number(entry, name) for name, theirs in twin.states.items()}
    for name in twin.spread:
        value = out[twin.states[name]]
        out[twin.states[name]] = value.reshape(-1)[0].clone() if value.numel() else torch.ones(())
    if twin.counts:
        out["step"] = entry["step"].to(torch.float32)
    return out


def _number(entry: Mapping[str, Any], name: str) -> torch.Tensor:
    """Returns a copy of a state, of which torch knows no codes."""
    value: torch.Tensor = entry[name]
    if is_emptied(value):
        raise ValueError(f"the state {name!r} of a parameter is {shown(value)}, whose storage was resized to less")
    return decoded(value, entry[name + SCALE]) if value.dtype in CODES else value.clone()


def _torch_keys(program: Program | MatrixProgram, twin: TorchTwin) -> dict[str, tuple[str, ...]]:
    """Maps torch's keys of a param group to the hyperparameters that they hold. Several are a tuple there."""
    inside = set(chain.from_iterable(twin.hypers.values()))
    return {**{name: (name,) for name in program.hyperparameters if name not in inside}, **twin.hypers}


def _defaults(twin: TorchTwin) -> dict[str, Any]:
    """Returns what torch's optimizer has in a param group, with its defaults."""
    return dict(getattr(torch.optim, twin.optimizer)([torch.zeros(1, 1)]).defaults)
