"""Rules with reductions in the gates and on the surfaces, beside others whose states are of other kinds."""

from __future__ import annotations

import numpy as np
import pytest

import nos_ext
from nos_ext.rule import as_rule
from nos_search.gate import engine, surface
from nos_search.gate.crowds import crowds
from nos_search.gate.judge import effect_stimulus
from nos_search.gate.screen import final_positions, screen, with_rate_tensor

NUMBER_FIRST = (
    "def f(p, g, k, m, *, lr):\n    k = 0.9 * k + 0.1 * norm(g)\n    m = 0.9 * m + g / k\n    return p - lr * m, k, m\n"
)
NUMBER_SECOND = "def f(p, g, m, k, *, lr):\n    m = 0.9 * m + g\n    return p - lr * m / max_abs(m), m, k + norm(m)\n"
TEXTS = [
    "g / norm(g)", "g", NUMBER_FIRST, "m / (1e-8 + rms(m))", NUMBER_SECOND, "adam", "norm(g)", "g / global_norm(g)",
    "sign(g) * mean(abs(g))",
]  # fmt: skip
RULES = [as_rule(text) for text in TEXTS]


def test_crowds_have_states_of_one_kind() -> None:
    programs = [rule.compile() for rule in RULES]
    found = crowds(programs)
    assert sorted(row for rows in found for row in rows) == list(range(len(programs)))
    assert [1, 5] in found
    for rows in found:
        nos_ext.init_population_state([programs[row] for row in rows], [np.ones((len(rows), 3), np.float32)])
    assert crowds([]) == []


def test_updates_do_not_depend_on_the_others() -> None:
    together = engine.updates(RULES, effect_stimulus(), seed=1)
    for row, rule in enumerate(RULES):
        assert np.array_equal(together[row], engine.updates([rule], effect_stimulus(), seed=1)[0]), TEXTS[row]
    assert engine.updates([], effect_stimulus(), seed=1).shape == (0, effect_stimulus().size)


def test_an_update_that_is_one_number() -> None:
    """Every element moves by that of its own tensor."""
    stimulus = effect_stimulus()
    assert stimulus.cuts
    shown = engine.updates([as_rule("norm(g)")], stimulus, seed=1).reshape(stimulus.shown, -1)
    wanted = [
        np.full_like(tensor, np.linalg.norm(tensor))
        for step in range(3)
        for grads, _ in stimulus.split()
        for tensor in np.split(grads[step], stimulus.cuts)
    ]
    assert shown.ravel() == pytest.approx(np.concatenate(wanted), rel=1e-6)


@pytest.mark.parametrize("row", [0, 2, 4, 7])
def test_positions_are_those_of_apply_rule(row: int) -> None:
    """Each surface is a tensor by itself at each rate, and global reductions do not join them."""
    steps, rates = 6, (1e-3, 0.1)
    path: list[np.ndarray] = []
    programs = [with_rate_tensor(rule) for rule in RULES]
    found = final_positions(programs, learning_rates=rates, steps=steps, seed=3, path=path)
    assert len(path) == steps + 1
    assert np.array_equal(path[-1], found, equal_nan=True)
    assert np.array_equal(path[0], np.broadcast_to(surface.start_vector(), found.shape))
    program, noise = RULES[row].compile(), surface.noise_vectors(steps, seed=3)
    for rate, lr in enumerate(rates):
        x = surface.start_vector()
        g = np.empty_like(x)
        params = [x[where].copy() for _, where in surface.blocks()]
        states = [nos_ext.init_state(program, [p]) for p in params]
        for step in range(1, steps + 1):
            for p, (_, where) in zip(params, surface.blocks(), strict=True):
                x[where] = p
            surface.gradients(x, g, noise[step - 1])
            for p, state, (_, where) in zip(params, states, surface.blocks(), strict=True):
                nos_ext.apply_rule(program, [p], [g[where].copy()], state, lr=lr, step=step, total_steps=steps, seed=3)
        assert np.array_equal(np.concatenate(params), found[row, rate], equal_nan=True)


def test_screening() -> None:
    """A rate at which a rule diverges does not spoil the others."""
    together = screen([with_rate_tensor(rule) for rule in RULES], steps=100)
    assert together.score[0] > 0.3
    for row, rule in enumerate(RULES):
        alone = screen([with_rate_tensor(rule)], steps=100)
        assert np.array_equal(alone.best[0], together.best[row])
