"""The space of prove for rules that spell their numbers out: what moves together is one dimension, as in a library rule."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import nos_ext
from nos_search.constants import Constants
from nos_search.prove.space import FACTOR, NEAR_ONE, Space
from nos_search.rules import CompiledRule, compile_rule, parse_rule_argument
from nos_search.space import ProgramSpace

ROOT = Path(__file__).parents[2]
POINTS = range(1, 33)
_NUMBER = r"(\d[\d.e-]*)"


def program_adam() -> CompiledRule:
    space = ProgramSpace()
    return compile_rule(space.text(space.known()["adam"]))


def found() -> CompiledRule:
    return parse_rule_argument(f"@{ROOT / 'examples' / 'recipes' / 'found.txt'}")


def step(program: nos_ext.Program, steps: int = 5) -> np.ndarray:
    params = [np.linspace(-1, 1, 7)]
    state = nos_ext.init_state(program, params)
    for k in range(steps):
        nos_ext.apply_rule(program, params, [np.cos(np.arange(7.0) + k)], state, lr=0.1, step=k + 1, total_steps=10)
    return params[0]


def averages(text: str) -> list[tuple[float, float, float]]:
    """Returns for each average of a text the two weights and the decay of its bias correction, in its order."""
    weights = re.findall(rf"{_NUMBER} \* m\d \+ {_NUMBER} \* ", text)
    corrections = re.findall(rf"1 - {_NUMBER} \*\* t", text)
    return [(float(a), float(b), float(c)) for (a, b), c in zip(weights, corrections, strict=True)]


@pytest.mark.parametrize("rule", [program_adam(), found()], ids=["adam", "found"])
def test_averages_that_are_spelled_out_vary_as_those_of_the_library(rule: CompiledRule) -> None:
    """As many tied dimensions as Adam has betas, and in every point weights that add up to 1 and the correction of
    just that average."""
    space, library = Space.of(rule), Space.of(compile_rule("adam"))
    tied = [each for each in space.numbers if each.kind == "decay"]
    assert len(tied) == len(library.hypers) == 2
    assert [each.kind for each in library.hypers] == ["decay"] * 2
    seen = set()
    for k in POINTS:
        triples = averages(space.point(k).text)
        assert len(triples) == 2
        for (kept, rest, correction), each in zip(triples, tied, strict=True):
            assert kept + rest == pytest.approx(1, abs=1e-12)
            assert correction == kept == pytest.approx(space.settings(k)[each.name], abs=1e-12)
            assert (1 - each.value) / NEAR_ONE * 0.999 <= rest <= min(0.5, (1 - each.value) * NEAR_ONE * 1.001)
        seen.add(tuple(triples))
    assert len(seen) == len(POINTS)


def test_each_point_of_a_program_is_that_of_the_library_rule() -> None:
    """The same rule in two spellings has the same space, and its points train alike."""
    mine, library = Space.of(program_adam()), Space.of(compile_rule("adam"))
    assert mine.settings(0) == {"weight_decay": 0.0, "number 1": 0.9, "number 2": 0.999}
    for k in POINTS:
        assert list(mine.settings(k).values()) == list(library.settings(k).values())
        if mine.settings(k)["weight_decay"] == 0:  # elsewhere the library's Adam has it in the gradient
            assert step(mine.point(k).program) == pytest.approx(step(library.point(k).program), rel=1e-9)


def test_found_has_one_more_dimension_for_its_weight_of_a_term() -> None:
    assert [(each.value, each.kind) for each in Space.of(found()).numbers] == [
        (0.98, "decay"),
        (0.999, "decay"),  # of the average and its correction
        (0.999, "scale"),  # in x1 + 0.999 * x5, which is no average
    ]


def test_the_space_has_the_numbers_that_constants_has() -> None:
    text = "def f(p, g, m, *, lr, b=0.9, c=0.5): m = b * m + 0.1 * g; return p - lr * (c * m + drop(g, 0.25) * -0.3 * p), m"
    constants = Constants.of(compile_rule(text))
    space = Space.of(compile_rule(text))
    both = [(each.kind, each.value) for each in (*space.hypers, *space.numbers)]
    assert both == [(each.kind, each.value) for each in (*constants.tuned, *constants.factors)]
    assert [each["varies_as"] for each in space.describe()["constants"]] == [kind for kind, _ in both]


@pytest.mark.parametrize("chance", [0.01, 0.3, 0.5, 0.9])
def test_probabilities_stay_probabilities(chance: float) -> None:
    space = Space.of(compile_rule(f"drop(g, {chance}) * exp(sign(g))"))
    (dimension,) = space.numbers
    assert dimension.kind == "probability"
    assert dimension.at(0.5) == pytest.approx(chance)
    odds = chance / (1 - chance)
    for k in POINTS:
        value = space.settings(k)["number 1"]
        assert 0 < value < 1
        assert odds / FACTOR * 0.99 <= value / (1 - value) <= odds * FACTOR * 1.01
        assert f"drop(g, {value:.12g})" in space.point(k).text


@pytest.mark.parametrize("kept", [0.05, 0.5, 0.51])
def test_a_short_memory_is_still_an_average(kept: float) -> None:
    text = f"def f(p, g, m1, *, lr): n1 = {kept} * m1 + {1 - kept:.12g} * g; return p - lr * n1 / (1 - {kept} ** t), n1"
    space = Space.of(compile_rule(text))
    (dimension,) = space.numbers
    assert dimension.at(0.5) == pytest.approx(kept)
    for k in POINTS:
        ((weight, rest, correction),) = averages(space.point(k).text)
        assert 0 < weight < 1
        assert weight + rest == pytest.approx(1, abs=1e-12)
        assert correction == weight


def test_signs_are_kept() -> None:
    space = Space.of(compile_rule("sign(g) + w * -0.03"))
    assert [(each.value, each.kind) for each in space.numbers] == [(-0.03, "signed")]
    for k in POINTS:
        assert -0.03 * FACTOR <= space.settings(k)["number 1"] <= -0.03 / FACTOR


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("adam", {"weight_decay": 0.0001, "beta1": 0.9646399999999999, "beta2": 0.9996464}),
        ("adamw", {"weight_decay": 0.0001, "beta1": 0.9646399999999999, "beta2": 0.9996464}),
        ("lion", {"weight_decay": 0.0001, "beta1": 0.9646399999999999, "beta2": 0.996464}),
        ("momentum", {"weight_decay": 0.0001, "momentum": 0.9646399999999999}),
        ("muon", {"weight_decay": 0.0001, "momentum": 0.98232}),
        ("powersign", {"weight_decay": 0.0001, "beta": 0.9646399999999999, "base": 5.437, "sign_decay": 2.0}),
        ("sgd", {"weight_decay": 0.0001}),
        ("nadam", {"weight_decay": 0.0001, "beta1": 0.9646399999999999, "beta2": 0.9996464, "momentum_decay": 0.008}),
    ],
)
def test_points_of_library_rules(name: str, settings: dict[str, float]) -> None:
    """Proofs that were made before can be compared with, and gone on with: these have not changed."""
    space = Space.of(compile_rule(name, matrices=True))
    assert space.settings(3) == settings
    assert not space.numbers
