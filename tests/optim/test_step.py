"""What happens around one step: what is noticed, what is kept alive, what a refused step leaves, and hooks."""

from __future__ import annotations

import gc
import itertools
import threading
import weakref
from typing import Any

import pytest
import torch

import nos_ext
from nos_ext.optim import AddSign, PowerSign, RuleOptimizer, library
from nos_ext.testing._case import copies, parameters, same, set_grads, state_of, steps, values


def test_gradients_are_not_kept_alive() -> None:
    params = parameters((8,), (9,))
    optimizer = PowerSign(params)
    for _ in range(3):
        set_grads(params)
        seen = [weakref.ref(p.grad) for p in params]
        optimizer.step()
        optimizer.zero_grad()
        assert [r() for r in seen] == [None, None]


def test_an_optimizer_and_its_model_are_freed() -> None:
    """Also with a function in a param group that refers to the optimizer."""

    def train() -> list[Any]:
        params = parameters((8,))
        optimizer = PowerSign(params, sign_decay=lambda step: len(optimizer.param_groups) / (1 + step))
        steps(optimizer, params, 2)
        return [weakref.ref(x) for x in (optimizer, params[0], optimizer.state[params[0]]["m"])]

    seen = train()
    gc.collect()
    assert [r() for r in seen] == [None, None, None]


def test_replaced_values_are_freed() -> None:
    params = parameters((8,))
    optimizer = PowerSign(params)
    steps(optimizer, params, 1)
    optimizer.param_groups[0]["lr"] = lr = torch.tensor(0.1)
    steps(optimizer, params, 1)
    seen = weakref.ref(lr)
    optimizer.param_groups[0]["lr"] = 0.2
    del lr
    steps(optimizer, params, 1)
    assert seen() is None


def test_gradients_that_come_and_go() -> None:
    """Every pattern of present gradients, as in a mixture of experts; each parameter counts its own steps."""
    params = parameters((5,), (6,), (7,))
    alone = copies(params)
    optimizer = RuleOptimizer(params, library.adamw, lr=0.01)
    single = [RuleOptimizer([p], library.adamw, lr=0.01) for p in alone]
    for i, pattern in enumerate(itertools.product((False, True), repeat=3)):
        set_grads(params, seed=i)
        set_grads(alone, seed=i)
        for p, q, there in zip(params, alone, pattern, strict=True):
            if not there:
                p.grad = q.grad = None
        optimizer.step()
        for o in single:
            o.step()
        assert same(params, alone)
    assert [float(optimizer.state[p]["step"]) for p in params] == [4.0, 4.0, 4.0]


@pytest.mark.parametrize("key", ["maximize", "seed", "total_steps", "stochastic_rounding"])
def test_flags_are_read_at_every_step(key: str) -> None:
    rule = "drop(g, 0.5) * ld"
    start = {"maximize": False, "seed": 1, "total_steps": 10, "stochastic_rounding": False}
    other = {"maximize": True, "seed": 2, "total_steps": 20, "stochastic_rounding": True}[key]
    params = parameters((64,), (65,), dtype=torch.bfloat16)
    expected = copies(params)
    optimizer = RuleOptimizer([{"params": [p]} for p in params], rule, lr=0.01, **start)
    program = nos_ext.compile_rule(rule)
    for step in range(1, 7):
        if step == 3:  # of one group, so that two engine calls are made
            optimizer.param_groups[1][key] = other
        if step == 5:
            optimizer.param_groups[1][key] = start[key]
        set_grads(params, seed=step)
        optimizer.step()
        for i, (p, q) in enumerate(zip(params, expected, strict=True)):
            own = {**start, key: other} if i == 1 and step in (3, 4) else start
            nos_ext.apply_rule(program, [q], [p.grad], [], lr=0.01, step=step, tensor_index=i, **own)
        assert same(values(params), values(expected))


