"""Owns the recognition of a first step that is taken for the states that it makes, and for nothing else.

torch.distributed.checkpoint takes such a step before it saves or loads a checkpoint: with lr=0 in every group, and
gradients that are all zero. Computed, it might turn parameters into NaN, as a rule may divide by the gradient, and NaN
times 0 is NaN. It would also count, and the first step of the training would no longer be the rule's first one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from .._memory import has_memory
from ._hollow import is_hollow
from ._shards import is_sharded, local


def asks_for_states(groups: Iterable[Mapping[str, Any]]) -> bool:
    """Tells whether a step with these groups, whose parameters have no state yet, is taken for the states."""
    given: list[Any] = []
    for group in groups:
        if not _is_zero(group.get("lr")):
            return False
        given += [p for p in group["params"] if p.grad is not None]
    return bool(given) and all(_has_no_gradient(p) for p in given)


def _is_zero(lr: Any) -> bool:
    """Tells whether lr is 0. One on a GPU is not read, as the step may be captured; torch's is on the CPU. What can be
    no lr is left to the checks of an ordinary step."""
    if not isinstance(lr, torch.Tensor):
        return isinstance(lr, int | float) and lr == 0
    there = lr.device.type == "cpu" and not is_hollow(lr) and has_memory(lr)
    return there and lr.numel() == 1 and not lr.is_complex() and float(lr) == 0.0


def _has_no_gradient(param: Any) -> bool:
    grad = local(param.grad) if is_sharded(param.grad) else param.grad
    readable = not is_hollow(param) and grad.layout == torch.strided and not is_hollow(grad) and has_memory(grad)
    return readable and not bool(grad.any())
