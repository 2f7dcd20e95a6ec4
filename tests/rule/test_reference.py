"""`reference`: golden vectors of the paper's operands and rules, its arguments, and the engine beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import nos_ext
from nos_ext.rule import OPERANDS as OPERAND_TABLE

W0 = [1.0, -2.0, 0.5]
GRADIENTS = [[0.5, -0.25, 2e-5], [-0.1, -0.25, -3e-5], [0.2, 0.4, 1e-5]]

# Operands after each step, and parameters after three with lr 0.1: computed by hand from the paper's definitions.
OPERANDS: dict[str, list[list[float]]] = {
    "m_hat": [[0.5, -0.25, 2e-5], [0.184210526, -0.25, -6.31578947e-6], [0.1900369, -0.0101476015, -2.95202952e-7]],
    "v_hat": [[0.25, 0.0625, 4e-10], [0.12993997, 0.0625, 6.50125063e-10], [0.09992998, 0.0950325217, 4.66566544e-10]],
    "y_hat": [
        [0.125, -0.015625, 8e-15],
        [0.0619684842, -0.015625, -9.50875438e-15],
        [0.043960988, 0.010943226, -6.002331e-15],
    ],
}
RULES: dict[str, list[float]] = {
    "g": [0.94, -1.99, 0.5],
    "g * exp(sign(g) * sign(m_hat))": [0.8133990664, -1.878801086, 0.5000023504],
    "g * (1 + sign(g) * sign(m_hat))": [0.86, -1.9, 0.500002],
    "m_hat * exp(v_hat)": [0.8938207158, -1.945659351, 0.4999986611],
    "clip(m_hat, 1e-4) * exp(v_hat)": [0.9999647212, -1.999967713, 0.4999986611],
    "(exp(sign(g) * sign(m_hat)) + clip(g, 1e-4)) * g": [0.8133910664, -1.878810086, 0.5000023503],
    "m_hat * exp(g ** 2)": [0.8974132965, -1.945584445, 0.4999986611],
    "g - clip(g ** 2, 1e-4)": [0.94003, -1.98997, 0.5000000001],
    "exp(g) - exp(m_hat)": [1.028532295, -2.050192099, 0.5000013389],
    "adam": [0.7887814028, -1.796708255, 0.426176484],
    "rmsprop": [0.8644737117, -1.929754933, 0.4713876624],
    "adam * exp(sign(g) * sign(m_hat))": [0.5459600134, -1.455132688, 0.2961161383],
    "sign(adam)": [0.7, -1.7, 0.6],
    "y_hat": [0.9769070528, -1.997969323, 0.5],
}


def steps(program: nos_ext.Program, lr: float, **arguments: Any) -> list[Any]:
    """The parameter after each of the three steps; both evaluators, which must agree."""
    params, engine = [np.array(W0)], [np.array(W0)]
    state = nos_ext.init_state(program, params)
    engine_state = nos_ext.init_state(program, engine)
    out = []
    for step, g in enumerate(GRADIENTS, 1):
        grads = [np.array(g)]
        params, state = program.reference(params, grads, state, lr=lr, step=step, **arguments)
        nos_ext.apply_rule(program, engine, grads, engine_state, lr=lr, step=step, **arguments)
        assert np.allclose(params[0], engine[0], rtol=1e-14, atol=0)
        out.append(params[0])
    return out


@pytest.mark.parametrize("update", RULES)
def test_golden_rules(update: str) -> None:
    assert np.allclose(steps(nos_ext.compile_rule(update), 0.1)[-1], RULES[update], rtol=0, atol=2e-9)


@pytest.mark.parametrize("name", OPERANDS)
def test_golden_operands(name: str) -> None:
    """With lr = -1 the parameter moves by the operand itself."""
    path = np.array([W0, *steps(nos_ext.compile_rule(name), -1.0)])
    assert np.allclose(np.diff(path, axis=0), OPERANDS[name], rtol=1e-8, atol=1e-15)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("ld", {1: 1.0, 101: 0.9, 501: 0.5, 1001: 0.0, 1500: 0.0}),
        ("cd", {1: 1.0, 101: 0.975528, 501: 0.5, 901: 0.024472, 1001: 0.0}),
        ("rd", {1: 1.0, 101: 0.975528, 501: 0.5, 901: 0.024472, 1001: 1.0, 1101: 0.975528}),
    ],
)
def test_decay_operands(name: str, values: dict[int, float]) -> None:
    """TensorFlow's tables; step t of a rule is global step t - 1."""
    program = nos_ext.compile_rule(f"def f(p, g, *, lr):\n    return g * 0 + {OPERAND_TABLE[name].formula}")
    for step, value in values.items():
        (p,), _ = program.reference([np.zeros(2)], [np.zeros(2)], lr=1, step=step, total_steps=1000)
        assert np.allclose(p, value, atol=5e-7)


