"""state_dtype: states in bfloat16 and int8, from construction over checkpoints to layouts and groups."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch

import nos_ext
from nos_ext.optim import AddSign, PowerSign, RuleOptimizer, create, groups, library, names
from nos_ext.optim._quantized import decoded

from ..reference import codes as oracle

DTYPES = ["bfloat16", "int8"]


def parameters(*shapes: tuple[int, ...], seed: int = 0) -> list[torch.Tensor]:
    make = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=make).requires_grad_() for shape in shapes or ((30, 20), (300,), (4, 3, 5, 5))]


def train(optimizer: Any, params: Any, first: int, last: int) -> None:
    for step in range(first, last):
        make = torch.Generator().manual_seed(step)
        for p in params:
            p.grad = 0.1 * torch.randn(p.shape, generator=make, dtype=torch.float32).to(p.dtype)
        optimizer.step()


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.stride() == b.stride() and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return all(same(x, y) for x, y in zip(a, b, strict=True)) if isinstance(a, list | tuple) else bool(a == b)


def test_states_have_the_dtype() -> None:
    params = parameters()
    half = RuleOptimizer(params, library.adamw, lr=1e-3, state_dtype=torch.bfloat16)
    train(half, params, 0, 2)
    assert half.param_groups[0]["state_dtype"] == "bfloat16"
    for p in params:
        assert half.state[p].keys() == {"step", "m", "v"}
        assert {half.state[p][name].dtype for name in "mv"} == {torch.bfloat16}
    small = RuleOptimizer(params, library.adamw, lr=1e-3, state_dtype="int8")
    train(small, params, 0, 2)
    for p in params:
        entry = small.state[p]
        assert [entry[name].dtype for name in ("m", "v", "m.scale", "v.scale")] == [
            torch.int8, torch.uint8, torch.float32, torch.float32
        ]  # fmt: skip
        assert entry["m"].shape == entry["v"].shape == p.shape
        assert entry["m.scale"].shape == entry["v.scale"].shape == (-(-p.numel() // 256),)


@pytest.mark.parametrize("state_dtype", DTYPES)
@pytest.mark.parametrize("param_dtype", [torch.float32, torch.bfloat16])
def test_a_step_is_that_of_the_engine(state_dtype: str, param_dtype: torch.dtype) -> None:
    """The states are rounded stochastically, and parameters to the nearest as long as nobody asks for more."""
    params = [p.detach().to(param_dtype).requires_grad_() for p in parameters()]
    others = [p.detach().clone() for p in params]
    optimizer = RuleOptimizer(params, library.adamw, lr=1e-2, seed=3, state_dtype=state_dtype)
    program = optimizer.program
    state = nos_ext.init_state(program, others, state_dtype=state_dtype)
    for step in range(1, 5):
        train(optimizer, params, step, step + 1)
        grads = [p.grad for p in params]
        nos_ext.apply_rule(program, others, grads, state, lr=1e-2, step=step, seed=3, stochastic_rounding="states")
    for i, p in enumerate(params):
        assert same(p.detach(), others[i])
        for name, one in state.items():
            assert same(optimizer.state[p][name], one[i])


@pytest.mark.parametrize("state_dtype", DTYPES)
def test_small_changes_of_a_state_add_up(state_dtype: str) -> None:
    """Rounded to the nearest, an average with a decay of 0.999 would stay where it is."""
    p = torch.zeros(4096, requires_grad=True)
    optimizer = RuleOptimizer([p], library.adamw, lr=0.0, state_dtype=state_dtype)
    for scale, steps in ((1.0, 1), (2.0, 400)):
        for _ in range(steps):
            p.grad = torch.full_like(p, scale)
            optimizer.step()
    entry = optimizer.state[p]
    v = decoded(entry["v"], entry["v.scale"]) if state_dtype == "int8" else entry["v"]
    wanted = 4 + (0.001 - 4) * 0.999**400
    assert v.double().mean().item() == pytest.approx(wanted, rel=0.02)


@pytest.mark.parametrize("state_dtype", DTYPES)
@pytest.mark.parametrize("name", names())
def test_every_rule_of_the_library(name: str, state_dtype: str) -> None:
    params = parameters((24, 16), (5, 300))
    if state_dtype == "int8" and name.startswith("schedule_free"):
        with pytest.raises(ValueError, match=r"state_dtype is 'int8' but the rule keeps weights in its state z"):
            create(name, params, lr=1e-3, state_dtype=state_dtype)
        return
    extra = {"total_steps": 20} if nos_ext.compile_rule(library.get(name)).uses_total_steps else {}
    optimizer = create(name, params, lr=1e-3, state_dtype=state_dtype, **extra)
    train(optimizer, params, 0, 4)
    kinds = {"bfloat16": {torch.bfloat16}, "int8": {torch.int8, torch.uint8}}[state_dtype]
    per_tensor = optimizer.program.per_tensor_states
    for p in params:
        assert p.isfinite().all()
        for state in optimizer.program.state_names:
            assert state in per_tensor or optimizer.state[p][state].dtype in kinds


@pytest.mark.parametrize("kind", [PowerSign, AddSign])
@pytest.mark.parametrize("state_dtype", DTYPES)
def test_classes_take_it(kind: Any, state_dtype: str) -> None:
    params = parameters()
    optimizer = kind(params, lr=1e-3, state_dtype=state_dtype)
    train(optimizer, params, 0, 2)
    assert optimizer.state[params[0]]["m"].dtype == getattr(torch, state_dtype)


@pytest.mark.parametrize("state_dtype", DTYPES)
@pytest.mark.parametrize("way", ["state_dict", "file", "pickle"])
def test_resumed_training_is_the_same(state_dtype: str, way: str) -> None:
    params = parameters()
    optimizer = RuleOptimizer(params, library.adamw, lr=1e-2, seed=1, state_dtype=state_dtype)
    train(optimizer, params, 0, 5)
    others = [p.detach().clone().requires_grad_() for p in params]
    if way == "pickle":
        pair = copy.deepcopy((params, optimizer))
        others, resumed = pair
    else:
        saved = optimizer.state_dict()
        if way == "file":
            file = io.BytesIO()
            torch.save(saved, file)
            file.seek(0)
            saved = torch.load(file, weights_only=True)
        resumed = RuleOptimizer(others, library.adamw, lr=1.0)
        resumed.load_state_dict(saved)
        assert same(resumed.state_dict()["state"], saved["state"])
        assert resumed.param_groups[0]["state_dtype"] == state_dtype
    train(optimizer, params, 5, 9)
    train(resumed, others, 5, 9)
    assert same([p.detach() for p in params], [p.detach() for p in others])
    assert same(optimizer.state_dict(), resumed.state_dict())


def test_a_checkpoint_of_wide_states_becomes_small_and_back() -> None:
    """What the loaded group says decides; codes are those of rounding to the nearest."""
    params = parameters()
    wide = RuleOptimizer(params, library.adamw, lr=1e-2)
    train(wide, params, 0, 3)
    saved = copy.deepcopy(wide.state_dict())
    saved["param_groups"][0]["state_dtype"] = "int8"
    small = RuleOptimizer(params, library.adamw, lr=1e-2)
    small.load_state_dict(saved)
    back = copy.deepcopy(small.state_dict())
    back["param_groups"][0]["state_dtype"] = "bfloat16"
    half = RuleOptimizer(params, library.adamw, lr=1e-2)
    half.load_state_dict(back)
    for p in params:
        for name, dtype in (("m", "int8"), ("v", "uint8")):
            before, entry = wide.state[p][name], small.state[p]
            codes, scales = oracle.encode(before.flatten().numpy(), dtype)
            assert (entry[name].flatten().numpy() == codes).all()
            assert (entry[name + ".scale"].numpy() == scales).all()
            assert half.state[p].keys() == {"step", "m", "v"}
            assert torch.equal(half.state[p][name], decoded(entry[name], entry[name + ".scale"]).bfloat16())


def test_checkpoints_from_before_there_was_state_dtype() -> None:
    params = parameters()
    old = RuleOptimizer(params, library.adamw, lr=1e-2)
    train(old, params, 0, 2)
    saved = old.state_dict()
    del saved["param_groups"][0]["state_dtype"]
    resumed = RuleOptimizer(params, library.adamw, lr=1e-2, state_dtype="bfloat16")
    resumed.load_state_dict(saved)
    assert resumed.state[params[0]]["v"].dtype == torch.bfloat16


@pytest.mark.parametrize("state_dtype", DTYPES)
def test_checkpoints_of_torch(state_dtype: str) -> None:
    params = parameters()
    theirs = torch.optim.AdamW(params, lr=1e-2)
    train(theirs, params, 0, 3)
    ours = create("adamw", params, lr=1e-2, state_dtype=state_dtype)
    ours.load_torch_state_dict(theirs.state_dict())
    train(ours, params, 3, 4)
    assert ours.state[params[0]]["m"].dtype == getattr(torch, state_dtype)
    exported = ours.torch_state_dict()
    theirs.load_state_dict(exported)
    entry = ours.state[params[0]]
    wanted = decoded(entry["v"], entry["v.scale"]) if state_dtype == "int8" else entry["v"].float()
    assert torch.equal(theirs.state[params[0]]["exp_avg_sq"], wanted)
    train(theirs, params, 4, 5)


def test_channels_last_checkpoints_keep_their_numbers() -> None:
    """Blocks are made in the order of memory, so codes for another order are made anew."""
    (p,) = parameters((8, 6, 5, 5))
    optimizer = RuleOptimizer([p], library.adamw, lr=1e-2, state_dtype="int8")
    train(optimizer, [p], 0, 3)
    q = p.detach().clone(memory_format=torch.channels_last).requires_grad_()
    resumed = RuleOptimizer([q], library.adamw, lr=1e-2, state_dtype="int8")
    resumed.load_state_dict(optimizer.state_dict())
    for name in ("m", "v"):
        a, b = (decoded(o.state[x][name], o.state[x][name + ".scale"]) for o, x in ((optimizer, p), (resumed, q)))
        assert resumed.state[q][name].stride() == q.stride()
        flat = a.permute(0, 2, 3, 1).flatten().numpy()
        bound = oracle.bound(flat, "int8" if name == "m" else "uint8", stochastic=False)
        assert (abs(b.permute(0, 2, 3, 1).flatten().numpy() - flat) <= bound).all()


def test_a_parameter_may_change_its_layout() -> None:
    (p,) = parameters((8, 6, 5, 5))
    optimizer = RuleOptimizer([p], library.adamw, lr=1e-2, state_dtype="int8")
    train(optimizer, [p], 0, 3)
    entry = optimizer.state[p]
    before = decoded(entry["v"], entry["v.scale"])
    p.data = p.data.to(memory_format=torch.channels_last)
    optimizer.param_groups[0]["lr"] = 0.0
    p.grad = torch.zeros_like(p)
    optimizer.step()
    assert entry["v"].stride() == p.stride()
    after = decoded(entry["v"], entry["v.scale"])
    assert torch.allclose(after, before, rtol=0.3, atol=float(before.max()) / 500)


def test_slices_are_updated_in_a_dense_copy() -> None:
    w = torch.randn(40, 30, generator=torch.Generator().manual_seed(1))
    gap = torch.nn.Parameter(w.clone()[:, :20])
    dense = torch.nn.Parameter(gap.detach().clone())
    optimizers = [RuleOptimizer([p], library.adamw, lr=1e-2, state_dtype="int8") for p in (gap, dense)]
    for optimizer, p in zip(optimizers, (gap, dense), strict=True):
        train(optimizer, [p], 0, 4)
    assert torch.equal(gap, dense)


def test_groups_may_differ() -> None:
    """Each is what an optimizer of its own would do; one engine call serves groups of the same rounding."""
    params = parameters((300,), (300,), (300,))
    parts = [{"params": [p], "state_dtype": s} for p, s in zip(params, (None, "bfloat16", "int8"), strict=True)]
    optimizer = RuleOptimizer(parts, library.adamw, lr=1e-2)
    train(optimizer, params, 0, 3)
    kinds = [optimizer.state[p]["v"].dtype for p in params]
    assert kinds == [torch.float32, torch.bfloat16, torch.uint8]
    optimizer.add_param_group({"params": parameters((10,), seed=9), "rule": library.lion, "state_dtype": "int8"})
    train(optimizer, optimizer.param_groups[3]["params"], 0, 2)
    assert optimizer.state[optimizer.param_groups[3]["params"][0]]["m"].dtype == torch.int8


def test_a_changed_group_holds_for_new_states() -> None:
    params = parameters((300,), (300,))
    optimizer = RuleOptimizer(params, library.adamw, lr=1e-2)
    train(optimizer, params[:1], 0, 2)
    optimizer.param_groups[0]["state_dtype"] = "int8"
    train(optimizer, params, 2, 4)
    assert [optimizer.state[p]["v"].dtype for p in params] == [torch.float32, torch.uint8]
    optimizer.param_groups[0]["state_dtype"] = "int3"
    with pytest.raises(ValueError, match="state_dtype is 'int3'"):
        train(optimizer, params, 4, 5)


def test_clipping_works_on_small_states() -> None:
    params = parameters()
    optimizer = RuleOptimizer(params, library.adamw, lr=1e-2, state_dtype="int8", clip_norm=0.5)
    train(optimizer, params, 0, 3)
    assert optimizer.grad_norm is not None
    assert optimizer.grad_norm > 0.5
    assert optimizer.state[params[0]]["v"].dtype == torch.uint8


def test_averaged_weights_in_bfloat16() -> None:
    """eval() and train() do not round the parameters to the dtype of the state."""
    params = parameters((500,))
    optimizer = create("schedule_free_adamw", params, lr=1e-2, state_dtype="bfloat16")
    train(optimizer, params, 0, 3)
    before = params[0].detach().clone()
    optimizer.eval()
    optimizer.train()
    assert torch.allclose(params[0], before, rtol=1e-5, atol=1e-6)


def test_meta_parameters() -> None:
    p = torch.zeros(30, 20, device="meta", requires_grad=True)
    p.grad = torch.zeros_like(p)
    optimizer = RuleOptimizer([p], library.adamw, lr=1e-2, state_dtype="int8")
    optimizer.step()
    entry = optimizer.state[p]
    assert entry["v"].dtype == torch.uint8
    assert entry["v.scale"].shape == (3,)


def test_muon_on_small_states() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.Linear(30, 5))
    parts = groups(model, {"rule": library.muon, "lr": 0.02}, {"rule": library.adamw, "lr": 1e-3})
    for part in parts:
        part["state_dtype"] = "int8"
    optimizer = RuleOptimizer(parts, library.adamw, lr=1e-3)
    params = list(model.parameters())
    train(optimizer, params, 0, 4)
    assert optimizer.state[params[0]]["m"].dtype == torch.int8
    assert all(p.isfinite().all() for p in params)


@pytest.mark.parametrize("state_dtype", DTYPES)
def test_float64_parameters_are_refused(state_dtype: str) -> None:
    p = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    p.grad = torch.ones_like(p)
    optimizer = RuleOptimizer([p], library.adamw, lr=1e-2, state_dtype=state_dtype)
    with pytest.raises(ValueError, match=f"state_dtype is '{state_dtype}' but parameter 0 is float64, beside which"):
        optimizer.step()
    assert not optimizer.state.get(p)


def test_refused_values() -> None:
    params = parameters()
    for value in ("int4", "float16", 8, torch.float64):
        with pytest.raises(ValueError, match=r"state_dtype is .*; pass 'bfloat16', 'int8', or None"):
            RuleOptimizer(params, library.adamw, lr=1e-2, state_dtype=value)  # type: ignore[arg-type]


def test_refused_checkpoints() -> None:
    params = parameters((300,))
    optimizer = RuleOptimizer(params, library.adamw, lr=1e-2, state_dtype="int8")
    train(optimizer, params, 0, 2)
    for change in ({"v.scale": torch.zeros(1)}, {"v.scale": torch.zeros(2, dtype=torch.float64)}, {"v.scale": None}):
        saved = copy.deepcopy(optimizer.state_dict())
        saved["state"][0] |= change
        with pytest.raises(ValueError, match=r"state of parameter 0: v is torch.uint8 with scales that are"):
            RuleOptimizer(params, library.adamw, lr=1e-2).load_state_dict(saved)
    del optimizer.state[params[0]]["m.scale"]
    optimizer.param_groups[0]["seed"] = 5
    with pytest.raises(KeyError, match=r"not \['m.scale'\]"):
        train(optimizer, params, 2, 3)
