"""The exported optimizers pass the conformance suite of torch optimizers, and their steps are those of the engine."""

from __future__ import annotations

import builtins
import copy
import functools
import keyword
import pickle
import sys
from types import ModuleType
from typing import Any

import pytest
import torch

import nos_ext
from nos_ext import RuleError
from nos_ext.optim import library
from nos_ext.rule import Rule, apply, as_rule, hyper, state
from nos_ext.rule.expr import GRAD, PARAM
from nos_ext.rule.printers.pytorch import class_name
from nos_ext.testing.optimizer import OptimizerCase, OptimizerConformance
from tests.reference.named import ONE_PROGRAM


@functools.cache
def exported(rule: Rule) -> Any:
    """The class in the exported file; it has a module of its own, so that it can be pickled."""
    name = f"exported_{rule.name}"
    module = sys.modules[name] = ModuleType(name)
    exec(compile(rule.to_pytorch(), f"{name}.py", "exec"), module.__dict__)
    return getattr(module, class_name(rule.name))


def awkward(rule_name: str, hyper_name: str, state_name: str, doc: str = "") -> Rule:
    """Momentum with names of any kind."""
    new = apply("add", apply("mul", hyper(hyper_name), state(state_name)), GRAD)
    outputs = [apply("sub", PARAM, apply("mul", hyper("lr"), new)), new]
    return Rule(rule_name, [state_name], {"lr": None, hyper_name: 0.9}, outputs, doc=doc)


AVERAGED = """def averaged(p, g, k, m, *, lr, beta=0.9):
    k = beta * k + (1 - beta) * norm(g)
    m = beta * m + g
    return p - lr * m / (k / (1 - beta ** t) + 1e-6), k, m
"""
CLIPPED = """def clipped(p, g, m, *, lr, mu=0.9):
    m = mu * m + g * min(1, 1 / (global_norm(g) + 1e-6))
    return p - lr * m, m
"""
HOSTILE = 'a "quote\'s" \\ """\r\n\x0c\u2028\x85\0{braces} %s \\N{BULLET} \\u0041\\'
EXPORTS = {"wide_state": True}
CASES = [
    OptimizerCase("sgd", exported(library.sgd), **EXPORTS),
    OptimizerCase(
        "adamw", exported(library.adamw), hyper="weight_decay", values=(0.1, 0.2), states=("m", "v"), **EXPORTS
    ),
    OptimizerCase("powersign", exported(library.powersign), lr=0.02, hyper="beta", states=("m",), **EXPORTS),
    OptimizerCase(
        "awkward", exported(awkward("true", "defaults", "params", HOSTILE)), hyper="defaults", states=("params",), **EXPORTS
    ),
    OptimizerCase(
        "averaged", exported(as_rule(AVERAGED)), hyper="beta", states=("k", "m"), numbers=("k",), spans="tensor", **EXPORTS
    ),
    OptimizerCase("clipped", exported(as_rule(CLIPPED)), hyper="mu", states=("m",), spans="all", **EXPORTS),
]  # fmt: skip


class TestConformance(OptimizerConformance):
    @pytest.fixture(params=CASES, ids=str)
    def case(self, request: pytest.FixtureRequest) -> OptimizerCase:
        return request.param  # type: ignore[no-any-return]


def follow(rule: Rule, steps: int = 5, dtype: torch.dtype = torch.float32) -> None:
    """The exported class and the engine take the same steps."""
    program = rule.compile()
    make = torch.Generator().manual_seed(1)
    start = [(torch.rand(shape, generator=make) + 0.5).to(dtype) for shape in ((40,), (3, 4), ())]
    ours, theirs = [p.clone() for p in start], [p.clone().requires_grad_() for p in start]
    extra = {"total_steps": 10} if program.uses_total_steps else {}
    optimizer = exported(rule)(theirs, lr=0.01, **extra, **({"seed": 3} if program.uses_random else {}))
    memory = nos_ext.init_state(program, ours)
    for step in range(1, steps + 1):
        grads = [torch.randn(p.shape, generator=make).to(dtype) for p in start]
        for p, g in zip(theirs, grads, strict=True):
            p.grad = g.clone()
        optimizer.step()
        nos_ext.apply_rule(program, ours, grads, memory, lr=0.01, step=step, seed=3, **extra)
    eps = torch.finfo(torch.float32 if dtype == torch.float32 else dtype).eps
    for p, q in zip(theirs, ours, strict=True):
        torch.testing.assert_close(p.detach(), q, rtol=32 * eps, atol=32 * eps, equal_nan=True)
        assert p.dtype == q.dtype