def noise_of(name: str, step: int) -> Any:
    program = nos_ext.compile_rule(name)
    (p,), _ = program.reference([np.zeros(200_000)], [np.zeros(200_000)], lr=-1, step=step)
    return p


def test_noise_has_the_paper_s_moments() -> None:
    n = 200_000
    x = noise_of("noise", 1)
    assert abs(x.mean()) < 4 * 0.01 / n**0.5
    assert abs(x.std() - 0.01) < 1e-4
    for step, variance in ((9, 0.28184), (99, 0.07943)):
        assert abs(noise_of("annealed_noise", step).var() / variance - 1) < 0.02
    dropped = noise_of("drop(1, 0.3)", 1)
    assert abs((dropped == 0).mean() - 0.3) < 4 * (0.3 * 0.7 / n) ** 0.5
    assert set(np.unique(dropped)) == {0.0, 1.0}


def test_nothing_is_written() -> None:
    program = nos_ext.compile_rule("def f(p, g, m, *, lr):\n    return p, g")
    p, g, m = np.ones(3), np.full(3, 2.0), np.zeros(3)
    (new_p,), new_state = program.reference([p], [g], [[m]], lr=0.1)
    new_p[:] = 7
    new_state["m"][0][:] = 7
    assert (p == 1).all()
    assert (g == 2).all()
    assert (m == 0).all()
    params, state = program.reference([p, p], [g, None], {"m": [m, m]}, lr=0.1)
    assert params[1] is not p
    assert np.array_equal(params[1], p)
    assert np.array_equal(state["m"][1], m)


