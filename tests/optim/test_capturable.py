"""capturable=True without a GPU: a stand-in for the captured launches runs them on the CPU, now or at a replay.

What the launches themselves do is tested in tests/backend/cuda; here, what the optimizer makes of them: which tables,
with what in them, and that graphs keep theirs.
"""

from __future__ import annotations

import copy
import ctypes
import gc
import io
import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

import nos_ext
from nos_ext.optim import PowerSign, RuleOptimizer, _captured, library

RULES = {"adamw": {"weight_decay": 0.1}, "lion": {}, "powersign": {}}


class Device:
    """One stream: work is done at once, or kept for the graph while a capture goes on."""

    def __init__(self) -> None:
        self.capturing = False
        self.graph: list[Callable[[], object]] = []
        self.made = 0

    def give(self, work: Callable[[], object]) -> None:
        if self.capturing:
            self.graph.append(work)
        else:
            work()

    def capture(self, call: Callable[[], object]) -> Callable[[], None]:
        """A function that replays what `call` gives to the stream."""
        self.capturing, self.graph = True, []
        try:
            call()
        finally:
            self.capturing = False
        graph = self.graph

        def replay() -> None:
            for work in graph:
                work()

        return replay


class StandIn:
    """`_C.CapturedStep` by apply_rule, one tensor at a time."""

    device: Device

    def __init__(
        self, programs: Sequence[Any], population: bool, params: Sequence[Any], grads: Sequence[Any],
        states: Sequence[Sequence[Any]], group_of: Sequence[int], rows: int, tensor_index: int,
        max_instructions: int, max_scalars: int, max_temporaries: int, in_capture: bool,
        scales: Sequence[Sequence[Any]],
    ) -> None:  # fmt: skip
        assert (in_capture, population, tensor_index) == (True, False, 0)
        for p, g in zip(params, grads, strict=True):
            if g is not None and g.stride() != p.stride():
                raise ValueError("strides")  # as the engine does
        (self.program,) = programs
        self.lists, self.group_of = (params, grads, *states), group_of
        self.scales = scales
        self.rows: list[Any] = [None] * rows
        StandIn.device.made += 1

    def set_head(self, done: int, factor: float, stochastic_rounding: bool, counter: int) -> None:
        assert done == 0
        self.head = (factor, stochastic_rounding, counter)

    def set_row(
        self, row: int, seed: int, total: float, values: Sequence[float], sources: Sequence[int], wide: int
    ) -> None:
        self.rows[row] = (seed, total, values, sources, wide)

    def launch(self) -> None:
        StandIn.device.give(self.run)

    def run(self) -> None:
        factor, rounding, counter = self.head
        step = int(ctypes.c_double.from_address(counter).value)
        for i, (p, g, *states) in enumerate(zip(*self.lists, strict=True)):
            if g is None:
                continue
            seed, total, values, sources, wide = self.rows[self.group_of[i]]
            hypers = dict(zip(self.program.hyperparameters, values, strict=True))
            for k, (name, source) in enumerate(zip(self.program.hyperparameters, sources, strict=True)):
                if source:
                    kind = ctypes.c_double if wide >> k & 1 else ctypes.c_float
                    hypers[name] = kind.from_address(source).value
            names = self.program.state_names
            state = {name: [x] for name, x in zip(names, states, strict=True)}
            state |= {f"{name}.scale": [one[i]] for name, one in zip(names, self.scales, strict=bool(self.scales))}
            nos_ext.apply_rule(
                self.program, [p], [g], state, step=step, seed=seed, maximize=factor < 0,
                total_steps=None if total != total else total, tensor_index=i, grad_scale=1 / abs(factor),
                stochastic_rounding=rounding, **hypers,
            )  # fmt: skip


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    made = Device()
    count = _captured.CapturedLists._count
    monkeypatch.setattr(StandIn, "device", made, raising=False)
    monkeypatch.setattr(_captured._C, "CapturedStep", StandIn)
    monkeypatch.setattr(_captured, "_on_device", lambda tensor: True)
    monkeypatch.setattr(_captured.CapturedLists, "_count", lambda self, part: made.give(lambda: count(self, part)))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: made.capturing)
    return made


def parameters() -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(5)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((3, 5), (4,), (2, 2))]


def groups(params: list[torch.nn.Parameter]) -> list[dict[str, Any]]:
    return [{"params": params[:2]}, {"params": params[2:], "lr": 0.02}]


