"""Owns the way from a DTensor to its local shard: the part of a parameter, gradient or state that this process holds.

A shard is updated by itself. What is made of whole tensors is made together with the other processes: the norm of all
gradients, for clipping, and the reductions of a rule (_reductions.py). Rules for which that is not enough are refused.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import torch

from ..rule import MatrixProgram, Program

# a mesh of processes, and whether tensors are split along each dimension of it or replicated
Sharding = tuple[Any, tuple[bool, ...]]


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


def local_grad(index: int, param: Any, grad: Any) -> torch.Tensor:
    """Returns the part of the gradient that belongs to this process's part of the parameter."""
    if not is_sharded(grad):
        raise RuntimeError(
            f"parameter {index} is a DTensor with placements {param.placements} but its gradient is a plain tensor; "
            "distribute the gradient the same way"
        )
    if grad.placements != param.placements:
        with torch.no_grad():
            grad = grad.redistribute(param.device_mesh, param.placements)
    return local(grad)


def sharding(param: Any) -> Sharding | None:
    """Returns how a DTensor is divided among processes. None says that this process holds the whole tensor."""
    if not is_sharded(param):
        return None
    split = tuple([not placement.is_replicate() for placement in param.placements])
    return (param.device_mesh, split) if any(split) else None


def join(numbers: torch.Tensor, kind: Sharding, *, largest: bool = False) -> torch.Tensor:
    """Returns the sums of what the processes that hold parts of the same tensors have, or the largest, which must not
    be negative. `numbers` is float64.

    All of them must call it together. It takes one all_reduce for each dimension of the mesh that splits tensors.
    """
    from torch.distributed import ReduceOp, all_reduce

    mesh, split = kind
    joined = numbers.clone() if numbers.device.type == mesh.device_type else numbers.to(mesh.device_type)
    if largest:  # The bits of numbers that are not negative are in their order, and NaN is the largest.
        joined = joined.view(torch.int64) & torch.iinfo(torch.int64).max
    for dimension, is_split in enumerate(split):
        if is_split:
            all_reduce(joined, ReduceOp.MAX if largest else ReduceOp.SUM, mesh.get_group(dimension))
    return (joined.view(torch.float64) if largest else joined).to(numbers.device)


def global_norm(params: Sequence[Any], grads: Sequence[torch.Tensor | None]) -> float:
    """Returns the norm of the gradients of all `params`, summed up in float64. `grads` are what this process holds of
    them. All processes of a mesh must call it together."""
    whole: list[torch.Tensor] = []
    shards: dict[Sharding, list[torch.Tensor]] = {}
    for param, grad in zip(params, grads, strict=True):
        kind = sharding(param)
        held = whole if kind is None else shards.setdefault(kind, [])
        if grad is not None and grad.numel():
            held.append(grad)
    squares = float(_sum_of_squares(whole, "cpu"))
    for kind, held in shards.items():
        squares += float(join(_sum_of_squares(held, kind[0].device_type), kind))
    return math.sqrt(squares)


@torch.no_grad()
def _sum_of_squares(tensors: list[torch.Tensor], device: str) -> torch.Tensor:
    """Adds up what is on each device by itself, and then that. `device` is where there are no tensors."""
    norms: dict[torch.device, list[torch.Tensor]] = {}
    for x in tensors:
        norms.setdefault(x.device, []).append(torch.linalg.vector_norm(x, dtype=torch.float64))
    if not norms:
        return torch.zeros((), dtype=torch.float64, device=device)
    total, *others = [torch.stack(each).square().sum() for each in norms.values()]
    for other in others:
        total = total + other.to(total.device)
    return total


def check_shardable(program: Program | MatrixProgram, index: int, param: Any, *, clips: bool, captured: bool) -> None:
    """Refuses what cannot be computed of shards: matrix products, and random numbers, which are keyed by an element's
    number in the tensor. A captured step does not communicate, so it has no reductions either. `clips`: whether the
    step clips by the norm of all gradients."""
    where = f"but parameter {index} is a DTensor with placements {param.placements}"
    if captured and clips:
        raise RuntimeError(
            f"clip_norm needs the norm of all gradients, {where}, of which this process has a shard, and a captured "
            "step does not communicate; leave capturable False, or leave clip_norm None and call "
            "torch.nn.utils.clip_grad_norm_ before step()"
        )
    if sharding(param) is None:
        return  # the shard is the tensor
    if isinstance(program, MatrixProgram):
        raise RuntimeError(
            f"rule '{program.name}' has orthogonalize, {where}, of which this process has a part, and matrix products "
            "take whole matrices; replicate the parameter, or give it to a param group with another rule"
        )
    if captured and program.has_tensor_scalars:
        raise RuntimeError(
            f"rule '{program.name}' has norms or other reductions, {where}, of which this process has a part, and a "
            "captured step does not communicate; leave capturable False"
        )
    if program.uses_random:
        raise RuntimeError(
            f"rule '{program.name}' draws random numbers, {where}: every shard would draw the same; replicate the "
            "parameter or use a rule without draws"
        )


class StandIns:
    """StandIns are tensors of one element in the place of shards that have none, where a rule keeps numbers per tensor.

    The engine leaves out tensors without elements. The numbers are the same in all processes, and so each of them has
    to compute them.

    Args:
        numbered: the sharded parameters whose rules keep numbers per tensor.
    """

    def __init__(self, numbered: set[int]) -> None:
        self._numbered = numbered
        self._tensors: dict[tuple[int, str], torch.Tensor] = {}
        self.members: set[int] = set()  # the parameters that have some

    def needed(self, i: int, param: Any, shard: torch.Tensor) -> bool:
        """Tells whether they are for parameter i, of which `shard` is here."""
        is_needed = i in self._numbered and not shard.numel() and bool(param.numel())
        (self.members.add if is_needed else self.members.discard)(i)
        return is_needed

    def tensor(self, i: int, name: str, empty: torch.Tensor) -> torch.Tensor:
        """Returns the one for `empty`, which is p, g or a state of parameter i, as its name in the rule says. It stays
        the same from step to step."""
        known = self._tensors.get((i, name))
        if known is None or known.dtype != empty.dtype or known.device != empty.device:
            known = self._tensors[i, name] = torch.zeros(1, dtype=empty.dtype, device=empty.device)
        return known

    def put_into(self, grads: list[Any]) -> None:
        """Puts them into a list of gradients."""
        for i in self.members:
            if grads[i] is not None:
                grads[i] = self.tensor(i, "g", grads[i])
