"""Parameters without memory - on the meta device, or fake - get states and steps, as torch.optim.AdamW gives them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.testing._internal.two_tensor import TwoTensor

from nos_ext.optim import PowerSign, RuleOptimizer, library
from nos_ext.testing._case import copies, parameters, same, set_grads, state_of, steps

OURS: dict[str, Callable[[Any], Any]] = {
    "powersign": PowerSign,
    "adamw": lambda p: RuleOptimizer(p, library.adamw, lr=0.01),
}


def meta() -> torch.Tensor:
    p = torch.empty(3, 4, device="meta").requires_grad_()
    p.grad = torch.empty(3, 4, device="meta")
    return p


def fake() -> torch.Tensor:
    p = torch.empty(3, 4).requires_grad_()
    p.grad = torch.empty(3, 4)
    return p


def kinds(optimizer: Any, p: torch.Tensor) -> dict[str, Any]:
    """What torch.optim.AdamW and ours must have alike of the states, and of the step but for its precision."""
    entry = dict(optimizer.state[p])
    step = entry.pop("step")
    state = {(type(v), v.shape, v.dtype, v.device) for v in entry.values()}
    return {"state": state, "step": (type(step), step.shape, step.device)}


@pytest.mark.parametrize("name", OURS)
def test_meta_parameters(name: str) -> None:
    p, q = meta(), meta()
    ours, theirs = OURS[name]([p]), torch.optim.AdamW([q])
    for _ in range(3):
        ours.step()
        theirs.step()
    assert kinds(ours, p) == kinds(theirs, q)
    assert float(ours.state[p]["step"]) == float(theirs.state[q]["step"]) == 3.0
    p.grad = None
    ours.step()
    assert float(ours.state[p]["step"]) == 3.0


@pytest.mark.parametrize("name", OURS)
def test_meta_parameters_beside_real_ones(name: str) -> None:
    """Also where one of them comes later; the real ones are updated."""
    hollow, real = meta(), parameters((5,), (6,))
    expected = copies(real)
    ours, alone = OURS[name]([real[0], hollow, real[1]]), OURS[name](expected)
    hollow.grad = None
    for i in range(4):
        if i == 2:
            hollow.grad = torch.empty(3, 4, device="meta")
        steps(ours, real, 1, i)
        steps(alone, expected, 1, i)
    assert same(real, expected)
    assert same(state_of(ours)[:2], state_of(alone)[:2])
    assert float(ours.state[hollow]["step"]) == 2.0
    assert kinds(ours, hollow)["state"] == {(torch.Tensor, hollow.shape, torch.float32, hollow.device)}


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("when", ["inside", "outside", "inside, then outside"])
def test_fake_parameters(name: str, when: str) -> None:
    found = []
    for make in (OURS[name], lambda p: torch.optim.AdamW(p, foreach=False)):
        mode = FakeTensorMode()
        with mode:
            p = fake()
            optimizer = make([p])
            if when != "outside":
                optimizer.step()
                optimizer.step()
        if when != "inside":
            optimizer.step()
            optimizer.step()
        assert isinstance(p, FakeTensor)
        found.append(kinds(optimizer, p))
    assert found[0] == found[1]


@pytest.mark.parametrize("steps_before", [0, 2])
def test_real_parameters_under_the_mode_are_left_alone(steps_before: int) -> None:
    """They are asked for as fake ones, in torch's words, and no data is touched."""
    params = parameters()
    optimizer = PowerSign(params)
    steps(optimizer, params, steps_before)
    set_grads(params)
    before, states = [p.detach().clone() for p in params], [s.clone() for s in state_of(optimizer)]
    with FakeTensorMode(), pytest.raises(AssertionError, match="convert all Tensors to FakeTensors first"):
        optimizer.step()
    assert same([p.detach() for p in params], before)
    assert same(state_of(optimizer), states)
    optimizer.step()
    assert float(optimizer.state[params[0]]["step"]) == steps_before + 1


def test_a_real_model_may_be_traced_with_real_inputs() -> None:
    params = parameters()
    optimizer = PowerSign(params)
    steps(optimizer, params, 1)
    set_grads(params)
    before, states = [p.detach().clone() for p in params], [s.clone() for s in state_of(optimizer)]
    with FakeTensorMode(allow_non_fake_inputs=True):
        optimizer.step()
    assert same([p.detach() for p in params], before)
    assert same(state_of(optimizer), states)


