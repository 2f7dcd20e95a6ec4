"""Parameters with gaps in memory, and layouts that change between steps: the bits are those of dense memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

import nos_ext
from nos_ext.optim import PowerSign, RuleOptimizer, library
from nos_ext.optim._grads import check_param
from nos_ext.testing._case import same, state_of, values

# Each makes a parameter with gaps from memory of its own.
GAPS: dict[str, Callable[[], torch.Tensor]] = {
    "columns": lambda: torch.randn(6, 8)[:, :3],
    "last of three": lambda: torch.randn(10, 5, 2)[..., 0],
    "every other": lambda: torch.randn(12)[::2],
    "transposed columns": lambda: torch.randn(8, 6)[:3].t()[:, 1:],
    "diagonal": lambda: torch.randn(5, 5).diagonal(),
    "channels last": lambda: torch.randn(2, 6, 4, 4).contiguous(memory_format=torch.channels_last)[:, :3],
}
OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "powersign": lambda p: PowerSign(p, lr=0.1, weight_decay=0.1),
    "adamw": lambda p: RuleOptimizer(p, library.adamw, lr=0.01),
    "random": lambda p: RuleOptimizer(p, "drop(g, 0.5) + normal(0.1)", lr=0.1, seed=4),
}


def pair(gap: str, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    """A parameter with gaps, and one with the same values in dense memory."""
    torch.manual_seed(3)
    values = GAPS[gap]()
    memory = torch.zeros(values.untyped_storage().nbytes() // values.element_size(), dtype=dtype)
    odd = memory.as_strided(values.shape, values.stride(), values.storage_offset()).copy_(values)
    dense = torch.empty_like(odd).copy_(odd)
    assert not odd.is_contiguous()
    return odd.requires_grad_(), dense.requires_grad_()


def grads(like: torch.Tensor, step: int) -> torch.Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(step)).to(like.dtype)


@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_gaps_give_the_bits_of_dense_memory(gap: str, name: str, dtype: torch.dtype) -> None:
    odd, dense = pair(gap, dtype)
    around = torch.as_strided(odd.detach(), (odd.untyped_storage().nbytes() // odd.element_size(),), (1,), 0).clone()
    other = torch.randn(4).requires_grad_()
    twin = other.detach().clone().requires_grad_()
    first, second = OPTIMIZERS[name]([other, odd]), OPTIMIZERS[name]([twin, dense])
    for step in range(4):
        for p, q in ((odd, dense), (other, twin)):
            p.grad, q.grad = grads(p, step), grads(q, step)
        if step == 2:
            odd.grad = dense.grad = None
        version = odd._version
        first.step()
        second.step()
        assert (odd._version > version) == (step != 2)
        assert torch.equal(odd, dense)
        assert torch.equal(other, twin)
    assert same(state_of(first), state_of(second))
    assert all(s.is_contiguous() or s.stride() == dense.stride() for s in state_of(first))
    memory = torch.as_strided(odd.detach(), around.shape, (1,), 0).clone()
    torch.as_strided(memory, odd.shape, odd.stride(), odd.storage_offset()).fill_(0)
    torch.as_strided(around, odd.shape, odd.stride(), odd.storage_offset()).fill_(0)
    assert torch.equal(memory, around)  # nothing was written between the elements


def test_an_ordinary_training_of_a_slice() -> None:
    """Autograd's own gradients, and a checkpoint in between."""
    torch.manual_seed(0)
    memory = torch.randn(4, 6)
    sliced = torch.nn.Parameter(memory[:, :3])
    dense = torch.nn.Parameter(memory[:, :3].clone())
    x, y = torch.randn(8, 3), torch.randn(8, 4)
    first, second = PowerSign([sliced]), PowerSign([dense])
    for i in range(6):
        for p, o in ((sliced, first), (dense, second)):
            o.zero_grad()
            torch.autograd.backward((x @ p.t() - y).square().mean())
            o.step()
        assert torch.equal(sliced, dense)
        if i == 2:
            saved = first.state_dict()
            first = PowerSign([sliced])
            first.load_state_dict(saved)
    assert torch.equal(memory[:, :3], dense)


def test_slices_of_one_tensor_and_slices_that_overlap() -> None:
    memory = torch.randn(4, 6)
    left, right = memory[:, :3].requires_grad_(), memory[:, 3:].requires_grad_()
    parts = [left.detach().clone().requires_grad_(), right.detach().clone().requires_grad_()]
    together, apart = PowerSign([left, right]), PowerSign(parts)
    for ps, o in (([left, right], together), (parts, apart)):
        for step, p in enumerate(ps):
            p.grad = grads(p, step)
        o.step()
    assert same([left, right], parts)
    overlapping = [memory[:, :4].requires_grad_(), memory[:, 3:].requires_grad_()]
    for p in overlapping:
        p.grad = torch.ones(p.shape)
    before = memory.clone()
    optimizer = PowerSign(overlapping)
    with pytest.raises(ValueError, match="cannot write to parameter 1: it shares memory with parameter 0"):
        optimizer.step()
    assert torch.equal(memory, before)
    assert not optimizer.state