@pytest.mark.parametrize("name", ONE_PROGRAM)
def test_steps_of_the_library(name: str) -> None:
    follow(library.get(name))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_steps_in_other_dtypes(dtype: torch.dtype) -> None:
    follow(library.adamw, dtype=dtype)


NAMES = sorted(
    {name for name in [*dir(builtins), *dir(torch.optim.Optimizer), *keyword.softkwlist] if name.isascii()}
    | {"tensor", "group", "p", "g", "loss", "old", "new", "x", "value", "entry", "dtype", "name", "numbers", "options"}
    | {"params", "defaults", "state", "foreach", "fused", "capturable", "differentiable", "initial_lr", "param_names"}
    | {"x1", "m_new", "_number", "_draw", "_words", "_sign", "_STATES", "_NUMBERS", "__class__", "__x", "_", "__", "F", "T"}
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_any_name_works_or_is_refused(name: str) -> None:
    """As the name of a rule, of a hyperparameter and of a state."""
    for names in ((name, "beta", "m"), ("f", name, "m"), ("f", "beta", name)):
        try:
            rule = awkward(*names)
            source = rule.to_pytorch()
        except RuleError as error:
            if name not in error.message:
                raise
            continue
        compile(source, "exported.py", "exec")
        follow(rule, steps=2)
        cls = exported(rule)
        p = torch.ones(2, requires_grad=True)
        p.grad = torch.ones(2)
        given = cls([p], lr=0.5, **{names[1]: 0.25})
        given.step()
        assert given.param_groups[0][names[1]] == 0.25
        assert not hasattr(builtins, cls.__name__)


LINES = [
    "\r",
    "\n",
    "\x0b",
    "\x0c",
    "\x1c",
    "\x1e",
    "\x85",
    "\u2028",
    "\u2029",
    "\0",
    "\ud800",
    '"""',
    "\\",
    "'''",
    "{x}",
]


@pytest.mark.parametrize("character", LINES, ids=ascii)
@pytest.mark.parametrize("shape", ["{}", "{}import os", "a{}import os", "a{}", '"{}', "\\{}", '"""{}import os\n"""'])
def test_a_description_never_becomes_code(character: str, shape: str) -> None:
    source = awkward("f", "beta", "m", shape.replace("{}", character)).to_pytorch()
    source.encode()
    module = ModuleType("exported")
    exec(compile(source, "exported.py", "exec"), module.__dict__)
    assert "os" not in vars(module)
    plain = awkward("f", "beta", "m", "Plain.").to_pytorch()
    assert len(source.split("\n")) == len(plain.split("\n"))
    assert source.splitlines()[4:] != []


def test_checkpoints_that_torch_would_take() -> None:
    """A number as step, a missing maximize, and half-precision parameters."""
    p = torch.ones(3, dtype=torch.bfloat16, requires_grad=True)
    optimizer = exported(library.adamw)([p], lr=0.1)
    for _ in range(3):
        p.grad = torch.tensor([0.1, 0.2, 0.3], dtype=torch.bfloat16)
        optimizer.step()
    saved = optimizer.state_dict()
    saved["state"][0]["step"] = 3
    del saved["param_groups"][0]["maximize"], saved["param_groups"][0]["eps"]
    q = p.detach().clone().requires_grad_()
    other = exported(library.adamw)([q], lr=5.0)
    other.load_state_dict(saved)
    assert other.state[q]["m"].dtype == torch.float32
    for x, o in ((p, optimizer), (q, other)):
        o.state[x]["step"] = torch.as_tensor(o.state[x]["step"], dtype=torch.float32)
        o.param_groups[0].setdefault("maximize", False)
        o.param_groups[0].setdefault("eps", 1e-8)
        x.grad = torch.ones(3, dtype=torch.bfloat16)
        o.step()
    assert torch.equal(p, q)
    assert other.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize("lr", [-1.0, float("nan"), torch.tensor([0.1, 0.2]), torch.tensor(-0.1)], ids=str)
def test_refused_learning_rates(lr: Any) -> None:
    with pytest.raises(ValueError, match=r"Invalid learning rate|Tensor lr must be 1-element"):
        exported(library.sgd)([torch.ones(2, requires_grad=True)], lr=lr)


def test_tensors_of_one_element_are_numbers() -> None:
    p = torch.ones((), requires_grad=True)
    p.grad = torch.ones(())
    exported(library.adamw)([p], lr=torch.tensor([0.5]), weight_decay=torch.zeros(1, 1)).step()
    assert p.item() == pytest.approx(0.5)


DRAWN = as_rule("1e-3 / g + normal(lr) + cd * drop(g, 0.3)")  # with a seed and the length of the training


def saved_adamw() -> tuple[torch.Tensor, dict[str, Any]]:
    """A parameter of shape (3,), and the state_dict after one step."""
    p = torch.ones(3, requires_grad=True)
    p.grad = torch.tensor([0.1, 0.2, 0.3])
    optimizer = exported(library.adamw)([p], lr=0.1)
    optimizer.step()
    return p, optimizer.state_dict()


@pytest.mark.parametrize("flags", [{}, {"fused": True}, {"capturable": True}], ids=str)
@pytest.mark.parametrize(
    "kind", [float, torch.tensor, lambda x: torch.tensor(x, dtype=torch.float64)], ids=["float", "int64", "float64"]
)
def test_steps_beyond_those_of_float32(flags: dict[str, Any], kind: Any) -> None:
    """2**24 + 1 is the first number that float32 does not have; torch casts the steps of some groups to it."""
    p, saved = saved_adamw()
    saved["param_groups"][0].update(flags)
    for start in (2**24, 2**24 + 1):
        saved["state"][0]["step"] = kind(start)
        optimizer = exported(library.adamw)([p], lr=0.1)
        optimizer.load_state_dict(saved)
        for i in range(1, 3):
            optimizer.step()
            assert optimizer.state[p]["step"].item() == start + i
        again = pickle.loads(pickle.dumps(optimizer))
        assert next(iter(again.state.values()))["step"].item() == start + 2


@pytest.mark.parametrize("rule", [library.adamw, DRAWN], ids=lambda rule: rule.name)
def test_steps_where_new_tensors_have_no_memory(rule: Rule) -> None:
    """Making, loading and stepping under torch.device("meta") give what they give elsewhere."""
    results = []
    for device in ("cpu", "meta"):
        p = torch.tensor([1.0, 2.0, 3.0], device="cpu", requires_grad=True)
        p.grad = torch.tensor([0.1, 0.2, 0.3], device="cpu")
        extra = {"total_steps": 10} if rule.compile().uses_total_steps else {}
        with torch.device(device):
            optimizer = exported(rule)([p], lr=0.1, **extra)
            for _ in range(2):
                optimizer.step()
                saved = optimizer.state_dict()
                optimizer = exported(rule)([p], lr=0.1, **extra)
                optimizer.load_state_dict(saved)
            optimizer.step()
        assert optimizer.state[p]["step"].device.type == "cpu"
        results.append(p.detach())
    assert torch.equal(*results)


NAN = float("nan")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("step", x) for x in (-5, NAN, 2.5, float("inf"), "3", None, torch.tensor([1.0, 2.0]), torch.tensor(-1.0))],
        ("step", torch.tensor(1.0, device="meta")),
        *[("m", x) for x in (torch.ones(1), torch.ones(()), torch.ones(3, 1), None, 0.0, (3,))],
        *[("lr", x) for x in (NAN, -1.0, "0.1", None, torch.ones(2), torch.tensor(NAN))],
        *[("eps", x) for x in (NAN, "no", None)],
        *[("maximize", x) for x in ("no", None, 2, NAN, torch.tensor([True, False]))],
    ],
    ids=lambda x: " ".join(repr(x).split()),
)
def test_checkpoints_that_are_refused(key: str, value: Any) -> None:
    """In one line that names the key, and before anything is loaded."""
    p, saved = saved_adamw()
    optimizer = exported(library.adamw)([p], lr=0.5)
    optimizer.step()
    before = copy.deepcopy(optimizer.state_dict())
    saved[("param_groups" if key in saved["param_groups"][0] else "state")][0][key] = value
    with pytest.raises(ValueError, match=rf"\A{key} .*\Z") as error:
        optimizer.load_state_dict(saved)
    assert "\n" not in str(error.value)
    assert repr(optimizer.state_dict()) == repr(before)


def test_checkpoints_that_lack_a_state_are_refused() -> None:
    p, saved = saved_adamw()
    del saved["state"][0]["v"]
    with pytest.raises(
        ValueError, match=r"v of parameter 0 of the checkpoint is None, not a tensor of torch.Size\(\[3\]\)"
    ):
        exported(library.adamw)([p], lr=0.5).load_state_dict(saved)


@pytest.mark.parametrize(("key", "value"), [("seed", 0.5), ("seed", "x"), ("total_steps", 0), ("total_steps", "10")])
def test_checkpoints_of_random_rules_that_are_refused(key: str, value: Any) -> None:
    p = torch.ones(3, requires_grad=True)
    optimizer = exported(DRAWN)([p], lr=0.5, total_steps=10)
    saved = optimizer.state_dict()
    optimizer.load_state_dict(saved)
    saved["param_groups"][0][key] = value
    with pytest.raises(ValueError, match=f"^{key} of the checkpoint is {value!r}, not"):
        optimizer.load_state_dict(saved)