def test_sparse_and_complex_are_refused_here_too() -> None:
    p, q = meta(), meta()
    p.grad = torch.sparse_coo_tensor(size=(3, 4), device="meta")
    optimizer = PowerSign([q, p])
    with pytest.raises(RuntimeError, match=r"does not support sparse gradients \(parameter 1\)"):
        optimizer.step()
    assert not optimizer.state
    z = torch.empty(2, dtype=torch.complex64, device="meta").requires_grad_()
    z.grad = torch.empty(2, dtype=torch.complex64, device="meta")
    with pytest.raises(RuntimeError, match="does not support complex parameters"):
        PowerSign([z]).step()


def test_under_a_default_device_without_memory() -> None:
    """torch.device("meta") is where models are built; optimizers of real parameters work beside it."""
    params = parameters()
    expected = copies(params)
    optimizer, plain = PowerSign(params), PowerSign(expected)
    for i in range(3):
        set_grads(params, seed=i)
        set_grads(expected, seed=i)
        params[1].grad = expected[1].grad = None
        with torch.device("meta"):
            optimizer.step()
        plain.step()
    assert same(params, expected)
    assert same(state_of(optimizer), state_of(plain))


def test_checkpoints_without_values() -> None:
    p, q, real = meta(), meta(), parameters((3, 4))
    optimizer, other, plain = PowerSign([p]), PowerSign([q]), PowerSign(real)
    optimizer.step()
    other.load_state_dict(optimizer.state_dict())
    other.step()
    assert float(other.state[q]["step"]) == 2.0
    with pytest.raises(ValueError, match="state of parameter 0: m is on the meta device or fake"):
        plain.load_state_dict(optimizer.state_dict())
    assert not plain.state


# ---- tensors that should have memory and have none -----------------------------------------------------------------------


def wrapper() -> torch.Tensor:
    """A parameter of a class that keeps its values in other tensors, as quantised and sharded ones do."""
    return TwoTensor(torch.ones(3), torch.ones(3)).requires_grad_()


def resized() -> torch.Tensor:
    p = torch.ones(3).requires_grad_()
    p.untyped_storage().resize_(0)
    return p


def view_of_resized() -> torch.Tensor:
    memory = torch.ones(5)
    p = memory[2:].requires_grad_()
    memory.untyped_storage().resize_(0)
    return p


def slice_of_resized() -> torch.Tensor:
    memory = torch.ones(3, 2)
    p = memory[:, 0].requires_grad_()
    memory.untyped_storage().resize_(0)
    return p


@pytest.mark.parametrize(
    ("make", "where"),
    [
        *itertools.product([wrapper, resized, view_of_resized, slice_of_resized], ["parameter", "state"]),
        *itertools.product([resized, view_of_resized, slice_of_resized], ["gradient"]),  # torch sets no wrapper as one
    ],
)
def test_missing_memory_is_named_before_anything_is_written(make: Callable[[], torch.Tensor], where: str) -> None:
    first, second = parameters((4,), (3,))
    first.grad = torch.ones(4)
    if where == "parameter":
        second = make()
    second.grad = make().detach() if where == "gradient" else torch.ones(3)
    optimizer = PowerSign([first, second])
    if where == "state":
        optimizer.step()
        optimizer.state[second]["m"] = make().detach()
        second.grad = torch.ones(3)
    before, count = first.detach().clone(), len(optimizer.state)
    name = {"parameter": "params", "gradient": "grads", "state": r"state\['m'\]"}[where]
    with pytest.raises(ValueError, match=rf"^{name}\[1\] .*memory[^\n]*$"):
        optimizer.step()
    assert torch.equal(first, before)
    assert len(optimizer.state) == count


def test_memory_that_is_taken_away_from_a_slice() -> None:
    memory = torch.ones(3, 2)
    p = memory[:, 0].requires_grad_()
    p.grad = torch.ones(3)
    optimizer = PowerSign([p])
    optimizer.step()
    memory.untyped_storage().resize_(0)
    with pytest.raises(ValueError, match=r"^params\[0\] .*memory"):
        optimizer.step()
    assert float(optimizer.state[p]["step"]) == 1.0
