"""Owns the change between two sets of weights: those at which a schedule-free rule takes gradients, and their average,
which is what is evaluated. Only one of them is in the parameters. The param groups say which, as `train_mode`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from ..rule.master import MASTER
from ._entry import MODE, Averaged
from ._hollow import state_dtype
from ._values import to_number


def change_weights(groups: Iterable[tuple[dict[str, Any], Averaged]], state: Mapping[Any, Any], training: bool) -> None:
    """Puts the weights for training, or else those for evaluation, into the parameters, in the groups where the others
    are. Raises ValueError or TypeError, before anything is changed, if the weight of an average has no meaning."""
    waiting = [(group, kind, _weight(group, kind)) for group, kind in groups if group[MODE] != training]
    for group, kind, weight in waiting:
        step = 1.0 - weight if training else 1.0 - 1.0 / weight
        for param in group["params"]:
            entry = state.get(param)
            if entry:
                _move(entry.get(MASTER, param), entry[kind.state], step)
                with torch.no_grad():
                    param.copy_(entry.get(MASTER, param))
        group[MODE] = training


def _weight(group: Mapping[str, Any], kind: Averaged) -> float:
    value = to_number(kind.weight, group[kind.weight])
    if not value > 0:
        raise ValueError(f"{kind.weight} is {value}, which leaves no average to evaluate; pass a number above 0")
    return value


def _move(param: torch.Tensor, z: torch.Tensor, step: float) -> None:
    """Moves the parameter by this fraction of the way to z, in the precision of steps."""
    wide = state_dtype(param)
    with torch.no_grad():
        param.copy_(torch.lerp(param.to(wide), z.to(param.device, wide), step))


def check_training(groups: Iterable[Mapping[str, Any]]) -> None:
    """Raises RuntimeError if the weights for evaluation are in the parameters."""
    if not all(group[MODE] for group in groups):
        raise RuntimeError(
            "the parameters have the weights for evaluation; call optimizer.train() before the forward pass of a "
            "training step"
        )