def test_a_refused_step_changes_nothing() -> None:
    """Two engine calls, the second of which has a gradient that does not fit: the first is not made either."""
    params = parameters((4,), (5,))
    optimizer = PowerSign([{"params": params[:1]}, {"params": params[1:], "maximize": True}])
    steps(optimizer, params, 2)
    before, state = values(params), [s.clone() for s in state_of(optimizer)]
    set_grads(params)
    optimizer.param_groups[1]["beta"] = lambda step: "high"
    with pytest.raises(TypeError, match="beta is 'high'; pass a number"):
        optimizer.step()
    assert same(values(params), before)
    assert same(state_of(optimizer), state)
    optimizer.param_groups[1]["beta"] = 0.9
    optimizer.step()
    assert [float(optimizer.state[p]["step"]) for p in params] == [3.0, 3.0]


def test_a_value_that_cannot_be_read_is_not_remembered() -> None:
    params = parameters((4,))
    optimizer = PowerSign(params)
    steps(optimizer, params, 1)
    optimizer.param_groups[0]["lr"] = "fast"
    for _ in range(2):
        with pytest.raises(TypeError, match="lr is 'fast'"):
            optimizer.step()


def test_state_of_no_parameter_is_ignored() -> None:
    params = parameters((4,))
    optimizer = PowerSign(params)
    expected = copies(params)
    steps(optimizer, params, 1)
    optimizer.state["note"] = "kept"
    optimizer.state[params[0]]["mine"] = 5
    steps(optimizer, params, 2, 1)
    steps(PowerSign(expected), expected, 3)
    assert same(params, expected)
    assert optimizer.state["note"] == "kept"


def test_optimizers_share_a_program_but_no_tensors() -> None:
    program = nos_ext.compile_rule(library.lion)
    params = [parameters((5,), seed=i) for i in range(3)]
    optimizers = [RuleOptimizer(p, program, lr=0.1) for p in params]
    assert all(o.program is program for o in optimizers)
    for i in range(4):
        for o, p in zip(optimizers, params, strict=True):
            steps(o, p, 1, i)
    for i, p in enumerate(params):
        expected = parameters((5,), seed=i)
        steps(RuleOptimizer(expected, library.lion, lr=0.1), expected, 4)
        assert same(p, expected)


class Overridden(PowerSign):
    """As users write it who want to do something before each step."""

    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


class Inherited(PowerSign):
    pass


@pytest.mark.parametrize("kind", [PowerSign, Overridden, Inherited])
@pytest.mark.parametrize("everywhere", [False, True])
def test_hooks_run_once(kind: type[PowerSign], everywhere: bool) -> None:
    params = parameters((4,))
    optimizer = kind(params)
    seen: list[Any] = []

    def before(o: Any, args: Any, keywords: Any) -> None:
        seen.append(("before", args[0] is optimizer, keywords))

    def after(o: Any, args: Any, keywords: Any) -> None:
        seen.append(("after", args[0] is optimizer, keywords))

    if everywhere:
        from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

        hooks = [register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after)]
    else:
        hooks = [optimizer.register_step_pre_hook(before), optimizer.register_step_post_hook(after)]
    set_grads(params)
    optimizer.step(closure=None)
    for hook in hooks:
        hook.remove()
    optimizer.step()
    assert seen == [("before", True, {"closure": None}), ("after", True, {"closure": None})]


def test_a_hook_may_replace_the_arguments() -> None:
    params = parameters((4,))
    optimizer = PowerSign(params)
    set_grads(params)
    optimizer.register_step_pre_hook(lambda o, args, keywords: ((o, lambda: 7.0), keywords))
    assert optimizer.step() == 7.0


