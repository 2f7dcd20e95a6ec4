"""Surfaces against autograd, the screening against one rule, one learning rate, one surface at a time."""

from __future__ import annotations

import itertools
from collections import Counter
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

import nos_ext
from nos_ext.optim import library
from nos_search.gate import surface
from nos_search.gate.screen import (
    LEARNING_RATES,
    TokenGraphs,
    final_positions,
    screen,
    update_with_rate_tensor,
    with_rate_tensor,
)
from nos_search.show.surfaces import Paths, _smooth, _spread, figure_of
from nos_search.space import Space

CENTRE = (2, -2, 2, -2)
FORMULAS = {
    "rosenbrock": lambda x: (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2,
    "beale": lambda x: sum((c - x[0] + x[0] * x[1] ** k) ** 2 for c, k in ((1.5, 1), (2.25, 2), (2.625, 3))),
    "saddle": lambda x: (x[0] - 2) ** 2 - x[1] ** 2 + x[1] ** 4 / 4 + 1,
    "plateau": lambda x: 1 - torch.exp(-((x[0] - 5) ** 2 + (x[1] - 3) ** 2) / 2),
    "ill-conditioned": lambda x: sum(c * (x[k] - CENTRE[k]) ** 2 / 2 for k, c in enumerate((0.1, 1, 10, 100))),
    "noisy": lambda x: sum(c * (x[k] - CENTRE[k]) ** 2 / 2 for k, c in enumerate((0.5, 1, 2, 4))),
}
MINIMA = {
    "rosenbrock": (1, 1),
    "beale": (3, 0.5),
    "saddle": (2, 2**0.5),
    "plateau": (5, 3),
    "ill-conditioned": CENTRE,
    "noisy": CENTRE,
}


def test_values_and_gradients_are_those_of_the_formulas() -> None:
    generator = torch.Generator().manual_seed(1)
    points = torch.randn(20, surface.DIMENSION, dtype=torch.float64, generator=generator)
    out = np.empty(points.shape, np.float32)
    surface.gradients(points.numpy().astype(np.float32), out)
    assert set(FORMULAS) == {shown.name for shown in surface.SURFACES}
    for shown, where in surface.blocks():
        for row, point in enumerate(points):
            x = point[where].clone().requires_grad_()
            value = FORMULAS[shown.name](x)
            (gradient,) = torch.autograd.grad(value, x)
            assert float(shown.value(x.detach().numpy())) == pytest.approx(value.item(), rel=1e-6)
            assert out[row, where] == pytest.approx(gradient.numpy(), rel=1e-3, abs=1e-4)
    for shown, _ in surface.blocks():
        assert MINIMA[shown.name] in shown.minima
        for minimum in shown.minima:
            assert float(shown.value(np.array(minimum))) == pytest.approx(0.0, abs=1e-12)
        at = np.array(MINIMA[shown.name], float)
        assert float(shown.value(at)) == pytest.approx(0.0, abs=1e-12)
        assert float(shown.value(np.array(shown.start))) > 0.5


def test_scores() -> None:
    start = surface.start_vector()
    assert (surface.scores(start) == 0).all()
    best = np.concatenate([np.array(MINIMA[s.name], np.float32) for s in surface.SURFACES])
    assert (surface.scores(best) == 1).all()
    assert (surface.scores(np.full_like(start, np.nan)) == 0).all()
    assert (surface.scores(start * 1000) == 0).all()
    quadratic = surface.blocks()[4][1]
    half = start.copy()
    half[quadratic] = CENTRE + (half[quadratic] - CENTRE) / 10  # two decades of the loss, of four
    assert surface.scores(half)[4] == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("name", ["sgd", "adam", "lion", "powersign", "adamw"])
def test_screening_is_training_one_at_a_time(name: str) -> None:
    """One population of a rule with its rates in a tensor, against apply_rule at each rate; no noise, no drops."""
    program = nos_ext.compile_rule(library.get(name))
    steps = 25
    together = final_positions(
        [with_rate_tensor(program.rule), with_rate_tensor(nos_ext.compile_rule("m_hat").rule)],
        learning_rates=LEARNING_RATES,
        steps=steps,
        seed=3,
    )
    noise = surface.noise_vectors(steps, seed=3)
    for k, lr in enumerate(LEARNING_RATES):
        x = surface.start_vector()
        state = nos_ext.init_state(program, [x])
        g = np.empty_like(x)
        with np.errstate(all="ignore"):
            for step in range(1, steps + 1):
                surface.gradients(x, g, noise[step - 1])
                nos_ext.apply_rule(program, [x], [g], state, lr=lr, step=step, total_steps=steps)
        assert np.allclose(together[0, k], x, rtol=1e-3, atol=1e-5, equal_nan=True)


def test_graphs_from_tokens_are_the_text() -> None:
    space = Space(vocabulary="arxiv-decay", groups=3)
    generator = torch.Generator().manual_seed(2)
    graphs = TokenGraphs(space)
    for _ in range(40):
        tokens = space.sample(generator)
        assert nos_ext.compile_rule(graphs.update(tokens)) == nos_ext.compile_rule(space.text(tokens))
    tokens = Space(groups=2).known()["adam"]
    a, b = (
        screen([program], steps=50)
        for program in (
            update_with_rate_tensor(TokenGraphs(Space(groups=2)).update(tokens)),
            with_rate_tensor(nos_ext.compile_rule("adam").rule),
        )
    )
    assert np.allclose(a.best, b.best)


def test_good_rules_score_and_bad_ones_do_not() -> None:
    texts = ["g", "m_hat", "adam", "g * exp(sign(g) * sign(m_hat))", "-g", "w", "g ** 2", "noise"]
    found = screen([with_rate_tensor(nos_ext.compile_rule(text).rule) for text in texts])
    assert (found.score[:4] > 0.6).all()
    assert (found.score[4:] < 0.35).all()
    assert found.best.shape == found.rates.shape == (8, len(surface.SURFACES))
    assert screen([]).score.shape == (0,)
    noisy = [shown.noise > 0 for shown in surface.SURFACES]
    assert [bool(row) for row in surface.noise_vectors(3, seed=1).any(axis=0)[-4:]] == [True] * 4
    assert sum(noisy) == 1


def test_figure_has_a_curve_per_rule_and_surface_with_its_rate() -> None:
    programs = [with_rate_tensor(nos_ext.compile_rule(text).rule) for text in ("g", "exp(g) & 1".replace(" & 1", ""))]
    path: list[np.ndarray] = []
    final = final_positions(programs, learning_rates=LEARNING_RATES, steps=20, seed=1, path=path)
    paths = Paths(["g", "<exp>"], np.stack(path), surface.scores(final).argmax(axis=1))
    assert (paths.positions[-1] == final)[np.isfinite(final)].all()
    text = figure_of(paths).render("svg").decode()
    root = ElementTree.fromstring(text)
    gids = Counter(node.get("id") for node in root.iter())
    flat = sum(shown.dimension == 2 for shown in surface.SURFACES)
    assert gids["loss"] == gids["raw"] == 2 * len(surface.SURFACES)
    assert gids["path"] == gids["start"] == gids["end"] == gids["minimum"] == 2 * flat
    assert "nan" not in text
    shown = [node.text for node in root.iter() if node.tag.endswith("}text")]
    for label in ("g", "<exp>", "start", "end", "minimum", "loss above the minimum", "step", "x"):
        assert label in shown
    for index, at in enumerate(surface.SURFACES):  # the rate of every curve, beside it and over its path
        for rule in range(2):
            assert f"lr {paths.rate(rule, index):g}" in shown
            assert at.dimension > 2 or f"{at.name}, lr {paths.rate(rule, index):g}" in shown
        assert at.name in shown


def test_labels_beside_curves_keep_apart() -> None:
    assert _spread([0.2, 0.9], 0.1) == [0.2, 0.9]
    for heights in ([0.5] * 5, [0.0, 0.0, 1.0, 1.0], [0.97, 0.99, 0.98]):
        placed = sorted(_spread(heights, 0.1))
        assert all(b - a > 0.0999 for a, b in itertools.pairwise(placed))
        assert -1e-9 <= placed[0] <= placed[-1] <= 1 + 1e-9
    assert sorted(_spread([0.5] * 30, 0.1)) == pytest.approx(np.linspace(0, 1, 30), abs=0.05)


def test_a_curve_that_jumps_at_every_step_is_shown_as_its_middle() -> None:
    curve = np.array([1e-2, 1e-4] * 50)
    smooth = _smooth(curve)
    assert smooth[6:-6] == pytest.approx(1e-3)
    assert _smooth(np.full(3, 0.5)) == pytest.approx(0.5)
