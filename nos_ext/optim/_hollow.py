"""Owns the steps of parameters without memory, which are on the meta device or fake. States are made and steps are
counted, but no data is touched, as in torch's optimizers: so programs plan their memory before anything is
allocated."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from ..rule import MatrixProgram, Program
from ._grads import check_grad, check_param
from ._torch import is_fake


def is_hollow(param: Any) -> bool:
    """Tells whether `param` is of a kind that has shape, dtype and device, but never memory."""
    return param.is_meta or is_fake(param)


def state_dtype(param: torch.Tensor) -> torch.dtype:
    """Returns float64 for float64 parameters, and float32 for all others."""
    return torch.float64 if param.dtype == torch.float64 else torch.float32


def zero_states(program: Program | MatrixProgram, param: Any) -> dict[str, torch.Tensor]:
    """Returns the rule's states at the start: in the layout that belongs to `param`, or of shape () where they are one
    number per tensor."""
    dtype, numbers = state_dtype(param), program.per_tensor_states
    return {
        name: param.new_zeros((), dtype=dtype)
        if name in numbers
        else torch.zeros_like(param, dtype=dtype, memory_format=torch.preserve_format)
        for name in program.state_names
    }


def take_steps(
    owner: str, state: dict[Any, Any], params: Iterable[tuple[int, Any, Program | MatrixProgram, bool]]
) -> None:
    """Takes one step with each of `params` that is hollow and has a gradient.

    A real one among them, under FakeTensorMode, is what the mode takes it for: an error, or with allow_non_fake_inputs
    something that is left alone.

    Args:
        owner: name of the optimizer, for messages.
        state: of the optimizer.
        params: number, parameter, its rule, and whether its step number lies on its device.
    """
    given = [one for one in params if one[1].grad is not None]
    for i, param, *_ in given:
        check_grad(owner, i, param.grad)
        check_param(owner, i, param)
    with torch.inference_mode(False), torch.no_grad():
        for _, param, *_ in given:
            if not is_hollow(param):
                torch.zeros_like(param)  # the mode refuses it, in its own words
        for _, param, program, on_device in given:
            if not is_hollow(param):
                continue
            if not state.get(param):
                count = torch.zeros((), dtype=torch.float64, device=param.device if on_device else "cpu")
                state[param] = {"step": count, **zero_states(program, param)}
            state[param]["step"] += 1
