"""What RuleOptimizer, PowerSign and AddSign promise beyond the conformance suite."""

from __future__ import annotations

import copy
import io
import math
import subprocess
import sys
from typing import Any

import pytest
import torch

import nos_ext
from nos_ext import schedules
from nos_ext.ops import exp, sign
from nos_ext.optim import AddSign, PowerSign, RuleOptimizer, library
from nos_ext.testing._case import copies, parameters, same, set_grads, state_of, steps


def test_every_kind_of_rule() -> None:
    def powersign(p, g, m, *, lr, beta=0.9):  # type: ignore[no-untyped-def]
        m = beta * m + (1 - beta) * g
        return p - lr * exp(sign(g) * sign(m)) * g, m

    rule = nos_ext.rule(powersign)
    results = []
    for source in (powersign, rule, rule.to_text(), nos_ext.compile_rule(rule)):
        params = parameters()
        optimizer = RuleOptimizer(params, source, lr=0.1, beta=0.8)
        steps(optimizer, params, 3)
        assert optimizer.program.name == "powersign"
        assert optimizer.param_groups[0]["beta"] == 0.8
        results.append(params)
    assert all(same(results[0], other) for other in results)


def test_equals_apply_rule() -> None:
    program = nos_ext.compile_rule(library.adamw)
    params = parameters()
    others = [p.detach().clone() for p in params]
    state = nos_ext.init_state(program, others)
    optimizer = RuleOptimizer(params, program, lr=0.01, weight_decay=0.1)
    for step in range(1, 5):
        set_grads(params, seed=step)
        nos_ext.apply_rule(program, others, [p.grad for p in params], state, lr=0.01, weight_decay=0.1, step=step)
        optimizer.step()
    assert same([p.detach() for p in params], others)


@pytest.mark.parametrize("maximize", [False, True])
def test_adamw_follows_torch(maximize: bool) -> None:
    params = parameters((20, 30), (7,), dtype=torch.float64)
    others = copies(params)
    ours = RuleOptimizer(params, library.adamw, lr=1e-2, weight_decay=0.1, eps=1e-7, maximize=maximize)
    theirs = torch.optim.AdamW(others, lr=1e-2, weight_decay=0.1, eps=1e-7, maximize=maximize)
    steps(ours, params, 50)
    steps(theirs, others, 50)
    for p, q in zip(params, others, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)


def test_random_rule_does_not_depend_on_the_groups() -> None:
    """Draws are keyed by the number of the parameter among all, whichever gradients are there."""
    rule = "drop(g, 0.5) + normal(0.1)"
    params = parameters((50,), (60,), (70,))
    split, missing = copies(params), copies(params)
    steps(RuleOptimizer(params, rule, lr=0.1, seed=5), params, 3)
    groups = [{"params": split[:1]}, {"params": split[1:]}]
    steps(RuleOptimizer(groups, rule, lr=0.1, seed=5), split, 3)
    assert same(params, split)
    optimizer = RuleOptimizer(missing, rule, lr=0.1, seed=5)
    for i in range(3):
        set_grads(missing, seed=100 + i)
        missing[0].grad = None
        optimizer.step()
    assert same(params[1:], missing[1:])
    other = parameters((50,), (60,), (70,))
    steps(RuleOptimizer(other, rule, lr=0.1, seed=6), other, 3)
    assert not same(params, other)


def test_printed_with_the_name_of_its_rule() -> None:
    params = parameters((2,), (3,))
    groups = [{"params": params[:1], "lr": 0.5}, {"params": params[1:], "rule": library.adamw.to_text()}]
    optimizer = RuleOptimizer(groups, library.adamw, lr=0.1)
    as_torch_prints = torch.optim.Optimizer.__repr__(optimizer)
    assert optimizer.program.to_text() in as_torch_prints
    assert repr(optimizer) == as_torch_prints.replace(optimizer.program.to_text(), "adamw")


def test_total_steps() -> None:
    params = parameters((3,))
    optimizer = RuleOptimizer(params, "g * ld", lr=1.0)
    set_grads(params)
    with pytest.raises(ValueError, match="total_steps is None"):
        optimizer.step()
    optimizer.param_groups[0]["total_steps"] = 4
    optimizer.step()
    moved = RuleOptimizer(params, "g * ld", lr=1.0, total_steps=4)
    assert moved.param_groups[0]["total_steps"] == 4


def test_hyperparameter_as_a_function_of_the_step() -> None:
    params, seen = parameters((3,), (2,)), []

    def decay(step: int) -> float:
        seen.append(step)
        return 1.0 / (1 + step)

    expected = copies(params)
    optimizer = RuleOptimizer(params, library.powersign, lr=0.1, sign_decay=decay)
    other = RuleOptimizer(expected, library.powersign, lr=0.1)
    for i in range(4):
        other.param_groups[0]["sign_decay"] = 1.0 / (1 + i)
        steps(other, expected, 1, i)
    steps(optimizer, params, 4)
    assert seen == [0, 1, 2, 3]
    assert same(params, expected)


