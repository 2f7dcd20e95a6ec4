"""Owns quantized states outside of steps: how their codes and scales become numbers, and numbers become codes.

A code c of a block with the scale s stands for c |c| s. Blocks are made of elements in the order of memory.
"""

from __future__ import annotations

import functools
from typing import Final

import torch

from .. import _C
from .._state_dtypes import SCALE, SCALE_BLOCK, scale_count
from ..rule import Program, compile_rule
from ._layout import like
from ._shards import is_sharded

CODES: Final = (torch.int8, torch.uint8)


def decoded(codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Returns the numbers of a quantized state, in float32 and in the layout of the codes."""
    out = like(codes, torch.float32)
    signed = _in_memory_order(codes).to(torch.float32)
    spread = scales.repeat_interleave(SCALE_BLOCK)[: signed.numel()]
    _in_memory_order(out).copy_(signed * signed.abs() * spread)
    return out


def encoded(numbers: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns codes of `dtype` for dense float32 numbers, and their scales, rounded to the nearest as the engine does
    it."""
    store = _store()
    codes = like(numbers, dtype).zero_()
    scales = no_scales(numbers)
    _C.apply_rule(store, [like(numbers)], [numbers], {"x": [codes], "x" + SCALE: [scales]}, lr=0.0)
    return codes, scales


@functools.cache
def _store() -> Program:
    return compile_rule("def store(p, g, x, *, lr):\n    return p, g\n")


def no_scales(tensor: torch.Tensor) -> torch.Tensor:
    """Returns the scales of a state of zeros in the shape of `tensor`."""
    return torch.zeros(scale_count(tensor.numel()), dtype=torch.float32, device=tensor.device)


def check_state_dtype(index: int, param: torch.Tensor, state_dtype: str | None) -> None:
    """Raises ValueError or RuntimeError where parameter `index` cannot have states of that dtype."""
    if state_dtype and param.dtype == torch.float64:
        raise ValueError(
            f"state_dtype is '{state_dtype}' but parameter {index} is float64, beside which states have to be float64; "
            "give it to a param group with state_dtype=None"
        )
    if state_dtype == "int8" and is_sharded(param):
        raise RuntimeError(
            f"state_dtype is 'int8' but parameter {index} is a DTensor with placements {param.placements}, and blocks "  # type: ignore[attr-defined]
            "of a tensor are not those of its shards; use 'bfloat16'"
        )


def _in_memory_order(dense: torch.Tensor) -> torch.Tensor:
    """Returns a view of one dimension."""
    order = sorted(range(dense.ndim), key=dense.stride, reverse=True)
    return dense.permute(order).reshape(-1)
