"""Owns the change between two sets of weights: those at which a schedule-free rule takes gradients, and their average,
which is what is evaluated. Only one of them is in the parameters. The param groups say which, as `train_mode`, and with
which weight of the average those for training were made, as `train_weight`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from .._memory import is_emptied
from .._numbers import shown
from ..rule.master import MASTER
from ._entry import MADE_WITH, MODE, Averaged
from ._hollow import state_dtype
from ._shards import is_sharded, local
from ._values import to_number

Groups = Iterable[tuple[dict[str, Any], Averaged]]


def change_weights(groups: Groups, state: Mapping[Any, Any], training: bool) -> None:
    """Puts the weights for training, or else those for evaluation, into the parameters, in the groups where the others
    are. Raises ValueError or TypeError, before anything is changed, if the weight of an average has no meaning, or the
    weights of a parameter are not there."""
    waiting = [(group, kind, _weight(group, kind)) for group, kind in groups if _mode(group) != training]
    _check_there(waiting, state)
    for group, kind, weight in waiting:
        is_tensor = isinstance(group[kind.weight], torch.Tensor)
        made = weight if is_tensor else _made_with(group) or weight
        _move_all(group, kind, state, 1.0 - weight if training else 1.0 - 1.0 / made)
        group[MODE] = training
        if training:
            group[MADE_WITH] = None if is_tensor else weight


@contextmanager
def followed_weights(groups: Groups, state: Mapping[Any, Any]) -> Iterator[None]:
    """Brings the weights for training to the weight of the average, where that is another one than they were made with:
    a scheduler or the user may write a new one at any time. It is entered for each step, and a step that fails leaves
    the weights as they were. Raises as `change_weights`.

    A tensor is not looked at, as reading it would keep the host waiting; its value has to stay what it is.
    """
    changed = [
        (group, kind, _weight(group, kind))
        for group, kind in groups
        if not isinstance(group[kind.weight], torch.Tensor) and group[kind.weight] != group.get(MADE_WITH)
    ]
    moves = [(group, kind, weight) for group, kind, weight in changed if _made_with(group) is not None]
    _check_there(moves, state)
    before = [(group, group.get(MADE_WITH)) for group, *_ in changed]
    kept = [(x, x.detach().clone()) for group, *_ in moves for held in _held(group, state) for x in held]
    try:
        for group, kind, weight in moves:  # y - z is weight * (x - z)
            _move_all(group, kind, state, 1.0 - weight / (_made_with(group) or weight))
        for group, _, weight in changed:
            group[MADE_WITH] = weight
        yield
    except Exception:
        with torch.no_grad():
            for x, values in kept:
                x.copy_(values)
        for group, made in before:
            group[MADE_WITH] = made
        raise


def _held(group: Mapping[str, Any], state: Mapping[Any, Any]) -> Iterator[tuple[Any, ...]]:
    """Yields what holds the weights of each parameter that has taken a step: itself, and its master weights."""
    for param in group["params"]:
        entry = state.get(param)
        if entry:
            yield (param, entry[MASTER]) if MASTER in entry else (param,)


def _check_there(groups: Iterable[tuple[Mapping[str, Any], Averaged, float]], state: Mapping[Any, Any]) -> None:
    """Raises ValueError if a parameter or its states have no memory, or do not fit each other."""
    for group, kind, _ in groups:
        for i, param in enumerate(group["params"]):
            entry = state.get(param)
            if not entry:
                continue
            for name in (kind.state, *([MASTER] if MASTER in entry else [])):
                value = entry.get(name)
                if not isinstance(value, torch.Tensor) or value.shape != param.shape or _is_emptied(value):
                    raise ValueError(
                        f"the state {name!r} of parameter {i} of its group is {shown(value)}; it must be a tensor of "
                        f"the parameter's shape {tuple(param.shape)}, with memory: load a checkpoint of this model"
                    )
            if _is_emptied(param):
                raise ValueError(f"parameter {i} of its group is {shown(param)}, whose storage was resized to less")


def _is_emptied(tensor: torch.Tensor) -> bool:
    return is_emptied(local(tensor) if is_sharded(tensor) else tensor)


def _move_all(group: Mapping[str, Any], kind: Averaged, state: Mapping[Any, Any], step: float) -> None:
    for param in group["params"]:
        entry = state.get(param)
        if entry:
            _move(entry.get(MASTER, param), entry[kind.state], step)
            with torch.no_grad():
                param.copy_(entry.get(MASTER, param))


def _mode(group: Mapping[str, Any]) -> bool:
    """Returns whether the weights for training are in the parameters."""
    value = group.get(MODE)
    if not isinstance(value, bool):
        raise TypeError(
            f"{MODE} of a param group is {shown(value)}; it says whether the weights for training are in the "
            "parameters: True or False"
        )
    return value


def _made_with(group: Mapping[str, Any]) -> float | None:
    value = group.get(MADE_WITH)
    return None if value is None else to_number(MADE_WITH, value)


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
    if not all(_mode(group) for group in groups):
        raise RuntimeError(
            "the parameters have the weights for evaluation; call optimizer.train() before the forward pass of a "
            "training step"
        )
