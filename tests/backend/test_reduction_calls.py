"""Calls of rules with reductions: what is refused leaves everything as it was, and threads and forks give the same bits."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import nos_ext
from nos_ext import _C
from nos_ext.optim import RuleOptimizer
from tests.program.test_bytecode import NORM, K, S, instr, reducing

# The state m is written by the first of three passes; k is one number per tensor.
PROGRAM = nos_ext.compile_rule(
    "def f(p, g, m, k, *, lr):\n    m = 0.9 * m + g\n    u = m / (norm(m) + 1e-6)\n"
    "    return p - lr * u / global_norm(u), m, 0.5 * k + norm(m)\n"
)
EACH = nos_ext.compile_rule("def f(p, g, m, k, *, lr):\n    return p - lr * g, m + g, m\n")


@pytest.fixture(autouse=True)
def restore_tuning() -> Iterator[None]:
    yield
    _C.set_tuning()


def lists(sizes: tuple[int, ...] = (4, 300), seed: int = 1) -> dict[str, list[Any]]:
    make = torch.Generator().manual_seed(seed)
    out: dict[str, list[Any]] = {name: [torch.randn(n, generator=make) for n in sizes] for name in "pgm"}
    out["k"] = [torch.rand((), generator=make) for _ in sizes]
    return out


def apply(t: dict[str, list[Any]], **keywords: Any) -> None:
    nos_ext.apply_rule(PROGRAM, t["p"], t["g"], {"m": t["m"], "k": t["k"]}, **{"lr": 0.1, **keywords})


def same(a: dict[str, list[Any]], b: dict[str, list[Any]]) -> bool:
    """By NumPy, as torch's own threads do not survive a fork."""
    return all(np.array_equal(x.numpy(), y.numpy()) for name in a for x, y in zip(a[name], b[name], strict=True))


