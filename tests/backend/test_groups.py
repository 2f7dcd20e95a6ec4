"""apply_groups: several sets of hyperparameters in one call."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import nos_ext
from nos_ext import _C

RULE = nos_ext.compile_rule(
    "def r(p, g, m, *, lr, beta=0.9):\n    m = beta * m + (1 - beta) * drop(g, 0.2)\n    return p - lr * m, m\n"
)


def tensors() -> tuple[list[Any], list[Any], list[list[Any]]]:
    make = torch.Generator().manual_seed(0)
    lists = [[torch.randn(n, generator=make) for n in (5, 700, 1, 0, 33)] for _ in range(3)]
    return lists[0], lists[1], [lists[2]]


def test_equals_one_call_per_group() -> None:
    group_of, groups = [0, 1, 0, 2, 1], [[0.1, 0.9], [0.2, 0.5], [0.3, 0.1]]
    params, grads, state = tensors()
    _C.apply_groups(RULE, params, grads, state, group_of, groups, step=3, seed=9)
    expected, grads, (m,) = tensors()
    for i, g in enumerate(group_of):
        nos_ext.apply_rule(
            RULE,
            [expected[i]],
            [grads[i]],
            [[m[i]]],
            lr=groups[g][0],
            beta=groups[g][1],
            step=3,
            seed=9,
            tensor_index=i,
        )
    assert all(map(torch.equal, params, expected))
    assert all(map(torch.equal, state[0], m))


def test_regrouping_the_same_tensors() -> None:
    """The cached plan of the first grouping must not serve the second."""
    params, grads, state = [torch.zeros(2), torch.zeros(2)], [torch.ones(2), torch.ones(2)], []
    program = nos_ext.compile_rule("g")
    for group_of, expected in (([0, 1], (-1, -2)), ([1, 0], (-2, -1)), ([1, 1], (-2, -2))):
        for p in params:
            p.fill_(0)
        _C.apply_groups(program, params, grads, state, group_of, [[1.0], [2.0]])
        assert [p[0].item() for p in params] == list(expected)


@pytest.mark.parametrize(
    ("group_of", "groups", "message"),
    [
        ([0, 0, 0, 0], [[0.1, 0.9]], "group_of has 4 entries"),
        ([0, 0, 1, 0, 0], [[0.1, 0.9]], "group_of names group 1, which is not there"),
        ([0] * 5, [[0.1]], "groups must hold 2 values each"),
    ],
)  # fmt: skip
def test_refused(group_of: list[int], groups: list[list[float]], message: str) -> None:
    params, grads, state = tensors()
    before = [p.clone() for p in params]
    with pytest.raises(ValueError, match=message):
        _C.apply_groups(RULE, params, grads, state, group_of, groups)
    assert all(map(torch.equal, params, before))
