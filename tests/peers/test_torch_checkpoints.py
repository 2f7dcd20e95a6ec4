"""PyTorch's optimizer tests of state dicts, copies, hooks and printing, over an OptimizerInfo for each optimizer."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import Parameter
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.testing._internal.common_optimizers import OptimizerInfo

from tests.peers import intent
from tests.peers.infos import for_all, for_all_inputs, fresh, is_ours
from tests.peers.test_torch_steps import closure_of, problem, trained


def training(
    info: OptimizerInfo, keywords: dict[str, Any], steps: int, names: bool = False
) -> tuple[torch.optim.Optimizer, Callable[[], torch.Tensor]]:
    """An optimizer after some steps, and its loss."""
    weight, bias, x = problem()
    params: list[Any] = [("weight", weight), ("bias", bias)] if names else [weight, bias]
    optimizer = info.optim_cls(params, **fresh(keywords))
    loss = lambda: (weight.mv(x) + bias).pow(2).sum()  # noqa: E731
    trained(optimizer, loss, steps)
    return optimizer, loss


def params_of(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def goes_on_alike(
    info: OptimizerInfo, keywords: dict[str, Any], carry: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    """A new optimizer on the parameters' copies, with the state dict of the old one, takes the same steps."""
    first, loss = training(info, keywords, 3)
    second, other_loss = training(info, keywords, 0)
    with torch.no_grad():
        for new, old in zip(params_of(second), params_of(first), strict=True):
            new.copy_(old)
    second.load_state_dict(carry(first.state_dict()))
    trained(first, loss, 3)
    trained(second, other_loss, 3)
    assert all(map(torch.equal, params_of(first), params_of(second)))


