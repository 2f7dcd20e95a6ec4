"""Owns the tests of what surrounds step() in a training: gradient scaling, clipping, accumulation."""

from __future__ import annotations

import pytest
import torch

from ._case import (
    OptimizerCase,
    backward,
    copies,
    frozen,
    grads_of,
    loss_of,
    network,
    parameters,
    same,
    set_grads,
    state_of,
    steps,
    values,
)


class Training:
    """Training tests GradScaler, clipping and accumulation."""

    def test_grad_scaler_equals_plain_training(self, case: OptimizerCase) -> None:
        """Scales are powers of two, so that scaled training gives the same bits."""
        net, other = network(), network()
        optimizer, expected = case(net.parameters()), case(other.parameters())
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        for _ in range(4):
            optimizer.zero_grad()
            backward(scaler.scale(loss_of(net)))
            scaler.step(optimizer)
            scaler.update()
            expected.zero_grad()
            backward(loss_of(other))
            expected.step()
        for p, q in zip(net.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)

    def test_a_step_with_infinities_is_skipped(self, case: OptimizerCase) -> None:
        params = parameters()
        optimizer = case(params)
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        scaler.scale(torch.zeros(()))  # makes its tensors
        set_grads(params, scale=8.0)
        scaler.step(optimizer)
        scaler.update()
        before, state = values(params), [s.clone() for s in state_of(optimizer)]
        set_grads(params)
        assert params[0].grad is not None
        params[0].grad.view(-1)[1] = float("inf")
        scaler.step(optimizer)
        scaler.update()
        assert same(params, before)
        assert same(state_of(optimizer), state)
        assert scaler.get_scale() == 4.0
        set_grads(params, scale=4.0)
        scaler.step(optimizer)
        scaler.update()
        assert float(optimizer.state[params[0]]["step"]) == 2.0
        assert not hasattr(optimizer, "grad_scale")

    def test_grad_scaler_unscales_unless_fused_is_asked_for(self, case: OptimizerCase) -> None:
        """Trainers rely on it that clip gradients between unscaling and step()."""
        assert not getattr(case(parameters()), "_step_supports_amp_scaling", False)

    @pytest.mark.parametrize("fused", [False, True])
    def test_grad_scaler_leaves_gradients_unscaled(self, case: OptimizerCase, fused: bool) -> None:
        """After scaler.step() gradients can be looked at, logged and reused, whoever unscaled them."""
        if fused and not case.amp:
            pytest.skip("the optimizer leaves unscaling to GradScaler")
        params = parameters()
        optimizer = case(params, fused=True) if fused else case(params)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        scaler.scale(torch.zeros(()))  # makes its tensors
        for found in (False, True, False):
            set_grads(params, seed=3, scale=scaler.get_scale())
            expected = [grad / scaler.get_scale() for grad in grads_of(params)]
            if found:
                for grad in grads_of(params):
                    grad.view(-1)[0] = float("inf")
            before = values(params)
            scaler.step(optimizer)
            scaler.update()
            assert same(params, before) == found
            if not found:
                assert same(grads_of(params), expected)

    def test_grad_scale_and_found_inf(self, case: OptimizerCase) -> None:
        """GradScaler sets these attributes for optimizers that unscale by themselves."""
        if not case.amp:
            pytest.skip("the optimizer leaves unscaling to GradScaler")
        params = parameters()
        other = copies(params)
        optimizer, expected = case(params, fused=True), case(other, fused=True)
        assert optimizer._step_supports_amp_scaling  # type: ignore[attr-defined]
        for found in (0.0, 1.0, 0.0):
            set_grads(params, seed=3, scale=16.0)
            set_grads(other, seed=3)
            before = frozen(optimizer.state_dict())
            optimizer.grad_scale = torch.tensor(16.0)  # type: ignore[attr-defined]
            optimizer.found_inf = torch.tensor(found)  # type: ignore[attr-defined]
            optimizer.step()
            if found:
                assert optimizer.state_dict()["state"].keys() == before["state"].keys()
                assert same(grads_of(params), [16.0 * grad for grad in grads_of(other)])
            else:
                expected.step()
                assert same(grads_of(params), grads_of(other))
            del optimizer.__dict__["grad_scale"], optimizer.__dict__["found_inf"]
            assert same(params, other)

    def test_unscale_and_clip(self, case: OptimizerCase) -> None:
        net, other = network(), network()
        optimizer, expected = case(net.parameters()), case(other.parameters())
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
        for _ in range(3):
            optimizer.zero_grad()
            backward(scaler.scale(loss_of(net)))
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(net.parameters(), 0.05)
            scaler.step(optimizer)
            scaler.update()
            expected.zero_grad()
            backward(loss_of(other))
            torch.nn.utils.clip_grad_norm_(other.parameters(), 0.05)
            expected.step()
        for p, q in zip(net.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)

    def test_accumulated_gradients(self, case: OptimizerCase) -> None:
        params = parameters()
        other = copies(params)
        optimizer, expected = case(params), case(other)
        for _ in range(2):
            optimizer.zero_grad()
            for _ in range(2):
                backward(torch.stack([(p**2).sum() for p in params]).sum())
            optimizer.step()
            expected.zero_grad()
            backward(2 * torch.stack([(p**2).sum() for p in other]).sum())
            expected.step()
        for p, q in zip(params, other, strict=True):
            torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-6)

    def test_a_frozen_layer_thaws(self, case: OptimizerCase) -> None:
        case.skip_if_together()
        params = parameters((3,), (4,))
        params[1].requires_grad_(False)
        optimizer = case(params)
        steps(optimizer, params[:1], 3)
        params[1].requires_grad_(True)
        expected = copies(params[1:])
        steps(optimizer, params[::-1], 2)
        steps(case(expected), expected, 2)
        assert torch.equal(params[1], expected[0])

    def test_inference_mode(self, case: OptimizerCase) -> None:
        """A first step under no_grad leaves state that later steps can use."""
        params = parameters()
        optimizer = case(params)
        with torch.no_grad():
            steps(optimizer, params, 1)
        steps(optimizer, params, 1)
        assert float(optimizer.state[params[0]]["step"]) == 2.0
