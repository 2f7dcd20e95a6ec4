"""Owns gradients that the engine cannot take as they are. Sparse and complex ones are refused, and others are copied.

A gradient whose strides differ from those of the tensor that the engine updates is copied into that tensor's layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .._memory import has_memory
from ._layout import like
from ._shards import local_grad

_KINDS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def check_param(owner: str, index: int, param: torch.Tensor) -> None:
    """Raises RuntimeError for a parameter that is complex, nested, quantized or sparse."""
    if param.is_complex():
        raise RuntimeError(
            f"{owner} does not support complex parameters (parameter {index} is {param.dtype}); optimize its real "
            "view: p = nn.Parameter(torch.view_as_real(z)), and torch.view_as_complex(p) in forward"
        )
    if param.is_nested or param.is_quantized or param.layout != torch.strided:
        kind = "nested" if param.is_nested else "quantized" if param.is_quantized else "sparse"
        raise RuntimeError(
            f"{owner} does not support {kind} parameters (parameter {index} is {param.dtype} in {param.layout}); "
            "optimize dense tensors of floats"
        )


def check_grad(owner: str, index: int, grad: torch.Tensor) -> None:
    """Raises RuntimeError for a gradient that is sparse, nested or complex, in torch's words."""
    if grad.is_nested:
        raise RuntimeError(
            f"{owner} does not support nested gradients (parameter {index}); optimize dense tensors of floats"
        )
    if grad.is_sparse or grad.layout != torch.strided:
        raise RuntimeError(
            f"{owner} does not support sparse gradients (parameter {index}); make it dense with sparse=False in "
            "nn.Embedding, or use torch.optim.SparseAdam for it"
        )
    if grad.is_complex():
        raise RuntimeError(
            f"{owner} does not support complex gradients (that of parameter {index} is {grad.dtype}); optimize the "
            "real view of a complex tensor: p = nn.Parameter(torch.view_as_real(z)), and torch.view_as_complex(p) in "
            "forward"
        )


class Gradients:
    """Gradients makes the gradients of `params` fit for the engine.

    Args:
        owner: name of the optimizer, for messages.
        params: the parameters.
        tensors: what the engine updates for each of them; may change between steps.
        sharded: indices of those that are DTensors.
    """

    def __init__(self, owner: str, params: Sequence[Any], tensors: Sequence[Any], sharded: Sequence[int]) -> None:
        self._owner = owner
        self._params = params
        self._tensors = tensors
        self._sharded = sharded
        self.odd: set[int] = set()  # those whose strides differed from their parameters' at some step

    def prepare(self, grads: list[Any]) -> None:
        """Replaces shards in the list by their memory, and gradients whose strides are known to differ by copies."""
        for i in self._sharded:
            if grads[i] is not None:
                grads[i] = local_grad(i, self._params[i], grads[i])
        for i in self.odd:
            if grads[i] is not None:
                grads[i] = self._fitting(i, grads[i])

    def are_readable(self, grads: list[Any]) -> bool:
        """Tells whether the engine takes all these gradients as far as their kind and memory go. Raises RuntimeError as
        `check_grad`."""
        for i, grad in enumerate(grads):
            if grad is not None:
                check_grad(self._owner, i, grad)
        return all(grad is None or (grad.dtype in _KINDS and has_memory(grad)) for grad in grads)

    def repair(self, grads: list[Any]) -> bool:
        """Copies gradients whose strides differ, after an error of the engine. Returns False if there are none."""
        repaired = False
        for i, grad in enumerate(grads):
            if grad is None:
                continue
            check_grad(self._owner, i, grad)
            fitting = self._fitting(i, grad)
            if fitting is not grad:
                grads[i] = fitting
                self.odd.add(i)
                repaired = True
        return repaired

    def _fitting(self, i: int, grad: Any) -> Any:
        tensor = self._tensors[i]
        if grad.shape != tensor.shape or grad.stride() == tensor.stride() or not has_memory(grad):
            return grad
        with torch.no_grad():
            return like(tensor, grad.dtype).copy_(grad)