def test_functions_stay_out_of_checkpoints() -> None:
    params = parameters()
    optimizer = PowerSign(params, sign_decay=schedules.linear_decay(10))
    steps(optimizer, params, 3)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    others = copies(params)
    resumed = PowerSign(others, sign_decay=schedules.linear_decay(10))
    resumed.load_state_dict(saved)
    steps(optimizer, params, 3)
    steps(resumed, others, 3)
    assert same(params, others)
    with pytest.raises(ValueError, match="sign_decay was a function of the step"):
        PowerSign(copies(params)).load_state_dict(saved)


def test_checkpoint_of_another_rule() -> None:
    params = parameters()
    optimizer = RuleOptimizer(params, library.lion, lr=0.1)
    steps(optimizer, params, 1)
    saved = copy.deepcopy(optimizer.state_dict())
    assert saved["param_groups"][0]["rule"] == optimizer.program.to_text()
    others = parameters()
    other = RuleOptimizer(others, library.signum, lr=0.1)
    steps(other, others, 1)
    before = [s.clone() for s in state_of(other)]
    with pytest.raises(ValueError, match=r"made with another rule:\ndef lion"):
        other.load_state_dict(saved)
    assert same(state_of(other), before)
    again = RuleOptimizer(parameters(), saved["param_groups"][0]["rule"], lr=1.0)
    again.load_state_dict(saved)


def test_checkpoint_of_another_optimizer() -> None:
    params = parameters()
    adamw = torch.optim.AdamW(params)
    steps(adamw, params, 1)
    with pytest.raises(
        ValueError, match=r"has no 'beta1', a hyperparameter of rule 'adamw'; it has the keys \['amsgrad'"
    ):
        RuleOptimizer(params, library.adamw, lr=0.1).load_state_dict(adamw.state_dict())


def test_loaded_state_is_a_copy() -> None:
    params = parameters()
    optimizer = PowerSign(params)
    steps(optimizer, params, 2)
    others = copies(params)
    resumed = PowerSign(others)
    resumed.load_state_dict(optimizer.state_dict())
    kept = [s.clone() for s in state_of(resumed)]
    steps(optimizer, params, 2)
    assert same(state_of(resumed), kept)


def test_checkpoint_into_another_precision_and_layout() -> None:
    params = [torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)]
    optimizer = PowerSign(params)
    steps(optimizer, params, 2)
    half = [params[0].detach().bfloat16().contiguous(memory_format=torch.channels_last).requires_grad_()]
    resumed = PowerSign(half)
    resumed.load_state_dict(optimizer.state_dict())
    m = resumed.state[half[0]]["m"]
    assert m.dtype == torch.float32
    assert m.stride() == half[0].stride()
    assert torch.equal(m, optimizer.state[params[0]]["m"].float())
    steps(resumed, half, 1)


def test_dicts_that_another_optimizer_was_given() -> None:
    """They stay as they are, so they can define the groups of several optimizers."""
    groups: list[dict[str, Any]] = [{"params": parameters(), "lr": 0.1}]
    before = [dict(group) for group in groups]
    first = RuleOptimizer(groups, library.lion, lr=1.0)
    second = RuleOptimizer(groups, library.adamw, lr=1.0)
    assert [group.keys() for group in groups] == [group.keys() for group in before]
    assert [o.param_groups[0]["lr"] for o in (first, second)] == [0.1, 0.1]
    assert [o.program.name for o in (first, second)] == ["lion", "adamw"]
    assert first.param_groups[0]["rule"] != second.param_groups[0]["rule"]


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"beta3": 0.5}, TypeError, "rule 'adamw' has no hyperparameter 'beta3'; did you mean 'beta"),
        ({"beta1": "high"}, TypeError, "beta1 is 'high'; pass a number or a tensor of one element, or a function"),
        ({"beta1": torch.ones(2)}, ValueError, r"beta1 is a tensor; its shape is \(2,\)"),
        ({"lr": "fast"}, TypeError, "lr is 'fast'; pass a number or a tensor of one element$"),
        ({"lr": lambda step: 0.1}, TypeError, "LRScheduler"),
        ({"lr": math.nan}, ValueError, "Invalid learning rate: nan"),
        ({"seed": -1}, ValueError, "seed is -1; pass an integer from 0"),
        ({"total_steps": 0}, ValueError, "total_steps is 0; pass the length"),
        ({"foreach": True}, ValueError, "foreach is True.*to_pytorch"),
        ({"differentiable": True}, ValueError, r"differentiable is True.*update in what program.to_pytorch\(\)"),
        (
            {"capturable": True, "beta1": lambda step: 0.9},
            TypeError,
            "beta1 is a function of the step, which a CUDA graph",
        ),
    ],
)
def test_refused_arguments(keywords: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        RuleOptimizer(parameters(), library.adamw, **{"lr": 0.1, **keywords})


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"beta": 1.0}, "Invalid beta: 1.0; pass a number that is at least 0 and below 1"),
        ({"base": 0.0}, "Invalid base: 0.0; pass a number above 0"),
        ({"weight_decay": -0.1}, "Invalid weight_decay: -0.1"),
        ({"sign_decay": "fast"}, "sign_decay is 'fast'; pass 'linear', 'cosine', 'restart'"),
        ({"sign_decay": "linear"}, "sign_decay is 'linear' but total_steps is None"),
    ],
)
def test_refused_arguments_of_powersign(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PowerSign(parameters(), **keywords)
    optimizer = PowerSign(parameters())
    with pytest.raises(ValueError, match=message):
        optimizer.add_param_group({"params": parameters(), **keywords})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("def r(p, g, step, *, lr):\n    return p - lr * g, step + 1\n", "a state named 'step'"),
        ("def r(p, g, *, lr, foreach=1):\n    return p - lr * g\n", "a hyperparameter named 'foreach'"),
        ("def r(p, g, *, lr, train_mode=1):\n    return p - lr * g\n", "a hyperparameter named 'train_mode'"),
    ],
)
def test_names_that_clash(rule: str, message: str) -> None:
    with pytest.raises(nos_ext.RuleError, match=message):
        RuleOptimizer(parameters(), rule, lr=0.1)