def copied(t: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {name: [x.clone() for x in tensors] for name, tensors in t.items()}


# --- what is refused --------------------------------------------------------------------------------------------------

BAD = {
    "a tensor for a number": (
        lambda t: {"k": [t["k"][0], torch.zeros(300)]},
        r"state\['k'\]\[1\] has shape \(300,\) but is one number per tensor; pass a tensor of shape \(\)",
    ),
    "an empty number": (
        lambda t: {"k": [t["k"][0], torch.zeros(0)]},
        r"state\['k'\]\[1\] has shape \(0,\) but is one number per tensor; pass a tensor of shape \(\)",
    ),
    "a number for a tensor": (
        lambda t: {"m": [torch.zeros(()), t["m"][1]]},
        r"state\['m'\]\[0\] has shape \(\) but params\[0\] has \(4,\); pass tensors of equal shape",
    ),
    "a wide tensor": (
        lambda t: {"m": [t["m"][0], t["m"][1].double()]},
        r"state\['m'\]\[1\] is float64 but params\[1\] is float32; .* convert state\['m'\]\[1\]",
    ),
    "a narrow number": (
        lambda t: {name: [x.double() for x in tensors] for name, tensors in t.items() if name != "k"},
        r"state\['k'\]\[0\] is float32 but params\[0\] is float64; .* convert state\['k'\]\[0\]",
    ),
    "an integer": (lambda t: {"k": [torch.zeros((), dtype=torch.int64), t["k"][1]]}, r"state\['k'\]\[0\] .*int64"),
    "one number for two tensors": (
        lambda t: {"k": [t["k"][0]] * 2}, r"state\['k'\]\[0\] and state\['k'\]\[1\] share memory"
    ),
    "a number in a parameter": (lambda t: {"k": [t["p"][1][7], t["k"][1]]}, r"params\[1\] and state\['k'\]\[0\] share memory"),
    "a number in a gradient": (lambda t: {"k": [t["k"][0], t["g"][1][0]]}, r"share memory"),
    "a number in a state": (lambda t: {"k": [t["m"][1][299], t["k"][1]]}, r"state\['m'\]\[1\] and state\['k'\]\[0\] share memory"),
    "too few numbers": (lambda t: {"k": t["k"][:1]}, r"state\['k'\] has 1 tensors but params has 2; pass one per parameter"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_refused_and_nothing_written(name: str) -> None:
    change, message = BAD[name]
    t = lists()
    before = copied(t)
    with pytest.raises((ValueError, TypeError), match=message):
        apply({**t, **change(t)})
    assert same(t, before)


def test_numbers_of_a_population_are_checked() -> None:
    p, g, m = (torch.ones(3, 5) for _ in range(3))
    for wrong in (torch.zeros(()), torch.zeros(5), torch.zeros(3, 5)):
        with pytest.raises(ValueError, match=r"state\[1\]\[0\] has shape .* per tensor; pass a tensor of shape \(3,\)"):
            nos_ext.apply_population([PROGRAM] * 3, [p], [g], [[m], [wrong]], lr=0.1)
    k = torch.zeros(3)
    with pytest.raises(
        ValueError, match=r"programs\[1\] keeps state 1 for every element .* make one call for each kind"
    ):
        nos_ext.apply_population([PROGRAM, EACH, PROGRAM], [p], [g], [[m], [k]], lr=0.1)
    assert p.eq(1).all()
    assert m.eq(1).all()
    nos_ext.apply_population([PROGRAM] * 3, [p], [g], [[m], [k]], lr=0.1)
    assert k.eq(k[0]).all()
    assert k[0] == pytest.approx(1.9 * 5**0.5)


def test_a_state_that_changes_its_kind_is_noticed() -> None:
    """The same tensors, with a program that keeps the state for every element: the plan of the first is not used."""
    p, g, m, k = (torch.ones(1) for _ in range(4))
    state = {"m": [m], "k": [k]}
    for program in (PROGRAM, EACH, PROGRAM):
        nos_ext.apply_rule(program, [p], [g], state, lr=0.1)
    wide = {"m": [torch.ones(2)], "k": [torch.ones(2)]}
    nos_ext.apply_rule(EACH, [torch.ones(2)], [torch.ones(2)], wide, lr=0.1)
    with pytest.raises(ValueError, match="is one number per tensor"):
        nos_ext.apply_rule(PROGRAM, [torch.ones(2)], [torch.ones(2)], wide, lr=0.1)


def test_no_tensors() -> None:
    nos_ext.apply_rule(PROGRAM, [], [], {"m": [], "k": []}, lr=0.1)
    p, k = torch.ones(2), torch.tensor(3.0)
    nos_ext.apply_rule(PROGRAM, [p], [None], {"m": [p.clone()], "k": [k]}, lr=0.1)
    nos_ext.apply_rule(PROGRAM, [torch.ones(0)], [torch.ones(0)], {"m": [torch.ones(0)], "k": [k]}, lr=0.1)
    assert p.tolist() == [1, 1]
    assert k == 3


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ([0, 2, S], (2, 5, 4)),  # k <- t: nothing reads the norm
        ([0, 2, K], (2, 5, 7)),
        ([2, 0, NORM], (5, 2, 3 * 300**0.5)),  # p and m change places
        ([1, 1, S], (3, 3, 4)),
    ],
)
@pytest.mark.parametrize("op", ["norm", "global_norm"])
def test_bytecode_that_no_rule_compiles_to(op: str, outputs: list[int], expected: tuple[float, ...]) -> None:
    """Its states are m, and k as one number per tensor; its code is one reduction of g."""
    program = nos_ext.Program.from_bytes(reducing([instr(op, 1)], outputs))
    p, g, m = (np.full(300, x, np.float32) for x in (2, 3, 5))
    k = np.array(7, np.float32)
    nos_ext.apply_rule(program, [p], [g], [[m], [k]], lr=0.1, step=4)
    assert np.unique(p) == expected[0]
    assert np.unique(m) == expected[1]
    assert float(k) == pytest.approx(expected[2], rel=1e-7)


# --- threads and processes --------------------------------------------------------------------------------------------

SIZES = (1, 700, 70_000, 300_000)


@pytest.mark.parametrize("tuning", [{}, {"threads": 2}, {"threads": 2, "chunk": 1024}], ids=str)
def test_two_python_threads_in_one_plan(tuning: dict[str, int]) -> None:
    """The same program on tensors of its own in each thread; steps as many as would show a number that is mixed up."""
    _C.set_tuning(**tuning)
    expected = [lists(SIZES, seed) for seed in range(2)]
    found = copied(expected[0]), copied(expected[1])
    for t in expected:
        for step in range(1, 21):
            apply(t, step=step, seed=3)
    errors: list[BaseException] = []

    def work(t: dict[str, list[Any]]) -> None:
        try:
            for step in range(1, 21):
                apply(t, step=step, seed=3)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(t,)) for t in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert all(map(same, found, expected))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_forked_child() -> None:
    """It has one thread, whatever the parent has used, and the same bits."""
    _C.set_tuning(threads=2, chunk=1024)
    expected, here = lists(SIZES), lists(SIZES)
    apply(expected)
    child = os.fork()
    if child == 0:
        signal.alarm(120)  # a hang ends the child with a signal
        apply(here)
        os._exit(0 if same(here, expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# --- param groups -----------------------------------------------------------------------------------------------------


def test_a_norm_over_all_param_groups() -> None:
    """Groups of an optimizer are one call: the norm is over all of them, each with its own learning rate."""
    t = lists((3, 300, 1000))
    params = [torch.nn.Parameter(p.clone()) for p in t["p"]]
    optimizer = RuleOptimizer([{"params": params[:1], "lr": 0.5}, {"params": params[1:]}], PROGRAM, lr=0.1)
    m, k = ([x.double().numpy() * 0 for x in t[name]] for name in "mk")
    expected = [p.double().numpy() for p in t["p"]]
    for step in range(1, 4):
        grads = lists((3, 300, 1000), step)["g"]
        for p, g in zip(params, grads, strict=True):
            p.grad = g
        optimizer.step()
        m = [0.9 * a + g.double().numpy() for a, g in zip(m, grads, strict=True)]
        u = [a / (np.linalg.norm(a) + 1e-6) for a in m]
        total = np.linalg.norm(np.concatenate(u))
        expected = [p - lr * a / total for p, a, lr in zip(expected, u, (0.5, 0.1, 0.1), strict=True)]
        k = [0.5 * x + np.linalg.norm(a) for x, a in zip(k, m, strict=True)]
    for p, wanted, number in zip(params, expected, k, strict=True):
        assert np.allclose(p.detach().numpy(), wanted, rtol=1e-5, atol=1e-5)
        assert optimizer.state[p]["k"].shape == ()
        assert float(optimizer.state[p]["k"]) == pytest.approx(number, rel=1e-5)


# --- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_wide_numbers_beside_narrow_parameters_are_not_rounded(dtype: torch.dtype) -> None:
    narrow = lists()
    narrow["p"] = [x.to(dtype) for x in narrow["p"]]
    wide = {name: [x.double() if name == "k" else x.clone() for x in tensors] for name, tensors in narrow.items()}
    apply(narrow)
    apply(wide)
    for name in "pgm":
        assert all(map(torch.equal, narrow[name], wide[name]))
    for k, exact, start, m in zip(narrow["k"], wide["k"], lists()["k"], wide["m"], strict=True):
        assert exact.dtype == torch.float64
        assert torch.equal(k, exact.float())
        assert exact != k.double()
        expected = 0.5 * start.double() + torch.linalg.vector_norm(m.double())
        torch.testing.assert_close(exact, expected, rtol=2.0**-48, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_program_may_have_numbers_and_no_reduction(dtype: torch.dtype) -> None:
    """The last stage of a rule that is cut at its reductions is one."""
    program = nos_ext.Program.from_bytes(reducing([instr("neg", K), instr("mul", NORM, 1)], [4, 2, NORM]))
    assert program.per_tensor_states == ("k",)
    sizes = (3, 0, 200_000, 700)
    grads = [torch.arange(n).remainder(64).to(dtype) for n in sizes]
    params, m = ([torch.ones_like(g) for g in grads] for _ in range(2))
    for chunk, threads in ((0, 0), (256, 3)):
        _C.set_tuning(chunk=chunk, threads=threads)
        k = [torch.full((), 0.25 * (i + 1), dtype=torch.float64) for i in range(len(sizes))]
        nos_ext.apply_rule(program, params, grads, {"m": m, "k": k}, lr=0.1)
        for i, (p, g) in enumerate(zip(params, grads, strict=True)):
            assert torch.equal(p, -0.25 * (i + 1) * g)
        assert [x.item() for x in k] == [-0.25, 0.5, -0.75, -1.0]  # what has no elements is left alone
    assert all(x.eq(1).all() for x in m)
