"""master_weights: float32 copies of parameters of 16 bits, against the same training in float32."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch

import nos_ext
from nos_ext.optim import HostOptimizer, PowerSign, RuleOptimizer, create, groups, library, names
from nos_ext.rule import RuleError
from nos_ext.rule.expr import postorder
from nos_ext.rule.program import master_form
from nos_ext.schedules import LinearCosineDecay

HALVES = [torch.bfloat16, torch.float16]
KINDS = {
    "RuleOptimizer": lambda params, rule, lr, **more: RuleOptimizer(params, rule, lr, master_weights=True, **more),
    "HostOptimizer": HostOptimizer,
}
Tensors = list[torch.Tensor]


def pair(*shapes: tuple[int, ...], dtype: torch.dtype = torch.bfloat16) -> tuple[Tensors, Tensors]:
    """Parameters of 16 bits, and the same ones in float32."""
    make = torch.Generator().manual_seed(0)
    narrow = [torch.randn(shape, generator=make).to(dtype).requires_grad_() for shape in shapes or ((24, 16), (300, 5))]
    return narrow, [p.detach().float().requires_grad_() for p in narrow]


def set_grads(narrow: Tensors, wide: Tensors, seed: int) -> None:
    """The same gradients for both, which 16 bits can hold."""
    make = torch.Generator().manual_seed(100 + seed)
    for p, q in zip(narrow, wide, strict=True):
        p.grad = (0.1 * torch.randn(p.shape, generator=make)).to(p.dtype)
        q.grad = p.grad.to(q.dtype)


def train(narrow: Tensors, wide: Tensors, optimizers: list[Any], first: int, last: int) -> None:
    for step in range(first, last):
        set_grads(narrow, wide, step)
        for optimizer in optimizers:
            optimizer.step()


def assert_equal(optimizer: Any, narrow: Tensors, other: Any, wide: Tensors) -> None:
    """Master weights and states are those of the training in float32, and parameters are them when rounded."""
    for p, q in zip(narrow, wide, strict=True):
        entry = dict(optimizer.state[p])
        master = entry.pop("master")
        assert master.dtype == torch.float32
        assert torch.equal(master, q.detach())
        assert torch.equal(p.detach(), master.to(p.dtype))
        assert entry.keys() == other.state[q].keys()
        assert all(torch.equal(entry[name], other.state[q][name]) for name in entry)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", names())
def test_every_rule_of_the_library(name: str, dtype: torch.dtype) -> None:
    narrow, wide = pair(dtype=dtype)
    extra = {"total_steps": 20} if nos_ext.compile_rule(library.get(name)).uses_total_steps else {}
    optimizer = create(name, narrow, lr=1e-3, master_weights=True, **extra)
    other = create(name, wide, lr=1e-3, **extra)
    train(narrow, wide, [optimizer, other], 0, 4)
    assert_equal(optimizer, narrow, other, wide)


@pytest.mark.parametrize("kind", KINDS)
def test_adamw_of_torch(kind: str) -> None:
    """A loop as it is written by hand: float32 weights beside the network, with clipping and two param groups."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3)).bfloat16()
    twin = copy.deepcopy(net)
    params, others = list(net.parameters()), list(twin.parameters())
    masters = [p.detach().float().requires_grad_() for p in others]
    parts = [{"params": params[:2], "lr": 0.01}, {"params": params[2:], "weight_decay": 0.3}]
    ours = KINDS[kind](parts, library.adamw, 0.003, clip_norm=0.05)
    theirs = torch.optim.AdamW(
        [{"params": masters[:2], "lr": 0.01}, {"params": masters[2:], "weight_decay": 0.3}], lr=0.003
    )
    schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(one, 12) for one in (ours, theirs)]
    make = torch.Generator().manual_seed(1)
    for _ in range(10):
        x, y = torch.randn(32, 8, generator=make).bfloat16(), torch.randint(3, (32,), generator=make)
        for model in (net, twin):
            model.zero_grad()
            torch.autograd.backward(torch.nn.functional.cross_entropy(model(x), y))
        ours.step()
        for p, master in zip(others, masters, strict=True):
            assert p.grad is not None
            master.grad = p.grad.float()
        torch.nn.utils.clip_grad_norm_(masters, 0.05)
        theirs.step()
        for p, master in zip(others, masters, strict=True):
            p.data.copy_(master.detach())
        for schedule in schedules:
            schedule.step()
        for p, master in zip(params, masters, strict=True):
            # a few roundings of float32 in each step, which the division by sqrt(v) may enlarge where v is small
            torch.testing.assert_close(ours.state[p]["master"], master.detach(), rtol=1e-5, atol=1e-6)
            assert torch.equal(p.detach(), ours.state[p]["master"].bfloat16())
            p.data.copy_(master.detach())  # so that both networks stay the same
    assert ours.param_groups[1]["lr"] == pytest.approx(theirs.param_groups[1]["lr"])