@pytest.mark.parametrize(
    "make",
    [lambda: torch.randn(3, 1).expand(3, 4), lambda: torch.randn(6).as_strided((3, 4), (1, 1))],
    ids=["expanded", "as_strided"],
)
def test_several_elements_in_one_place_are_refused(make: Callable[[], torch.Tensor]) -> None:
    p, plain = make().requires_grad_(), torch.randn(2).requires_grad_()
    p.grad, plain.grad = torch.ones(3, 4), torch.ones(2)
    before = values([p, plain])
    optimizer = PowerSign([plain, p])
    with pytest.raises(RuntimeError, match=r"PowerSign cannot write to parameter 1: its shape \(3, 4\) with strides"):
        optimizer.step()
    assert same([p, plain], before)
    assert not optimizer.state


def test_apply_rule_keeps_refusing_gaps() -> None:
    p = torch.randn(4, 6)[:, :3]
    with pytest.raises(ValueError, match=r"params\[0\] has gaps"):
        nos_ext.apply_rule(nos_ext.compile_rule("g"), [p], [torch.ones(4, 3)], [], lr=0.1)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_model_that_becomes_channels_last(name: str) -> None:
    """After the first step, and back: the states follow, with their values."""
    torch.manual_seed(1)
    net, twin = torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(3, 4, 3)
    twin.load_state_dict(net.state_dict())
    x = torch.randn(2, 3, 8, 8)
    first, second = OPTIMIZERS[name](net.parameters()), OPTIMIZERS[name](twin.parameters())
    for step in range(6):
        if step in (2, 4):
            net.to(memory_format=torch.channels_last if step == 2 else torch.contiguous_format)
            states = state_of(first)
        second.zero_grad()
        torch.autograd.backward(twin(x).square().mean())
        for p, q in zip(net.parameters(), twin.parameters(), strict=True):
            assert q.grad is not None
            p.grad = torch.empty_like(p).copy_(q.grad)
        first.step()
        second.step()
        if name != "random":  # whose draws are numbered in the order of memory
            for p, q in zip(net.parameters(), twin.parameters(), strict=True):
                assert torch.equal(p, q)
        for p in net.parameters():
            assert all(v.stride() == p.stride() for k, v in first.state[p].items() if k != "step")
        if step in (2, 4):
            assert all(a is b for a, b in zip(state_of(first), states, strict=True))


def test_memory_that_is_replaced_by_a_slice_and_back() -> None:
    p, q = torch.randn(4, 3).requires_grad_(), torch.zeros(4, 3).requires_grad_()
    q.data.copy_(p)
    first, second = PowerSign([p]), PowerSign([q])
    for step in range(6):
        if step == 2:
            p.data = torch.zeros(4, 7)[:, :3].copy_(p)
        if step == 4:
            p.data = p.detach().contiguous()
        for x, o in ((p, first), (q, second)):
            x.grad = grads(x, step)
            o.step()
        assert torch.equal(p, q)
    p.data = torch.zeros(4, 9)[:, :5]
    p.grad = torch.ones(4, 5)
    with pytest.raises(ValueError, match=r"state\['m'\]\[0\] has shape \(4, 3\) but params\[0\] has \(4, 5\)"):
        first.step()


def test_overlap_is_judged_in_bytes_across_dtypes() -> None:
    buffer = torch.zeros(64, dtype=torch.uint8)
    wide = buffer.view(torch.float32)[::2]  # bytes 0 to 3 of every 8
    apart = buffer.view(torch.bfloat16)[2::4]  # bytes 4 and 5 of every 8
    across = buffer.view(torch.bfloat16)[1::4]  # bytes 2 and 3 of every 8
    for i, p in enumerate([wide, apart, across]):
        p.copy_(torch.ones(8))
        p.requires_grad_().grad = torch.full((8,), 0.5 + i, dtype=p.dtype)
    for order in ([wide, across], [across, wide]):
        before = buffer.clone()
        with pytest.raises(ValueError, match="cannot write to parameter 1: it shares memory with parameter 0"):
            PowerSign(order).step()
        assert torch.equal(buffer, before)
    parts = [p.detach().clone().requires_grad_() for p in (wide, apart)]
    for part, p in zip(parts, (wide, apart), strict=True):
        part.grad = p.grad
    PowerSign([apart, wide]).step()
    PowerSign(parts).step()
    assert same([wide, apart], parts)


def test_a_state_that_is_no_tensor_is_refused_by_name() -> None:
    p = torch.ones(3, requires_grad=True)
    p.grad = torch.ones(3)
    optimizer = PowerSign([p])
    optimizer.step()
    optimizer.state[p]["m"] = None
    with pytest.raises((TypeError, ValueError), match=r"m'?]?.* None"):
        optimizer.step()


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("layout", [torch.jagged, torch.strided])
def test_nested_parameters_have_the_right_reason(layout: torch.layout) -> None:
    p = torch.nested.nested_tensor([torch.ones(2), torch.ones(1)], layout=layout, requires_grad=True)
    p.to_padded_tensor(0.0).sum().backward()
    optimizer = PowerSign([p])
    with pytest.raises(RuntimeError, match=r"does not support nested parameters \(parameter 0"):
        optimizer.step()
    assert not optimizer.state


@pytest.mark.parametrize("kind", ["quantized", "sparse"])
def test_quantized_and_sparse_parameters_have_the_right_reason(kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that its quantized tensors will go
        given = torch.ones(3)
        odd = torch.quantize_per_tensor(given, 0.1, 0, torch.qint8) if kind == "quantized" else given.to_sparse()
    with pytest.raises(RuntimeError, match=rf"does not support {kind} parameters \(parameter 2 is"):
        check_param("PowerSign", 2, odd)