def test_arguments() -> None:
    program = nos_ext.compile_rule("def f(p, g, *, lr, a=2):\n    return p - lr * a * g * T")
    p, g = [np.ones(2)], [np.ones(2)]

    def new(**arguments: Any) -> float:
        return float(program.reference(p, g, **{"lr": 1, "total_steps": 1, **arguments})[0][0][0])

    assert (new(), new(a=3), new(maximize=True), new(grad_scale=4.0), new(total_steps=2)) == (-1, -2, 3, 0.5, -3)
    assert new(lr=torch.tensor(0.5)) == 0
    with pytest.raises(TypeError, match="no hyperparameter 'b'; it has lr, a"):
        new(b=1)
    with pytest.raises(ValueError, match="total_steps is None"):
        new(total_steps=None)
    with pytest.raises(ValueError, match="has the states"):
        program.reference(p, g, [[np.zeros(2)]], lr=1, total_steps=1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lr": None}, "^lr is None; pass a number or a tensor"),
        ({"lr": "0.1"}, "^lr is '0.1'; pass a number"),
        ({"beta1": torch.ones(2)}, "^beta1 is a float32 Tensor"),
        ({"step": 0}, "^step is 0.*; pass an integer from 1"),
        ({"step": "1"}, "^step is '1'; pass a number"),
        ({"seed": -1}, "^seed is -1; pass an integer from 0"),
        ({"grad_scale": 0}, "^grad_scale is 0; pass a number that is not 0"),
        ({"grads": [np.ones(3)] * 2}, "^grads has 2 tensors but params has 1"),
        ({"grads": [np.ones(1)]}, r"^grads\[0\] has shape \(1,\) but params\[0\] has \(3,\)"),
        ({"state": {"x": [np.zeros(3)]}}, r"^state has the keys \['x'\]; rule 'rule' has the states \['m'\]"),
        ({"state": [[]]}, r"^state\['m'\] has 0 tensors but params has 1"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_wrong_arguments(wrong: dict[str, Any], message: str) -> None:
    program = nos_ext.compile_rule("m")
    arguments = {"params": [np.ones(3)], "grads": [np.ones(3)], "state": [[np.zeros(3)]], "lr": 0.1, **wrong}
    with pytest.raises((TypeError, ValueError), match=message):
        program.reference(**arguments)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_torch_tensors(dtype: torch.dtype) -> None:
    program = nos_ext.compile_rule("adam * exp(sign(g) * sign(m)) + drop(w, 0.5) + where(g < 0, noise, min(g, 0.1))")
    make = torch.Generator().manual_seed(0)
    p, g = (torch.randn(5, 4, generator=make).to(dtype).t() for _ in range(2))
    before = p.clone()
    state = nos_ext.init_state(program, [p])
    (new_p,), new_state = program.reference([p], [g], state, lr=0.1, seed=3)
    assert new_p.dtype == dtype
    assert new_p.stride() == p.stride()
    assert torch.equal(p, before)
    nos_ext.apply_rule(program, [p], [g], state, lr=0.1, seed=3)
    tolerance = {torch.float64: 1e-8, torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype]
    assert torch.allclose(new_p, p, rtol=tolerance, atol=tolerance)
    assert torch.allclose(new_state["v"][0], state["v"][0], rtol=1e-5, atol=1e-7)


def emptied(tensor: torch.Tensor) -> torch.Tensor:
    tensor.untyped_storage().resize_(0)
    return tensor


def test_states_of_codes_are_refused() -> None:
    program = nos_ext.compile_rule("def rule(p, g, m, *, lr):\n    m = 0.9 * m + g\n    return p - lr * m, m")
    params, grads = [torch.ones(3)], [torch.ones(3)]
    state = nos_ext.init_state(program, params, state_dtype="int8")
    with pytest.raises(ValueError, match=r"state\['m'\]\[0\] is int8, whose scales reference does not read; pass"):
        program.reference(params, grads, state, lr=0.1)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"state": {"m": [torch.ones(2)]}},
            ValueError,
            r"state\['m'\]\[0\] has shape \(2,\); it must be \(3,\) as params",
        ),
        ({"state": {"m": [torch.ones(3)], "x": []}}, ValueError, r"state has the keys \['m', 'x'\]"),
        ({"params": [torch.ones(3, device="meta")]}, ValueError, r"params\[0\] is .* on meta, which has no values"),
        ({"params": [emptied(torch.ones(3))]}, ValueError, r"params\[0\] is .*, which has no values in memory"),
        ({"grads": [emptied(torch.ones(3))]}, ValueError, r"grads\[0\] is .*, which has no values in memory"),
        ({"params": None}, TypeError, "params is a NoneType; pass a list of tensors"),
        ({"state": None}, TypeError, "state is a NoneType; pass"),
        ({"state": {"m": 5}}, TypeError, r"state\['m'\] is a int; pass a list of tensors"),
        ({"total_steps": 0}, ValueError, "total_steps is 0; pass the length of the training"),
    ],
)
def test_what_cannot_be_computed_is_named(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    program = nos_ext.compile_rule("def rule(p, g, m, *, lr):\n    m = 0.9 * m + g\n    return p - lr * m, m")
    given = {"params": [torch.ones(3)], "grads": [torch.ones(3)], "state": {"m": [torch.ones(3)]}, **changes}
    with pytest.raises(error, match=message):
        program.reference(**given, lr=0.1)  # type: ignore[arg-type]


def test_lists_may_be_made_on_the_way() -> None:
    program = nos_ext.compile_rule("g")
    params, _ = program.reference(iter([np.ones(2)]), iter([np.ones(2)]), lr=0.5)  # type: ignore[arg-type]
    assert params[0].tolist() == [0.5, 0.5]