def saved(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize(
    "carry", [copy.deepcopy, saved, lambda s: pickle.loads(pickle.dumps(s))], ids=["copy", "weights_only", "pickle"]
)
@for_all_inputs
def test_state_dict_round_trip(info: OptimizerInfo, keywords: dict[str, Any], carry: Any) -> None:
    goes_on_alike(info, keywords, carry)


@for_all_inputs
def test_state_dict_is_not_changed_by_loading(info: OptimizerInfo, keywords: dict[str, Any]) -> None:
    """torch's own optimizers go on in the tensors of the state dict that they were given; ours in copies."""
    if not is_ours(info):
        pytest.skip(intent.DIFFERENCES["a loaded state dict"])
    optimizer, _ = training(info, keywords, 2)
    given = copy.deepcopy(optimizer.state_dict())
    before = copy.deepcopy(given)
    other, loss = training(info, keywords, 0)
    other.load_state_dict(given)
    trained(other, loss, 2)
    assert given.keys() == before.keys()
    for key, entry in before["state"].items():
        for name, value in entry.items():
            assert torch.equal(torch.as_tensor(given["state"][key][name]), torch.as_tensor(value))
    assert str(given["param_groups"]) == str(before["param_groups"])


@for_all
def test_older_state_dicts(info: OptimizerInfo) -> None:
    """Flags that came after the first release may be missing."""
    optimizer, _ = training(info, {}, 2)
    old = copy.deepcopy(optimizer.state_dict())
    for group in old["param_groups"]:
        for flag in info.not_og_supported_flags:
            group.pop(flag, None)
    optimizer.load_state_dict(old)
    pickled = pickle.loads(pickle.dumps(optimizer))
    for group in pickled.param_groups:
        for flag in info.not_og_supported_flags:
            group.pop(flag, None)
    pickled.__setstate__(pickled.__getstate__())
    for o in (optimizer, pickled):
        for p in params_of(o):
            p.grad = torch.ones_like(p)
        o.step()


@for_all
@pytest.mark.parametrize(("from_names", "to_names"), [(True, False), (False, True), (True, True)])
def test_named_state_dicts(info: OptimizerInfo, from_names: bool, to_names: bool) -> None:
    first, _ = training(info, {}, 2, names=from_names)
    second, loss = training(info, {}, 0, names=to_names)
    second.load_state_dict(first.state_dict())
    if to_names:
        assert second.param_groups[0]["param_names"] == ["weight", "bias"]
    trained(second, loss, 1)


@for_all
def test_a_step_that_is_a_plain_number(info: OptimizerInfo) -> None:
    optimizer, loss = training(info, {}, 2)
    state = copy.deepcopy(optimizer.state_dict())
    for entry in state["state"].values():
        if "step" in entry:
            entry["step"] = float(entry["step"])
    optimizer.load_state_dict(state)
    trained(optimizer, loss, 1)
    assert all(float(entry["step"]) == 3 for entry in optimizer.state.values() if "step" in entry)


@for_all
def test_loading_casts_nothing_but_keeps_dtypes(info: OptimizerInfo) -> None:
    """State of float32 stays so beside a parameter that has become float64, as long as it is the count of steps."""
    optimizer, _ = training(info, {}, 2)
    other = info.optim_cls([Parameter(p.detach().double()) for p in params_of(optimizer)])
    other.load_state_dict(optimizer.state_dict())
    for p in params_of(other):
        p.grad = torch.ones_like(p)
    other.step()
    assert all(p.isfinite().all() for p in params_of(other))


@for_all_inputs
def test_can_be_printed(info: OptimizerInfo, keywords: dict[str, Any]) -> None:
    optimizer, _ = training(info, keywords, 0)
    text = repr(optimizer)
    assert text.startswith(info.name)
    assert all(name in text for name in optimizer.param_groups[0] if name != "params")


@for_all
def test_deepcopy_keeps_public_attributes(info: OptimizerInfo) -> None:
    optimizer, _ = training(info, {}, 1)
    names = {name for name in vars(optimizer) if not name.startswith("_")}
    assert {name for name in vars(copy.deepcopy(optimizer)) if not name.startswith("_")} == names


@for_all
def test_step_hooks(info: OptimizerInfo) -> None:
    """Hooks of the optimizer and of all optimizers, in torch's order; a pre-hook may replace the arguments."""
    optimizer, loss = training(info, {}, 0)
    seen: list[str] = []
    handles = [
        register_optimizer_step_pre_hook(lambda *a: seen.append("all before")),
        register_optimizer_step_post_hook(lambda *a: seen.append("all after")),
        optimizer.register_step_pre_hook(lambda *a: seen.append("before")),
        optimizer.register_step_post_hook(lambda *a: seen.append("after")),
    ]
    try:
        optimizer.step(closure_of(optimizer, loss))
        assert seen == ["all before", "before", "after", "all after"]
        before = [p.detach().clone() for p in params_of(optimizer)]
        optimizer.zero_grad()
        replaced = optimizer.register_step_pre_hook(lambda o, args, kwargs: ((o, closure_of(o, loss)), {}))
        optimizer.step()
        replaced.remove()
        assert not any(map(torch.equal, params_of(optimizer), before))
    finally:
        for handle in handles:
            handle.remove()
    seen.clear()
    optimizer.step(closure_of(optimizer, loss))
    assert seen == []


@for_all
def test_state_dict_hooks(info: OptimizerInfo) -> None:
    optimizer, loss = training(info, {}, 1)
    seen: list[str] = []
    optimizer.register_state_dict_pre_hook(lambda o: seen.append("dict before"))
    optimizer.register_state_dict_post_hook(lambda o, d: {**d, "mine": 1})
    optimizer.register_load_state_dict_pre_hook(lambda o, d: {k: v for k, v in d.items() if k != "mine"})
    optimizer.register_load_state_dict_post_hook(lambda o: seen.append("load after"))
    state = optimizer.state_dict()
    assert state["mine"] == 1
    optimizer.load_state_dict(state)
    assert seen == ["dict before", "load after"]
    trained(optimizer, loss, 1)


@for_all
def test_profiler_sees_the_step(info: OptimizerInfo) -> None:
    optimizer, loss = training(info, {}, 0)
    with torch.profiler.profile() as profile:
        trained(optimizer, loss, 1)
    assert f"Optimizer.step#{info.name}.step" in {event.name for event in profile.events()}
