"""The number of steps in a state is the one that counts, also where its tensor has been given other memory."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch

from nos_ext.optim import PowerSign
from nos_ext.testing._case import parameters, steps


def assign(step: torch.Tensor, value: torch.Tensor) -> None:
    step.data = value


MOVES: dict[str, Callable[[torch.Tensor], Any]] = {
    "share_memory_": lambda step: step.share_memory_(),
    "data": lambda step: assign(step, step.detach().clone()),
    "data in float32": lambda step: assign(step, step.detach().float()),
    "set_": lambda step: step.set_(step.detach().clone()),  # type: ignore[call-overload]
}
READERS: dict[str, Callable[[Any], Any]] = {
    "state_dict": lambda optimizer: [float(e["step"]) for e in optimizer.state_dict()["state"].values()],
    "deepcopy": lambda optimizer: [float(e["step"]) for e in copy.deepcopy(optimizer).state.values()],
    "pickle": lambda optimizer: [float(e["step"]) for e in pickle.loads(pickle.dumps(optimizer)).state.values()],
}


def trained(*shapes: tuple[int, ...]) -> tuple[list[torch.Tensor], PowerSign]:
    params = parameters(*shapes)
    optimizer = PowerSign(params, lr=0.01)
    steps(optimizer, params, 3)
    return params, optimizer


@pytest.mark.parametrize("kept", [False, True], ids=["alone", "old memory in use"])
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("move", MOVES)
def test_a_moved_step_counts_on(move: str, reader: str, kept: bool) -> None:
    params, optimizer = trained((4,), (5,))
    step = optimizer.state[params[1]]["step"]
    alias = step.detach() if kept else None
    MOVES[move](step)
    assert READERS[reader](optimizer) == [3, 3]
    steps(optimizer, params, 2)
    assert READERS[reader](optimizer) == [5, 5]
    steps(optimizer, params, 1)
    assert READERS[reader](optimizer) == [6, 6]
    del alias


@pytest.mark.parametrize("value", [0.0, 2.0, 9.0])
def test_a_number_that_was_put_there_by_data_counts(value: float) -> None:
    params, optimizer = trained((4,), (5,))
    optimizer.state[params[0]]["step"].data = torch.tensor(value)
    assert READERS["state_dict"](optimizer) == [value, 3]
    steps(optimizer, params, 2)
    assert READERS["state_dict"](optimizer) == [value + 2, 5]


def test_a_step_that_moved_while_its_old_memory_is_in_use_survives_a_new_group() -> None:
    params, optimizer = trained((4,))
    step = optimizer.state[params[0]]["step"]
    alias = step.detach()
    step.data = step.detach().clone()
    steps(optimizer, params, 2)
    optimizer.add_param_group({"params": [torch.zeros(2, requires_grad=True)]})
    steps(optimizer, params, 1)
    assert READERS["state_dict"](optimizer) == [6]
    assert float(alias) == 5


def test_a_moved_step_that_is_no_number_is_refused() -> None:
    params, optimizer = trained((4,))
    optimizer.state[params[0]]["step"].data = torch.zeros(2)
    with pytest.raises(TypeError, match=r"state of parameter 0: step is .*; pass the number of steps taken"):
        steps(optimizer, params, 1)
