"""Our rules beside torch's own classes of the same rule, over all inputs that torch's tests give to those."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.nn import Parameter

from tests.peers.infos import DB, OURS, TWINS, fresh, our_keywords, torch_inputs


def cases() -> Iterator[Any]:
    for rule in TWINS:
        for keywords in torch_inputs(rule):
            yield pytest.param(rule, keywords, id=f"{rule}-{keywords}")


def steps(optimizer: torch.optim.Optimizer, dtype: torch.dtype, count: int) -> Iterator[list[torch.Tensor]]:
    """The parameters after each step; gradients are the same for every optimizer, and sometimes missing."""
    make = torch.Generator().manual_seed(11)
    params = optimizer.param_groups[0]["params"]
    for step in range(count):
        for i, p in enumerate(params):
            grad = torch.randn(p.shape, dtype=torch.float64, generator=make).to(dtype)
            p.grad = None if (step + i) % 5 == 4 else grad
        optimizer.step()
        yield [p.detach() for p in params]


@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=["float64", "float32"]
)
@pytest.mark.parametrize("implementation", [{"foreach": False}, {"foreach": True}], ids=["forloop", "foreach"])
@pytest.mark.parametrize(("rule", "keywords"), list(cases()))
def test_equals_torch(
    rule: str, keywords: dict[str, Any], implementation: dict[str, bool], dtype: torch.dtype, bound: float
) -> None:
    if rule == "nadam":  # torch keeps the product of all momenta in float32
        bound = max(bound, 1e-6)
    make = torch.Generator().manual_seed(13)
    start = [torch.randn(s, dtype=torch.float64, generator=make).to(dtype) for s in ((4, 3), (7,), ())]
    theirs = DB[TWINS[rule][0]].optim_cls([Parameter(s.clone()) for s in start], **fresh(keywords), **implementation)
    ours = OURS[rule].optim_cls([Parameter(s.clone()) for s in start], **our_keywords(fresh(keywords)))
    for got, want in zip(steps(ours, dtype, 12), steps(theirs, dtype, 12), strict=True):
        torch.testing.assert_close(got, want, rtol=bound, atol=bound)
    assert not torch.equal(want[0], start[0])
