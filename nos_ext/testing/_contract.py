"""Owns the tests of step(): closures, hooks, flags, refused input, compilation."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from ._case import (
    OptimizerCase,
    backward,
    copies,
    loss_of,
    network,
    parameters,
    same,
    set_grads,
    state_of,
    steps,
    values,
)


class Contract:
    """Contract tests what torch.optim.Optimizer promises of step() and the constructor."""

    def test_is_a_torch_optimizer(self, case: OptimizerCase) -> None:
        optimizer = case(parameters())
        assert isinstance(optimizer, torch.optim.Optimizer)
        assert inspect.isfunction(type(optimizer).step)
        assert getattr(type(optimizer).step, "hooked", False)
        assert case.name not in (None, "")
        assert "lr" in optimizer.defaults
        assert "Parameter Group 0" in repr(optimizer)

    def test_params_may_be_a_generator(self, case: OptimizerCase) -> None:
        net = network()
        optimizer = case(net.parameters())
        assert len(optimizer.param_groups[0]["params"]) == 4

    @pytest.mark.parametrize(
        ("params", "error", "message"),
        [
            (torch.zeros(2), TypeError, "should be an iterable"),
            ([], ValueError, "empty parameter list"),
            ([torch.zeros(2, requires_grad=True) * 2], ValueError, "can't optimize a non-leaf Tensor"),
            ([3.0], TypeError, "can only optimize Tensors"),
        ],
        ids=["tensor", "empty", "non-leaf", "number"],
    )
    def test_bad_params(self, case: OptimizerCase, params: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            case(params)

    def test_bad_lr(self, case: OptimizerCase) -> None:
        with pytest.raises(ValueError, match="Invalid learning rate"):
            case(parameters(), lr=-1e-3)
        with pytest.raises(ValueError, match="Tensor lr must be 1-element"):
            case(parameters(), lr=torch.tensor([0.1, 0.2]))

    def test_refused_flags(self, case: OptimizerCase) -> None:
        for name in case.refuses:
            with pytest.raises(ValueError, match=name):
                case(parameters(), **{name: True})

    def test_loss_goes_down(self, case: OptimizerCase) -> None:
        net = network()
        optimizer = case(net.parameters())
        before = loss_of(net).item()
        for _ in range(60):
            optimizer.zero_grad()
            backward(loss_of(net))
            optimizer.step()
        assert loss_of(net).item() < before - 0.02

    def test_step_returns_nothing_without_a_closure(self, case: OptimizerCase) -> None:
        params = parameters()
        set_grads(params)
        optimizer = case(params)
        result: Any = optimizer.step  # mypy knows that it returns None
        assert result() is None

    def test_closure(self, case: OptimizerCase) -> None:
        net, other = network(), network()
        optimizer, expected = case(net.parameters()), case(other.parameters())

        def closure() -> float:
            assert torch.is_grad_enabled()
            optimizer.zero_grad()
            loss = loss_of(net)
            backward(loss)
            return loss.item()

        for _ in range(3):
            with torch.no_grad():
                loss = optimizer.step(closure)
            assert loss == loss_of_and_step(other, expected)
        assert same(list(net.parameters()), list(other.parameters()))

    def test_hooks_run_around_the_step(self, case: OptimizerCase) -> None:
        params = parameters()
        set_grads(params)
        optimizer = case(params)
        seen: list[Any] = []
        pre = optimizer.register_step_pre_hook(lambda o, args, kwargs: seen.append(("pre", values(params))))
        post = optimizer.register_step_post_hook(lambda o, args, kwargs: seen.append(("post", values(params))))
        before = values(params)
        optimizer.step()
        assert [name for name, _ in seen] == ["pre", "post"]
        assert same(seen[0][1], before)
        assert same(seen[1][1], values(params))
        assert not same(before, values(params))
        pre.remove()
        post.remove()
        optimizer.step()
        assert len(seen) == 2

    def test_hooks_of_all_optimizers(self, case: OptimizerCase) -> None:
        """The hooks of all optimizers are the outermost. A hook can replace the arguments of step()."""
        params = parameters()
        set_grads(params)
        optimizer = case(params)
        seen: list[str] = []

        def note(what: str) -> Any:
            return lambda o, args, kwargs: seen.append(what)

        hooks = [
            optimizer.register_step_pre_hook(note("pre")),
            optimizer.register_step_post_hook(note("post")),
            register_optimizer_step_pre_hook(note("all pre")),
            register_optimizer_step_post_hook(note("all post")),
        ]
        try:
            optimizer.step()
        finally:
            for hook in hooks:
                hook.remove()
        assert seen == ["all pre", "pre", "post", "all post"]
        optimizer.step()
        assert len(seen) == 4
        optimizer.register_step_pre_hook(lambda o, args, kwargs: ((o, lambda: 7.0), kwargs))
        result: Any = optimizer.step
        assert result() == 7.0

    def test_profiler_label(self, case: OptimizerCase) -> None:
        params = parameters()
        set_grads(params)
        optimizer = case(params)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            optimizer.step()
            optimizer.zero_grad()
        names = {event.key for event in profile.key_averages()}
        label = type(optimizer).__name__
        assert {f"Optimizer.step#{label}.step", f"Optimizer.zero_grad#{label}.zero_grad"} <= names

    def test_params_without_gradient_are_left_alone(self, case: OptimizerCase) -> None:
        params = parameters()
        optimizer = case(params)
        optimizer.step()  # no gradient at all
        assert not any(optimizer.state.get(p) for p in params)
        params[1].requires_grad_(False)
        before = values(params)
        set_grads([params[0], params[2]])
        optimizer.step()
        assert torch.equal(params[1], before[1])
        assert not optimizer.state.get(params[1])
        assert not torch.equal(params[0], before[0])

    def test_step_counts_for_each_parameter(self, case: OptimizerCase) -> None:
        """If a parameter's gradient is missing at some steps, it is as if these steps had not been."""
        case.skip_if_together()
        params = parameters((3,), (3,))
        alone = copies(params[1:])
        optimizer, expected = case(params), case(alone)
        for i in range(6):
            set_grads(params, seed=i)
            if i in (0, 3):
                params[1].grad = None
            else:
                assert params[1].grad is not None
                alone[0].grad = params[1].grad.clone()
                expected.step()
            optimizer.step()
        assert [float(optimizer.state[p]["step"]) for p in params] == [6.0, 4.0]
        assert torch.equal(params[1], alone[0])

    def test_sparse_gradients_are_refused(self, case: OptimizerCase) -> None:
        params = parameters((4, 3), (5,))
        set_grads(params)
        params[0].grad = torch.sparse_coo_tensor(torch.tensor([[1]]), torch.ones(1, 3), (4, 3))
        optimizer = case(params)
        before = values(params)
        with pytest.raises(RuntimeError, match="does not support sparse gradients"):
            optimizer.step()
        assert torch.equal(params[0], before[0])

    def test_parameters_without_memory(self, case: OptimizerCase) -> None:
        """On the meta device states are made and steps are counted."""
        p = torch.empty(3, 4, device="meta").requires_grad_()
        p.grad = torch.empty(3, 4, device="meta")
        optimizer = case([p])
        optimizer.step()
        optimizer.step()
        assert float(optimizer.state[p]["step"]) == 2.0
        for name in case.states:
            state = optimizer.state[p][name]
            assert (state.shape, state.dtype, state.device) == (case.shape_of(name, p), p.dtype, p.device)

    def test_zero_grad(self, case: OptimizerCase) -> None:
        params = parameters()
        set_grads(params)
        optimizer = case(params)
        optimizer.zero_grad(set_to_none=False)
        assert all(p.grad is not None and not p.grad.any() for p in params)
        optimizer.zero_grad()
        assert all(p.grad is None for p in params)

    def test_autograd_notices_the_update(self, case: OptimizerCase) -> None:
        p = torch.ones(3, requires_grad=True)
        optimizer = case([p])
        loss = (p * p).sum()
        p.grad = torch.ones(3)
        optimizer.step()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            backward(loss)

    def test_gradients_are_not_written(self, case: OptimizerCase) -> None:
        params = parameters()
        optimizer = case(params)
        set_grads(params)
        before = [p.grad.clone() for p in params if p.grad is not None]
        optimizer.step()
        assert same([p.grad for p in params if p.grad is not None], before)

    def test_gradients_with_a_graph(self, case: OptimizerCase) -> None:
        """create_graph=True leaves gradients that require grad; a step takes their values."""
        params = parameters((3,))
        other = copies(params)
        for p in (params[0], other[0]):
            backward((p**3).sum(), create_graph=p is params[0])
        first, second = case(params), case(other)
        first.step()
        second.step()
        assert same(params, other)
        assert params[0].grad_fn is None
        assert not any(s.requires_grad for s in state_of(first))
        params[0].grad = None  # breaks the reference cycle that create_graph made

    def test_deterministic(self, case: OptimizerCase) -> None:
        params = parameters()
        other = copies(params)
        steps(case(params), params, 4)
        steps(case(other), other, 4)
        assert same(params, other)

    @pytest.mark.slow
    def test_compiled_training_step(self, case: OptimizerCase) -> None:
        """A training step under torch.compile computes what the eager one does."""
        torch.compiler.reset()
        net, other = network(), network()
        optimizer, expected = case(net.parameters()), case(other.parameters())

        def train() -> torch.Tensor:
            optimizer.zero_grad()
            loss = loss_of(net)
            backward(loss)
            optimizer.step()
            return loss

        compiled = torch.compile(train, backend="eager")
        for _ in range(3):
            assert compiled().item() == pytest.approx(loss_of_and_step(other, expected), rel=1e-5)
        for p, q in zip(net.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


def loss_of_and_step(net: torch.nn.Module, optimizer: torch.optim.Optimizer) -> float:
    """Takes one ordinary training step and returns the loss before it."""
    optimizer.zero_grad()
    loss = loss_of(net)
    backward(loss)
    optimizer.step()
    return loss.item()
