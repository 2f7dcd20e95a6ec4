"""Owns what PowerSign and AddSign share beside their rules: the ranges of their hyperparameters."""

from __future__ import annotations

import math
from typing import Final

import torch

from ._lists import Group
from .rule_optimizer import RuleOptimizer

_RANGES: Final = {
    "beta": (0.0, 1.0, "that is at least 0 and below 1"),
    "weight_decay": (0.0, math.inf, "that is not negative"),
    "base": (math.ulp(0.0), math.inf, "above 0"),
}


class SignOptimizer(RuleOptimizer):
    """Base of the two optimizers. Their rules, `library.powersign` and `library.addsign`, work without it, too."""

    def _checked(self, group: Group) -> Group:
        checked = super()._checked(group)
        for name, (low, high, wanted) in _RANGES.items():
            value = checked.get(name, 0.5)
            if not isinstance(value, torch.Tensor) and not callable(value) and not low <= float(value) < high:
                raise ValueError(f"Invalid {name}: {value}; pass a number {wanted}")
        return checked
