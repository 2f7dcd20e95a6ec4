"""Formulas, drawings and the page."""

from __future__ import annotations

import re
import shutil
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

import nos_ext
from nos_ext.rule.canonical import canonical_key
from nos_search.known import REPORTED, RULES
from nos_search.rules import compile_rule
from nos_search.run import baselines
from nos_search.run.children import LoadChild
from nos_search.run.config import RunConfig, versions
from nos_search.show import svg
from nos_search.show.leaderboard import best_rows, leaderboard
from nos_search.show.primitives import primitives, usage
from nos_search.show.report import formula, render
from nos_search.space import Space
from nos_search.store import Store
from tests.reference.mathml import read

from .conftest import StubExecutor, stub_search


def test_every_rule_of_the_space_reads_back() -> None:
    generator = torch.Generator().manual_seed(1)
    for vocabulary in ("icml", "arxiv-decay"):
        space = Space(vocabulary=vocabulary, groups=3)
        for _ in range(100):
            text = space.text(space.sample(generator))
            tree = ElementTree.fromstring(formula(text))
            assert tree.tag == "math"
            assert canonical_key(nos_ext.compile_rule(read(tree))) == canonical_key(nos_ext.compile_rule(text))


def test_other_text_is_shown_as_it_is() -> None:
    assert formula("def f(<x>):") == "<code>def f(&lt;x&gt;):</code>"
    assert formula("g if g else w") == "<code>g if g else w</code>"
    assert formula("f.x(g)") == "<code>f.x(g)</code>"


def test_use_of_primitives() -> None:
    assert primitives("g * exp(sign(g) * -m_hat) ** 2") == {"g", "m_hat", "exp()", "sign()", "\u00d7", "power"}
    assert primitives("def rule(p, g, *, lr): x1 = tanh(p); return p - lr * x1 % 2") == {
        "p", "tanh()", "\u2212", "\u00d7", "mod",
    }  # fmt: skip
    assert primitives("not a rule") == frozenset()
    names, shares = usage(["g", "g", "g * w", "w"], periods=2, top=5)
    assert names == ["g", "w", "\u00d7"]
    assert shares == [[1.0, 0.5], [0.0, 1.0], [0.0, 0.5]]
    assert usage([], periods=4, top=5) == ([], [])


def test_known_optimizers_are_trained_once_and_kept(small_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(small_run, folder)
    said: list[str] = []
    with Store.open(folder, write=True) as store:
        assert "Not trained yet: Adam, RMSProp, SGD, Momentum, AdamW, Lion." in render(store)
        baselines.train_missing(store, note=said.append)
        assert len(said) == 6
        baselines.train_missing(store, note=said.append)
        assert len(said) == 6
        entries = baselines.stored(store)
        text = render(store)
        config = RunConfig.from_json(store.config)
    assert list(entries) == list(REPORTED)
    check_page(text)
    assert "Not trained yet" not in text
    for name, entry in entries.items():
        assert RULES[name].label in text
        assert len(entry.curve["steps"]) == len(entry.curve["accuracy"]) > 0
    got = LoadChild(config.to_json())()(compile_rule("adam"), config.child_seed, 0)
    assert (got.reward, got.lr, got.curve) == (entries["adam"].reward, entries["adam"].lr, entries["adam"].curve)
    with Store.open(folder, write=True) as store:  # of another budget: not the same thing
        store.set_config({**store.config, "train_steps": 7})
        assert baselines.stored(store) == {}


def test_ticks() -> None:
    assert svg.ticks(1.0, 5) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert svg.ticks(119.0) == [0, 20, 40, 60, 80, 100]
    assert svg.ticks(0.0) == [0]
    for drawing in (
        svg.rewards([], [], []),
        svg.rewards([(0, 0.5, "dot", "<a&b>")], [0.5], []),
        svg.rewards([(k, 0.5, "dot done", "") for k in range(5000)], [0.5] * 5000, [("mean", [(0, 0.5), (9, 0.25)])]),
        svg.curves([("c0", [(1, 0.5), (2, 0.75)]), ("k0", [(2, 0.7)])], label="<&>", what="step"),
        svg.heat(["<", "*"], [[0.0, 1.0], [0.5, 0.25]], label="use", ends=("first", "last")),
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
    for part in (
        "Reward over evaluations",
        "Gates",
        "Use of primitives",
        "Learning curves",
        "Leaderboard",
        "Configuration",
        "prefers-color-scheme: dark",
    ):
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
    assert "gradient has no effect" in text
    assert len(text) < 600_000


def test_page_of_a_run_with_promotions(tmp_path: Path) -> None:
    config = RunConfig(trials=120, strategy="random", promote="digits*2, fashion", promote_eta=3)
    stub_search(tmp_path / "run", replace(config, gates={"descent": None, "screen": None}), StubExecutor())
    with Store.open(tmp_path / "run") as store:
        text = render(store)
        best = best_rows(store)[0]
        scored = [score.reward for score in store.scores("promotion") if score.task == "fashion"]
    check_page(text)
    assert len(best.promoted) == 2
    assert best.promoted[1] == max(scored)
    for shown in (
        "One rule in 3",
        "<code>fashion</code>",
        ">rung 2<",
        f"{best.promoted[1]:.4f}",
        f"{best.promoted[0]:.4f}",
    ):
        assert shown in text
