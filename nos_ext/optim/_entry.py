"""Owns Entry, which is what the library knows about a rule, and the kinds of facts in it.

Works without torch: of torch's optimizers only names stand here.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class Range:
    """A Range says which values of a hyperparameter a training may start with: those from `low` to `high`, both of
    which are allowed. `wanted` says so in a message, after "a number"."""

    low: float
    high: float
    wanted: str


_BELOW_1: Final = math.nextafter(1.0, 0.0)
_LARGEST: Final = sys.float_info.max

ANY: Final = Range(-math.inf, math.inf, "that is not NaN")
NOT_NEGATIVE: Final = Range(0.0, _LARGEST, "that is finite and at least 0")
POSITIVE: Final = Range(math.ulp(0.0), _LARGEST, "above 0")
ABOVE_1: Final = Range(math.nextafter(1.0, 2.0), _LARGEST, "above 1")
AT_LEAST_1: Final = Range(1.0, _LARGEST, "that is finite and at least 1")
DECAY: Final = Range(0.0, _BELOW_1, "that is at least 0 and below 1")
FRACTION: Final = Range(math.ulp(0.0), _BELOW_1, "between 0 and 1")
UP_TO_1: Final = Range(0.0, 1.0, "from 0 to 1")

# The ranges that a name has in every rule of the library that does not give it another one.
COMMON: Final[Mapping[str, Range]] = MappingProxyType(
    {
        "lr": Range(0.0, math.inf, "that is not negative"),
        "beta": DECAY,
        "beta1": DECAY,
        "beta2": DECAY,
        "beta3": DECAY,
        "momentum": NOT_NEGATIVE,
        "eps": NOT_NEGATIVE,
        "weight_decay": NOT_NEGATIVE,
    }
)
# What torch's schedulers write into param groups. A schedule may leave a range, and its checkpoint has to load.
SCHEDULED: Final = frozenset(("lr", "momentum", "beta", "beta1"))


@dataclass(frozen=True, slots=True)
class TorchTwin:
    """A TorchTwin says which of torch's optimizers computes the same numbers, and how its checkpoints name things.

    Fields:
        optimizer: the class in torch.optim.
        states: maps each state of the rule to the key in torch's state of a parameter.
        spread: states that torch has as one number, and the rule as a tensor full of it.
        hypers: maps each key of torch's param groups to the hyperparameters that it holds; several are a tuple there.
            Keys that are named like the hyperparameter are left out.
        options: what torch's param groups have to say for the numbers to be the same. Keys that a checkpoint lacks are
            newer than it, and make no difference.
        unless: keys that must not have the value given, for the same reason.
        counts: whether torch's state counts the steps.
    """

    optimizer: str
    states: Mapping[str, str] = field(default_factory=dict)
    spread: tuple[str, ...] = ()
    hypers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)
    unless: Mapping[str, object] = field(default_factory=dict)
    counts: bool = True


@dataclass(frozen=True, slots=True)
class Averaged:
    """Averaged says how the weights for evaluation, x, are found where training needs others, y, in their place.

    y = weight * x + (1 - weight) * z, where z is the state `state` and `weight` a hyperparameter, which is above 0.
    """

    state: str
    weight: str


# The key of a param group that says whether the weights for training are in its parameters, or their average.
MODE: Final = "train_mode"
# And the one that says with which weight of the average those for training were made, or None before there are any.
MADE_WITH: Final = "train_weight"


@dataclass(frozen=True, slots=True)
class Entry:
    """An Entry is a named rule: its text, what it is, what to use it for, and where it comes from.

    `ranges` has the ranges of hyperparameters that COMMON lacks, or that differ from it.
    """

    name: str
    text: str
    doc: str
    use: str
    source: str
    ranges: Mapping[str, Range] = field(default_factory=dict)
    torch: TorchTwin | None = None
    averaged: Averaged | None = None

    def range_of(self, name: str) -> Range | None:
        """Returns the range of a hyperparameter, or None where the table has none."""
        return self.ranges.get(name) or COMMON.get(name)
