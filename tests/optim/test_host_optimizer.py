"""HostOptimizer where parameters are on a device: what is copied, when, and who waits for it.

There is no device here. A pretended one copies when somebody waits for it, or looks at it, and not before, so that a
copy that nobody waits for is missed. test_conformance.py has the suite of optimizers on a pretended device, and
test_master_weights.py what is computed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from nos_ext.optim import HostOptimizer, RuleOptimizer, create, groups, library
from nos_ext.optim._host import Link

from .test_master_weights import assert_equal, pair, set_grads


class LateLink(Link):
    """Takes the CPU for a device with two streams, whose copies begin when somebody waits for them."""

    def __init__(self) -> None:
        self.streams: tuple[list[tuple[torch.Tensor, torch.Tensor]], ...] = ([], [])
        self.current = 0
        self.bytes = 0
        self.buffers = 0

    def is_away(self, tensor: torch.Tensor) -> bool:
        return True

    def buffer(self, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        self.buffers += 1
        return torch.full_like(tensor, torch.nan, dtype=dtype, requires_grad=False)

    def copy(self, to: torch.Tensor, source: torch.Tensor) -> None:
        assert to.data_ptr() != source.data_ptr()
        self.streams[self.current].append((to, source))
        self.bytes += to.nbytes

    def mark(self, device: torch.device) -> Callable[[], Any]:
        stream = self.streams[self.current]
        last = stream[-1] if stream else None
        return lambda: self.run(stream, last)

    def run(self, stream: Any = None, last: Any = None) -> None:
        """Does what the stream, by default the current one, has up to `last`, by default all of it."""
        stream = self.streams[self.current] if stream is None else stream
        while stream and (last is None or any(last is x for x in stream)):
            to, source = stream.pop(0)
            with torch.no_grad():
                to.copy_(source)


@pytest.fixture
def link() -> LateLink:
    return LateLink()


@pytest.fixture
def kind(link: LateLink) -> type[HostOptimizer]:
    class Late(HostOptimizer):
        _link = link

    return Late


def train(link: LateLink, params: Any, wide: Any, optimizers: list[Any], first: int, last: int) -> None:
    """As the forward pass of a step is in the device's stream, it sees the parameters of the last one."""
    for step in range(first, last):
        link.run()
        set_grads(params, wide, step)
        for optimizer in optimizers:
            optimizer.step()
        for p in params:
            p.grad = None  # its memory may be another's by the time that somebody waits
    link.run()


@pytest.mark.parametrize("name", ["adamw", "lamb", "powersign", "schedule_free_adamw"])
def test_copies_are_waited_for(link: LateLink, kind: type[HostOptimizer], name: str) -> None:
    narrow, wide = pair()
    optimizer, other = kind(narrow, library.get(name), lr=0.01), create(name, wide, lr=0.01)
    train(link, narrow, wide, [optimizer, other], 0, 4)
    assert_equal(optimizer, narrow, other, wide)


def test_a_step_does_not_wait_for_its_parameters(link: LateLink, kind: type[HostOptimizer]) -> None:
    """They are in the stream when it returns, and the next step overwrites their copies only when they are done."""
    narrow, wide = pair()
    optimizer, other = kind(narrow, library.adamw, lr=0.01), RuleOptimizer(wide, library.adamw, lr=0.01)
    train(link, narrow, wide, [optimizer, other], 0, 1)
    before = [p.detach().clone() for p in narrow]
    set_grads(narrow, wide, 1)
    optimizer.step()
    other.step()
    assert all(torch.equal(p, q) for p, q in zip(narrow, before, strict=True))
    set_grads(narrow, wide, 2)
    optimizer.step()
    assert all(torch.equal(p.detach(), q.detach().bfloat16()) for p, q in zip(narrow, wide, strict=True))


def test_another_stream(link: LateLink, kind: type[HostOptimizer]) -> None:
    """Copies of parameters that are not done yet are waited for, whichever stream they are in."""
    narrow, wide = pair()
    optimizer, other = kind(narrow, library.adamw, lr=0.01), RuleOptimizer(wide, library.adamw, lr=0.01)
    train(link, narrow, wide, [optimizer, other], 0, 1)
    for step in (1, 2):
        link.current = 1 - link.current
        set_grads(narrow, wide, step)
        optimizer.step()
        if step == 1:
            other.step()
    # the first stream's copies were of step 1, and were done before step 2 wrote
    assert all(torch.equal(p.detach(), q.detach().bfloat16()) for p, q in zip(narrow, wide, strict=True))


def test_bytes_of_a_step(link: LateLink, kind: type[HostOptimizer]) -> None:
    """The gradient one way and the parameter the other. A parameter without master weights is fetched as well."""
    narrow, wide = pair((1000,))
    for params, masters, wanted in ((narrow, True, 4), (narrow, False, 6), (wide, True, 12)):
        optimizer = kind(params, library.adamw, lr=0.01, master_weights=masters)
        train(link, narrow, wide, [optimizer], 0, 2)
        link.bytes = link.buffers = 0
        train(link, narrow, wide, [optimizer], 2, 3)
        assert (link.bytes, link.buffers) == (wanted * 1000, 0)


