"""Owns the change between two sets of weights: those at which a schedule-free rule takes gradients, and their average,
which is what is evaluated. Only one of them is in the parameters. The param groups say which, as `train_mode`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import torch

from ..rule.master import MASTER
from ._entry import Averaged
from ._hollow import state_dtype
from ._values import to_number

MODE: Final = "train_mode"


def change_weights(groups: Iterable[dict[str, Any]], state: Mapping[Any, Any], kind: Averaged, training: bool) -> None:
    """Puts the weights for training, or else those for evaluation, into the parameters, in the groups where the others
    are."""
    for group in groups:
        if group[MODE] == training:
            continue
        weight = to_number(kind.weight, group[kind.weight])
        step = 1.0 - weight if training else 1.0 - 1.0 / weight
        for param in group["params"]:
            entry = state.get(param)
            if entry:
                _move(entry.get(MASTER, param), entry[kind.state], step)
                with torch.no_grad():
                    param.copy_(entry.get(MASTER, param))
        group[MODE] = training


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
