"""Owns how a state_dict comes back: its groups (_saved_groups.py) and its state are checked before anything is changed,
and every tensor keeps its dtype.

torch's `load_state_dict` casts state to the dtype of the parameter, which would round float32 state of bfloat16
parameters, and the number of steps to float32, which stops at 2**24. Here the state travels around that cast.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Final

import torch

from .._memory import is_emptied
from .._numbers import shown
from .._state_dtypes import SCALE, scale_count
from ..rule import MatrixProgram, Program
from ..rule.master import MASTER
from ._clipping import common_clip_norm
from ._hollow import is_hollow, state_dtype
from ._layout import has_gaps, like
from ._masters import stored
from ._quantized import CODES, check_state_dtype, decoded, encoded
from ._rules import Rules
from ._saved_groups import checked_groups
from ._shards import is_sharded, local
from ._values import Group, is_capturable, step_count

_STATE_DTYPES: Final = (torch.float32, torch.float64, torch.bfloat16, torch.float16, *CODES)


def check_form(saved: Any) -> None:
    """Raises ValueError unless `saved` has the outer form of a state_dict."""
    if not isinstance(saved, Mapping):
        raise ValueError(f"the checkpoint is a {type(saved).__name__}; pass what optimizer.state_dict() returned")
    for key, kind in (("state", Mapping), ("param_groups", list | tuple)):
        if not isinstance(saved.get(key), kind):
            raise ValueError(f"the checkpoint has no {key!r} as optimizer.state_dict() makes it; its keys: {[*saved]}")
    for i, group in enumerate(saved["param_groups"]):
        if not isinstance(group, Mapping) or not isinstance(group.get("params"), list | tuple):
            raise ValueError(f"param_groups[{i}] of the checkpoint is no dict with a list of 'params'")
        for number in group["params"]:
            if not isinstance(number, Hashable):
                raise ValueError(
                    f"param_groups[{i}] of the checkpoint has {shown(number)} in 'params'; numbers belong there"
                )


def read(
    saved: dict[str, Any],
    rules: Rules,
    groups: Sequence[Group],
    defaults: Group,
    home: Callable[[Any], torch.device],
) -> tuple[list[Group], dict[Any, Any]]:
    """Returns the param groups and the state of a checkpoint, checked, as an optimizer gets them. The state is empty
    where the sizes of the groups differ from the optimizer's, which torch refuses next.

    Args:
        saved: the checkpoint.
        rules: of the optimizer.
        groups: of the optimizer.
        defaults: of the optimizer.
        home: tells the device of the states of a parameter.
    """
    check_form(saved)
    own = [rules.of(group) for group in groups]
    read_groups = checked_groups(saved["param_groups"], rules, groups, defaults)
    is_capturable(read_groups)  # this and the next one refuse groups that differ in what all must have in common
    common_clip_norm(read_groups)
    if sizes(read_groups) != sizes(groups):
        return read_groups, {}
    forms = [
        rule.form({**group, "params": mine["params"]})
        for rule, group, mine in zip(own, read_groups, groups, strict=True)
    ]
    return read_groups, _restored_states({**saved, "param_groups": read_groups}, groups, forms, home)


def sizes(groups: Iterable[Group]) -> list[int]:
    """Returns the number of parameters in each group."""
    return [len(group["params"]) for group in groups]


def _restored_states(
    saved: Mapping[str, Any],
    groups: Sequence[Group],
    programs: Sequence[Program | MatrixProgram],
    home: Callable[[Any], torch.device],
) -> dict[Any, Any]:
    """Returns the state of a checkpoint, checked, and copied into the layouts of the parameters. Master weights may be
    missing, and are then made at the next step.

    Args:
        saved: the checkpoint.
        groups: of the optimizer.
        programs: what is run for each group.
        home: tells the device of the states of a parameter.
    """
    ids = list(chain.from_iterable(group["params"] for group in saved["param_groups"]))
    if len(set(ids)) != len(ids):
        raise ValueError("the checkpoint has the same number in 'params' of its param_groups twice")
    param_of = dict(zip(ids, chain.from_iterable(group["params"] for group in groups), strict=True))
    rules = [program for group, program in zip(groups, programs, strict=True) for _ in group["params"]]
    program_of = dict(zip(ids, rules, strict=True))
    dtypes = [group["state_dtype"] for group in saved["param_groups"] for _ in group["params"]]
    dtype_of = dict(zip(ids, dtypes, strict=True))
    state: dict[Any, Any] = {}
    for key, entry in saved["state"].items():
        if key not in param_of:
            state[key] = entry  # it belongs to no parameter and stays as it is, as in torch
            continue
        if not isinstance(entry, Mapping):
            raise ValueError(f"the checkpoint's state of parameter {key} is a {type(entry).__name__}, not a dict")
        program = program_of[key]
        missing = [name for name in ("step", *program.state_names) if name not in entry and name != MASTER]
        if missing and entry:
            raise ValueError(
                f"the checkpoint's state of parameter {key} has the keys {sorted(map(str, entry))} but not {missing}, "
                f"which rule '{program.name}' needs; load a checkpoint that was made with this rule"
            )
        param = param_of[key]
        state[param] = {}
        kinds = stored(program, dtype_of[key])
        if entry:
            check_state_dtype(key, param, dtype_of[key])
        for name, value in entry.items():
            where = f"the checkpoint's state of parameter {key}: {name}"
            if name in program.state_names:
                scales = entry.get(name + SCALE)
                state[param] |= _restored_state(where, name, value, scales, param, kinds[name], program, home(param))
            elif name not in _scale_names(program):
                state[param][name] = _restored(where, name, value, param, home(param))
    return state


def _scale_names(program: Program | MatrixProgram) -> list[str]:
    return [name + SCALE for name in program.state_names]


def _restored(where: str, name: str, value: Any, param: torch.Tensor, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        _check_emptied(where, value)
    if name == "step":
        if isinstance(value, torch.Tensor) and is_hollow(value) and is_hollow(param):
            return value.clone()
        return torch.tensor(step_count(where, value), dtype=torch.float64, device="cpu")
    if isinstance(value, torch.Tensor):  # somebody else's, as it is no state of the rule
        return value.to(device=device, copy=True)
    return value


def _restored_state(
    where: str,
    name: str,
    value: Any,
    scales: Any,
    param: torch.Tensor,
    stored: str | None,
    program: Program | MatrixProgram,
    device: torch.device,
) -> dict[str, torch.Tensor]:
    """Returns the state, and its scales if it has some, in the dtype of that name; None leaves it as it was saved."""
    is_number = name in program.per_tensor_states
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{where} is a {type(value).__name__}; it must be a tensor")
    _check_emptied(where, value)
    if not is_number and is_sharded(value) != is_sharded(param):
        kinds = ["a plain tensor", "a DTensor"]
        raise ValueError(
            f"{where} is {kinds[is_sharded(value)]} but the parameter is {kinds[is_sharded(param)]}; load it with "
            "torch.distributed.checkpoint.state_dict.set_optimizer_state_dict, which distributes states as parameters "
            "are"
        )
    if is_number and value.shape != ():
        raise ValueError(
            f"{where} has shape {tuple(value.shape)}, but the rule keeps one number per tensor, of shape (); load a "
            "checkpoint that was made with this rule"
        )
    if not is_number and value.shape != param.shape:
        raise ValueError(
            f"{where} has shape {tuple(value.shape)} but the parameter has {tuple(param.shape)}; load the checkpoint "
            "of this model"
        )
    if value.dtype not in _STATE_DTYPES or value.layout != torch.strided:
        raise ValueError(f"{where} is a {value.layout} tensor of {value.dtype}; it must be a dense one of floats")
    if is_hollow(value) and not is_hollow(param):
        raise ValueError(f"{where} is on the meta device or fake, and has no values to load")
    dtype = getattr(torch, stored) if stored else value.dtype
    if (dtype == torch.float64) != (param.dtype == torch.float64):  # the engine does not mix float64 with others
        dtype = state_dtype(param)
    with torch.no_grad():
        if value.dtype not in CODES and dtype not in CODES:
            new = param.new_empty((), dtype=dtype, device=device) if is_number else like(param, dtype, device)
            return {name: new.copy_(value)}
        if value.dtype in CODES:
            _check_scales(where, value, scales)
        new = like(param, dtype, device)
        if value.dtype == dtype and value.stride() == new.stride():
            return {name: new.copy_(value), name + SCALE: scales.to(device=device, copy=True)}
        numbers = like(param, torch.float32, device).copy_(decoded(value, scales) if value.dtype in CODES else value)
        if dtype not in CODES:
            return {name: new.copy_(numbers)}
        codes, new_scales = encoded(numbers, dtype)
        return {name: codes, name + SCALE: new_scales}


def _check_scales(where: str, value: torch.Tensor, scales: Any) -> None:
    count = scale_count(value.numel())
    is_right = isinstance(scales, torch.Tensor) and scales.dtype == torch.float32 and scales.shape == (count,)
    if not is_right or has_gaps(value):
        raise ValueError(
            f"{where} is {value.dtype} with scales that are {shown(scales)}; they must be a tensor of float32 of shape "
            f"({count},) under {SCALE!r} behind the state's name, and the state must be dense"
        )
    _check_emptied(where + SCALE, scales)


def _check_emptied(where: str, value: torch.Tensor) -> None:
    if is_emptied(local(value) if is_sharded(value) else value):
        raise ValueError(f"{where} is {shown(value)}, whose storage was resized to less than that; load it with values")