def test_power_sign_with_a_schedule() -> None:
    """Against its formula."""
    (p,), (master,) = pair((50,))
    optimizer = PowerSign([p], lr=0.1, master_weights=True)
    schedule = LinearCosineDecay(optimizer, decay_steps=10)
    m = torch.zeros(50, dtype=torch.float64)
    exact = master.detach().double()
    for step in range(6):
        set_grads([p], [master], step)
        assert master.grad is not None
        g = master.grad.double()
        m = 0.9 * m + 0.1 * g
        exact = exact - optimizer.param_groups[0]["lr"] * torch.exp(g.sign() * m.sign()) * g
        optimizer.step()
        schedule.step()
        torch.testing.assert_close(optimizer.state[p]["master"].double(), exact, rtol=1e-6, atol=1e-6)
        assert torch.equal(p.detach(), optimizer.state[p]["master"].bfloat16())


def test_small_updates_add_up() -> None:
    """What it is for: in bfloat16 itself an update of a thousandth of the parameter is lost."""
    moved = []
    for master_weights in (False, True):
        p = torch.ones(8, dtype=torch.bfloat16, requires_grad=True)
        optimizer = RuleOptimizer([p], library.sgd, lr=1e-3, master_weights=master_weights)
        for _ in range(100):
            p.grad = torch.ones_like(p)
            optimizer.step()
        moved.append(p.detach().float().mean().item())
    assert moved[0] == 1.0
    assert moved[1] == pytest.approx(0.9, abs=0.002)


def test_muon_and_another_rule() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.Linear(30, 5)).bfloat16()
    twin = copy.deepcopy(model).float()
    made = [
        RuleOptimizer(
            groups(net, {"rule": library.muon, "lr": 0.02}, {"rule": library.adamw, "lr": 1e-3}), library.adamw, lr=1e-3,
            clip_norm=0.5, master_weights=masters,
        )
        for net, masters in ((model, True), (twin, False))
    ]  # fmt: skip
    narrow, wide = list(model.parameters()), list(twin.parameters())
    train(narrow, wide, made, 0, 4)
    assert_equal(made[0], narrow, made[1], wide)
    assert made[0].grad_norm == made[1].grad_norm


@pytest.mark.parametrize("state_dtype", ["bfloat16", "int8"])
def test_smaller_states_leave_master_weights_wide(state_dtype: str) -> None:
    narrow, wide = pair()
    optimizer = RuleOptimizer(narrow, library.adamw, lr=0.01, state_dtype=state_dtype, master_weights=True, seed=3)
    other = RuleOptimizer(wide, library.adamw, lr=0.01, state_dtype=state_dtype, seed=3)
    train(narrow, wide, [optimizer, other], 0, 4)
    assert_equal(optimizer, narrow, other, wide)
    resumed = RuleOptimizer(narrow, library.adamw, lr=0.01)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert torch.equal(resumed.state[narrow[0]]["master"], optimizer.state[narrow[0]]["master"])


def test_draws_are_those_of_the_rule() -> None:
    rule = "def noisy(p, g, *, lr):\n    return p - lr * drop(g + normal(0.1), 0.3)\n"
    narrow, wide = pair()
    optimizer = RuleOptimizer(narrow, rule, lr=0.1, seed=5, master_weights=True)
    other = RuleOptimizer(wide, rule, lr=0.1, seed=5)
    train(narrow, wide, [optimizer, other], 0, 3)
    assert_equal(optimizer, narrow, other, wide)


def test_stochastic_rounding_is_of_the_parameters() -> None:
    (p,), (q,) = pair((20000,))
    optimizer = RuleOptimizer([p], library.adamw, lr=0.01, master_weights=True, stochastic_rounding=True)
    other = RuleOptimizer([q], library.adamw, lr=0.01)
    train([p], [q], [optimizer, other], 0, 2)
    master = optimizer.state[p]["master"]
    assert torch.equal(master, q.detach())
    error = p.detach().double() - master.double()
    spacing = 2.0 ** (torch.frexp(master).exponent - 8).double()
    assert (error.abs() < spacing).all()
    assert (error.abs() > spacing / 2).any()  # not to the nearest
    assert abs((error / spacing).mean().item()) < 4 / len(p) ** 0.5