def test_everything_is_kept_on_the_host(link: LateLink, kind: type[HostOptimizer]) -> None:
    """Two engine calls, states that are loaded, a frozen parameter that thaws, and gradients that come and go."""
    narrow, wide = pair((30,), (20, 3), (7,))
    optimizer, other = kind(narrow, library.adamw, lr=0.01), RuleOptimizer(wide, library.adamw, lr=0.01)
    train(link, narrow[:1], wide[:1], [optimizer, other], 0, 2)
    wide[0].grad = None
    train(link, narrow[1:], wide[1:], [optimizer, other], 2, 3)
    train(link, narrow, wide, [optimizer, other], 3, 5)
    assert_equal(optimizer, narrow, other, wide)
    fresh = [p.detach().clone().requires_grad_() for p in narrow]
    resumed = kind(fresh, library.adamw, lr=1.0)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    resumed.add_param_group({"params": [torch.zeros(3, dtype=torch.bfloat16, requires_grad=True)]})
    train(link, narrow, wide, [optimizer, other], 5, 6)
    train(link, fresh, [p.detach().float() for p in fresh], [resumed], 5, 6)
    assert_equal(resumed, fresh, other, wide)


@pytest.mark.parametrize("rule", ["muon", "lion"])
def test_clipping_and_layouts(link: LateLink, kind: type[HostOptimizer], rule: str) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(30, 5)).bfloat16()
    twin = copy.deepcopy(model).float()
    made = [
        of(groups(net, {"rule": library.get(rule), "lr": 0.02}, library.adamw), library.adamw, lr=1e-3, clip_norm=0.5)
        for of, net in ((kind, model), (RuleOptimizer, twin))
    ]
    narrow, wide = list(model.parameters()), list(twin.parameters())
    train(link, narrow, wide, made, 0, 2)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    train(link, narrow, wide, made, 2, 4)
    for optimizer in made:  # lists are made anew, with the layouts as they are now
        optimizer.add_param_group({"params": [("late", torch.zeros(2, requires_grad=True))]})
    train(link, narrow, wide, made, 4, 5)
    assert_equal(made[0], narrow, made[1], wide)
    assert made[0].grad_norm == made[1].grad_norm


def test_parameters_and_gradients_with_gaps(link: LateLink, kind: type[HostOptimizer]) -> None:
    memory = torch.randn(40, 30).bfloat16()
    p = torch.nn.Parameter(memory[:, :20])
    q = p.detach().float().contiguous().requires_grad_()
    optimizer, other = kind([p], library.adamw, lr=0.01), RuleOptimizer([q], library.adamw, lr=0.01)
    for step in range(3):
        link.run()
        set_grads([p], [q], step)
        assert p.grad is not None
        p.grad = p.grad.t().contiguous().t()
        optimizer.step()
        other.step()
    link.run()
    assert_equal(optimizer, [p], other, [q])


def test_nothing_is_copied_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> Any:
        raise AssertionError("there is no device")

    for name in ("buffer", "copy", "mark"):
        monkeypatch.setattr(Link, name, refused)
    narrow, wide = pair()
    optimizer, other = HostOptimizer(narrow, library.adamw, lr=0.01), RuleOptimizer(wide, library.adamw, lr=0.01)
    for step in range(3):
        set_grads(narrow, wide, step)
        optimizer.step()
        other.step()
    assert_equal(optimizer, narrow, other, wide)


def test_capturable_is_refused() -> None:
    narrow, _ = pair()
    with pytest.raises(ValueError, match="capturable is True, but a step on the host waits for the device"):
        HostOptimizer(narrow, library.adamw, lr=0.01, capturable=True)
    optimizer = HostOptimizer(narrow[:1], library.adamw, lr=0.01)
    with pytest.raises(ValueError, match="capturable is True"):
        optimizer.add_param_group({"params": narrow[1:], "capturable": True})
    assert len(optimizer.param_groups) == 1
    set_grads(narrow, narrow, 0)
    optimizer.param_groups[0]["capturable"] = True
    with pytest.raises(ValueError, match="capturable is True"):
        optimizer.step()


def test_shards_on_a_device_are_refused(kind: type[HostOptimizer]) -> None:
    from torch.distributed import destroy_process_group, init_process_group
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor
    from torch.testing._internal.distributed.fake_pg import FakeStore

    init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    try:
        mesh = init_device_mesh("cpu", (2,))
        p = torch.nn.Parameter(distribute_tensor(torch.zeros(4, 4), mesh, [Shard(0)]))
        p.grad = distribute_tensor(torch.ones(4, 4), mesh, [Shard(0)])
        with pytest.raises(RuntimeError, match=r"Late cannot step on the host for parameter 0: it is a DTensor on cpu"):
            kind([p], library.sgd, lr=0.1).step()
    finally:
        destroy_process_group()