@pytest.mark.parametrize("key", ["lr", "beta1", "eps", "seed", "capturable", "clip_norm"])
@pytest.mark.parametrize("taken", [0, 2])
def test_a_group_that_lacks_a_value_is_refused(key: str, taken: int) -> None:
    """Users take keys out of a group, and put groups into the list themselves."""
    params = parameters()
    optimizer = RuleOptimizer(params, library.adamw, lr=0.1)
    steps(optimizer, params, taken)
    set_grads(params)
    before = [p.detach().clone() for p in params]
    value = optimizer.param_groups[0].pop(key)
    with pytest.raises(ValueError, match=rf"param_groups\[0\] has no '{key}'.*add_param_group"):
        optimizer.step()
    assert all(map(torch.equal, before, params))
    optimizer.param_groups[0][key] = value
    optimizer.step()
    optimizer.param_groups.append({"params": parameters(), "lr": 0.1})
    with pytest.raises(ValueError, match=r"param_groups\[1\] has no 'beta1'"):
        optimizer.step()


def test_capturable_is_the_same_in_all_groups() -> None:
    optimizer = RuleOptimizer(parameters(), library.adamw, lr=0.1)
    with pytest.raises(ValueError, match="capturable is True in some param groups only"):
        optimizer.add_param_group({"params": parameters(), "capturable": True})
    assert len(optimizer.param_groups) == 1
    groups = [{"params": parameters()}, {"params": parameters(), "capturable": True}]
    with pytest.raises(ValueError, match="capturable is True in some param groups only"):
        RuleOptimizer(groups, library.adamw, lr=0.1)


@pytest.mark.parametrize("kind", [PowerSign, AddSign])
def test_named_sign_decay(kind: Any) -> None:
    params = parameters()
    expected = copies(params)
    optimizer = kind(params, sign_decay="cosine", total_steps=5)
    other = kind(expected, sign_decay=schedules.cosine_decay(5))
    steps(optimizer, params, 4)
    steps(other, expected, 4)
    assert same(params, expected)
    assert copy.deepcopy(optimizer).state_dict()["param_groups"][0]["sign_decay"] == "cosine"


def test_weight_decay_is_decoupled() -> None:
    params = parameters()
    expected = copies(params)
    steps(PowerSign(params, lr=0.1, weight_decay=0.5), params, 1)
    with torch.no_grad():
        decayed = [p * (1 - 0.1 * 0.5) for p in expected]
    steps(PowerSign(expected, lr=0.1), expected, 1)
    start = parameters()
    for p, q, d, s in zip(params, expected, decayed, start, strict=True):
        torch.testing.assert_close(p.detach(), q.detach() - s.detach() + d, rtol=1e-5, atol=1e-6)


def test_complex_parameters_are_refused() -> None:
    p = torch.zeros(3, dtype=torch.complex64, requires_grad=True)
    p.grad = torch.ones(3, dtype=torch.complex64)
    with pytest.raises(RuntimeError, match="PowerSign does not support complex parameters"):
        PowerSign([p]).step()


def test_frozen_parameters_may_be_anything() -> None:
    """A quantised or complex weight without a gradient does not disturb the others."""
    params = [torch.zeros(3, dtype=torch.int8), torch.zeros(2, dtype=torch.complex64), *parameters((4,))]
    optimizer = PowerSign(params)
    steps(optimizer, params[2:], 2)
    assert list(optimizer.state) == [params[2]]


