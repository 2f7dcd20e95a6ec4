"""Rules with reductions: known optimizers against NumPy by hand, which states are one number per tensor, and errors."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

import nos_ext
from nos_ext import RuleError
from nos_ext.rule import Rule, apply, as_rule, hyper, state
from nos_ext.rule.canonical import canonical_key
from nos_ext.rule.expr import GRAD, PARAM
from nos_ext.rule.printers.pytorch import class_name
from tests.rule.test_export import load

Array = npt.NDArray[np.float64]
Memory = dict[str, Any]

LAMB = """
def lamb(p, g, m, v, *, lr, beta1=0.9, beta2=0.999, eps=1e-6, decay=0.01):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g ** 2
    u = m / (1 - beta1 ** t) / (sqrt(v / (1 - beta2 ** t)) + eps) + decay * p
    ratio = where((norm(p) > 0) * (norm(u) > 0), norm(p) / norm(u), 1)
    return p - lr * ratio * u, m, v
"""
LARS = """
def lars(p, g, m, *, lr, mu=0.9, decay=1e-4, trust=0.02):
    local = trust * norm(p) / (norm(g) + decay * norm(p))
    m = mu * m + lr * local * (g + decay * p)
    return p - m, m
"""
NORMALISED = "g / norm(g)"
AVERAGED = """
def averaged(p, g, k, *, lr, beta=0.9):
    k = beta * k + (1 - beta) * norm(g)
    return p - lr * g / (k / (1 - beta ** t) + 1e-8), k
"""
CLIPPED = """
def clipped(p, g, m, *, lr, limit=1, mu=0.9):
    m = mu * m + g * min(1, limit / global_norm(g))
    return p - lr * m, m
"""
OTHERS = """
def others(p, g, s, k, *, lr):
    s = s + global_dot(p, g) / (1 + global_sum(g ** 2))
    k = max(k, max_abs(g)) * cos(0.1)
    return p - lr * (g / k + s * sign(p) * mean(g) + rms(p) * dot(p, g) * sum(g) * 1e-3), s, k
"""
RANDOM = """
def noisy(p, g, k, *, lr):
    k = 0.5 * k + 0.5 * rms(g)
    q = normal(k) + drop(g, min(0.5, 0.1 * k))
    return p - lr * q / global_norm(q), k
