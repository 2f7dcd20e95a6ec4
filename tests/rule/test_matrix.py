"""orthogonalize in rules: what it computes, where it may stand, and who refuses it."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch

import nos_ext
from nos_ext import RuleError, ops
from nos_ext.matrix import orthogonalize
from nos_ext.rule.expr import GRAD
from nos_ext.rule.matrix import NewtonSchulz

MUON = """
def muon(p, g, m, *, lr, momentum=0.95):
    m = momentum * m + (1 - momentum) * g
    return p - lr * orthogonalize(momentum * m + (1 - momentum) * g), m
"""
SHAPES = ((6, 6), (6, 6), (12, 5), (5, 12), (1, 7), (7, 1), (4, 3, 2, 2))


def matrix(x: Any) -> Any:
    return x.reshape(x.shape[0], -1)


def newton_schulz(x: np.ndarray, how: NewtonSchulz) -> np.ndarray:
    """The iteration on singular values, which is what it does to a matrix."""
    u, s, v = np.linalg.svd(x, full_matrices=False)
    a, b, c = how.coefficients
    s = s / max(float(np.sqrt(np.sum(s * s))), how.eps)
    for _ in range(how.steps):
        s = a * s + b * s**3 + c * s**5
    return (u * s) @ v


@pytest.mark.parametrize("adjust", [None, "original", "match_rms_adamw"])
@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_it_is_the_iteration_on_singular_values(library: str, steps: int, adjust: str | None) -> None:
    rng = np.random.default_rng(3)
    how = NewtonSchulz(steps=steps, dtype="float64", adjust=adjust)
    tensors = [rng.normal(size=shape) for shape in SHAPES]
    scales = {None: lambda n, m: 1.0, "original": lambda n, m: max(1, n / m) ** 0.5,
              "match_rms_adamw": lambda n, m: 0.2 * max(n, m) ** 0.5}  # fmt: skip
    wanted = [newton_schulz(matrix(x), how) * scales[adjust](*matrix(x).shape) for x in tensors]
    given: list[Any] = [x.copy() if library == "numpy" else torch.tensor(x) for x in tensors]
    orthogonalize(given, how)
    for x, right in zip(given, wanted, strict=True):
        # five steps of three products with terms of a few units each
        np.testing.assert_allclose(matrix(np.asarray(x)), right, rtol=0, atol=1e-12)


def test_many_steps_of_other_coefficients_give_the_nearest_semi_orthogonal_matrix() -> None:
    rng = np.random.default_rng(1)
    how = NewtonSchulz((1.875, -1.25, 0.375), steps=30, dtype="float64")
    x = rng.normal(size=(5, 9))
    u, _, v = np.linalg.svd(x, full_matrices=False)
    orthogonalize([x], how)
    np.testing.assert_allclose(x, u @ v, atol=1e-10)


def test_numpy_rounds_like_bfloat16() -> None:
    """Sums may be added up in another order, so a result may be the next number; errors of 5 steps stay within a few."""
    rng = np.random.default_rng(5)
    tensors = [rng.normal(size=shape).astype(np.float32) for shape in SHAPES]
    theirs = [torch.tensor(x) for x in tensors]
    orthogonalize(tensors, NewtonSchulz())
    orthogonalize(theirs, NewtonSchulz())
    for x, y in zip(tensors, theirs, strict=True):
        np.testing.assert_array_equal(x, torch.tensor(x).bfloat16().float().numpy())
        np.testing.assert_allclose(x, y.numpy(), rtol=0, atol=8 * 2.0**-8)


def test_batches_and_layouts_do_not_matter() -> None:
    one = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    alone, last, several = one.clone(), one.clone(memory_format=torch.channels_last), [one.clone() for _ in range(3)]
    for batch in ([alone], [last], several):
        orthogonalize(batch, NewtonSchulz())
    assert last.is_contiguous(memory_format=torch.channels_last)
    for x in (last, *several):
        torch.testing.assert_close(x, alone, rtol=0, atol=2.0**-7)


def test_zeros_stay_and_empty_tensors_are_left_alone() -> None:
    x, empty = torch.zeros(3, 4), torch.zeros(0, 4)
    orthogonalize([x, empty], NewtonSchulz())
    assert not x.any()


CHAIN = """
def chain(p, g, k, m, *, lr, decay=0.5):
    a = orthogonalize(g * k, steps=3, dtype="float64")
    b = orthogonalize(a + m + p, dtype="float64")
    k = decay * k + norm(b)
    return p - lr * t / T * b * k, k, a
