"""apply_population: every slice gets the bits that apply_rule would give it."""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch

import nos_ext

TEXTS = [
    "g",
    "g * exp(sign(g) * sign(m))",
    "adam",
    "drop(g, 0.3) + noise",
    "adam * ld + rmsprop * w",
    "def r(p, g, a, b, c, *, lr, beta=0.5):\n    return p - lr * beta * g, g, a, b\n",
]
PROGRAMS = [nos_ext.compile_rule(t) for t in TEXTS]
SHAPES = [(3,), (2, 5), (), (0, 4), (600,)]


def tensors(k: int) -> tuple[list[Any], list[Any], list[list[Any]]]:
    make = torch.Generator().manual_seed(5)
    lists = [[torch.rand(k, *s, generator=make) + 0.5 for s in SHAPES] for _ in range(5)]
    return lists[0], lists[1], lists[2:]


def test_shapes_of_slices() -> None:
    """Of any number of dimensions. That slices of vectors have the bits of apply_rule is the conformance suite's."""
    k = len(PROGRAMS)
    params, grads, state = tensors(k)
    expected_p, expected_g, expected_s = tensors(k)
    for i, program in enumerate(PROGRAMS):
        states = [[x[i] for x in s] for s in expected_s[: len(program.state_names)]]
        nos_ext.apply_rule(
            program, [p[i] for p in expected_p], [g[i] for g in expected_g], states, lr=0.1, step=4, total_steps=10
        )
    nos_ext.apply_population(PROGRAMS, params, grads, state, lr=0.1, step=4, total_steps=10)
    for got, want in zip([*params, *chain(*state)], [*expected_p, *chain(*expected_s)], strict=True):
        assert torch.equal(got, want)


def test_new_programs_on_the_same_memory() -> None:
    """The cached plan must not outlive the programs it was made for."""
    params, grads, _ = [torch.ones(3, 4)], [torch.ones(3, 4)], []
    for factor in (1, 2, 3):
        programs = [nos_ext.compile_rule(f"{factor} * g") for _ in range(3)]
        params[0].fill_(0)
        nos_ext.apply_population(programs, params, grads, [], lr=1.0)
        assert params[0].eq(-factor).all()


def test_dict_state_and_missing_gradient() -> None:
    programs = [PROGRAMS[1]] * 4
    params, grads = [torch.ones(4, 2), torch.ones(4, 3)], [None, torch.ones(4, 3)]
    state = {"m": nos_ext.init_population_state(programs, params)[0]}
    nos_ext.apply_population(programs, params, grads, state, lr=np.full(4, 0.1))
    assert params[0].eq(1).all()
    assert state["m"][0].eq(0).all()
    assert params[1].sub(1 - 0.1 * np.e).abs().max() < 2**-23
    assert [len(x) for x in nos_ext.init_population_state(PROGRAMS, params)] == [2, 2, 2]


def stacked() -> dict[str, Any]:
    return {"programs": PROGRAMS[:2], "params": [torch.ones(2, 3)], "grads": [torch.ones(2, 3)],
            "state": [[torch.zeros(2, 3)]], "lr": 0.1}  # fmt: skip


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no programs": ({"programs": []}, ValueError, "programs is empty"),
    "one program": ({"programs": PROGRAMS[0]}, TypeError, "programs is one program; pass a list"),
    "None as programs": ({"programs": None}, TypeError, "programs is a NoneType; pass a list of programs"),
    "array as programs": ({"programs": np.array(1.0)}, TypeError, "programs is a ndarray; pass a list of programs"),
    "text program": ({"programs": ["g", "g"]}, TypeError, r"programs\[0\] is a str"),
    "leading dimension": ({"params": [torch.ones(3, 2)], "grads": [torch.ones(3, 2)], "state": [[torch.zeros(3, 2)]]},
                          ValueError, r"params\[0\] has shape \(3, 2\) but there are 2 programs"),
    "0-d": ({"params": [torch.tensor(1.0)], "grads": [torch.tensor(1.0)], "state": [[torch.tensor(1.0)]]},
            ValueError, r"params\[0\] has shape \(\)"),
    "inner slices": ({"params": [torch.ones(3, 2).T], "grads": [torch.ones(3, 2).T], "state": [[torch.zeros(3, 2).T]]},
                     ValueError, "must lie one after the other"),
    "too few states": ({"state": []}, ValueError, "state has 0 lists but the programs have up to 1 state "),
    "state of another name": ({"programs": [PROGRAMS[1]] * 2, "state": {"q": []}}, ValueError,
                              r"state has the keys \['q'\]; the programs have the states \['m'\] \(nos_ext.init_population_state"),
    "state is None": ({"state": None}, TypeError, "state is a NoneType; pass {name: "),
    "lr length": ({"lr": [0.1, 0.2, 0.3]}, ValueError, r"lr is \[0.1, 0.2, 0.3\], which has 3 values but there are 2 programs; pass one"),
    "lr item": ({"lr": [0.1, "x"]}, TypeError, r"lr\[1\] is 'x'"),
    "no lr": ({"lr": ...}, TypeError, "argument 'lr' is missing"),
    "seed length": ({"seed": [1]}, ValueError, r"seed is \[1\], which has 1 value but there are 2 programs; pass one number or one per program"),
    "seed item": ({"seed": [1, -1]}, ValueError, r"seed\[1\] is -1; pass an integer from 0"),
    "total_steps item": ({"total_steps": [5, 0]}, ValueError, r"total_steps\[1\] is 0; pass a positive number of steps"),
    "grad_scale": ({"grad_scale": 0}, ValueError, "grad_scale is 0; pass a number that is not 0"),
    "hyperparameter": ({"betta": 0.1}, TypeError, "none of the programs has a hyperparameter 'betta'; they have lr.*, and apply_population itself takes step"),
    "total_steps": ({"programs": [PROGRAMS[4]] * 2, "state": [[torch.zeros(2, 3)]] * 2}, ValueError, r"programs\[0\] reads T"),
    "dict state": ({"programs": [PROGRAMS[1], PROGRAMS[2]], "state": {"m": [torch.zeros(2, 3)]}}, ValueError, "name different states"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_refused_and_nothing_written(name: str) -> None:
    change, error, message = BAD[name]
    arguments = {**stacked(), **change}
    if arguments["lr"] is ...:
        del arguments["lr"]
    before = [p.clone() for p in arguments["params"]]
    with pytest.raises(error, match=message):
        nos_ext.apply_population(
            arguments.pop("programs"), arguments["params"], arguments.pop("grads"), arguments.pop("state"),
            **{k: v for k, v in arguments.items() if k != "params"},
        )  # fmt: skip
    assert all(map(torch.equal, arguments["params"], before))