def test_layouts() -> None:
    """A slice with gaps, and a parameter in channels_last order."""
    memory = torch.randn(40, 30, generator=torch.Generator().manual_seed(1)).bfloat16()
    gap = torch.nn.Parameter(memory.clone()[:, :20])
    (image,), _ = pair((6, 3, 5, 5))
    image = image.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    narrow = [gap, image]
    wide = [p.detach().float().contiguous().requires_grad_() for p in narrow]
    optimizer = RuleOptimizer(narrow, library.adamw, lr=0.01, master_weights=True)
    other = RuleOptimizer(wide, library.adamw, lr=0.01)
    train(narrow, wide, [optimizer, other], 0, 3)
    assert_equal(optimizer, narrow, other, wide)
    assert optimizer.state[image]["master"].stride() == image.stride()
    assert not gap.is_contiguous()


def test_wide_parameters_need_none() -> None:
    """They are left alone, but in a group with others they get some, and are the same."""
    (p,), (q,) = pair((30,))
    alone = RuleOptimizer([q], library.adamw, lr=0.01, master_weights=True)
    train([p], [q], [alone], 0, 1)
    assert alone.state[q].keys() == {"step", "m", "v"}
    twin, apart = q.detach().clone().requires_grad_(), q.detach().clone().requires_grad_()
    mixed = RuleOptimizer([p, twin], library.adamw, lr=0.01, master_weights=True)
    single = RuleOptimizer([apart], library.adamw, lr=0.01)
    for step in range(1, 3):
        set_grads([p], [twin], step)
        assert twin.grad is not None
        apart.grad = twin.grad.clone()
        mixed.step()
        single.step()
    assert torch.equal(twin, apart)
    assert torch.equal(mixed.state[twin]["master"], twin.detach())


def test_the_parameter_is_not_read() -> None:
    """What is in it before a step makes no difference."""
    (p,), _ = pair((30,))
    optimizer = RuleOptimizer([p], library.adamw, lr=0.01, master_weights=True)
    train([p], [p.detach().float()], [optimizer], 0, 1)
    p.data.fill_(torch.nan)
    train([p], [p.detach().float()], [optimizer], 1, 2)
    assert torch.equal(p.detach(), optimizer.state[p]["master"].bfloat16())
    assert p.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_in_the_middle(kind: str) -> None:
    narrow, wide = pair()
    optimizer, other = KINDS[kind](narrow, library.adamw, lr=0.01), RuleOptimizer(wide, library.adamw, lr=0.01)
    train(narrow, wide, [optimizer, other], 0, 3)
    file = io.BytesIO()
    torch.save((optimizer.state_dict(), [p.detach() for p in narrow]), file)
    file.seek(0)
    saved, values = torch.load(file, weights_only=True)
    assert saved["param_groups"][0]["master_weights"] is True
    fresh = [p.requires_grad_() for p in values]
    for resumed in (KINDS[kind](fresh, library.adamw, lr=1.0), RuleOptimizer(fresh, library.adamw, lr=1.0)):
        resumed.load_state_dict(copy.deepcopy(saved))
        assert_equal(resumed, fresh, other, wide)
    train(narrow, wide, [optimizer, other], 3, 6)
    train(fresh, [p.detach().float() for p in fresh], [resumed], 3, 6)
    assert_equal(resumed, fresh, other, wide)
    assert_equal(optimizer, narrow, other, wide)


@pytest.mark.parametrize("kind", KINDS)
def test_to_and_from_a_training_in_float32(kind: str) -> None:
    narrow, wide = pair()
    before = RuleOptimizer(wide, library.adamw, lr=0.01)
    train(narrow, wide, [before], 0, 3)
    for p, q in zip(narrow, wide, strict=True):
        p.data.copy_(q.detach())
    optimizer = KINDS[kind](narrow, library.adamw, lr=0.01)
    optimizer.load_state_dict(copy.deepcopy(before.state_dict()))
    assert optimizer.param_groups[0]["master_weights"] is True
    rounded = [p.detach().float().requires_grad_() for p in narrow]
    other = RuleOptimizer(rounded, library.adamw, lr=0.01)
    other.load_state_dict(copy.deepcopy(before.state_dict()))
    train(narrow, rounded, [optimizer, other], 3, 5)
    assert_equal(optimizer, narrow, other, rounded)

    saved = copy.deepcopy(optimizer.state_dict())
    back = [saved["state"][i]["master"].clone().requires_grad_() for i in range(len(narrow))]
    after = RuleOptimizer(back, library.adamw, lr=0.01)
    after.load_state_dict(saved)
    train(narrow, rounded, [optimizer, other], 5, 7)
    train(narrow, back, [after], 5, 7)
    for q, r in zip(rounded, back, strict=True):
        assert torch.equal(q, r)
        assert after.state[r].keys() == {"step", "m", "v"}