def fill_grads(params: list[torch.nn.Parameter], step: int, *, without: Sequence[int] = ()) -> None:
    """In place where there is a gradient already."""
    generator = torch.Generator().manual_seed(step)
    for i, p in enumerate(params):
        g = torch.randn(p.shape, generator=generator).to(p.dtype)
        if i in without:
            p.grad = None
        elif p.grad is None:
            p.grad = g
        else:
            p.grad.copy_(g)


def pair(rule: str, **keywords: Any) -> tuple[RuleOptimizer, RuleOptimizer]:
    """The same optimizer with and without capturable, each with parameters of its own."""
    out = []
    for capturable in (True, False):
        params = parameters()
        given = {"lr": 0.1, **RULES.get(rule, {}), **keywords}
        out.append(RuleOptimizer(groups(params), library.get(rule), capturable=capturable, **copy.deepcopy(given)))
    return out[0], out[1]


def params_of(optimizer: torch.optim.Optimizer) -> list[Any]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def assert_same(ours: RuleOptimizer, theirs: RuleOptimizer) -> None:
    for p, q in zip(params_of(ours), params_of(theirs), strict=True):
        assert torch.equal(p, q)
        assert set(ours.state[p]) == set(theirs.state[q])
        for name, value in theirs.state[q].items():
            assert torch.equal(ours.state[p][name], value), name


def both(optimizers: Sequence[RuleOptimizer], step: int, **keywords: Any) -> None:
    for optimizer in optimizers:
        fill_grads(params_of(optimizer), step, **keywords)
        optimizer.step()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "keywords",
    [{}, {"maximize": True, "seed": 7}, {"state_dtype": "bfloat16"}, {"state_dtype": "int8"}],
    ids=["plain", "maximize", "bfloat16 states", "int8 states"],
)
def test_steps_outside_a_capture_are_those_without(device: Device, rule: str, keywords: dict[str, Any]) -> None:
    """Groups of their own values, and a parameter whose first gradient comes late."""
    optimizers = pair(rule, **keywords)
    for step in range(1, 6):
        both(optimizers, step, without=[1] if step < 3 else [])
        assert_same(*optimizers) if step >= 3 else None
    for group in optimizers[0].param_groups + optimizers[1].param_groups:
        group["lr"] *= 0.5
    both(optimizers, 6)
    assert_same(*optimizers)
    assert device.made <= 5  # gradients that stay where they are need no new tables


