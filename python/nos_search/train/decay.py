"""Owns the decays of the learning rate over a longer training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from nos_ext.schedules import cosine_decay, linear_decay

from ..errors import choose

Decay = Literal["none", "linear", "cosine", "linear_cosine"]
_FLOOR = 0.001  # of linear cosine decay, as in TensorFlow's and in nos_ext.schedules.LinearCosineDecay


def _linear_cosine(total: float) -> Callable[[float], float]:
    linear, cosine = linear_decay(total), cosine_decay(total)
    return lambda step: linear(step) * cosine(step) + _FLOOR


_FACTORS: dict[Decay, Callable[[float], Callable[[float], float]]] = {
    "none": lambda total: lambda step: 1.0,
    "linear": linear_decay,
    "cosine": cosine_decay,
    "linear_cosine": _linear_cosine,
}
DECAYS: tuple[Decay, ...] = tuple(_FACTORS)


def check_decay(name: str) -> None:
    """Raises UsageError for a name that is no decay."""
    if name not in DECAYS:
        raise choose("--decay", name, DECAYS)


def factor(decay: Decay, total_steps: int) -> Callable[[float], float]:
    """Returns what the learning rate is multiplied by, as a function of the steps that have been taken already."""
    return _FACTORS[decay](total_steps)