def test_checkpoints_of_torch() -> None:
    narrow, wide = pair()
    theirs = torch.optim.AdamW(wide, lr=0.01)
    train(narrow, wide, [theirs], 0, 3)
    for p, q in zip(narrow, wide, strict=True):
        p.data.copy_(q.detach())
    ours = HostOptimizer(narrow, library.adamw, lr=0.01)
    ours.load_torch_state_dict(theirs.state_dict())
    train(narrow, wide, [ours], 3, 4)
    assert ours.state[narrow[0]]["master"].dtype == torch.float32
    exported = ours.torch_state_dict()
    assert exported["state"][0].keys() == {"step", "exp_avg", "exp_avg_sq"}
    theirs.load_state_dict(exported)


@pytest.mark.parametrize("kind", KINDS)
def test_distributed_checkpoint(kind: str) -> None:
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

    def trained(steps: int) -> tuple[torch.nn.Module, Any, Tensors]:
        torch.manual_seed(steps)
        net = torch.nn.Linear(6, 4).bfloat16()
        optimizer = KINDS[kind](net.parameters(), library.adamw, lr=0.01)
        params = list(net.parameters())
        train(params, [p.detach().float() for p in params], [optimizer], 0, steps)
        return net, optimizer, params

    net, optimizer, params = trained(3)
    other, resumed, others = trained(0)
    model_state, optimizer_state = copy.deepcopy(get_state_dict(net, optimizer))
    set_state_dict(other, resumed, model_state_dict=model_state, optim_state_dict=optimizer_state)
    for p, q in zip(params, others, strict=True):
        assert torch.equal(optimizer.state[p]["master"], resumed.state[q]["master"])
    train(params, others, [optimizer], 3, 5)
    train(others, params, [resumed], 3, 5)
    assert all(torch.equal(p, q) for p, q in zip(params, others, strict=True))


def test_the_flag_may_change() -> None:
    """Master weights begin with what the parameters are, and end."""
    (p,), (q,) = pair((30,))
    optimizer = RuleOptimizer([p], library.adamw, lr=0.01)
    train([p], [q], [optimizer], 0, 2)
    wide = p.detach().float().requires_grad_()
    other = RuleOptimizer([wide], library.adamw, lr=0.01)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    optimizer.param_groups[0]["master_weights"] = True
    train([p], [wide], [optimizer, other], 2, 4)
    assert_equal(optimizer, [p], other, [wide])
    optimizer.param_groups[0]["master_weights"] = False
    train([p], [wide], [optimizer], 4, 5)
    assert optimizer.state[p].keys() == {"step", "m", "v"}


def test_schedule_free() -> None:
    """eval() and train() move the master weights, so that nothing is lost on the way."""
    narrow, wide = pair()
    optimizer = create("schedule_free_adamw", narrow, lr=0.01, master_weights=True)
    other = create("schedule_free_adamw", wide, lr=0.01)
    for first in (0, 3):
        train(narrow, wide, [optimizer, other], first, first + 3)
        for way in ("eval", "train"):
            getattr(optimizer, way)()
            getattr(other, way)()
            assert_equal(optimizer, narrow, other, wide)


def test_closures_and_grad_scaler() -> None:
    narrow, wide = pair(dtype=torch.float16)
    optimizer = RuleOptimizer(narrow, library.adamw, lr=0.01, master_weights=True, fused=True)
    other = RuleOptimizer(wide, library.adamw, lr=0.01)
    for found in (0.0, 1.0, 0.0):
        set_grads(narrow, wide, 1)
        for p in narrow:
            assert p.grad is not None
            p.grad *= 16
        optimizer.grad_scale, optimizer.found_inf = torch.tensor(16.0), torch.tensor(found)  # type: ignore[attr-defined]
        assert optimizer.step(lambda: 2.5) == 2.5
        if not found:
            other.step()
    assert_equal(optimizer, narrow, other, wide)


