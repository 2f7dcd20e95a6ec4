"""The error inputs of each OptimizerInfo: when torch's tests want an error, of which type, with which text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.nn import Parameter
from torch.testing._internal.common_optimizers import ErrorOptimizerInput, OptimizerErrorEnum, OptimizerInfo

from tests.peers.infos import ALL, OURS


def cases() -> Iterator[Any]:
    for name, info in ALL.items():
        for given in info.optim_error_inputs_func(device="cpu", dtype=torch.float32):
            yield pytest.param(info, given, id=f"{name}-{given.optimizer_error_input.desc}")


@pytest.mark.parametrize(("info", "given"), list(cases()))
def test_errors(info: OptimizerInfo, given: ErrorOptimizerInput) -> None:
    wanted = given.optimizer_error_input
    params = [Parameter(torch.randn(1, 1))] if wanted.params is None else wanted.params
    if given.error_type is UserWarning:
        with pytest.warns(UserWarning, match=given.error_regex):
            info.optim_cls(params, **wanted.kwargs)
        return
    if given.error_on is OptimizerErrorEnum.CONSTRUCTION_ERROR:
        with pytest.raises(given.error_type, match=given.error_regex):
            info.optim_cls(params, **wanted.kwargs)
        return
    optimizer = info.optim_cls(params, **wanted.kwargs)
    for p in params:
        p.grad = torch.rand_like(p)
    with pytest.raises(given.error_type, match=given.error_regex):
        optimizer.step()


@pytest.mark.parametrize("rule", OURS)
def test_a_parameter_in_two_groups_or_none_at_all(rule: str) -> None:
    cls, param = OURS[rule].optim_cls, Parameter(torch.randn(2))
    with pytest.raises(ValueError, match="empty parameter list"):
        cls([])
    with pytest.raises(ValueError, match="can't optimize a non-leaf Tensor"):
        cls([param * 2])
    optimizer = cls([param])
    with pytest.raises(ValueError, match="more than one parameter group"):
        optimizer.add_param_group({"params": [param]})
    assert len(optimizer.param_groups) == 1
