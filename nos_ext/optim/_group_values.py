"""Owns GroupValues: what may stand in the param groups of a rule, and what it stands for there."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import torch

from .._numbers import flag, number, plain
from ..rule import MatrixProgram, Program
from . import library
from ._betas import beta_names
from ._entry import COMMON, MADE_WITH, MODE
from ._sign_decay import sign_decay
from ._values import (
    FLAG_DEFAULTS,
    Group,
    Scalar,
    check_capturable,
    check_range,
    check_scalar,
    check_values_there,
    checked_flags,
)


class GroupValues:
    """GroupValues checks the values of param groups, whatever they come from: arguments, dicts or a checkpoint.

    Fields:
        names: of the hyperparameters.
        betas: those of them that `betas` stands for.
        averaged: how the weights for evaluation are found, or None if they are those that are trained.
    """

    def __init__(self, program: Program | MatrixProgram) -> None:
        entry = library.entry_of(program)
        self._defaults = program.hyperparameters
        self.names = tuple(program.hyperparameters)
        self.betas = beta_names(self.names)
        self.averaged = entry.averaged if entry else None
        # A rule of the user's own may give any name but lr another meaning.
        ranges = {name: entry.range_of(name) for name in self.names} if entry else {"lr": COMMON["lr"]}
        self._ranges = {name: limits for name, limits in ranges.items() if limits is not None}

    def resolve(self, name: str, value: Any, group: Group) -> Scalar:
        """Returns what a value in a param group stands for: a number, a tensor, or a function of the step."""
        if name == "sign_decay":
            return sign_decay(value, self._defaults[name], group["total_steps"])
        return value  # type: ignore[no-any-return]

    def checked(self, group: Group) -> Group:
        """Returns the group with its numbers as Python's. Raises TypeError or ValueError for one that step() could not
        use."""
        out = {**group, **checked_flags(group)}
        if MODE in group:
            out[MODE] = flag(MODE, group[MODE])
        if group.get(MADE_WITH) is not None:
            wanted = "a number above 0, or None"
            if not number(MADE_WITH, group[MADE_WITH], wanted) > 0:
                raise ValueError(f"{MADE_WITH} is {group[MADE_WITH]}; pass {wanted}")
        if self.averaged and out["state_dtype"] == "int8":
            raise ValueError(
                f"state_dtype is 'int8' but the rule keeps weights in its state {self.averaged.state}, for which codes "
                "of 8 bits are too few; use 'bfloat16'"
            )
        for name in self.names:
            out[name] = plain(group[name])
            value = self.resolve(name, out[name], out)
            check_scalar(name, value)
            if (
                self.averaged
                and name == self.averaged.weight
                and callable(value)
                and not isinstance(value, torch.Tensor)
            ):
                raise TypeError(
                    f"{name} is a function of the step, but eval() and train() need its value; pass a number"
                )
            if out["capturable"]:
                check_capturable(name, value)
        return out

    def check_keys(self, number: int, group: Group) -> None:
        """Raises ValueError if param group `number` lacks a value that a step needs, as one may that was not made by
        add_param_group."""
        for name in (*self.names, *FLAG_DEFAULTS):
            if name not in group:
                raise ValueError(
                    f"param_groups[{number}] has no {name!r}, which the step needs; write a value there, and add new "
                    "groups by optimizer.add_param_group, which fills them in"
                )

    def check_ranges(self, group: Group, but: Collection[str] = ()) -> None:
        """Raises ValueError for a value with which no training starts, except for the names in `but`."""
        for name, limits in self._ranges.items():
            if name not in but:
                check_range(name, self.resolve(name, group[name], group), limits)

    def check_there(self, group: Group, params: Iterable[Any]) -> None:
        """Raises ValueError for a tensor that has no value beside parameters that have some."""
        for name in self.names:
            check_values_there(name, group[name], params)
