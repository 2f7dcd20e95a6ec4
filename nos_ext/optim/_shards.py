"""Owns the way from a DTensor to its local shard: the part of a parameter, gradient or state that this process holds.

Rules are elementwise, so a shard can be updated by itself: no communication takes place.
"""

from __future__ import annotations

import sys
from typing import Any

import torch


def is_sharded(tensor: Any) -> bool:
    """Tells whether `tensor` is a DTensor. This does not import torch.distributed."""
    if type(tensor) is torch.Tensor or type(tensor) is torch.nn.Parameter:
        return False
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local(tensor: Any) -> torch.Tensor:
    """Returns the shard that is in the memory of this process."""
    with torch.no_grad():
        shard: torch.Tensor = tensor.to_local()
        if hasattr(shard, "wait"):  # a collective may still be under way
            shard = shard.wait()
        return shard


def local_grad(param: Any, grad: Any) -> torch.Tensor:
    """Returns the part of the gradient that belongs to this process's part of the parameter."""
    if not is_sharded(grad):
        raise RuntimeError(
            f"a parameter is a DTensor with placements {param.placements} but its gradient is a plain tensor; "
            "distribute the gradient the same way"
        )
    if grad.placements != param.placements:
        with torch.no_grad():
            grad = grad.redistribute(param.device_mesh, param.placements)
    return local(grad)


def check_draws(name: str, index: int, param: Any) -> None:
    """Refuses rules that draw random numbers. These are keyed by an element's number in the tensor, which a shard does
    not know."""
    if any(not placement.is_replicate() for placement in param.placements):
        raise RuntimeError(
            f"rule '{name}' draws random numbers, but parameter {index} is a DTensor with placements "
            f"{param.placements}: every shard would draw the same; replicate the parameter or use a rule without draws"
        )
