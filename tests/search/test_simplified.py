"""Rules as they are shown: shorter, and the same function by an independent evaluation in float64."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import torch

import nos_ext
from nos_search.show.simplified import formula, simplified
from nos_search.space import Space
from tests.reference.mathml import read

SHAPE = (5,)


def updates(text: str) -> np.ndarray:
    """The parameter after each of four steps, by the reference in float64."""
    rule = nos_ext.compile_rule(f"({text})").rule
    rng = np.random.default_rng(7)
    params = [rng.normal(size=SHAPE)]
    state = {name: [np.zeros(SHAPE)] for name in rule.state_names}
    seen = []
    with np.errstate(all="ignore"):
        for step in range(1, 5):
            grads = [rng.normal(size=SHAPE)]
            moved, state = rule.reference(params, grads, state, lr=1.0, step=step, total_steps=10)
            seen.append(moved[0])
    return np.array(seen)


@pytest.mark.parametrize("vocabulary", ["icml", "arxiv", "arxiv-decay"])
def test_what_is_shown_is_the_rule(vocabulary: str) -> None:
    generator = torch.Generator().manual_seed(3)
    shorter = 0
    for groups in (1, 2, 3):
        space = Space(vocabulary=vocabulary, groups=groups)
        for _ in range(100):
            text = space.text(space.sample(generator))
            if text.count("drop(") + text.count("noise") > 1:
                continue  # draws may change places, which changes the numbers that each gets
            shown = simplified(text)
            assert len(shown) <= len(text)
            assert simplified(shown) == shown
            assert updates(shown) == pytest.approx(updates(text), rel=1e-9, abs=1e-12, nan_ok=True), (text, shown)
            shorter += shown != text
    assert shorter > 20


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("sign(sign(m_hat)) * g", "sign(m_hat) * g"),
        ("exp(sqrt(abs(1)) + w)", "exp(1 + w)"),
        ("sign(g) - -(g * w)", "sign(g) + g * w"),
        ("g + -w", "g - w"),
        ("-(g - w)", "w - g"),
        ("0 - g", "-g"),
        ("sqrt(abs(sign(g)))", "abs(sign(g))"),
        ("sqrt(abs(2)) * g", "sqrt(2) * g"),
        ("clip(clip(g, 0.1), 0.01)", "clip(g, 0.01)"),
        ("clip(sign(g), 1)", "sign(g)"),
        ("sign(0.1 * w)", "sign(w)"),
        ("drop(g, 0.1) - drop(g, 0.1)", "drop(g, 0.1) - drop(g, 0.1)"),  # two draws
        ("g", "g"),
        ("adam", "(adam)"),  # the operand: alone it would name the library's rule
        ("def rule(p, g, *, lr):\n    return p - lr * g", "def rule(p, g, *, lr):\n    return p - lr * g"),
        ("no rule <", "no rule <"),
    ],
)
def test_examples(text: str, shown: str) -> None:
    assert simplified(text) == shown


def test_formulas_keep_roots() -> None:
    assert "<msqrt>" in formula("sqrt(abs(2)) * g")
    tree = ElementTree.fromstring(formula("sign(sign(g))", block=True))
    assert tree.get("display") == "block"
    assert read(tree) == read(ElementTree.fromstring(formula("sign(g)")))
