"""The exported optimizer: it runs alone, and its float64 path is that of the reference."""

from __future__ import annotations

import ast
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings

import nos_ext
from nos_ext import RuleError
from nos_ext.ops import OPS
from nos_ext.optim import library
from nos_ext.rule import Rule, as_rule
from nos_ext.rule.printers.pytorch import class_name
from tests.reference.named import ONE_PROGRAM
from tests.reference.strategies import rules

SHAPES = [(5,), (3, 4), (), (0,), (7, 1)]


def load(source: str) -> ModuleType:
    module = ModuleType("exported")
    sys.modules["exported"] = module  # torch looks classes up by module
    exec(compile(source, "exported.py", "exec"), module.__dict__)
    return module


def optimizer_of(rule: Rule | nos_ext.Program, params: Any, lr: float, **arguments: Any) -> torch.optim.Optimizer:
    cls = getattr(load(rule.to_pytorch()), class_name(rule.name))
    if "total" in {node.op for node in nodes(rule)}:
        arguments["total_steps"] = 10
    optimizer: torch.optim.Optimizer = cls(params, lr, **arguments)
    return optimizer


def nodes(rule: Rule | nos_ext.Program) -> list[Any]:
    from nos_ext.rule.expr import postorder

    graph = rule if isinstance(rule, Rule) else rule.rule
    return postorder(graph.simplified)


def compare(rule: Rule, *, steps: int = 4, rtol: float = 1e-13, **arguments: Any) -> None:
    """Both start at the same point, with the same gradients; a transposed parameter is among them."""
    make = torch.Generator().manual_seed(0)
    params = [torch.randn(s, generator=make, dtype=torch.float64) for s in SHAPES]
    params.append(torch.randn(4, 3, generator=make, dtype=torch.float64).t())
    reference = [p.numpy().copy(order="K") for p in params]
    state: Any = nos_ext.init_state(rule.compile(), reference)
    seed = {"seed": 2**40 + 7} if any(node.op in ("drop", "normal") for node in nodes(rule)) else {}
    optimizer = optimizer_of(rule, params, 0.1, **arguments, **seed)
    for step in range(1, steps + 1):
        grads = [torch.randn(p.shape, generator=make, dtype=torch.float64) for p in params]
        for p, g in zip(params, grads, strict=True):
            p.grad = g.clone()
        optimizer.step()
        reference, state = rule.reference(
            reference, [g.numpy() for g in grads], state, lr=0.1, step=step, total_steps=10, **arguments, **seed
        )
        for i, (p, expected) in enumerate(zip(params, reference, strict=True)):
            if rule.state_names == () or step == 1 or np.isfinite(expected).all():
                assert np.allclose(p.numpy(), expected, rtol=rtol, atol=1e-300, equal_nan=True), (i, step)


@pytest.mark.parametrize("name", ONE_PROGRAM)
def test_library(name: str) -> None:
    compare(library.get(name))


@pytest.mark.parametrize(
    "update",
    [
        "noise * g + annealed_noise",
        "drop(g, 0.3) * normal(lr) + drop(1, 0.5)",
        "cd * ld * rd * g + w",
        "where(g < m, tanh(g), rsqrt(abs(m))) * (g != 0) + floor(g) ** 2",
        "max(min(g, 0.5), m) + (exp(1) - log(2)) * pow(abs(g), 1.5)",
        "sub(inf, inf) * g",
        "g * (t % 3)",
    ],
)
def test_updates(update: str) -> None:
    compare(as_rule(update))


def test_maximize() -> None:
    compare(library.adam, maximize=True)


def test_contracted_programs() -> None:
    compare(nos_ext.compile_rule(library.adam, contract=True).rule)


MOVES = {
    "swap": "def f(p, g, m, v, *, lr):\n    return p - lr * m, v + g, m",
    "swap leaves": "def f(p, g, m, v, *, lr):\n    return v, m, p",
    "gradient": "def f(p, g, m, *, lr):\n    return m, g",
    "scalar and constant": "def f(p, g, m, *, lr):\n    return p - g, 0.25",
    "shared": "def f(p, g, m, v, *, lr):\n    m = m + g\n    return m, m, m",
}