def test_meta_parameters() -> None:
    p = torch.zeros(30, 20, device="meta", dtype=torch.bfloat16, requires_grad=True)
    p.grad = torch.zeros_like(p)
    for kind in KINDS.values():
        optimizer = kind([p], library.adamw, lr=0.01)
        optimizer.step()
        assert optimizer.state[p]["master"].dtype == torch.float32
        assert optimizer.state[p]["master"].is_meta


def test_the_form_as_a_program() -> None:
    """It is a rule like any other, which reads no p."""
    form = master_form(nos_ext.compile_rule(library.adamw))
    assert form.state_names == ("m", "v", "master")
    again = nos_ext.compile_rule(form.to_text())
    assert again.fingerprint == form.fingerprint
    assert all(node.op != "param" for x in form.rule.outputs for node in postorder([x]))
    contracted = nos_ext.compile_rule(library.adamw, contract=True)
    assert [op for op, *_ in master_form(contracted).code] == [op for op, *_ in contracted.code]


def test_shards() -> None:
    """Master weights are sharded as the parameter is."""
    from torch.distributed import destroy_process_group, init_process_group
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard, distribute_tensor
    from torch.testing._internal.distributed.fake_pg import FakeStore

    (narrow,), (wide,) = pair((4, 6))
    init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    try:
        mesh = init_device_mesh("cpu", (2,))
        p = torch.nn.Parameter(distribute_tensor(narrow.detach(), mesh, [Shard(0)]))
        optimizer, other = HostOptimizer([p], library.adamw, lr=0.01), RuleOptimizer([wide], library.adamw, lr=0.01)
        for step in range(3):
            set_grads([narrow], [wide], step)
            p.grad = distribute_tensor(narrow.grad, mesh, [Shard(0)])
            optimizer.step()
            other.step()
        master = optimizer.state[p]["master"]
        assert isinstance(master, DTensor)
        assert torch.equal(master.to_local(), wide.detach()[:2])
        assert torch.equal(p.detach().to_local(), wide.detach()[:2].bfloat16())  # type: ignore[attr-defined]
    finally:
        destroy_process_group()


FULL = """
def full(p, g, a, b, c, d, f, h, i, j, *, lr):
    return p - lr * g, g, a, b, c, d, f, h, i
"""
AVERAGED = """
def averaged(p, g, *, lr):
    return p - lr * g / (1 + global_norm(p))
"""


def test_what_is_refused() -> None:
    (p,), (q,) = pair((30,))
    with pytest.raises(RuleError, match="rule 'r' has a state named 'master', where master weights are kept; rename"):
        RuleOptimizer([p], "def r(p, g, master, *, lr):\n    return p - lr * g, g\n", lr=0.1)
    set_grads([p], [q], 0)
    with pytest.raises(RuleError, match="rule 'full' has 8 states, which is all that there can be, so master weights"):
        RuleOptimizer([p], FULL, lr=0.1, master_weights=True)
    RuleOptimizer([q], FULL, lr=0.1, master_weights=True).step()  # needs none
    with pytest.raises(TypeError, match="master_weights is 'yes'"):
        RuleOptimizer([p], library.sgd, lr=0.1, master_weights="yes")  # type: ignore[arg-type]
    mixed = RuleOptimizer([{"params": [p]}, {"params": [q]}], AVERAGED, lr=0.1, master_weights=True)
    with pytest.raises(ValueError, match="master_weights is True and rule 'averaged' has a reduction over the param"):
        mixed.step()
    assert not mixed.state
    alike = RuleOptimizer([{"params": [p]}, {"params": [p.detach().clone().requires_grad_()]}], AVERAGED, lr=0.1)
    alike.param_groups[0]["master_weights"] = alike.param_groups[1]["master_weights"] = True
    alike.step()
    assert "master" in alike.state[p]


@pytest.mark.parametrize("later", [False, True])
def test_a_parameter_without_memory_has_no_values_to_begin_with(later: bool) -> None:
    param = torch.nn.Parameter(torch.ones(9, dtype=torch.bfloat16))
    optimizer = create("adamw", [param], lr=0.1, master_weights=not later)
    param.grad = torch.ones(9, dtype=torch.bfloat16)
    if later:
        optimizer.step()
        optimizer.param_groups[0]["master_weights"] = True
    param.data.untyped_storage().resize_(0)
    with pytest.raises(
        ValueError, match=r"parameter 0 is .*, whose storage was resized to less, and master weights begin"
    ):
        optimizer.step()