def test_master_weights(device: Device) -> None:
    optimizers = []
    for capturable in (True, False):
        parts = groups([torch.nn.Parameter(p.detach().bfloat16()) for p in parameters()])
        optimizers.append(RuleOptimizer(parts, library.adamw, 0.1, capturable=capturable, master_weights=True))
    for step in (1, 2):
        both(optimizers, step)
    assert_same(*optimizers)
    assert all("master" in optimizers[0].state[p] for p in params_of(optimizers[0]))
    for group in optimizers[0].param_groups + optimizers[1].param_groups:
        group["master_weights"] = False
    both(optimizers, 3)
    assert_same(*optimizers)
    optimizers[0].add_param_group({"params": parameters()[:1], "master_weights": False})
    for group in optimizers[0].param_groups[:2]:
        group["master_weights"] = True
    with pytest.raises(ValueError, match="different rules, or master weights in some of them only"):
        both(optimizers[:1], 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_replays_count_and_follow_a_tensor(device: Device, dtype: torch.dtype) -> None:
    ours, theirs = pair("adamw", lr=torch.tensor(0.1, dtype=dtype))
    for step in (1, 2):
        both((ours, theirs), step)
    replay = device.capture(ours.step)
    assert_same(ours, theirs)  # a capture runs nothing
    for step in (3, 4, 5):
        for optimizer in (ours, theirs):
            optimizer.param_groups[0]["lr"].fill_(0.1 / step)
            fill_grads(params_of(optimizer), step)
        replay()
        theirs.step()
        assert_same(ours, theirs)
    assert {float(ours.state[p]["step"]) for p in params_of(ours)} == {5.0}
    both((ours, theirs), 6)  # and steps go on outside
    assert_same(ours, theirs)


def test_numbers_stay_in_the_graph_as_they_were(device: Device) -> None:
    ours, theirs = pair("lion")
    both((ours, theirs), 1)
    replay = device.capture(ours.step)
    ours.param_groups[0]["lr"] = 7.0
    for optimizer in (ours, theirs):
        fill_grads(params_of(optimizer), 2)
    replay()
    theirs.step()
    assert_same(ours, theirs)
    theirs.param_groups[0]["lr"] = 7.0
    both((ours, theirs), 3)  # a step outside follows; so does none of the graph
    assert_same(ours, theirs)
    theirs.param_groups[0]["lr"] = 0.1
    for optimizer in (ours, theirs):
        fill_grads(params_of(optimizer), 4)
    replay()
    theirs.step()
    assert_same(ours, theirs)


def test_gradients_made_inside_the_capture(device: Device) -> None:
    """torch's recipe: zero_grad(set_to_none=True), then backward in the capture makes gradients that stay."""
    ours, theirs = pair("adamw")
    for step in (1, 2, 3):
        ours.zero_grad()
        both((ours, theirs), step)
    ours.zero_grad()

    def captured() -> None:
        fill_grads(params_of(ours), 0)
        ours.step()

    replay = device.capture(captured)
    kept = [p.grad for p in params_of(ours)]
    for step in (4, 5):
        for p, g in zip(params_of(ours), kept, strict=True):
            p.grad = g
        for optimizer in (ours, theirs):
            fill_grads(params_of(optimizer), step)
        replay()
        theirs.step()
        assert_same(ours, theirs)
    for p in params_of(ours):
        p.grad = None  # other gradients outside; those of the graph must not be lost
    both((ours, theirs), 6)
    assert_same(ours, theirs)


def test_gaps_and_other_layouts(device: Device) -> None:
    """A slice is copied in and out by operations that the capture holds; a parameter that moves takes its states along."""
    optimizers = []
    for capturable in (True, False):
        torch.manual_seed(1)
        params = [torch.randn(4, 6)[:, :3].requires_grad_(), torch.randn(2, 3, 2, 2).requires_grad_()]
        optimizers.append(RuleOptimizer(params, library.adamw, lr=0.1, capturable=capturable))
    ours, theirs = optimizers
    for step in (1, 2, 3):
        if step == 3:
            for o in optimizers:
                p = params_of(o)[1]
                p.data = p.detach().contiguous(memory_format=torch.channels_last)
                p.grad = None
        both(optimizers, step)
        assert_same(ours, theirs)


@pytest.mark.parametrize("start", [2**24 - 1, 2**32 - 4])
def test_large_numbers_of_steps(device: Device, start: int) -> None:
    ours, theirs = pair("adamw")
    both((ours, theirs), 1)
    for o in (ours, theirs):
        for p in params_of(o):
            o.state[p]["step"].fill_(start)
    both((ours, theirs), 2)
    replay = device.capture(ours.step)
    replay()
    theirs.step()
    assert_same(ours, theirs)
    assert {ours.state[p]["step"].item() for p in params_of(ours)} == {start + 2}


def test_the_number_of_the_last_step_is_a_clear_error(device: Device) -> None:
    ours, _ = pair("lion")
    fill_grads(params_of(ours), 1)
    ours.step()
    for p in params_of(ours):
        ours.state[p]["step"] = torch.tensor(2.0**32 - 1, dtype=torch.float64)
    with pytest.raises(OverflowError, match="parameter 0 has taken 4294967295 steps"):
        ours.step()


def test_odd_strides_and_loss_scale(device: Device) -> None:
    ours, theirs = pair("adamw")
    for optimizer in (ours, theirs):
        params = params_of(optimizer)
        fill_grads(params, 1)
        params[0].grad = 8 * params[0].grad.T.contiguous().T
        for p in params[1:]:
            p.grad.mul_(8)
        optimizer.found_inf, optimizer.grad_scale = torch.tensor(0.0), torch.tensor(8.0)  # type: ignore[attr-defined]
        optimizer.step()
    assert_same(ours, theirs)
    with pytest.raises(RuntimeError, match=r"a GradScaler's step cannot be captured.*after each replay"):
        device.capture(ours.step)


def test_checkpoints(device: Device) -> None:
    ours, theirs = pair("adamw")
    both((ours, theirs), 1)
    file = io.BytesIO()
    torch.save({"optimizer": ours.state_dict(), "params": params_of(ours)}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    again, _ = pair("adamw")
    with torch.no_grad():
        for p, q in zip(params_of(again), saved["params"], strict=True):
            p.copy_(q)
    again.load_state_dict(saved["optimizer"])
    both((again, theirs), 2)
    assert_same(again, theirs)


def test_memory_of_graphs_outlives_a_checkpoint(device: Device) -> None:
    ours, theirs = pair("adamw")
    both((ours, theirs), 1)
    held, loose = weakref.ref(ours._lists), ours.state_dict()
    device.capture(ours.step)
    ours.load_state_dict(loose)
    both((ours, theirs), 2)
    assert_same(ours, theirs)
    assert ours._lists is not held()
    assert held() is not None
    loose_lists = weakref.ref(ours._lists)
    ours.load_state_dict(ours.state_dict())
    both((ours, theirs), 3)
    gc.collect()
    assert loose_lists() is None  # no graph has it
    assert held() is not None


def test_what_comes_too_late_for_a_capture(device: Device) -> None:
    ours, _ = pair("adamw")
    fill_grads(params_of(ours), 1)
    with pytest.raises(RuntimeError, match="a step like the captured one before the capture"):
        device.capture(ours.step)  # there is no state yet
    ours.step()
    fill_grads(params_of(ours), 2, without=[0])
    with pytest.raises(RuntimeError, match="other parameters than in the last step have a gradient"):
        device.capture(ours.step)
    fill_grads(params_of(ours), 2)
    ours.state[params_of(ours)[0]]["m"] = torch.zeros(3, 5)
    with pytest.raises(RuntimeError, match="param groups or states have been replaced"):
        device.capture(ours.step)
    ours.step()
    before = [p.clone() for p in params_of(ours)]
    device.capture(ours.step)()
    assert not any(torch.equal(p, q) for p, q in zip(before, params_of(ours), strict=True))


def test_what_a_graph_cannot_hold(device: Device) -> None:
    params = parameters()
    with pytest.raises(TypeError, match="sign_decay is a function of the step, which a CUDA graph cannot call"):
        PowerSign(params, sign_decay="linear", total_steps=10, capturable=True)
    mixed = RuleOptimizer([{"params": params[:1]}, {"params": params[1:]}], library.sgd, lr=0.1)
    fill_grads(params, 1)
    mixed.param_groups[0]["capturable"] = True
    with pytest.raises(ValueError, match="capturable is True in some param groups only"):
        mixed.step()
    half = RuleOptimizer(params, library.sgd, lr=torch.tensor(0.5, dtype=torch.float16), capturable=True)
    before = [p.clone() for p in params]
    with pytest.raises(TypeError, match=r"lr is a tensor of torch.float16 on cpu; with capturable=True pass float32"):
        half.step()
    decayed = RuleOptimizer(params, "ld * g", lr=0.1, capturable=True)
    with pytest.raises(ValueError, match=r"total_steps is None; rule 'rule' reads T"):
        decayed.step()
    assert all(torch.equal(p, q) for p, q in zip(before, params, strict=True))


def test_clipping_in_a_step_that_can_be_captured(device: Device) -> None:
    """The norm stays on the device, so that nobody waits for it."""
    found = []
    for capturable in (True, False):
        p = torch.nn.Parameter(torch.ones(3))
        optimizer = RuleOptimizer([p], library.momentum, lr=0.1, clip_norm=1.0, capturable=capturable)
        for step in range(2):
            fill_grads([p], step)
            optimizer.step()
        found.append((p, optimizer))
    (p, ours), (q, theirs) = found
    assert torch.equal(p, q)
    assert ours.state[p]["step"].item() == 2
    assert ours.grad_norm is not None
    assert math.isnan(ours.grad_norm)
    assert theirs.grad_norm == pytest.approx(q.grad.norm().item(), rel=1e-6)  # type: ignore[union-attr]


@pytest.mark.parametrize("scale", [0.0, float("nan")])
def test_scales_that_no_gradient_can_be_divided_by(device: Device, scale: float) -> None:
    """These are refused before the step, captured or not."""
    for capturable in (True, False):
        p = torch.nn.Parameter(torch.ones(3))
        optimizer = RuleOptimizer([p], "g", lr=0.1, capturable=capturable, fused=True)
        fill_grads([p], 1)
        optimizer.grad_scale, optimizer.found_inf = torch.tensor(scale), torch.tensor(0.0)  # type: ignore[attr-defined]
        with pytest.raises(ValueError, match=r"grad_scale is .*; pass a number that is not 0"):
            optimizer.step()
        assert p.tolist() == [1.0] * 3


def test_parameters_that_are_not_on_a_cuda_device() -> None:
    params = parameters()
    optimizer = RuleOptimizer(params, library.adamw, lr=0.1, capturable=True)
    fill_grads(params, 1)
    with pytest.raises(ValueError, match="capturable is True but parameter 0 is on cpu; CUDA graphs need"):
        optimizer.step()


def test_capturable_may_be_switched_between_steps(device: Device) -> None:
    params, others = parameters(), parameters()
    switched, plain = (RuleOptimizer(p, library.adamw, lr=0.1) for p in (params, others))
    for k, value in enumerate([False, True, False, True, True]):
        for optimizer, ps in ((switched, params), (plain, others)):
            fill_grads(ps, k)
            optimizer.param_groups[0]["capturable"] = value and optimizer is switched
            optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(params, others, strict=True))
    assert {float(entry["step"]) for entry in switched.state.values()} == {5.0}
