"""Checkpoints are checked before anything is changed, and one rule's checkpoint serves every optimizer of that rule."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from nos_ext.optim import AddSign, PowerSign, RuleOptimizer, library
from nos_ext.testing._case import copies, parameters, same, state_of, steps


def trained(kind: Any = PowerSign, **keywords: Any) -> tuple[list[torch.Tensor], Any]:
    params = parameters()
    optimizer = kind(params, **keywords)
    steps(optimizer, params, 2)
    return params, optimizer


def entry(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Puts a value into the state of the second parameter."""
    return lambda saved: saved["state"][1].__setitem__(name, value)


def group(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda saved: saved["param_groups"][0].__setitem__(name, value)


def without(*path: Any) -> Callable[[dict[str, Any]], None]:
    def remove(saved: Any) -> None:
        for key in path[:-1]:
            saved = saved[key]
        del saved[path[-1]]

    return remove


def emptied(*shape: int) -> torch.Tensor:
    tensor = torch.ones(shape)
    tensor.untyped_storage().resize_(0)
    return tensor


COUNT = "the number of steps taken, a whole number from 0 to 4294967295"
DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    **{
        f"step {value}": (entry("step", value), rf"state of parameter 1: step is {shown}; pass {COUNT}")
        for value, shown in (
            (-5, "-5"), (1e30, r"1e\+30"), (float("nan"), "nan"), (float("inf"), "inf"), (2.5, "2.5"), ("3", "'3'"),
            (None, "None"), (2**32, "4294967296"), (torch.tensor(-5.0), "-5.0"), (torch.tensor(float("nan")), "nan"),
        )
    },
    "step of two": (entry("step", torch.ones(2)), r"state of parameter 1: step is a float32 Tensor of shape \(2,\) on cpu"),
    "step without value": (entry("step", torch.ones((), device="meta")), "parameter 1: step is a tensor on meta, which"),
    "step missing": (without("state", 1, "step"), r"parameter 1 has the keys \['m'\] but not \['step'\]"),
    "state missing": (without("state", 1, "m"), r"parameter 1 has the keys \['step'\] but not \['m'\]"),
    "state is a number": (entry("m", 0.5), "state of parameter 1: m is a float; it must be a tensor"),
    "state of integers": (entry("m", torch.ones(5, dtype=torch.int64)), "parameter 1: m is a .* tensor of torch.int64"),
    "state is complex": (entry("m", torch.ones(5, dtype=torch.complex64)), "parameter 1: m is a .* torch.complex64"),
    "state is sparse": (entry("m", torch.ones(5).to_sparse()), "parameter 1: m is a torch.sparse_coo tensor"),
    "state of another shape": (entry("m", torch.ones(4)), r"parameter 1: m has shape \(4,\) but the parameter has \(5,\)"),
    "state without values": (entry("m", torch.ones(5, device="meta")), "parameter 1: m is on the meta device or fake"),
    "state is a list": (lambda saved: saved["state"].__setitem__(1, [1]), "state of parameter 1 is a list, not a dict"),
    "no state": (without("state"), "has no 'state' as optimizer.state_dict"),
    "no groups": (without("param_groups"), "has no 'param_groups' as optimizer.state_dict"),
    "group is a list": (lambda saved: saved["param_groups"].__setitem__(0, [1]), r"param_groups\[0\] of the checkpoint is no"),
    "no params": (without("param_groups", 0, "params"), r"param_groups\[0\] of the checkpoint is no dict with a list"),
    "params twice": (group("params", [0, 1, 1]), "has the same number in 'params' of its param_groups twice"),
    "lr missing": (without("param_groups", 0, "lr"), r"param_groups\[0\] of the checkpoint has no 'lr'"),
    "lr nan": (group("lr", float("nan")), r"param_groups\[0\] of the checkpoint: Invalid learning rate: nan"),
    "lr tensor nan": (group("lr", torch.tensor(float("nan"))), "of the checkpoint: Invalid learning rate: nan"),
    "lr without value": (group("lr", torch.ones((), device="meta")), "of the checkpoint: lr is .* on meta, which .* no value"),
    "lr without memory": (group("lr", emptied()), "of the checkpoint: lr is .*, whose storage was resized"),
    "step without memory": (entry("step", emptied()), "parameter 1: step is .*, whose storage was resized"),
    "state without memory": (entry("m", emptied(5)), "parameter 1: m is .*, whose storage was resized"),
    "extra without memory": (entry("mine", emptied(5)), "parameter 1: mine is .*, whose storage was resized"),
    "keys of two types": (lambda saved: saved["state"].__setitem__(1, {"m": 1, 3: 4}), r"keys \['3', 'm'\] but not \['step'\]"),
    "params of lists": (group("params", [[0], 1, 2]), r"param_groups\[0\] of the checkpoint has \[0\] in 'params'"),
    "lr text": (group("lr", "1e-3"), r"param_groups\[0\] of the checkpoint: lr is '1e-3'; pass a number"),
    "lr None": (group("lr", None), r"param_groups\[0\] of the checkpoint: lr is None; pass a number"),
    "beta missing": (without("param_groups", 0, "beta"), r"param_groups\[0\] of the checkpoint has no 'beta'"),
    "beta nan": (group("beta", float("nan")), r"param_groups\[0\] of the checkpoint: Invalid beta: nan"),
    "maximize text": (group("maximize", "no"), r"checkpoint: maximize is 'no'; pass True or False"),
    "capturable 2": (group("capturable", 2), r"checkpoint: capturable is 2; pass True or False"),
    "seed": (group("seed", 1.5), r"checkpoint: seed is 1.5; pass an integer from 0 to 2\*\*64 - 1"),
    "total_steps": (group("total_steps", -1), r"checkpoint: total_steps is -1; pass the length of the training"),
    "rule": (group("rule", "g"), r"made with another rule:\ng\nthis optimizer has\ndef powersign"),
    "rule is a number": (group("rule", 3), r"made with another rule:\n3\n"),
    "another number of groups": (lambda saved: saved["param_groups"].clear(), "different number of parameter groups"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_refused_and_nothing_is_loaded(name: str) -> None:
    damage, message = DAMAGE[name]
    _, optimizer = trained(lr=0.1)
    others, resumed = trained(lr=0.7, beta=0.5)
    saved = copy.deepcopy(optimizer.state_dict())
    damage(saved)
    before = copy.deepcopy(resumed.state_dict())
    states, expected = state_of(resumed), copies(others)
    twin = PowerSign(expected, lr=0.7, beta=0.5)
    twin.load_state_dict(before)
    with pytest.raises((ValueError, TypeError), match=message):
        resumed.load_state_dict(saved)
    assert resumed.state_dict()["param_groups"] == before["param_groups"]
    assert all(a is b for a, b in zip(state_of(resumed), states, strict=True))
    steps(resumed, others, 2)
    steps(twin, expected, 2)
    assert same(others, expected)


def test_what_is_no_state_dict() -> None:
    with pytest.raises(ValueError, match="the checkpoint is a list; pass what"):
        PowerSign(parameters()).load_state_dict([])  # type: ignore[arg-type]


def test_old_numbers_of_steps() -> None:
    """float32 tensors as they were saved once, also at the end of what they could count; and integers."""
    params, optimizer = trained(lambda p: RuleOptimizer(p, library.adamw, lr=0.1))
    for step in (torch.tensor(2.0**24, dtype=torch.float32), torch.tensor(2**24), 2**24, float(2**24)):
        saved = copy.deepcopy(optimizer.state_dict())
        for state in saved["state"].values():
            state["step"] = step
        others = copies(params)
        resumed = RuleOptimizer(others, library.adamw, lr=0.1)
        resumed.load_state_dict(saved)
        steps(resumed, others, 2)
        assert {resumed.state[p]["step"].item() for p in others} == {2.0**24 + 2}


def test_checkpoints_keep_large_numbers_of_steps() -> None:
    """Around torch's own rounding of 'step' with capturable or fused, too."""
    params, optimizer = trained(fused=True)
    for p in params:
        optimizer.state[p]["step"].fill_(2**24 + 1)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    others = copies(params)
    resumed = PowerSign(others, fused=True)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert {resumed.state[p]["step"].item() for p in others} == {2**24 + 1}
    twin = copy.deepcopy(resumed)
    assert {entry["step"].item() for entry in twin.state.values()} == {2**24 + 1}


# ---- one PowerSign, one AddSign ------------------------------------------------------------------------------------------

SIGNS = [(PowerSign, "powersign"), (AddSign, "addsign")]


@pytest.mark.parametrize(("kind", "name"), SIGNS)
@pytest.mark.parametrize("keywords", [{}, {"sign_decay": "cosine", "total_steps": 9, "weight_decay": 0.1}], ids=str)
def test_class_and_library_rule_are_one(kind: Any, name: str, keywords: dict[str, Any]) -> None:
    """The same text, names and bits; a checkpoint of each loads into the other."""

    def make(as_class: bool, params: Any) -> Any:
        return kind(params, **keywords) if as_class else RuleOptimizer(params, library.get(name), lr=0.1, **keywords)

    assert (
        kind(parameters()).program.fingerprint
        == RuleOptimizer(parameters(), library.get(name), 0.1).program.fingerprint
    )
    for as_class in (True, False):
        params = parameters()
        expected = copies(params)
        first, straight = make(as_class, params), make(not as_class, expected)
        steps(first, params, 3)
        steps(straight, expected, 3)
        assert same(params, expected)
        others = copies(params)
        second = make(not as_class, others)
        second.load_state_dict(copy.deepcopy(first.state_dict()))
        assert second.param_groups[0]["sign_decay"] == first.param_groups[0]["sign_decay"]
        steps(second, others, 3, 3)
        steps(straight, expected, 3, 3)
        assert same(others, expected)


OLD = {
    "powersign": "def powersign(p, g, m, *, lr, beta=0.9, base=e, decay=1.0):\n"
    "    m = beta * m + (1 - beta) * g\n"
    "    return p - lr * exp(log(base) * decay * sign(g) * sign(m)) * g, m\n",
    "addsign": "def addsign(p, g, m, *, lr, beta=0.9, alpha=1.0, decay=1.0):\n"
    "    m = beta * m + (1 - beta) * g\n"
    "    return p - lr * (alpha + decay * sign(g) * sign(m)) * g, m\n",
}


@pytest.mark.parametrize(("kind", "name"), SIGNS)
def test_checkpoints_of_the_library_s_older_texts(kind: Any, name: str) -> None:
    params = parameters()
    old = RuleOptimizer(params, OLD[name], lr=0.1, decay=0.5)
    steps(old, params, 3)
    saved = copy.deepcopy(old.state_dict())
    again = RuleOptimizer(copies(params), OLD[name], lr=1.0)
    again.load_state_dict(copy.deepcopy(saved))  # a rule of the user's own keeps its names
    assert again.param_groups[0]["decay"] == 0.5
    for make in (kind, lambda p: RuleOptimizer(p, library.get(name), lr=1.0)):
        others = copies(params)
        resumed = make(others)
        resumed.load_state_dict(copy.deepcopy(saved))
        assert (resumed.param_groups[0]["sign_decay"], resumed.param_groups[0]["lr"]) == (0.5, 0.1)
        assert resumed.param_groups[0]["weight_decay"] == 0.0
        steps(resumed, others, 1)
    with pytest.raises(ValueError, match="made with another rule"):
        RuleOptimizer(parameters(), library.signum, lr=0.1).load_state_dict(saved)


# ---- what is in one ------------------------------------------------------------------------------------------------------


def test_numpy_numbers_do_not_get_into_a_checkpoint() -> None:
    _, optimizer = trained(lr=np.float64(0.1), beta=np.float32(0.5), seed=np.int64(3), total_steps=np.int32(100))
    optimizer.param_groups[0]["lr"] = np.float64(0.2)
    optimizer.param_groups[0]["weight_decay"] = np.float32(0.25)
    optimizer.param_groups[0]["initial_lr"] = np.float64(0.3)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)["param_groups"][0]
    found = [saved[name] for name in ("lr", "beta", "seed", "total_steps", "weight_decay", "initial_lr")]
    assert found == [0.2, 0.5, 3, 100, 0.25, 0.3]
    assert [type(x) for x in found] == [float, float, int, int, float, float]


def test_what_a_schedule_made_loads() -> None:
    """Ranges are those of construction: a schedule of lr and momentum may leave them."""
    _, optimizer = trained(lr=0.1)
    optimizer.param_groups[0].update(lr=-0.01, beta=1.0)
    saved = copy.deepcopy(optimizer.state_dict())
    resumed = PowerSign(parameters())
    resumed.load_state_dict(saved)
    assert resumed.param_groups[0]["lr"] == -0.01
    assert resumed.state_dict()["param_groups"] == saved["param_groups"]


def test_capturable_in_one_group_only_is_refused() -> None:
    params = parameters()
    optimizer = PowerSign([{"params": params[:1]}, {"params": params[1:]}])
    saved = copy.deepcopy(optimizer.state_dict())
    saved["param_groups"][1]["capturable"] = True
    with pytest.raises(ValueError, match="capturable is True in some param groups only"):
        optimizer.load_state_dict(saved)
    assert not optimizer.param_groups[1]["capturable"]


def test_another_rule_written_into_a_group_is_refused() -> None:
    params, optimizer = trained(lr=0.1)
    mine = optimizer.param_groups[0]["rule"]
    optimizer.param_groups[0]["rule"] = "g"
    before = copies(params)
    with pytest.raises(ValueError, match="the param group has the rule of another optimizer:\ng\n"):
        steps(optimizer, params, 1)
    assert same(params, before)
    with pytest.raises(ValueError, match="the param group has the rule of another optimizer:\ng\n"):
        optimizer.state_dict()
    optimizer.param_groups[0]["rule"] = mine
    steps(optimizer, params, 1)
    assert optimizer.state_dict()["state"][0]["step"] == 3
