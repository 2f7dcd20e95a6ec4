"""Owns the tests of state, state_dict, pickling and copies."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch

from ._case import OptimizerCase, copies, frozen, parameters, same, state_of, steps

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


class Checkpoints:
    """Checkpoints tests that an optimizer goes on with the same bits, in whatever way it was stored."""

    def test_state_is_made_at_the_first_step(self, case: OptimizerCase) -> None:
        params = parameters()
        optimizer = case(params)
        assert len(optimizer.state) == 0
        steps(optimizer, params, 1)
        for p in params:
            assert set(optimizer.state[p]) == {"step", *case.states}

    def test_step_is_a_scalar_on_the_cpu(self, case: OptimizerCase) -> None:
        params = parameters()
        optimizer = case(params)
        steps(optimizer, params, 3)
        for p in params:
            step = optimizer.state[p]["step"]
            assert step.dtype in (torch.float32, torch.float64)
            assert step.shape == ()
            assert step.device.type == "cpu"
            assert step.item() == 3.0

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_state_dtype(self, case: OptimizerCase, dtype: torch.dtype) -> None:
        params = parameters(dtype=dtype)
        optimizer = case(params)
        steps(optimizer, params, 1)
        half = dtype in (torch.bfloat16, torch.float16)
        wanted = torch.float32 if half and case.wide_state else dtype
        assert all(optimizer.state[p][name].dtype == wanted for p in params for name in case.states)

    def test_state_has_the_layout_of_the_parameter(self, case: OptimizerCase) -> None:
        p = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
        p.grad = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
        optimizer = case([p])
        optimizer.step()
        for name in case.states:
            assert optimizer.state[p][name].shape == case.shape_of(name, p)
            assert name in case.numbers or optimizer.state[p][name].stride() == p.stride()

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_state_dict_round_trip(self, case: OptimizerCase, dtype: torch.dtype) -> None:
        """Every dtype and bit comes back through a file and weights_only, and training goes on with the same bits."""
        params = parameters(dtype=dtype)
        optimizer = case(params)
        steps(optimizer, params, 3)
        file = io.BytesIO()
        torch.save(optimizer.state_dict(), file)
        file.seek(0)
        loaded = torch.load(file, weights_only=True)
        others = copies(params)
        resumed = case(others, lr=5.0)
        resumed.load_state_dict(loaded)
        assert resumed.param_groups[0]["lr"] == case.lr
        assert same(state_of(optimizer), state_of(resumed))
        steps(optimizer, params, 20)
        steps(resumed, others, 20)
        assert same(params, others)

    def test_steps_that_are_float32(self, case: OptimizerCase) -> None:
        """torch's optimizers save them so. A number that is no tensor is accepted, too."""
        params = parameters()
        optimizer = case(params)
        steps(optimizer, params, 3)
        for kind in (lambda step: step.float(), lambda step: float(step)):
            saved = frozen(optimizer.state_dict())
            for entry in saved["state"].values():
                entry["step"] = kind(entry["step"])
            others, expected = copies(params), copies(params)
            resumed, straight = case(others), case(expected)
            resumed.load_state_dict(saved)
            straight.load_state_dict(frozen(optimizer.state_dict()))
            assert float(resumed.state[others[0]]["step"]) == 3.0
            if not isinstance(resumed.state[others[0]]["step"], torch.Tensor):
                continue  # torch's go on only from what they made
            steps(resumed, others, 2)
            steps(straight, expected, 2)
            assert same(others, expected)

    def test_load_where_new_tensors_have_no_memory(self, case: OptimizerCase) -> None:
        """Programs build large models under torch.device("meta")."""
        params = parameters()
        optimizer = case(params)
        steps(optimizer, params, 2)
        others = copies(params)
        resumed = case(others)
        with torch.device("meta"):
            resumed.load_state_dict(frozen(optimizer.state_dict()))
        steps(optimizer, params, 2)
        steps(resumed, others, 2)
        assert same(params, others)
        assert same(state_of(optimizer), state_of(resumed))

    def test_one_state_is_saved_alone(self, case: OptimizerCase) -> None:
        """The state of a parameter among many, saved by itself, has its own bytes and no others."""
        params = parameters(*[(3,)] * 2000)
        optimizer = case(params)
        steps(optimizer, params, 1)
        file = io.BytesIO()
        torch.save(optimizer.state[params[7]], file)
        assert file.tell() < 4000
        file.seek(0)
        loaded = torch.load(file, weights_only=True)
        assert all(torch.equal(loaded[name], value) for name, value in optimizer.state[params[7]].items())

    def test_load_does_not_change_the_state_dict(self, case: OptimizerCase) -> None:
        params = parameters()
        optimizer = case(params)
        steps(optimizer, params, 2)
        saved = frozen(optimizer.state_dict())
        kept = frozen(saved)
        others = parameters(seed=9)
        resumed = case(others)
        resumed.load_state_dict(saved)
        assert list(saved["param_groups"][0]) == list(kept["param_groups"][0])
        assert all(
            torch.equal(saved["state"][i][name], kept["state"][i][name]) for i in kept["state"] for name in case.states
        )

    def test_state_dict_holds_plain_types(self, case: OptimizerCase) -> None:
        params = parameters()
        optimizer = case(params)
        steps(optimizer, params, 1)
        packed = optimizer.state_dict()
        assert set(packed) == {"state", "param_groups"}
        plain = (int, float, bool, str, type(None), list, tuple)
        assert all(isinstance(v, plain) for group in packed["param_groups"] for v in group.values())
        assert all(isinstance(v, torch.Tensor) for entry in packed["state"].values() for v in entry.values())

    @pytest.mark.parametrize("groups", [0, 1], ids=["number of groups", "size of a group"])
    def test_a_state_dict_that_does_not_fit(self, case: OptimizerCase, groups: int) -> None:
        params = parameters()
        saved = case([{"params": params[:1]}, {"params": params[1:]}]).state_dict()
        other: Any = parameters()
        optimizer = case(other if groups == 0 else [{"params": other[:2]}, {"params": other[2:]}])
        with pytest.raises(ValueError, match="parameter group"):
            optimizer.load_state_dict(saved)

    def test_state_dict_hooks(self, case: OptimizerCase) -> None:
        params = parameters()
        optimizer = case(params)
        steps(optimizer, params, 1)
        seen: list[str] = []
        optimizer.register_state_dict_pre_hook(lambda o: seen.append("state_dict pre"))
        optimizer.register_state_dict_post_hook(lambda o, d: {**d, "mark": 1})
        saved = optimizer.state_dict()
        assert saved.pop("mark") == 1
        others = copies(params)
        resumed = case(others)

        def doubled(o: torch.optim.Optimizer, d: dict[str, Any]) -> dict[str, Any]:
            state = {i: {**entry, "step": entry["step"] * 2} for i, entry in d["state"].items()}
            return {**d, "state": state}

        resumed.register_load_state_dict_pre_hook(doubled)
        resumed.register_load_state_dict_post_hook(
            lambda o: seen.append(f"load post {float(o.state[others[0]]['step']):g}")
        )
        resumed.load_state_dict(saved)
        assert seen == ["state_dict pre", "load post 2"]
        steps(resumed, others, 1)
        assert float(resumed.state[others[0]]["step"]) == 3.0

    @pytest.mark.parametrize("way", ["deepcopy", "pickle", "torch.save"])
    def test_copies_go_on_alike(self, case: OptimizerCase, way: str) -> None:
        params = parameters()
        optimizer = case(params)
        steps(optimizer, params, 3)
        if way == "deepcopy":
            twin = copy.deepcopy(optimizer)
        elif way == "pickle":
            twin = pickle.loads(pickle.dumps(optimizer))
        else:
            file = io.BytesIO()
            torch.save(optimizer, file)
            file.seek(0)
            twin = torch.load(file, weights_only=False)
        others = twin.param_groups[0]["params"]
        assert same(params, others)
        steps(optimizer, params, 5)
        assert float(twin.state[others[0]]["step"]) == 3.0
        steps(twin, others, 5)
        assert same(params, others)
        assert same(state_of(optimizer), state_of(twin))

    def test_copies_keep_what_users_put_in(self, case: OptimizerCase) -> None:
        """torch's deepcopy keeps the defaults, and param groups with the user's own keys."""
        params = parameters()
        optimizer = case(params)
        steps(optimizer, params, 1)
        optimizer.param_groups[0]["mine"] = [1, 2]
        other = copy.deepcopy(optimizer)
        assert type(other) is type(optimizer)
        assert other.defaults == optimizer.defaults
        assert other.param_groups[0]["mine"] == [1, 2]
        assert other.param_groups[0]["params"][0] is not params[0]

    def test_names_in_a_checkpoint(self, case: OptimizerCase) -> None:
        """A checkpoint with the names of the parameters loads where there are none, and the other way round."""
        named = [(f"layer.{i}", p) for i, p in enumerate(parameters())]
        plain = parameters()
        first, second = case(named), case(plain)
        steps(first, [p for _, p in named], 2)
        steps(second, plain, 2)
        to_plain, to_named = case(copies(plain)), case([(name, p) for name, p in named])
        to_plain.load_state_dict(frozen(first.state_dict()))
        to_named.load_state_dict(frozen(second.state_dict()))
        assert same(state_of(first), state_of(to_plain))
        assert same(state_of(second), state_of(to_named))
        assert to_named.param_groups[0]["param_names"] == [name for name, _ in named]

    def test_pickled_state_is_torch_s(self, case: OptimizerCase) -> None:
        """No caches or handles travel with a pickled optimizer."""
        params = parameters()
        optimizer = case(params)
        steps(optimizer, params, 2)
        assert set(optimizer.__getstate__()) == {"defaults", "state", "param_groups"}  # type: ignore[no-untyped-call, unused-ignore]

    def test_older_checkpoints(self, case: OptimizerCase) -> None:
        """Flags that came later are filled in with their defaults."""
        params = parameters()
        optimizer = case(params)
        steps(optimizer, params, 2)
        saved = frozen(optimizer.state_dict())
        for flag in ("maximize", "capturable", "differentiable", "foreach", "fused", "seed", "total_steps", "rule"):
            saved["param_groups"][0].pop(flag, None)
        others = copies(params)
        resumed = case(others)
        resumed.load_state_dict(saved)
        steps(optimizer, params, 2)
        steps(resumed, others, 2)
        assert same(params, others)
