"""Owns what PowerSign and AddSign share besides their rules: the ranges of their hyperparameters."""

from __future__ import annotations

import math
import sys
from typing import Final

from ._lists import Group
from ._values import check_range
from .rule_optimizer import RuleOptimizer

_RANGES: Final = {
    "beta": (0.0, math.nextafter(1.0, 0.0), "that is at least 0 and below 1"),
    "weight_decay": (0.0, sys.float_info.max, "that is not negative"),
    "base": (math.ulp(0.0), sys.float_info.max, "above 0"),
}


class SignOptimizer(RuleOptimizer):
    """SignOptimizer is the base of the two optimizers. Their rules, `library.powersign` and `library.addsign`, also
    work without it."""

    def _check_ranges(self, group: Group) -> None:
        super()._check_ranges(group)
        for name, limits in _RANGES.items():
            if name in group:
                check_range(name, group[name], *limits)
