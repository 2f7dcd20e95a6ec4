"""Owns what PowerSign and AddSign share: the internal decay f(t) of the sign term and decoupled weight decay."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import torch

from ..schedules import cosine_decay, linear_decay, restart_decay
from ._lists import Group
from ._values import Scalar
from .rule_optimizer import RuleOptimizer

SignDecay = Callable[[int], float] | str | float | None

_NAMED: Final[dict[str, Callable[[float], Callable[[float], float]]]] = {
    "linear": linear_decay,
    "cosine": cosine_decay,
    "restart": restart_decay,
}
_RANGES: Final = {
    "beta": (0.0, 1.0, "that is at least 0 and below 1"),
    "weight_decay": (0.0, math.inf, "that is not negative"),
    "base": (math.ulp(0.0), math.inf, "above 0"),
}


class SignOptimizer(RuleOptimizer):
    """Base of the two optimizers. Its rules have the hyperparameters beta, sign_decay and weight_decay."""

    def _resolve(self, name: str, value: Any, group: Group) -> Scalar:
        if name != "sign_decay":
            return super()._resolve(name, value, group)
        if value is None:
            return 1.0
        if isinstance(value, str):
            if value not in _NAMED:
                raise ValueError(
                    f"sign_decay is {value!r}; pass {', '.join(map(repr, _NAMED))}, a function of the step counted "
                    "from 0, a number, or None"
                )
            if group["total_steps"] is None:
                raise ValueError(
                    f"sign_decay is {value!r} but total_steps is None; pass the length of the training in steps"
                )
            return _NAMED[value](group["total_steps"])
        return value  # type: ignore[no-any-return]

    def _check(self, group: Group) -> None:
        super()._check(group)
        for name, (low, high, wanted) in _RANGES.items():
            value = group.get(name, 0.5)
            if not isinstance(value, torch.Tensor) and not callable(value) and not low <= float(value) < high:
                raise ValueError(f"Invalid {name}: {value}; pass a number {wanted}")
