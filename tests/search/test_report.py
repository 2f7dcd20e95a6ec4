"""Formulas, drawings and the page."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from nos_search import svg
from nos_search.config import RunConfig, versions
from nos_search.mathml import formula
from nos_search.report import render
from nos_search.results import leaderboard
from nos_search.space import Space
from nos_search.store import Store

from .conftest import StubExecutor, stub_search


def words(text: str) -> str:
    """The visible characters of a formula."""
    return "".join(ElementTree.fromstring(formula(text)).itertext()).replace("\u2061", "")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("g", "g"),
        ("g * exp(sign(g) * sign(m_hat))", "g·esign(g)·sign(m^)"),
        ("(g + w) * (g - w)", "(g+w)·(g\u2212w)"),
        ("g - (w - 1)", "g\u2212(w\u22121)"),
        ("g - w - 1", "g\u2212w\u22121"),
        ("-(g + w)", "\u2212(g+w)"),
        ("(-g) ** 2", "(\u2212g)2"),
        ("(g * w) ** 2", "(g·w)2"),
        ("log(abs(g))", "log|g|"),
        ("sqrt(abs(g))", "|g|"),
        ("clip(adam, 1e-05)", "clip(ADAM,10\u22125)"),
        ("2.5e-05 * w", "2.5·10\u22125·w"),
        ("0.1 * w + 0.0001", "0.1·w+10\u22124"),
        ("noise + annealed_noise", "ε+εt"),
    ],
)
def test_formulas(text: str, shown: str) -> None:
    assert words(text) == shown


def test_every_rule_of_the_space_is_well_formed() -> None:
    generator = torch.Generator().manual_seed(1)
    for vocabulary in ("icml", "arxiv-decay"):
        space = Space(vocabulary=vocabulary, groups=3)
        for _ in range(100):
            markup = formula(space.text(space.sample(generator)))
            assert ElementTree.fromstring(markup).tag == "math"


def test_other_text_is_shown_as_it_is() -> None:
    assert formula("def f(<x>):") == "<code>def f(&lt;x&gt;):</code>"
    assert formula("g if g else w") == "<code>g if g else w</code>"
    assert formula("f.x(g)") == "<code>f.x(g)</code>"


def test_ticks() -> None:
    assert svg.ticks(1.0, 5) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert svg.ticks(119.0) == [0, 20, 40, 60, 80, 100]
    assert svg.ticks(0.0) == [0]
    for drawing in (
        svg.rewards([], [], []),
        svg.rewards([(0, 0.5, "dot", "<a&b>")], [0.5], []),
        svg.funnel([("a", 0, "")]),
    ):
        ElementTree.fromstring(drawing)


class Page(HTMLParser):
    """Collects tags and whatever could make a browser load something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)
        self.loads += [
            f"{tag} {name}={value}" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")
        ]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check_page(text: str) -> Page:
    page = Page(text)
    assert page.open == []
    assert page.loads == []
    assert not {"script", "link", "iframe", "img", "object", "embed"} & set(page.tags)
    assert not re.search(r"https?://|url\(|@import", text)
    return page


def test_page_is_self_contained_and_has_the_top_rule(small_run: Path) -> None:
    with Store.open(small_run) as store:
        text = render(store)
        best = leaderboard(store.trials())[0]
    page = check_page(text)
    assert {"math", "svg", "table"} <= set(page.tags)
    assert formula(best.rule, block=True) in text
    assert f"{best.reward:.3f}" in text
    for name, value in versions().items():
        assert name in text
        assert value in text
    for part in ("Reward over trials", "Gates", "Leaderboard", "Configuration", "prefers-color-scheme: dark"):
        assert part in text


def test_page_of_a_run_without_results(tmp_path: Path) -> None:
    config = RunConfig(trials=1)
    with Store.create(tmp_path / "run", config.to_json(), {"torch": "<b>"}) as store:
        text = render(store)
    check_page(text)
    assert "No rule has been trained to the end yet" in text
    assert "&lt;b&gt;" in text


def test_page_of_a_long_run(tmp_path: Path) -> None:
    config = RunConfig(trials=300, strategy="random", gates={"descent": None, "screen": None})
    stub_search(tmp_path / "run", config, StubExecutor())
    with Store.open(tmp_path / "run") as store:
        text = render(store)
    check_page(text)
    assert "more rules in the run" in text
    assert len(text) < 600_000
