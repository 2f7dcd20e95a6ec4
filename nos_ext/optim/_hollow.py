"""Owns the steps of parameters without memory, which are on the meta device or fake. States are made and steps are
counted, but no data is touched, as in torch's optimizers: so programs plan their memory before anything is
allocated."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from .._state_dtypes import SCALE
from ..rule import MatrixProgram, Program
from ..rule.master import MASTER
from ._grads import check_grad, check_param
from ._masters import stored
from ._quantized import CODES, check_state_dtype, no_scales
from ._torch import is_fake


def is_hollow(param: Any) -> bool:
    """Tells whether `param` is of a kind that has shape, dtype and device, but never memory."""
    return param.is_meta or is_fake(param)


def state_dtype(param: torch.Tensor) -> torch.dtype:
    """Returns float64 for float64 parameters, and float32 for all others."""
    return torch.float64 if param.dtype == torch.float64 else torch.float32


def first_states(
    program: Program | MatrixProgram, param: Any, chosen: str | None, device: torch.device | None = None
) -> dict[str, torch.Tensor]:
    """Returns the rule's states at the start: in the layout that belongs to `param`, or of shape () where they are one
    number per tensor. They are zeros, and master weights have the values of `param`. `chosen` is the group's
    state_dtype. Quantized states have their scales behind them. `device` is theirs if it is not that of `param`."""
    numbers = program.per_tensor_states
    out: dict[str, torch.Tensor] = {}
    for name, kind in stored(program, chosen).items():
        dtype = getattr(torch, kind) if kind else state_dtype(param)
        if name in numbers:
            out[name] = param.new_zeros((), dtype=dtype, device=device)
            continue
        if name == MASTER:
            out[name] = first_master(param, device)
            continue
        out[name] = torch.zeros_like(param, dtype=dtype, device=device, memory_format=torch.preserve_format)
        if dtype in CODES:
            out[name + SCALE] = no_scales(out[name])
    return out


def first_master(param: Any, device: torch.device | None = None) -> torch.Tensor:
    """Returns master weights for a parameter, which are its values."""
    out = torch.zeros_like(
        param, dtype=state_dtype(param), device=device, memory_format=torch.preserve_format, requires_grad=False
    )
    return out.copy_(param)


def take_steps(
    owner: str, state: dict[Any, Any], params: Iterable[tuple[int, Any, Program | MatrixProgram, str | None, bool]]
) -> None:
    """Takes one step with each of `params` that is hollow and has a gradient.

    A real one among them, under FakeTensorMode, is what the mode takes it for: an error, or with allow_non_fake_inputs
    something that is left alone.

    Args:
        owner: name of the optimizer, for messages.
        state: of the optimizer.
        params: number, parameter, its rule, its group's state_dtype, and whether its step number lies on its device.
    """
    given = [one for one in params if one[1].grad is not None]
    for i, param, _, chosen, _ in given:
        check_param(owner, i, param)
        check_grad(owner, i, param.grad)
        check_state_dtype(i, param, chosen)
    with torch.inference_mode(False), torch.no_grad():
        for _, param, *_ in given:
            if not is_hollow(param):
                torch.zeros_like(param)  # the mode refuses it, in its own words
        for _, param, program, chosen, on_device in given:
            if not is_hollow(param):
                continue
            if not state.get(param):
                count = torch.zeros((), dtype=torch.float64, device=param.device if on_device else "cpu")
                state[param] = {"step": count, **first_states(program, param, chosen)}
            state[param]["step"] += 1