@pytest.mark.parametrize("text", MOVES.values(), ids=MOVES.keys())
def test_values_that_move_between_slots(text: str) -> None:
    compare(nos_ext.compile_rule(text).rule)


JUMPS = {"floor", "sign", "where", "mod", "lt", "le", "gt", "ge", "eq", "ne"}  # the last bit of exp decides them


@settings(max_examples=60)
@given(rules(max_ops=12, max_states=3, ops=tuple(name for name in OPS if name not in JUMPS)))
def test_random_rules(rule: Rule) -> None:
    compare(rule, steps=1, rtol=1e-6)


def test_the_file_stands_alone() -> None:
    for rule in (library.adamw, library.drop_mhat_exp_w):
        tree = ast.parse(rule.to_pytorch())
        imports = [name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names]
        assert set(imports) <= {"math", "torch"}
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        assert sum(isinstance(node, ast.ClassDef) for node in tree.body) == 1
        assert ast.get_docstring(tree)


def test_optimizer_contract() -> None:
    """Groups, closure, missing gradients, state_dict, half precision, schedulers."""
    cls = load(library.adamw.to_pytorch()).Adamw
    a, b, c = (torch.nn.Parameter(torch.ones(3)) for _ in range(3))
    optimizer = cls([{"params": [a], "lr": 0.5}, {"params": [b, c]}], lr=0.1, weight_decay=0)
    a.grad, b.grad = torch.ones(3), torch.ones(3)
    calls = []

    def closure() -> torch.Tensor:
        calls.append(torch.is_grad_enabled())
        return torch.tensor(3.0)

    assert optimizer.step(closure) == 3.0
    assert calls == [True]
    assert a[0].item() == pytest.approx(0.5)
    assert b[0].item() == pytest.approx(0.9)
    assert torch.equal(c, torch.ones(3))
    assert set(optimizer.state[a]) == {"step", "m", "v"}
    saved = optimizer.state_dict()
    other = cls([{"params": [a], "lr": 0.5}, {"params": [b, c]}], lr=0.1, weight_decay=0)
    other.load_state_dict(saved)
    optimizer.step()
    twice = a.detach().clone()
    with torch.no_grad():
        a.copy_(torch.full((3,), 0.5))
    other.step()
    assert torch.allclose(a, twice, atol=1e-6)
    scheduler = torch.optim.lr_scheduler.StepLR(other, 1, gamma=0.1)
    other.step()
    scheduler.step()
    assert other.param_groups[0]["lr"] == pytest.approx(0.05)
    half = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    half.grad = torch.ones(3, dtype=torch.bfloat16)
    optimizer = cls([half], lr=torch.tensor(0.5))
    optimizer.step()
    assert half.dtype == torch.bfloat16
    assert optimizer.state[half]["m"].dtype == torch.float32
    assert torch.allclose(half.float(), torch.tensor(0.495), atol=3e-3)
    with pytest.raises(ValueError, match="Invalid learning rate"):
        cls([half], lr=-1)
    sparse = torch.nn.Parameter(torch.ones(3))
    sparse.grad = torch.ones(3).to_sparse()
    with pytest.raises(RuntimeError, match="sparse"):
        cls([sparse], lr=1).step()


def test_float32_follows_the_engine() -> None:
    program = nos_ext.compile_rule(library.powersign)
    p = torch.linspace(-1, 1, 100)
    ours, theirs = [p.clone()], torch.nn.Parameter(p.clone())
    optimizer = load(program.to_pytorch()).Powersign([theirs], lr=0.1)
    state = nos_ext.init_state(program, ours)
    for step in range(1, 6):
        theirs.grad = torch.sin(p * step)
        optimizer.step()
        nos_ext.apply_rule(program, ours, [theirs.grad], state, lr=0.1, step=step)
    assert torch.allclose(ours[0], theirs, rtol=1e-5, atol=1e-6)


SPECIAL = [0.0, -0.0, 1e-39, -3e-45, 1e-310, -5e-324, 1e38, -3e38, 1e308, np.inf, -np.inf, np.nan, 1.0, -1.0, 3.0, 1e-3]
CORRECTLY_ROUNDED = ("add", "sub", "mul", "div", "neg")  # torch.sqrt is not: it may be a library's vector code