@pytest.mark.parametrize("kind", [PowerSign, AddSign])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_stochastic_rounding(kind: Any, dtype: torch.dtype) -> None:
    """Updates far below the spacing of the parameters add up; a checkpoint goes on with the same draws."""
    params = [torch.ones(4000, dtype=dtype).requires_grad_()]
    nearest = copies(params)
    optimizer = kind(params, lr=1e-4, stochastic_rounding=True, seed=3)
    plain = kind(nearest, lr=1e-4)
    step_of = {PowerSign: 2.718281828, AddSign: 2.0}[kind] * 1e-4

    def train(o: Any, ps: Any, count: int) -> None:
        for _ in range(count):
            ps[0].grad = torch.full((4000,), -1.0, dtype=dtype)
            o.step()

    train(optimizer, params, 50)
    train(plain, nearest, 50)
    assert torch.equal(nearest[0], torch.ones(4000, dtype=dtype))
    assert params[0].double().mean().item() == pytest.approx(1 + 50 * step_of, abs=2e-3)
    assert optimizer.state[params[0]]["m"].dtype == torch.float32
    resumed_params = copies(params)
    resumed = kind(resumed_params)
    resumed.load_state_dict(optimizer.state_dict())
    train(optimizer, params, 20)
    train(resumed, resumed_params, 20)
    assert same(params, resumed_params)


def test_stochastic_rounding_does_not_depend_on_the_groups() -> None:
    params = parameters((50,), (60,), dtype=torch.bfloat16)
    split = copies(params)
    steps(PowerSign(params, lr=1e-3, stochastic_rounding=True, seed=5), params, 3)
    groups = [{"params": [p], "lr": 1e-3} for p in split]
    steps(PowerSign(groups, stochastic_rounding=True, seed=5), split, 3)
    assert same(params, split)


def test_checkpoints_from_before_there_was_stochastic_rounding() -> None:
    params = parameters((50,), dtype=torch.bfloat16)
    optimizer = PowerSign(params)
    steps(optimizer, params, 2)
    saved = optimizer.state_dict()
    for group in saved["param_groups"]:
        del group["stochastic_rounding"]
    others = copies(params)
    resumed = PowerSign(others)
    resumed.load_state_dict(saved)
    steps(optimizer, params, 3)
    steps(resumed, others, 3)
    assert same(params, others)


# ---- numbers of steps ----------------------------------------------------------------------------------------------------

LAST = 2**32 - 1


def count_on(optimizer: Any, params: Any, start: int) -> None:
    for p in params:
        optimizer.state[p]["step"].fill_(start)


@pytest.mark.parametrize("start", [2**24 - 1, 2**31 - 1, LAST - 3])
def test_steps_count_on(start: int) -> None:
    """Beyond what float32 can count; the rule sees the numbers, and so do its random draws."""
    for number in (start + 1, start + 2):
        text = "def r(p, g, *, lr, at=1.0):\n    return p - lr * (where(t == at, g, 0.5 * g) + drop(g, 0.5))\n"
        params = parameters((64,))
        expected = copies(params)
        optimizer = RuleOptimizer(params, text, lr=0.1, at=float(number), seed=3)
        steps(optimizer, params, 1)
        steps(RuleOptimizer(expected, text, lr=0.1, at=float(number), seed=3), expected, 1)
        count_on(optimizer, params, start)
        for i in (1, 2):
            set_grads(params, seed=i)
            optimizer.step()
            assert optimizer.state[params[0]]["step"].item() == start + i
            nos_ext.apply_rule(
                optimizer.program, expected, [p.grad for p in params], [], lr=0.1, at=float(number), seed=3,
                step=start + i,
            )  # fmt: skip
        assert same(values(params), values(expected))


def test_the_last_step() -> None:
    params = parameters((5,), (6,))
    optimizer = PowerSign(params)
    steps(optimizer, params, 1)
    optimizer.state[params[1]]["step"].fill_(LAST - 1)
    steps(optimizer, params, 1)
    assert optimizer.state[params[1]]["step"].item() == LAST
    before, state = values(params), [s.clone() for s in state_of(optimizer)]
    for _ in range(2):
        set_grads(params)
        with pytest.raises(
            OverflowError, match="parameter 1 has taken 4294967295 steps, which is all that the 32 bits"
        ):
            optimizer.step()
        assert same(values(params), before)
        assert same(state_of(optimizer), state)
    optimizer.state[params[1]]["step"].fill_(7)
    optimizer.step()
    assert [float(optimizer.state[p]["step"]) for p in params] == [3.0, 8.0]


