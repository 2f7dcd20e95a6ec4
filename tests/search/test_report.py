"""Formulas, drawings and the page."""

from __future__ import annotations

import re
import shutil
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

import nos_ext
from nos_ext.rule.canonical import canonical_key
from nos_search.cli import main
from nos_search.known import REPORTED, RULES
from nos_search.rules import compile_rule
from nos_search.run import baselines
from nos_search.run.children import LoadChild
from nos_search.run.config import RunConfig, versions
from nos_search.show.leaderboard import Row, best_rows, leaderboard
from nos_search.show.primitives import primitives, usage
from nos_search.show.report import render
from nos_search.show.simplified import formula, simplified
from nos_search.space import Space
from nos_search.store import Store
from tests.reference.mathml import read

from .conftest import StubExecutor, stub_search


def test_every_rule_of_the_space_reads_back() -> None:
    """The formula is the simplified rule; that this one is the rule is tested in test_simplified.py."""
    generator = torch.Generator().manual_seed(1)
    for vocabulary in ("icml", "arxiv-decay"):
        space = Space(vocabulary=vocabulary, groups=3)
        for _ in range(100):
            text = space.text(space.sample(generator))
            tree = ElementTree.fromstring(formula(text))
            assert tree.tag == "math"
            shown = nos_ext.compile_rule(f"({simplified(text)})")
            assert canonical_key(nos_ext.compile_rule(read(tree))) == canonical_key(shown)


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
        assert "Not trained yet: Adam, RMSProp, SGD, Momentum, AdamW, Lion, PowerSign, AddSign." in render(store)
        baselines.train_missing(store, note=said.append)
        assert len(said) == 8
        baselines.train_missing(store, note=said.append)
        assert len(said) == 8
        entries = baselines.stored(store)
        text = render(store)
        config = RunConfig.from_json(store.config)
    assert list(entries) == list(REPORTED)
    check_page(text)
    assert "Not trained yet" not in text
    for name, entry in entries.items():
        assert RULES[name].label in text
        assert len(entry.curve["steps"]) == len(entry.curve["accuracy"]) > 0
    rows = best_rows_of(folder)
    (drawn, *_) = [svg for svg in drawings(text) if "Validation accuracy while" in svg.get("aria-label", "")]
    names = {f"rank {row.rank}" for row in rows[:4]} | {RULES[name].label for name in REPORTED}
    legend = {name: handle for name, handle in zip(*legend_of(drawn), strict=True) if name in names}
    assert set(legend) == names
    lines = [look(path) for group in drawn.iter("g") if group.get("class") == "curve" for path in group.iter("path")]
    assert sorted(legend.values()) == sorted(lines)  # colour, dashes and opacity
    assert all(("dasharray" in legend[name]) == (not name.startswith("rank")) for name in names)
    got = LoadChild(config.to_json())()(compile_rule("adam"), config.child_seed, 0)
    assert (got.reward, got.lr, got.curve) == (entries["adam"].reward, entries["adam"].lr, entries["adam"].curve)
    with Store.open(folder, write=True) as store:  # of another budget: not the same thing
        stored = store.config
        store.set_config({**stored, "train_steps": 7})
        assert baselines.stored(store) == {}
        assert stored["engine"] == "native"
        store.set_config({**stored, "engine": "torch"})  # engines differ in rounding
        assert baselines.stored(store) == {}
        store.set_config(stored)
        assert list(baselines.stored(store)) == list(REPORTED)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"device": "cuda"}, "--device cuda: torch sees no GPU here"),
        ({"data_dir": "/no/such/data"}, "--data-dir /no/such/data is not a folder"),
    ],
)
def test_a_page_of_a_run_whose_task_cannot_be_trained_here(
    change: dict[str, str], why: str, small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Such as one of another machine. What that note is about is no option of report, so none is named as a remedy."""
    info = nos_ext.build_info()
    monkeypatch.setattr(nos_ext, "build_info", lambda: {**info, "cuda": {**info["cuda"], "enabled": True}})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    folder = tmp_path / "run"
    shutil.copytree(small_run, folder)
    with Store.open(folder, write=True) as store:
        store.set_config({**store.config, **change})
    assert main(["report", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert "Not trained yet: Adam, RMSProp" in Path(out.strip()).read_text(encoding="utf-8")
    assert err == f"note: known optimizers that were not trained yet are left out: {why}\n"


def test_known_optimizers_of_older_runs_are_still_theirs() -> None:
    """They were trained by torch, on the CPU and for the accuracy, and their budgets name none of these."""
    older = {name: value for name, value in RunConfig().to_json().items() if name not in ("engine", "score", "device")}
    assert set(baselines.budget(RunConfig.from_json(older))) == {
        "sweep", "net", "width", "sweep_steps", "train_steps", "data_dir", "threads",
    }  # fmt: skip


def best_rows_of(folder: Path) -> list[Row]:
    with Store.open(folder) as store:
        return best_rows(store)


def drawings(page: str) -> list[ElementTree.Element]:
    """The drawings of a page; they are well-formed."""
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.S)]


def look(path: ElementTree.Element) -> str:
    """How a line is drawn."""
    parts = [part.strip() for part in path.get("style", "").split(";")]
    return "; ".join(sorted(part for part in parts if part.split(":")[0] in LOOK))


LOOK = ("stroke", "stroke-dasharray", "stroke-opacity", "opacity", "stroke-width")


def legend_of(drawing: ElementTree.Element) -> tuple[list[str], list[str]]:
    """The names in the legend of a drawing, and how the line beside each is drawn."""
    (legend,) = [group for group in drawing.iter("g") if group.get("class") == "legend_1"]
    names = ["".join(text.itertext()) for text in legend.iter("text")]
    lines = [look(path) for path in legend.iter("path") if "stroke:" in path.get("style", "")]
    return [name for name in names if name != "by last accuracy"], lines


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
            f"{tag} {name}={value}"
            for name, value in attrs
            if name.rpartition(":")[2] in ("src", "href", "srcset", "data", "action")
            and not (tag == "use" and str(value).startswith("#"))  # a part of the same drawing
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
    assert not re.search(r"https?://|url\((?!#)|@import", text)
    names = re.findall(r'\bid="([^"]*)"', text)
    assert len(set(names)) == len(names)
    assert set(re.findall(r'(?:href="|url\()#([^")]*)', text)) <= set(names)
    return page


def test_page_is_self_contained_and_has_the_top_rule(small_run: Path) -> None:
    with Store.open(small_run) as store:
        text = render(store)
        best = leaderboard(store.trials())[0]
    page = check_page(text)
    assert {"math", "svg", "table"} <= set(page.tags)
    assert formula(best.rule, block=True) in text
    assert f'title="searched as: {escape(best.rule)}"' in text
    assert f"<code>{escape(simplified(best.rule))}</code>" in text
    shown = {"".join(label.itertext()) for drawing in drawings(text) for label in drawing.iter("text")}
    assert {
        "reward (0 to 1)",
        "evaluation",
        "validation accuracy (share of examples)",
        "training step",
        "rules left",
    } <= shown
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
    assert "more families in the run" in text
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
        "for promotions.",
        "One rule in 3",
        "<code>fashion</code>",
        ">rung 2<",
        f"{best.promoted[1]:.4f}",
        f"{best.promoted[0]:.4f}",
    ):
        assert shown in text


def test_the_times_of_a_page_agree(tmp_path: Path) -> None:
    """The tile, the sentence and the gates' panel: trainings of the search and promotions, each counted once."""
    config = RunConfig(trials=120, strategy="random", promote="digits*2, fashion", promote_eta=3)
    stub_search(tmp_path / "run", replace(config, gates={"descent": None, "screen": None}), StubExecutor())
    with Store.open(tmp_path / "run") as store:
        text = render(store)
        search = sum(trial.seconds for trial in store.trials())
        rungs = [
            [score.seconds for score in store.scores("promotion") if score.budget["rung"] == rung] for rung in (1, 2)
        ]
    promoted = sum(map(sum, rungs))
    assert search > 0 < promoted
    assert f"<b>{search + promoted:.0f} s</b><span>time in training, promotions included</span>" in text
    assert (
        f"Children trained for {search + promoted:.0f} s: {search:.0f} s for the search, {promoted:.0f} s for" in text
    )
    (gates,) = [svg for svg in drawings(text) if "after each gate" in svg.get("aria-label", "")]
    labels = ["".join(label.itertext()) for label in gates.iter("text")]
    assert any(label.endswith(f"{search:.0f} s in all") for label in labels)
    for rung, seconds in zip(("rung 1: digits*2", "rung 2: fashion"), rungs, strict=True):
        assert rung in labels
        assert str(len(seconds)) in labels
        assert f"0.25 s each, {sum(seconds):.0f} s in all" in labels


def test_every_dot_says_what_it_is(small_run: Path) -> None:
    with Store.open(small_run) as store:
        text = render(store)
        trials = [trial for trial in store.trials() if trial.told is not None]
    (rewards,) = [svg for svg in drawings(text) if "Reward of every" in svg.get("aria-label", "")]
    titles = {title.text for title in rewards.iter("title")}
    assert titles == {f"#{t.id} {t.status} {t.reward or 0.0:.3f}  {t.rule}" for t in trials}
    names, _ = legend_of(rewards)
    kinds = {"trained": ("done",), "duplicate": ("duplicate",), "rejected": ("rejected",)}
    for name, statuses in kinds.items():  # the legend names what is drawn, and nothing else
        assert (name in names) == any(trial.status in statuses for trial in trials)
