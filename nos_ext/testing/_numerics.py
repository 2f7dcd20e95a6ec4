"""Owns the tests of shapes, strides, dtypes and precision."""

from __future__ import annotations

import pytest
import torch

from ._case import OptimizerCase, copies, parameters, same, set_grads, steps, values


class Numerics:
    """Numerics tests that the update is the same whatever the tensors look like."""

    def test_odd_shapes(self, case: OptimizerCase) -> None:
        """Empty tensors, scalars and single elements may stand anywhere in the list."""
        params = parameters((0,), (3,), (), (2, 0, 3), (1,), (0,))
        before = values(params)
        steps(case(params), params, 2)
        for p, old in zip(params, before, strict=True):
            assert p.numel() == 0 or not torch.equal(p, old)

    def test_one_tensor_equals_its_pieces(self, case: OptimizerCase) -> None:
        if case.spans == "tensor":
            pytest.skip("the update depends on how elements are divided into parameters")
        whole = parameters((30,))
        pieces = [part.clone().requires_grad_() for part in torch.split(whole[0].detach(), [7, 0, 1, 22])]
        first, second = case(whole), case(pieces)
        for i in range(3):
            set_grads(whole, seed=i)
            assert whole[0].grad is not None
            for piece, grad in zip(pieces, torch.split(whole[0].grad, [7, 0, 1, 22]), strict=True):
                piece.grad = grad.clone()
            first.step()
            second.step()
        torch.testing.assert_close(whole[0].detach(), torch.cat(values(pieces)), rtol=1e-6, atol=1e-7)

    @pytest.mark.parametrize("which", ["param", "grad", "both"])
    def test_strides(self, case: OptimizerCase, which: str) -> None:
        """channels_last and transposed memory give what contiguous memory gives, and no parameter moves."""
        if which != "both" and not case.any_strides:
            pytest.skip("needs gradients of the parameters' strides")
        plain = parameters((2, 3, 4, 5), (6, 7))
        odd = copies(plain)
        if which != "grad":
            odd[0] = odd[0].detach().contiguous(memory_format=torch.channels_last).requires_grad_()
            odd[1] = odd[1].detach().t().contiguous().t().requires_grad_()
        addresses = [p.data_ptr() for p in odd]
        strides = [p.stride() for p in odd]
        first, second = case(plain), case(odd)
        for i in range(3):
            set_grads(plain, seed=i)
            for p, q in zip(plain, odd, strict=True):
                assert p.grad is not None
                q.grad = p.grad.clone()
            if which != "param":
                assert odd[0].grad is not None
                assert odd[1].grad is not None
                odd[0].grad = odd[0].grad.contiguous(memory_format=torch.channels_last)
                odd[1].grad = odd[1].grad.t().contiguous().t()
            first.step()
            second.step()
        for p, q in zip(plain, odd, strict=True):
            torch.testing.assert_close(p.detach(), q.detach(), rtol=1e-6, atol=1e-7)
        assert [p.data_ptr() for p in odd] == addresses
        assert [p.stride() for p in odd] == strides

    def test_parameters_with_gaps(self, case: OptimizerCase) -> None:
        """Slices of larger tensors are trained like tensors of their own, and what is around them stays."""
        memory = torch.randn(6, 8, 2, generator=torch.Generator().manual_seed(2))
        around = memory.clone()
        odd = [memory[:, :3, 0].requires_grad_(), memory[::2, 5, 1].requires_grad_()]
        plain = copies([p.detach().contiguous() for p in odd])
        first, second = case(odd), case([p.requires_grad_() for p in plain])
        steps(first, odd, 3)
        steps(second, plain, 3)
        for p, q in zip(odd, plain, strict=True):
            torch.testing.assert_close(p.detach(), q.detach(), rtol=1e-6, atol=1e-7)
        memory[:, :3, 0] = memory[::2, 5, 1] = 0
        around[:, :3, 0] = around[::2, 5, 1] = 0
        assert torch.equal(memory, around)

    def test_expanded_parameters_are_refused(self, case: OptimizerCase) -> None:
        p = torch.randn(3, 1).expand(3, 4).requires_grad_()
        p.grad = torch.ones(3, 4)
        before = values([p])
        optimizer = case([p])
        with pytest.raises(RuntimeError, match=r"clone\(\)"):
            optimizer.step()
        assert same([p], before)

    def test_the_model_becomes_channels_last(self, case: OptimizerCase) -> None:
        """The model may go to(memory_format=torch.channels_last) between two steps."""
        net, twin = torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(3, 4, 3)
        twin.load_state_dict(net.state_dict())
        params, others = list(net.parameters()), list(twin.parameters())
        first, second = case(params), case(others)
        steps(first, params, 2)
        steps(second, others, 2)
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for i in range(2):
            set_grads(params, seed=i)
            set_grads(others, seed=i)
            first.step()
            second.step()
        for p, q in zip(params, others, strict=True):
            torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
    def test_other_dtypes_follow_float32(self, case: OptimizerCase, dtype: torch.dtype) -> None:
        """A few steps stay within the roundings of the parameter's dtype of the same steps in float64."""
        params = parameters((50,), dtype=dtype)
        exact = [p.detach().double().requires_grad_() for p in params]
        first, second = case(params), case(exact)
        for i in range(3):
            set_grads(params, seed=i)
            assert params[0].grad is not None
            exact[0].grad = params[0].grad.double()
            first.step()
            second.step()
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(params[0].detach().double(), exact[0].detach(), rtol=8 * eps, atol=4 * eps)

    def test_mixed_dtypes_in_one_optimizer(self, case: OptimizerCase) -> None:
        case.skip_if_together()
        dtypes = (torch.float32, torch.bfloat16, torch.float64, torch.float16)
        mixed = [parameters((9,), dtype=dtype)[0] for dtype in dtypes]
        apart = copies(mixed)
        together = case(mixed)
        steps(together, mixed, 1)
        set_grads(mixed, seed=7)
        for p, q in zip(mixed, apart, strict=True):
            single = case([q])
            for grad in (None, p.grad):
                if grad is None:  # the gradient of the first step
                    index = next(i for i, m in enumerate(mixed) if m is p)
                    make = torch.Generator().manual_seed(100)
                    draws = [torch.randn(9, generator=make) for _ in mixed]
                    q.grad = draws[index].to(q.dtype)
                else:
                    q.grad = grad.clone()
                single.step()
        together.step()
        assert same(mixed, apart)

    def test_default_dtype(self, case: OptimizerCase) -> None:
        """torch.set_default_dtype does not reach into the update."""
        params = parameters()
        expected = copies(params)
        steps(case(expected), expected, 3)
        before = torch.get_default_dtype()
        grads = parameters(seed=0)
        try:
            torch.set_default_dtype(torch.float64)
            optimizer = case(params)
            for i in range(3):
                make = torch.Generator().manual_seed(100 + i)
                for p, like in zip(params, grads, strict=True):
                    p.grad = torch.randn(like.shape, generator=make, dtype=torch.float32)
                optimizer.step()
        finally:
            torch.set_default_dtype(before)
        assert same(params, expected)

    def test_nan_goes_through(self, case: OptimizerCase) -> None:
        """A NaN gradient shows in its own element, and in those that depend on it, but nowhere else."""
        params = parameters((5,), (2,))
        set_grads(params)
        assert params[0].grad is not None
        params[0].grad[2] = float("nan")
        case(params).step()
        others = case.spans != "element"
        assert params[0].isnan().tolist() == [others, others, True, others, others]
        assert params[1].isnan().tolist() == [case.spans == "all"] * 2

    def test_parameter_data_is_replaced(self, case: OptimizerCase) -> None:
        """After p.data = ... between two steps, the new memory is updated."""
        params = parameters((5,), (3,))
        other = copies(params)
        first, second = case(params), case(other)
        steps(first, params, 2)
        steps(second, other, 2)
        params[0].data = params[0].data.clone()
        steps(first, params, 2)
        steps(second, other, 2)
        assert same(params, other)
