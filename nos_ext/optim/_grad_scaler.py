"""Owns what a step owes to torch's GradScaler where that leaves the gradients for it to unscale, as it does with
optimizers that have fused=True.

The engine's pass takes the scale into account and does not write to the gradients. Those of torch leave them unscaled,
and so does a pass of its own here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from ._layout import overlaps_itself
from ._torch import divide_all


def check_writable(owner: str, params: Iterable[Any]) -> None:
    """Raises RuntimeError for a gradient that cannot be unscaled in place. `owner` is the optimizer's name."""
    for i, param in enumerate(params):
        why = "" if param.grad is None else _why_not(param.grad)
        if why:
            raise RuntimeError(
                f"{owner} cannot unscale the gradient of parameter {i}: {why}; assign p.grad.clone(), or leave fused "
                "None, which has GradScaler do it"
            )


def _why_not(grad: torch.Tensor) -> str:
    """Returns why a gradient cannot be written to, or nothing."""
    if grad.is_inference() and not torch.is_inference_mode_enabled():
        return "it was made in inference mode"
    if grad.layout == torch.strided and overlaps_itself(grad):
        return f"its strides {grad.stride()} have several elements in one place, as expand() makes them"
    return ""


def unscale(params: Iterable[Any], scale: float) -> None:
    """Leaves the gradients as they are without a GradScaler, like torch's fused optimizers."""
    given = [param.grad for param in params if param.grad is not None]
    with torch.no_grad():
        divide_all([grad for grad in given if type(grad) is torch.Tensor], scale)
        for grad in given:
            if type(grad) is not torch.Tensor:
                grad.div_(scale)