"""


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_stages_equal_the_rule_computed_node_by_node(library: str) -> None:
    """Two orthogonalize after each other, a state that is a number, and a rule that reads t and T."""
    program = nos_ext.compile_rule(CHAIN)
    rng = np.random.default_rng(7)
    make = np.array if library == "numpy" else torch.tensor
    params = [make(rng.normal(size=shape)) for shape in ((4, 3, 2), (5, 6), (5, 6))]
    state = nos_ext.init_state(program, params)
    grads = [make(rng.normal(size=tuple(p.shape))) for p in params]
    grads[1] = None
    assert program.per_tensor_states == ("k",)
    for states in state.values():
        for x in states:
            x[...] = 1.5
    before = params[1] + 0
    new, states = program.reference(params, grads, state, lr=0.1, step=3, total_steps=9)
    nos_ext.apply_rule(program, params, grads, state, lr=0.1, step=3, total_steps=9)
    for x, y in zip([*params, *state["k"], *state["m"]], [*new, *states["k"], *states["m"]], strict=True):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=1e-12)
    np.testing.assert_array_equal(np.asarray(params[1]), np.asarray(before))


def test_the_ways_to_write_it_agree() -> None:
    @nos_ext.rule
    def muon(p, g, m, *, lr, momentum=0.95):  # type: ignore[no-untyped-def]
        m = momentum * m + (1 - momentum) * g
        return p - lr * ops.orthogonalize(momentum * m + (1 - momentum) * g), m

    program = nos_ext.compile_rule(MUON)
    assert isinstance(program, nos_ext.MatrixProgram)
    assert nos_ext.compile_rule(muon) == program == nos_ext.compile_rule(program.to_text())
    assert pickle.loads(pickle.dumps(program)) == program
    assert pickle.loads(pickle.dumps(muon)).compile() == program
    update = nos_ext.compile_rule(ops.orthogonalize(ops.t * GRAD))
    assert update == nos_ext.compile_rule("orthogonalize(t * g)")
    assert "orthogonalize" in program.to_latex()
    assert "orthogonalize" in program.to_mathml()


def test_options_are_kept_in_the_text() -> None:
    text = "orthogonalize(g, coefficients=(2, -1.5, 0.5), steps=9, eps=1e-9, dtype='float32', adjust='original')"
    program = nos_ext.compile_rule(text)
    assert nos_ext.compile_rule(program.to_text()) == program
    ((_, how),) = program.results[0]
    assert how == NewtonSchulz((2.0, -1.5, 0.5), 9, 1e-9, "float32", "original")
    assert nos_ext.compile_rule("orthogonalize(g, steps=4)") != nos_ext.compile_rule("orthogonalize(g)")


@pytest.mark.parametrize(
    ("text", "message", "column"),
    [
        ("orthogonalize(lr)", "takes a tensor .* not a scalar", 1),
        ("1 + orthogonalize(norm(g))", "not what is one number per tensor", 5),
        ("orthogonalize()", "takes 1 argument, 0 given", 1),
        ("orthogonalize(g, 5)", "takes 1 argument, 2 given", 1),
        ("orthogonalize(g, step=5)", "no option 'step'; did you mean 'steps'", 1),
        ("orthogonalize(g, steps=lr)", "an option is written name=value", 24),
        ("orthogonalize(g, steps=2.5)", "steps is 2.5; pass a whole number from 1 to 99", 1),
        ("orthogonalize(g, coefficients=(1, 2))", r"coefficients is \(1, 2\); pass three numbers", 1),
        ("orthogonalize(g, eps=0)", "eps is 0; pass a number above 0", 1),
        ("orthogonalize(g, dtype='int8')", "dtype is 'int8'; pass one of 'bfloat16'", 1),
        ("orthogonalize(g, adjust='muon')", "adjust is 'muon'; pass one of None, 'original'", 1),
    ],
)
def test_wrong_ones_are_refused_with_their_place(text: str, message: str, column: int) -> None:
    with pytest.raises(RuleError, match=message) as caught:
        nos_ext.compile_rule(text)
    assert (caught.value.line, caught.value.column) == (1, column)
    assert "^" in str(caught.value)


def test_a_state_that_is_a_number_is_refused() -> None:
    text = "def f(p, g, k, *, lr):\n    k = k + norm(g)\n    return p - lr * orthogonalize(k), k\n"
    with pytest.raises(RuleError, match="one number per tensor"):
        nos_ext.compile_rule(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("orthogonalize(g + noise)", "random draws cannot stand"),
        ("orthogonalize(g) / global_norm(g)", "global_norm cannot stand"),
        ("+".join(f"orthogonalize({k} * g)" for k in range(1, 10)), "9 orthogonalize; together they can be 8"),
    ],
)
def test_what_cannot_stand_beside_it(text: str, message: str) -> None:
    with pytest.raises(RuleError, match=message):
        nos_ext.compile_rule(text)


def test_vectors_are_refused_before_anything_is_written() -> None:
    program = nos_ext.compile_rule(MUON)
    params = [torch.ones(2, 2), torch.ones(3)]
    state = nos_ext.init_state(program, params)
    with pytest.raises(ValueError, match=r"parameter 1 has shape \(3,\).*orthogonalizes matrices; give it to a param"):
        nos_ext.apply_rule(program, params, [p.clone() for p in params], state, lr=0.1)
    assert torch.equal(params[0], torch.ones(2, 2))
    assert not state["m"][0].any()
    nos_ext.apply_rule(program, params, [params[0].clone(), None], state, lr=0.1)  # it takes no part


def test_other_errors_leave_everything_as_it_was() -> None:
    program = nos_ext.compile_rule(MUON)
    params = [torch.ones(2, 2)]
    state = nos_ext.init_state(program, params)
    for wrong, message in (({"lr": 0.1, "moment": 1.0}, "moment"), ({"lr": "x"}, "lr")):
        with pytest.raises(TypeError, match=message):
            nos_ext.apply_rule(program, params, [torch.ones(2, 2)], state, **wrong)
    with pytest.raises(ValueError, match=r"state has the lists \['x'\]; rule 'muon' has the states \['m'\]"):
        nos_ext.apply_rule(program, params, [torch.ones(2, 2)], {"x": state["m"]}, lr=0.1)
    with pytest.raises(ValueError, match="grads"):
        nos_ext.apply_rule(program, params, [torch.ones(3, 2)], state, lr=0.1)
    assert torch.equal(params[0], torch.ones(2, 2))
    assert not state["m"][0].any()


def test_who_cannot_take_it_says_so() -> None:
    program = nos_ext.compile_rule(MUON)
    for refuse in (
        lambda: nos_ext.apply_population([program], [], [], [], lr=0.1),
        lambda: nos_ext.init_population_state([program], []),
        lambda: nos_ext.CapturedStep(program, [], [], [], lr=0.1),
        lambda: nos_ext.CapturedStep(MUON, [], [], [], lr=0.1),
    ):
        with pytest.raises(TypeError, match=r"rule 'muon'.* has orthogonalize.* use nos_ext\.apply_rule"):
            refuse()
    with pytest.raises(RuleError, match="has no bytecode; keep its text"):
        _ = program.bytecode
    with pytest.raises(RuleError, match="to_pytorch"):
        program.to_pytorch()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"params": None}, "^params is a NoneType; pass a list of tensors"),
        ({"params": torch.ones(2, 3, 4)}, "^params is a Tensor; pass a list of tensors"),
        ({"grads": None}, "^grads is a NoneType; pass a list of tensors"),
        ({"state": None}, "^state is a NoneType; pass {name: "),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_what_is_no_list(wrong: dict[str, Any], message: str) -> None:
    rule = nos_ext.compile_rule("orthogonalize(m)")
    lists = {"params": [torch.ones(3, 4)], "grads": [torch.ones(3, 4)], "state": {"m": [torch.zeros(3, 4)]}, **wrong}
    with pytest.raises(TypeError, match=message):
        nos_ext.apply_rule(rule, **lists, lr=0.1)


def test_arguments_are_given_as_for_other_rules() -> None:
    """By position or by name, with the same errors where some are missing, twice there, or too many."""
    rule = nos_ext.compile_rule("def f(p, g, *, lr, program=1.0):\n    return p - lr * program * orthogonalize(g)")
    results = []
    for by_name in (False, True):
        p, g = np.ones((2, 2)), np.eye(2)
        if by_name:
            nos_ext.apply_rule(state={}, grads=[g], params=[p], bytecode_or_program=rule, lr=0.5, program=2.0)
        else:
            nos_ext.apply_rule(rule, [p], [g], {}, lr=0.5, program=2.0)
        results.append(p)
    assert np.array_equal(*results)
    assert results[0][0, 0] < 0.5
    lists: Any = ([np.ones((2, 2))], [np.eye(2)], {})
    for other in (rule, nos_ext.compile_rule("g")):
        with pytest.raises(TypeError, match="argument 'grads' is missing"):
            nos_ext.apply_rule(other, lists[0], lr=0.5)  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="argument 'state' is given twice"):
            nos_ext.apply_rule(other, *lists, state={}, lr=0.5)
        with pytest.raises(TypeError, match="apply_rule takes 4 positional arguments but 5 were given"):
            nos_ext.apply_rule(other, *lists, 0.5)  # type: ignore[misc]
    with pytest.raises(TypeError, match="argument 'bytecode_or_program' is missing"):
        nos_ext.apply_rule()  # type: ignore[call-arg]


def test_lists_may_come_from_generators() -> None:
    rule = nos_ext.compile_rule("orthogonalize(m)")
    p, g, m = torch.ones(3, 4), torch.ones(3, 4), torch.zeros(3, 4)
    nos_ext.apply_rule(rule, iter([p]), iter([g]), {"m": [m]}, lr=0.1)  # type: ignore[arg-type]
    assert p.lt(1).all()


def test_surplus_lists_of_states_are_refused() -> None:
    program = nos_ext.compile_rule(MUON)
    x = torch.ones(2, 2)
    with pytest.raises(ValueError, match=rf"state has {len(program.state_names) + 1} lists; rule '{program.name}' has"):
        nos_ext.apply_rule(program, [x], [x], [[x]] * (len(program.state_names) + 1), lr=0.1)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"params": torch.ones(3)}, TypeError, "params is a Tensor; pass a list of tensors"),
        ({"grads": 5}, TypeError, "grads is a int; pass a list of tensors"),
        ({"state": None}, TypeError, "state is a NoneType; pass"),
        ({"state": [5]}, TypeError, "state 0 is a int; pass a list of tensors"),
        ({"tensor_index": "a"}, TypeError, "tensor_index is 'a'; pass an integer"),
        ({"max_instructions": -1}, ValueError, "max_instructions is -1; pass an integer"),
        ({"tensor_index": 2**31 + 1}, ValueError, "tensor_index is 2147483649; pass an integer from 0 to 2147483648"),
    ],
)
def test_wrong_arguments_of_a_captured_step(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    given = {"params": [torch.ones(3)], "grads": [torch.ones(3)], "state": [], **changes}
    with pytest.raises(error, match=message):
        nos_ext.CapturedStep(nos_ext.compile_rule("g"), lr=0.1, **given)
