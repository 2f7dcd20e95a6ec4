"""Owns the way from a DTensor to its local shard: the part of a parameter, gradient or state that this process holds.

A shard is updated by itself, without communication. That is right for rules that are elementwise, and others are
refused. Only the norm of all gradients, for clipping, is made together with the other processes.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import torch

from ..rule import MatrixProgram, Program


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


def global_norm(params: Sequence[Any], grads: Sequence[torch.Tensor | None]) -> float:
    """Returns the norm of the gradients of all `params`, summed up in float64. `grads` are what this process holds of
    them. It takes one all_reduce for each kind of sharding, so all processes of a mesh must call it together."""
    whole: list[torch.Tensor] = []
    shards: dict[Any, list[torch.Tensor]] = {}
    for param, grad in zip(params, grads, strict=True):
        held = whole
        if is_sharded(param):
            split = tuple(not placement.is_replicate() for placement in param.placements)
            held = shards.setdefault((param.device_mesh, split), [])
        if grad is not None and grad.numel():
            held.append(grad)
    squares = float(_sum_of_squares(whole, "cpu"))
    for (mesh, split), held in shards.items():
        from torch.distributed.tensor import DTensor, Partial, Replicate

        placements = [Partial() if is_split else Replicate() for is_split in split]
        mine = _sum_of_squares(held, mesh.device_type)
        squares += float(DTensor.from_local(mine, mesh, placements).full_tensor())
    return math.sqrt(squares)


@torch.no_grad()
def _sum_of_squares(tensors: list[torch.Tensor], device: str) -> torch.Tensor:
    if not tensors:
        return torch.zeros((), dtype=torch.float64, device=device)
    norms = [torch.linalg.vector_norm(x, dtype=torch.float64) for x in tensors]
    return torch.stack(norms).square().sum()


def check_shardable(program: Program | MatrixProgram, index: int, param: Any, clips: bool) -> None:
    """Refuses rules for which a shard is not enough: those that draw random numbers, which are keyed by an element's
    number in the tensor, and those with reductions, which are of whole tensors. `clips`: whether the reduction is that
    of clip_norm in a captured step."""
    if clips:
        raise RuntimeError(
            f"clip_norm needs the norm of all gradients, but parameter {index} is a DTensor with placements "
            f"{param.placements}, of which this process has a shard, and a captured step does not communicate; leave "
            "capturable False, or leave clip_norm None and call torch.nn.utils.clip_grad_norm_ before step()"
        )
    where = f"but parameter {index} is a DTensor with placements {param.placements}"
    if all(placement.is_replicate() for placement in param.placements):
        return  # the shard is the tensor
    if program.has_reductions:
        raise RuntimeError(
            f"rule '{program.name}' has norms or other reductions, {where}, and they would be those of a shard; use a "
            "rule without reductions, or parameters that are plain tensors"
        )
    if program.uses_random:
        raise RuntimeError(
            f"rule '{program.name}' draws random numbers, {where}: every shard would draw the same; replicate the "
            "parameter or use a rule without draws"
        )
