"""Owns the division of an optimizer's parameters into engine calls. In each of them they have taken as many steps, have
the same values of the flags, and are on one device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch

from .._numbers import LAST_STEP
from ..rule import MatrixProgram, Program
from ._clipping import KEY as CLIP
from ._masters import KEY as MASTERS
from ._rules import Rules
from ._values import Group, checked_flags, rounding, step_count

# Keys of a param group whose value is the same for a whole engine call, in the order of `_C.Stepper.divide`.
FLAGS: Final = ("maximize", "seed", "total_steps", "stochastic_rounding")
# The other keys that are looked at before the step after a change: a division depends on them, or refuses the change.
OTHER_FLAGS: Final = (CLIP, MASTERS, "rule", "state_dtype", "capturable", "differentiable", "foreach", "fused")


class Division:
    """A Division divides the parameters of an optimizer, after a check of its groups.

    Args:
        rules: the rules of the groups.
        groups: the optimizer's param_groups.
        forms: of each group: its rule, with master weights where it keeps them.
        group_of: of each parameter.
        tensors: of each parameter, what the engine gets of it; the list is read at each division.
    """

    def __init__(
        self,
        rules: Rules,
        groups: list[Group],
        forms: Sequence[Program | MatrixProgram],
        group_of: Sequence[int],
        tensors: Sequence[torch.Tensor],
    ) -> None:
        self._rules = rules
        self._groups = groups
        self._forms = forms
        self._group_of = group_of
        self._tensors = tensors

    def by(self, grads: Sequence[Any], taken: Sequence[float]) -> list[tuple[Any, ...]]:
        """Returns, for each engine call, the number of steps taken, the FLAGS, and the parameters that have a gradient.

        Args:
            grads: of each parameter, or None.
            taken: the number of steps that each has taken.
        """
        for group, form in zip(self._groups, self._forms, strict=True):
            if self._rules.of(group).form(group) != form:
                raise ValueError(
                    f"a param group has got the rule of another group:\n{group['rule']}\nthe rule of a group stays "
                    "what it was made with: add a new group, or make a new optimizer"
                )
        flags = []
        for group in self._groups:
            checked = checked_flags(group)
            checked["stochastic_rounding"] = rounding(checked)
            flags.append(tuple([checked[name] for name in FLAGS]))
        counts: dict[float, int] = {}
        parts: dict[Any, list[int]] = {}
        for i, grad in enumerate(grads):
            if grad is not None:
                if taken[i] not in counts:
                    counts[taken[i]] = _checked_count(i, taken[i])
                device = self._tensors[i].device
                parts.setdefault((counts[taken[i]], *flags[self._group_of[i]], device), []).append(i)
        return [(*key[:-1], members) for key, members in parts.items()]


def _checked_count(i: int, value: Any) -> int:
    """Returns how many steps parameter i has taken, after a check that another one is possible."""
    count = step_count(f"state of parameter {i}: step", value)
    if count == LAST_STEP:
        raise OverflowError(
            f"parameter {i} has taken {count} steps, which is all that the 32 bits for the number of a step can "
            "count; make a new optimizer, or set the state's step to a smaller number"
        )
    return count