@pytest.mark.parametrize("value", [-1.0, 2.5, float("nan"), 2.0**33])
def test_numbers_of_steps_that_are_none(value: float) -> None:
    """Written into the state's tensor, or in its place."""
    params = parameters((5,), (6,))
    optimizer = PowerSign(params)
    steps(optimizer, params, 1)
    for replace in (False, True):
        set_grads(params)
        before = values(params)
        if replace:
            optimizer.state[params[1]]["step"] = value
        else:
            optimizer.state[params[1]]["step"].fill_(value)
        with pytest.raises(ValueError, match=r"state of parameter 1: step is .*; pass the number of steps taken"):
            optimizer.step()
        assert same(values(params), before)
        optimizer.state[params[1]]["step"] = 1
        optimizer.step()


def test_step_is_shared_with_nothing() -> None:
    """Each parameter's step is a tensor of its own: what is written into one shows in no other."""
    params = parameters((5,), (6,), (7,))
    optimizer = PowerSign(params)
    steps(optimizer, params, 2)
    counts = [optimizer.state[p]["step"] for p in params]
    assert all(c.untyped_storage().nbytes() == c.element_size() for c in counts)
    counts[0] += 5
    steps(optimizer, params, 1)
    assert [float(c) for c in counts] == [8.0, 3.0, 3.0]


# ---- a step within a step ------------------------------------------------------------------------------------------------


def test_a_function_of_the_step_may_step() -> None:
    """And change what the outer step was divided into; what both read stays alive."""
    params = parameters((5,), (6,))
    optimizer = PowerSign(params)
    calls = []

    def decay(step: int) -> float:
        calls.append(step)
        if len(calls) % 2:
            for key in ("maximize", "stochastic_rounding"):
                optimizer.param_groups[0][key] = not optimizer.param_groups[0][key]
            optimizer.param_groups[0]["beta"] = torch.tensor(0.5)
            optimizer.step()
        return 1.0

    optimizer.param_groups[0]["sign_decay"] = decay
    for _ in range(50):
        set_grads(params)
        optimizer.step()
    assert [float(optimizer.state[p]["step"]) for p in params] == [100.0, 100.0]
    assert all(p.isfinite().all() for p in params)


def test_another_thread_divides_while_the_engine_runs() -> None:
    """What a running call reads, its seeds among them, is not freed under it."""
    params = [torch.zeros(2_000_000).requires_grad_()]
    params[0].grad = torch.ones(2_000_000)
    expected = copies(params)
    optimizer = RuleOptimizer(params, "drop(g, 0.5) + normal(0.1) * drop(g, 0.3)", lr=0.1, seed=7)
    optimizer.step()
    program = optimizer.program
    nos_ext.apply_rule(program, expected, [params[0].grad], [], lr=0.1, seed=7, step=1)
    stop = threading.Event()
    stepper = optimizer._lists._stepper  # type: ignore[union-attr]

    def divide() -> None:
        while not stop.is_set():
            stepper.divide([], lambda group, hyper, value: value)
            bytes(bytearray(range(1, 200)) * 20)  # takes the place of what was freed

    thread = threading.Thread(target=divide)
    for step in range(2, 6):
        nos_ext.apply_rule(program, expected, [params[0].grad], [], lr=0.1, seed=7, step=step)
    optimizer_steps = 4
    thread.start()
    try:
        while optimizer_steps:
            try:
                optimizer.step()
            except RuntimeError:  # divided between the division and the step
                continue
            optimizer_steps -= 1
    finally:
        stop.set()
        thread.join()
    assert same(values(params), values(expected))