"""


def norm(x: Array) -> float:
    return math.sqrt(sum(float(a) ** 2 for a in x.ravel()))


def lamb(i: int, params: list[Array], grads: list[Array], old: Memory, lr: float, t: int) -> Array:
    p, g = params[i], grads[i]
    old["m"][i] = 0.9 * old["m"][i] + (1 - 0.9) * g
    old["v"][i] = 0.999 * old["v"][i] + (1 - 0.999) * g * g
    u = old["m"][i] / (1 - 0.9**t) / (np.sqrt(old["v"][i] / (1 - 0.999**t)) + 1e-6) + 0.01 * p
    return p - lr * (norm(p) / norm(u) if norm(p) > 0 and norm(u) > 0 else 1.0) * u


def lars(i: int, params: list[Array], grads: list[Array], old: Memory, lr: float, t: int) -> Array:
    p, g = params[i], grads[i]
    local = 0.02 * norm(p) / (norm(g) + 1e-4 * norm(p))
    old["m"][i] = 0.9 * old["m"][i] + lr * local * (g + 1e-4 * p)
    return p - old["m"][i]


def normalised(i: int, params: list[Array], grads: list[Array], old: Memory, lr: float, t: int) -> Array:
    return params[i] - lr * grads[i] / norm(grads[i])


def averaged(i: int, params: list[Array], grads: list[Array], old: Memory, lr: float, t: int) -> Array:
    old["k"][i] = 0.9 * old["k"][i] + (1 - 0.9) * norm(grads[i])
    return params[i] - lr * grads[i] / (old["k"][i] / (1 - 0.9**t) + 1e-8)


def clipped(i: int, params: list[Array], grads: list[Array], old: Memory, lr: float, t: int) -> Array:
    total = norm(np.concatenate([g.ravel() for g in grads]))
    old["m"][i] = 0.9 * old["m"][i] + grads[i] * min(1.0, 1 / total)
    return params[i] - lr * old["m"][i]


BY_HAND = {"lamb": (LAMB, lamb), "lars": (LARS, lars), "normalised": (NORMALISED, normalised),
           "averaged": (AVERAGED, averaged), "clipped": (CLIPPED, clipped)}  # fmt: skip
TEXTS = {"lamb": LAMB, "lars": LARS, "normalised": NORMALISED, "averaged": AVERAGED, "clipped": CLIPPED,
         "others": OTHERS, "random": RANDOM}  # fmt: skip
SHAPES = [(5,), (3, 4), (), (7, 1)]


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("name", BY_HAND)
def test_known_optimizers(name: str, library: str) -> None:
    text, step_of = BY_HAND[name]
    program = nos_ext.compile_rule(text)
    rng = np.random.default_rng(3)
    make: Callable[[Any], Any] = np.array if library == "numpy" else torch.tensor
    expected = [rng.standard_normal(shape) for shape in SHAPES]
    memory: Memory = {name: [np.zeros(())] * len(expected) for name in program.state_names}
    params = [make(p) for p in expected]
    states = nos_ext.init_state(program, params)
    for t in range(1, 21):
        grads = [rng.standard_normal(shape) for shape in SHAPES]
        expected = [step_of(i, expected, grads, memory, 0.1, t) for i in range(len(SHAPES))]
        params, states = program.reference(params, [make(g) for g in grads], states, lr=0.1, step=t)
        for p, q in zip(params, expected, strict=True):
            assert np.allclose(np.asarray(p), q, rtol=1e-12, atol=0)
    for state_name, tensors in memory.items():
        for x, y in zip(states[state_name], tensors, strict=True):
            assert np.allclose(np.asarray(x), y, rtol=1e-12, atol=0)


# --- which states are one number per tensor ---------------------------------------------------------------------------

LEVELS = {
    "a moving average of norms": ("def f(p, g, k, *, lr):\n    return p - g / k, 0.9 * k + norm(g)", ("k",)),
    "a norm alone": ("def f(p, g, k, *, lr):\n    return p - g / k, norm(g)", ("k",)),
    "of other such states": ("def f(p, g, k, j, *, lr):\n    return p - g / j, norm(g), max(j, sqrt(k))", ("k", "j")),
    "in a circle": ("def f(p, g, k, j, *, lr):\n    return p - g / j, j, 0.5 * k + norm(g)", ("k", "j")),
    "a factor": ("def f(p, g, k, *, lr):\n    return p - k * g, k * (1 + 0 * norm(g))", ("k",)),
    "a tensor that a norm scales": ("def f(p, g, m, *, lr):\n    return p - m, 0.9 * m + g / norm(g)", ()),
    "no reduction feeds it": (
        "def f(p, g, m, k, *, lr):\n    return p - m * k * g, 0.9 * m, 0.9 * k + norm(g)",
        ("k",),
    ),
    "a plain scalar": ("def f(p, g, m, *, lr):\n    return p - m * g / norm(g), t", ()),
    "left as it is": ("def f(p, g, m, *, lr):\n    return p - m * g / norm(g), m", ()),
    "a circle without a reduction": ("def f(p, g, m, k, *, lr):\n    return p - m * g / norm(g), k, m", ()),
    "made of a tensor state": ("def f(p, g, m, k, *, lr):\n    return p - k, m + g, k + m * norm(g)", ()),
    "no reductions": ("def f(p, g, m, *, lr):\n    return p - m, 0.9 * m", ()),
    "a draw": ("def f(p, g, m, *, lr):\n    return p - m, normal(norm(g))", ()),
    "a choice of numbers": ("def f(p, g, k, *, lr):\n    return p - g, where(t > 1, k, norm(g))", ("k",)),
    "a choice for every element": ("def f(p, g, k, *, lr):\n    return p - g, where(g > 1, k, norm(g))", ()),
    "simplified": ("def f(p, g, k, *, lr):\n    return p - g, where(g > 1, norm(g), norm(g))", ("k",)),
}


@pytest.mark.parametrize(("text", "expected"), LEVELS.values(), ids=LEVELS.keys())
def test_states_that_are_one_number_per_tensor(text: str, expected: tuple[str, ...]) -> None:
    program = nos_ext.compile_rule(text)
    assert program.per_tensor_states == program.rule.per_tensor_states == expected
    assert as_rule(text).per_tensor_states == expected
    assert nos_ext.compile_rule(program.to_text()) == program == program.rule.compile()
    assert pickle.loads(pickle.dumps(program.rule)).per_tensor_states == expected
    assert program.rule.replaced(name="other").per_tensor_states == expected


def test_version_of_the_bytecode() -> None:
    """A program without reductions is written as it always was."""
    assert nos_ext.compile_rule("adam").bytecode[4:6] == b"\1\0"
    assert nos_ext.compile_rule("adam / rms(adam)").bytecode[4:6] == b"\2\0"


def test_zero_states() -> None:
    program = nos_ext.compile_rule("def f(p, g, k, m, *, lr):\n    return p - m, 0.9 * k + norm(g), m + g / k")
    params: list[Any] = [np.ones((2, 3), np.float32), np.ones(4), torch.ones(2, 3, dtype=torch.bfloat16)]
    states = nos_ext.init_state(program, params)
    assert [x.shape for x in states["k"]] == [()] * 3
    assert [x.shape for x in states["m"]] == [(2, 3), (4,), (2, 3)]
    assert [str(x.dtype).removeprefix("torch.") for x in states["k"]] == ["float32", "float64", "float32"]
    assert nos_ext.init_state(program.bytecode, params)["k"][1].shape == ()
    other = nos_ext.compile_rule("def f(p, g, k, *, lr):\n    return p - g / k, norm(g)")
    slots = nos_ext.init_population_state([program, other, program], params)
    assert [[tuple(x.shape) for x in slot] for slot in slots] == [[(3,)] * 3, [(2, 3), (4,), (2, 3)]]
    with pytest.raises(ValueError, match=r"state 0 is one number per tensor in some of the programs .*'m' of rule 'h'"):
        nos_ext.init_population_state(
            [program, nos_ext.compile_rule("def h(p, g, m, *, lr):\n    return p - m, m + g")], params
        )


# --- front ends -------------------------------------------------------------------------------------------------------


def test_function_text_and_graph_agree() -> None:
    @nos_ext.rule
    def clipped(p, g, k, *, lr, beta=0.9):  # type: ignore[no-untyped-def]
        k = beta * k + (1 - beta) * sum(g * g)  # type: ignore[name-defined]
        return p - lr * g / max(k, global_norm(g)), k  # type: ignore[name-defined]  # noqa: F821

    text = (
        "def clipped(p, g, k, *, lr, beta=0.9):\n    k = beta * k + (1 - beta) * sum(g * g)\n"
        "    return p - lr * g / max(k, global_norm(g)), k\n"
    )
    beta, k = hyper("beta"), state("k")
    new = beta * k + (1 - beta) * apply("sum", GRAD * GRAD)
    outputs = [PARAM - hyper("lr") * GRAD / apply("max", new, apply("global_norm", GRAD)), new]
    graph = Rule("clipped", ["k"], {"lr": None, "beta": 0.9}, outputs)
    assert clipped.compile() == nos_ext.compile_rule(text) == graph.compile()
    assert clipped.to_text() == text


def test_shorthand() -> None:
    program = nos_ext.compile_rule("m_hat / rms(v_hat) * min(1, 1 / global_norm(g))")
    assert program.state_names == ("m", "v")
    assert program.per_tensor_states == ()


@pytest.mark.parametrize(
    "name", ["sum", "mean", "norm", "rms", "max_abs", "dot", "global_sum", "global_norm", "global_dot"]
)
def test_names_are_taken(name: str) -> None:
    with pytest.raises(RuleError, match=name):
        nos_ext.compile_rule(f"def f(p, g, *, lr, {name}=1):\n    return p - {name} * g")


def test_contraction_leaves_numbers_per_tensor_alone() -> None:
    text = "def f(p, g, k, *, lr):\n    k = 0.5 * k + 2 * norm(g)\n    return p - lr * g + k * p, k"
    program = nos_ext.compile_rule(text, contract=True)
    assert [op for op, *_ in program.code].count("fma") == 2
    assert [op for op, *_ in nos_ext.compile_rule(text).code].count("fma") == 0
    p, g, k = [np.array([1.0, 2.0])], [np.array([3.0, 4.0])], [[np.array(1.0)]]
    for either in (program, nos_ext.compile_rule(text)):
        (new,), states = either.reference(p, g, k, lr=0.1)
        assert np.allclose(new, [1 - 0.3 + 10.5, 2 - 0.4 + 21])
        assert float(states["k"][0]) == 10.5


def body(line: str, states: str = "m, k", new: str = "m + g, 0.9 * k + norm(g)") -> str:
    return f"def f(p, g, {states}, *, lr):\n    x = {line}\n    return p - lr * x * g, {new}\n"


TENSOR = r"takes a tensor \(p, g, a state or what is made of them\), not "
ERRORS = {
    "of a number": ("norm(2)", f"norm {TENSOR}a scalar", 1, 1),
    "of a hyperparameter": ("g / norm(lr)", f"norm {TENSOR}a scalar", 1, 5),
    "of a norm": ("g / rms(2 * norm(g))", f"rms {TENSOR}what is one number per tensor already", 1, 5),
    "dot of one": ("g * dot(g)", "dot takes 2 arguments, 1 given", 1, 5),
    "dot of a scalar": ("g * dot(g, t)", f"dot {TENSOR}a scalar", 1, 5),
    "simplified to a scalar": ("g * sum(where(1, 2, g))", f"sum {TENSOR}a scalar", 1, 1),
    "cosine of a state that is a tensor": (body("cos(m)"), "cos works on scalars only .* not on tensors", 2, 9),
    "deviation that is a state": (body("normal(m)"), "last argument of normal must be a scalar", 2, 9),
    "norm of a state that is a number": (
        body("1 + norm(k)"), "norm takes a tensor, but state 'k' is one number per tensor", 2, 13
    ),
    "a number as p": (
        "def f(p, g, k, *, lr):\n    k = norm(g)\n    return 1 - lr * k, k\n",
        "the new p is one number for the whole tensor; make it of p or g", 3, 12,
    ),
    "a state as p": ("def f(p, g, k, *, lr):\n    return k, norm(g)\n", "the new p is one number for the whole", 2, 5),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message", "line", "column"), ERRORS.values(), ids=ERRORS.keys())
def test_errors_have_a_place(text: str, message: str, line: int, column: int) -> None:
    with pytest.raises(RuleError, match=message) as caught:
        nos_ext.compile_rule(text)
    assert (caught.value.line, caught.value.column) == (line, column)
    assert str(caught.value).endswith(" " * (column + 3) + "^")


def test_errors_of_functions_and_graphs() -> None:
    def wrong(p, g, m, *, lr):  # type: ignore[no-untyped-def]
        return p - cos(m) * norm(g), m + g  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(RuleError, match=r"wrong: cos works on scalars only .* \(in cos\(m\)\)"):
        nos_ext.rule(wrong)
    with pytest.raises(RuleError, match="the new p is one number"):
        Rule("f", ["k"], {"lr": None}, [state("k"), apply("norm", GRAD)])
    with pytest.raises(RuleError, match="not a scalar"):
        apply("norm", hyper("lr"))


# --- outputs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", TEXTS)
def test_exported_optimizers(name: str, dtype: torch.dtype) -> None:
    """20 steps beside the reference; two groups, a parameter without gradient, an empty and a transposed one."""
    program = nos_ext.compile_rule(TEXTS[name])
    make = torch.Generator().manual_seed(0)
    params = [torch.randn(s, generator=make, dtype=torch.float64).to(dtype) for s in [*SHAPES, (2,), (0,)]]
    params.append(torch.randn(4, 3, generator=make, dtype=torch.float64).to(dtype).t())
    expected = [p.clone() for p in params]
    states: Any = nos_ext.init_state(program, params)
    cls = getattr(load(program.to_pytorch()), class_name(program.name))
    optimizer = cls([{"params": params[:2]}, {"params": params[2:]}], lr=0.1)
    for step in range(1, 21):
        grads = [torch.randn(p.shape, generator=make, dtype=torch.float64).to(dtype) for p in params]
        for i, (p, g) in enumerate(zip(params, grads, strict=True)):
            p.grad = None if i == 4 else g
        optimizer.step()
        expected, states = program.reference(expected, [p.grad for p in params], states, lr=0.1, step=step)
        if step == 10:  # through a checkpoint
            saved = copy.deepcopy(optimizer.state_dict())
            optimizer = cls([{"params": params[:2]}, {"params": params[2:]}], lr=0.1)
            optimizer.load_state_dict(saved)
    tolerance = 1e-11 if dtype == torch.float64 else 2e-4
    for i, (p, q) in enumerate(zip(params, expected, strict=True)):
        torch.testing.assert_close(p, q, rtol=tolerance, atol=tolerance)
        for state_name in program.state_names if i not in (4, 5) else ():
            x = optimizer.state[p][state_name]
            assert x.shape == (() if state_name in program.per_tensor_states else p.shape)
            torch.testing.assert_close(x, states[state_name][i], rtol=tolerance, atol=tolerance)


def test_exported_states_are_checked() -> None:
    cls = load(nos_ext.compile_rule(AVERAGED).to_pytorch()).Averaged
    p = torch.ones(3, requires_grad=True)
    p.grad = torch.ones(3)
    optimizer = cls([p], lr=0.1)
    optimizer.step()
    saved = optimizer.state_dict()
    saved["state"][0]["k"] = torch.ones(3)
    with pytest.raises(ValueError, match=r"k of parameter 0 of the checkpoint is torch.Size\(\[3\]\), not a tensor of"):
        optimizer.load_state_dict(saved)


def test_mathematics() -> None:
    latex = nos_ext.compile_rule(CLIPPED).to_latex()
    assert r"\left\lVert g_{t} \right\rVert_{\text{all}}" in latex
    latex = nos_ext.compile_rule("dot(g, w) * max_abs(m) / mean(g)").to_latex()
    assert r"\left\langle g_{t}, p_{t-1} \right\rangle" in latex
    mathml = nos_ext.compile_rule(LARS).to_mathml()
    assert "&#x2016;" in mathml


# --- canonical keys ---------------------------------------------------------------------------------------------------

SAME = [
    ("g / norm(g)", "g / norm(-g)"),
    ("g / norm(3 * g)", "g / (3 * norm(g))"),
    ("g / norm(-lr * g)", "g / (abs(lr) * norm(g))"),
    ("g * dot(g, w)", "dot(w, g) * g"),
    ("g * dot(2 * g, -w)", "g * -2 * dot(g, w)"),
    ("g * sum(2 * g)", "2 * g * sum(g)"),
    ("g * sum(g + w)", "g * (sum(w) + sum(g))"),
    ("g * norm(g - w)", "g * norm(w - g)"),
    ("g * norm(g) ** 2", "g * dot(g, g)"),
    ("g * rms(g) ** 2", "g * mean(g ** 2)"),
    ("g * rms(g)", "g * norm(g) / sqrt(sum(g / g))"),
    ("g * norm(g) / norm(g)", "g"),
    ("g * global_norm(g) * global_norm(lr * g)", "g * abs(lr) * global_sum(g * g)"),
    ("g / norm(g / norm(w))", "g / norm(g) * abs(norm(w))"),
    ("g * max_abs(-g)", "max_abs(g) * g"),
    ("g / global_norm(2 * g)", "g / global_norm(g) / 2"),
]
DIFFERENT = [
    ("g / norm(g)", "g / rms(g)"),
    ("g / norm(g)", "g / global_norm(g)"),
    ("g / norm(g)", "sign(g)"),
    ("g / norm(drop(1, 0.5))", "g * drop(1, 0.5)"),
    ("g * sum(drop(2, 0.5) * w)", "g * drop(2, 0.5) * sum(w)"),
    ("g * global_norm(g) ** 2", "g * dot(g, g)"),
    ("g * sum(g)", "g * g"),
    ("g * sum(g * w)", "g * sum(g) * w"),
    ("g * sum(g)", "g * sum(-g)"),
    ("g / norm(g * w)", "g / norm(g) / abs(w)"),
    ("g * max_abs(w)", "g * abs(w)"),
    ("g / norm(g + w)", "g / norm(g - w)"),
    ("g * global_sum(g / norm(g))", "g * global_sum(g) / norm(g)"),
]


@pytest.mark.parametrize(("a", "b"), SAME)
def test_rules_with_the_same_key(a: str, b: str) -> None:
    assert canonical_key(nos_ext.compile_rule(a)) == canonical_key(nos_ext.compile_rule(b))


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_rules_with_different_keys(a: str, b: str) -> None:
    assert canonical_key(nos_ext.compile_rule(a)) != canonical_key(nos_ext.compile_rule(b))
