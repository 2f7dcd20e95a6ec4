"""Owns HostOptimizer."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch.optim.optimizer import ParamsT

from ._host import HostLists, Link
from ._lists import StepLists
from ._values import Group, RuleSource, is_capturable
from .rule_optimizer import RuleOptimizer


class HostOptimizer(RuleOptimizer):
    """A HostOptimizer keeps all states in the memory of the host and steps there, for parameters on a device.

        >>> model = model.to("cuda", torch.bfloat16)
        >>> optimizer = HostOptimizer(model.parameters(), library.adamw, lr=1e-3, weight_decay=0.1)

    Of bfloat16 and float16 parameters the states have a float32 copy, their master weights. A step copies the gradients
    to the host, where one pass updates master weights, states and a copy of the parameters in their own dtype, which
    goes back to the device. Of parameters on the CPU nothing is copied.

    Args:
        params: parameters, named parameters, or dicts that define param groups.
        rule: what `RuleOptimizer` takes.
        lr: learning rate: a number, or a tensor of one element, which is read at every step.
        master_weights: False for no float32 copies.
        **options: hyperparameters of the rule, and the other arguments of `RuleOptimizer`, but for capturable.
    """

    _link: ClassVar = Link()

    def __init__(
        self,
        params: ParamsT,
        rule: RuleSource,
        lr: float | torch.Tensor,
        *,
        master_weights: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(params, rule, lr, master_weights=master_weights, **options)

    def add_param_group(self, param_group: Group) -> None:
        super().add_param_group(param_group)
        try:
            _check_waits(self.param_groups[-1:])
        except ValueError:
            self.param_groups.pop()
            raise

    def _make_lists(self, *arguments: Any) -> StepLists:
        _check_waits(self.param_groups)
        return HostLists(self._link, *arguments)

    def _home(self, param: Any) -> torch.device:
        return self._link.home(param)


def _check_waits(groups: list[Group]) -> None:
    if is_capturable(groups):
        raise ValueError(
            "capturable is True, but a step on the host waits for the device, and no CUDA graph can hold it; leave it "
            "False, or use RuleOptimizer(..., master_weights=True)"
        )