def test_sparse_gradient_after_dense_ones() -> None:
    params = parameters((4, 3), (5,))
    optimizer = PowerSign(params)
    steps(optimizer, params, 2)
    before = [p.detach().clone() for p in params]
    params[0].grad = torch.ones(4, 3).to_sparse()
    with pytest.raises(RuntimeError, match=r"PowerSign does not support sparse gradients \(parameter 0\)"):
        optimizer.step()
    assert same([p.detach() for p in params], before)
    assert float(optimizer.state[params[0]]["step"]) == 2.0


def test_an_error_of_the_engine_passes_through() -> None:
    """A first step that is refused leaves no state behind."""
    params = parameters((3,), (4,))
    optimizer = PowerSign(params)
    set_grads(params)
    params[1].data = torch.zeros(5)
    with pytest.raises(ValueError, match=r"grads\[1\] has shape \(4,\) but params\[1\] has \(5,\)"):
        optimizer.step()
    assert not optimizer.state
    params[1].data = torch.zeros(4)
    optimizer.step()
    assert [float(optimizer.state[p]["step"]) for p in params] == [1.0, 1.0]


@pytest.mark.parametrize("fused", [None, False, True])
def test_grad_scaler_unscales_unless_fused_is_true(fused: bool | None) -> None:
    params = parameters()
    optimizer = PowerSign(params, fused=fused)
    assert optimizer._step_supports_amp_scaling == copy.deepcopy(optimizer)._step_supports_amp_scaling == bool(fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(torch.zeros(()))
    expected = copies(params)
    set_grads(params, scale=4.0)
    set_grads(expected)
    scaler.step(optimizer)
    PowerSign(expected).step()
    assert same(params, expected)
    assert same([p.grad for p in params], [p.grad for p in expected])


def test_two_optimizers_with_one_program() -> None:
    program = nos_ext.compile_rule(library.lion)
    a, b = parameters((5,)), parameters((6,))
    first, second = RuleOptimizer(a, program, lr=0.1), RuleOptimizer(b, program, lr=0.1)
    assert first.program == second.program
    for i in range(3):
        steps(first, a, 1, i)
        steps(second, b, 1, i)
    expected = parameters((5,))
    steps(RuleOptimizer(expected, library.lion, lr=0.1), expected, 3)
    assert same(a, expected)


def test_compiled_step_gives_the_same_bits() -> None:
    torch.compiler.reset()
    params = parameters((10,))
    other = copies(params)
    optimizer, expected = PowerSign(params), PowerSign(other)

    @torch.compile(backend="eager")
    def train() -> None:
        optimizer.zero_grad()
        torch.autograd.backward((params[0] ** 2).sum())
        optimizer.step()

    for _ in range(3):
        train()
        expected.zero_grad()
        torch.autograd.backward((other[0] ** 2).sum())
        expected.step()
    assert same(params, other)


def test_step_alone_is_one_graph_break() -> None:
    torch.compiler.reset()
    params = parameters((10,))
    optimizer = PowerSign(params)
    set_grads(params)
    optimizer.step()

    def train(x: torch.Tensor) -> torch.Tensor:
        x = x * 2
        optimizer.step()
        return x + 1

    explained = torch._dynamo.explain(train)(torch.ones(2))
    assert explained.graph_break_count == 1, explained.break_reasons


def test_library_needs_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from nos_ext.optim import library; import nos_ext.schedules\n"
        "library.adamw\n"
        "for name, module in (('PowerSign', nos_ext.optim), ('LinearCosineDecay', nos_ext.schedules)):\n"
        "    try: getattr(module, name)\n"
        "    except ImportError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count("needs torch; install it") == 2


@pytest.mark.parametrize("kind", ["expanded", "inference"])
def test_a_gradient_that_cannot_be_unscaled_is_refused_before_the_step(kind: str) -> None:
    params = [torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)]
    optimizer = PowerSign(params, lr=0.1, fused=True)
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(2.0), torch.tensor(0.0)  # type: ignore[attr-defined]
    with torch.inference_mode(kind == "inference"):
        odd = torch.ones(1).expand(3) if kind == "expanded" else torch.ones(3)
    params[0].grad, params[1].grad = torch.ones(3), odd
    with pytest.raises(RuntimeError, match=r"cannot unscale the gradient of parameter 1: .*assign p.grad.clone()"):
        optimizer.step()
    assert torch.equal(params[0], torch.ones(3))
    assert torch.equal(params[0].grad, torch.ones(3))
    assert not optimizer.state
    params[1].grad = odd.clone()
    optimizer.step()
    assert [p.grad.tolist() for p in params] == [[0.5] * 3] * 2  # type: ignore[union-attr]
