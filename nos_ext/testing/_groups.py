"""Owns the tests of param groups, learning rates and schedulers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import Optimizer, lr_scheduler

from ._case import OptimizerCase, copies, frozen, network, parameters, same, set_grads, steps, values

SCHEDULERS: dict[str, Callable[[Optimizer], Any]] = {
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2, 0.5),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 0.9**epoch),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.8),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 5),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.05, total_steps=8, cycle_momentum=False),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o, 0.1, 2), lr_scheduler.ExponentialLR(o, 0.9)], [2]
    ),
}


class Groups:
    """Groups tests param groups, and what changes in them during a training."""

    def test_groups_equal_separate_optimizers(self, case: OptimizerCase) -> None:
        case.skip_if_together()
        params = parameters((4,), (3, 2), (5,))
        other = copies(params)
        options: list[dict[str, Any]] = [{"lr": 0.05}, {"maximize": True}, {}]
        if case.hyper is not None:
            options[1][case.hyper] = case.values[1]
            options[0][case.hyper] = case.values[0]
        together = case([{"params": [p], **option} for p, option in zip(params, options, strict=True)])
        apart = [case([p], **option) for p, option in zip(other, options, strict=True)]
        for i in range(5):
            set_grads(params, seed=i)
            set_grads(other, seed=i)
            together.step()
            for optimizer in apart:
                optimizer.step()
        assert same(params, other)

    def test_hyperparameters_are_keys_of_the_group(self, case: OptimizerCase) -> None:
        if case.hyper is None:
            pytest.skip("the optimizer has lr only")
        params = parameters()
        optimizer = case([{"params": params[:1], case.hyper: case.values[1]}, {"params": params[1:]}])
        assert optimizer.param_groups[0][case.hyper] == case.values[1]
        assert optimizer.param_groups[1][case.hyper] == optimizer.defaults[case.hyper]

    def test_group_values_are_read_at_every_step(self, case: OptimizerCase) -> None:
        params = parameters()
        optimizer = case(params)
        steps(optimizer, params, 2)
        for group in optimizer.param_groups:
            group["lr"] = 0.0
        before = values(params)
        steps(optimizer, params, 1)
        assert same(params, before)
        for group in optimizer.param_groups:
            group["lr"] = case.lr
        steps(optimizer, params, 1)
        assert not same(params, before)

    def test_maximize(self, case: OptimizerCase) -> None:
        params = parameters()
        other = copies(params)
        up, down = case(params, maximize=True), case(other)
        for i in range(4):
            set_grads(params, seed=i)
            set_grads(other, seed=i, scale=-1.0)
            up.step()
            down.step()
        assert same(params, other)
        up.param_groups[0]["maximize"] = False
        steps(up, params, 2)
        steps(down, other, 2)
        assert same(params, other)

    def test_add_param_group(self, case: OptimizerCase) -> None:
        case.skip_if_together()
        params, late = parameters(), parameters((6,), seed=3)
        optimizer = case(params)
        steps(optimizer, params, 2)
        optimizer.add_param_group({"params": late, "lr": 0.5 * case.lr})
        expected = copies(late)
        alone = case(expected, lr=0.5 * case.lr)
        steps(optimizer, [*late, *params], 2)
        steps(alone, expected, 2)
        assert same(late, expected)
        assert [float(optimizer.state[p]["step"]) for p in (params[0], late[0])] == [4.0, 2.0]
        with pytest.raises(ValueError, match="more than one parameter group"):
            optimizer.add_param_group({"params": late})

    def test_a_parameter_is_replaced(self, case: OptimizerCase) -> None:
        """Programs that add or drop rows do so: another tensor takes the place, and its state is edited."""
        params = parameters((3,), (4,))
        optimizer = case(params)
        steps(optimizer, params, 2)
        old = params[0]
        new = torch.cat([old.detach(), torch.zeros(1)]).requires_grad_()
        state = optimizer.state.pop(old)
        optimizer.state[new] = {
            k: torch.cat([v, torch.zeros(1)]) if v.shape == old.shape else v for k, v in state.items()
        }
        optimizer.param_groups[0]["params"][0] = params[0] = new
        expected = copies(params)
        other = case(expected)
        other.load_state_dict(frozen(optimizer.state_dict()))
        steps(optimizer, params, 2)
        steps(other, expected, 2)
        assert same(params, expected)

    def test_state_is_cleared(self, case: OptimizerCase) -> None:
        for clear in (lambda o: o.state.clear(), lambda o: setattr(o, "state", type(o.state)(dict))):
            params = parameters()
            optimizer = case(params)
            steps(optimizer, params, 3)
            clear(optimizer)
            expected = copies(params)
            steps(optimizer, params, 2)
            steps(case(expected), expected, 2)
            assert same(params, expected)

    def test_state_is_edited(self, case: OptimizerCase) -> None:
        """The next step starts from state tensors that somebody has replaced or written to."""
        params = parameters()
        expected = copies(params)
        optimizer, other = case(params), case(expected)
        for o, ps in ((optimizer, params), (other, expected)):
            steps(o, ps, 3)
        for p in params:
            optimizer.state[p] = {k: v.clone() for k, v in optimizer.state[p].items()}
            for value in optimizer.state[p].values():
                value.fill_(1.0)
        for p in expected:
            for value in other.state[p].values():
                value.fill_(1.0)
        steps(optimizer, params, 2)
        steps(other, expected, 2)
        assert same(params, expected)
        assert float(optimizer.state[params[0]]["step"]) == 3.0

    def test_named_parameters(self, case: OptimizerCase) -> None:
        net = network()
        optimizer = case(net.named_parameters())
        names = [name for name, _ in net.named_parameters()]
        assert optimizer.param_groups[0]["param_names"] == names
        assert optimizer.state_dict()["param_groups"][0]["param_names"] == names
        steps(optimizer, list(net.parameters()), 1)

    def test_tensor_lr_is_kept_and_read(self, case: OptimizerCase) -> None:
        lr = torch.tensor(case.lr, dtype=torch.float64)
        params = parameters()
        other = copies(params)
        optimizer, expected = case(params, lr=lr), case(other)
        for value in (case.lr, 0.5 * case.lr, 0.0):
            lr.fill_(value)
            expected.param_groups[0]["lr"] = value
            steps(optimizer, params, 1)
            steps(expected, other, 1)
            assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in zip(params, other, strict=True))
        assert optimizer.param_groups[0]["lr"] is lr

    @pytest.mark.parametrize("name", SCHEDULERS)
    def test_schedulers(self, case: OptimizerCase, name: str) -> None:
        """A scheduler does what setting lr by hand does, with a number and with a tensor."""
        params = parameters((4,), (3,))
        other = copies(params)
        optimizer = case([{"params": params[:1]}, {"params": params[1:], "lr": 2 * case.lr}])
        by_hand = case([{"params": other[:1]}, {"params": other[1:]}])
        scheduler = SCHEDULERS[name](optimizer)
        for i in range(6):
            for group, own in zip(optimizer.param_groups, by_hand.param_groups, strict=True):
                own["lr"] = float(group["lr"])
            steps(optimizer, params, 1, i)
            steps(by_hand, other, 1, i)
            scheduler.step()
        assert same(params, other)

    @pytest.mark.parametrize("name", SCHEDULERS)
    def test_schedulers_with_tensor_lr(self, case: OptimizerCase, name: str) -> None:
        lr = torch.tensor(case.lr)
        params = parameters((4,))
        optimizer = case(params, lr=lr)
        scheduler = SCHEDULERS[name](optimizer)
        seen = set()
        for i in range(6):
            steps(optimizer, params, 1, i)
            scheduler.step()
            seen.add(float(optimizer.param_groups[0]["lr"]))
        assert optimizer.param_groups[0]["lr"] is lr
        assert len(seen) > 1
