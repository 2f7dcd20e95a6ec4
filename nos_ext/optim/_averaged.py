"""Owns the change between two sets of weights: those at which a schedule-free rule takes gradients, and their average,
which is what is evaluated. Only one of them is in the parameters. The param groups say which, as `train_mode`, and with
which weight of the average those for training were made, as `train_weight`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from ..rule.master import MASTER
from ._entry import MADE_WITH, MODE, Averaged
from ._hollow import state_dtype
from ._values import to_number


def change_weights(groups: Iterable[tuple[dict[str, Any], Averaged]], state: Mapping[Any, Any], training: bool) -> None:
    """Puts the weights for training, or else those for evaluation, into the parameters, in the groups where the others
    are. Raises ValueError or TypeError, before anything is changed, if the weight of an average has no meaning."""
    waiting = [(group, kind, _weight(group, kind)) for group, kind in groups if group[MODE] != training]
    for group, kind, weight in waiting:
        is_tensor = isinstance(group[kind.weight], torch.Tensor)
        made = weight if is_tensor or group.get(MADE_WITH) is None else group[MADE_WITH]
        _move_all(group, kind, state, 1.0 - weight if training else 1.0 - 1.0 / made)
        group[MODE] = training
        if training:
            group[MADE_WITH] = None if is_tensor else weight


def follow_weight(groups: Iterable[tuple[dict[str, Any], Averaged]], state: Mapping[Any, Any]) -> None:
    """Brings the weights for training to the weight of the average, where that is another one than they were made with:
    a scheduler or the user may write a new one at any time. It is called before each step. Raises as `change_weights`.

    A tensor is not looked at, as reading it would keep the host waiting; its value has to stay what it is.
    """
    changed = [
        (group, kind, _weight(group, kind))
        for group, kind in groups
        if not isinstance(group[kind.weight], torch.Tensor) and group[kind.weight] != group.get(MADE_WITH)
    ]
    for group, kind, weight in changed:
        made = group.get(MADE_WITH)
        if made is not None:  # y - z is weight * (x - z)
            _move_all(group, kind, state, 1.0 - weight / made)
        group[MADE_WITH] = weight


def _move_all(group: Mapping[str, Any], kind: Averaged, state: Mapping[Any, Any], step: float) -> None:
    for param in group["params"]:
        entry = state.get(param)
        if entry:
            _move(entry.get(MASTER, param), entry[kind.state], step)
            with torch.no_grad():
                param.copy_(entry.get(MASTER, param))


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