def assert_same_bits(rule: Rule) -> None:
    """Two steps of the exported class and of the engine, on special values of both signs and ordinary ones."""
    program = rule.compile()
    extra = {"total_steps": 10} if program.uses_total_steps else {}
    make = torch.Generator().manual_seed(0)
    for dtype, bits in ((torch.float32, torch.int32), (torch.float64, torch.int64)):
        special = torch.tensor(SPECIAL, dtype=torch.float64)
        start = torch.cat([torch.randn(300, generator=make, dtype=torch.float64), special]).to(dtype)
        grads = [torch.cat([torch.randn(300, generator=make).double(), special.roll(i)]).to(dtype) for i in (3, 8)]
        theirs, ours = start.clone(), [start.clone()]
        optimizer, state = optimizer_of(rule, [theirs], 0.1), nos_ext.init_state(program, ours)
        for step, g in enumerate(grads, 1):
            theirs.grad = g.clone()
            optimizer.step()
            nos_ext.apply_rule(program, ours, [g], state, lr=0.1, step=step, **extra)
            pairs = [(theirs, ours[0]), *[(optimizer.state[theirs][name], state[name][0]) for name in rule.state_names]]
            for x, expected in pairs:
                same = (x.view(bits) == expected.view(bits)) | (x.isnan() & expected.isnan())
                assert same.all(), (dtype, step, x[~same], expected[~same])


@pytest.mark.parametrize(
    "update", ["1e-3 / g", "-0.0 / g", "inf / g", "lr / g", "t / v", "3 / (1 - lr) / g", "0.1 - g", "g / 0.1", "1e-40 * g"]
)  # fmt: skip
def test_numbers_and_tensors_give_the_engine_s_bits(update: str) -> None:
    assert_same_bits(as_rule(update))


@settings(max_examples=60)
@given(rules(max_ops=12, max_states=2, ops=CORRECTLY_ROUNDED))
def test_random_rules_give_the_engine_s_bits(rule: Rule) -> None:
    assert_same_bits(rule)


def test_drops_have_the_engine_s_bits() -> None:
    program = nos_ext.compile_rule("drop(g, 0.5) + drop(w, 0.1)")
    p = torch.linspace(-1, 1, 1001, dtype=torch.float64)
    ours, theirs = [torch.zeros(3, dtype=torch.float64), p.clone()], [torch.zeros(3, dtype=torch.float64), p.clone()]
    optimizer = load(program.to_pytorch()).Rule(theirs, lr=0.1, seed=2**63 + 1)
    for step in range(1, 4):
        for x in theirs:
            x.grad = torch.ones_like(x)
        optimizer.step()
        nos_ext.apply_rule(program, ours, [x.grad for x in theirs], {}, lr=0.1, step=step, seed=2**63 + 1)
    assert all(map(torch.equal, ours, theirs))


@pytest.mark.parametrize("name", ["self", "torch", "math", "random", "_number", "_sign"])
def test_names_that_torch_needs(name: str) -> None:
    program = nos_ext.compile_rule(f"def f(p, g, *, lr, {name}=1):\n    return p - lr * {name} * g")
    with pytest.raises(RuleError, match=f"needs the name '{name}'"):
        program.to_pytorch()


def test_class_names() -> None:
    assert class_name("power_sign") == "PowerSign"
    assert class_name("_x") == "X"
    assert class_name("_1") == "Rule1"


@pytest.mark.parametrize("name", ["adamw", "powersign", "lamb"])
def test_update_is_differentiable(name: str) -> None:
    """Errors about differentiable=True name it for that."""
    rule = library.get(name)
    make = torch.Generator().manual_seed(0)
    tensors = [torch.rand(6, generator=make, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    tensors += [x.detach().requires_grad_() for x in torch.rand(len(rule.state_names), 6, generator=make).double()]
    lr = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    numbers = {h: torch.tensor(x, dtype=torch.float64) for h, x in rule.hyperparameters.items() if x is not None}
    update = load(rule.to_pytorch()).update
    t = torch.tensor(3.0, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda lr, *old: update(*old, lr=lr, t=t, **numbers), (lr, *tensors))
