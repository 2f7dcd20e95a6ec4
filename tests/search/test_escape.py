"""Attacks on every printer: hostile text in every field of what it prints, in every format that the commands write."""

from __future__ import annotations

import ast
import io
import json
import subprocess
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nos_search import escape
from nos_search.cli import export
from nos_search.cli.evaluate import _table
from nos_search.cli.output import as_json, emit, note, table
from nos_search.cli.prove import summary
from nos_search.cli.simplify import _shown as simplified_chain
from nos_search.cli.summary import print_summary
from nos_search.gate.screen import LEARNING_RATES
from nos_search.gate.surface import SURFACES, start_vector
from nos_search.rules import compile_rule
from nos_search.show import charts, plot, proof, report, tensorboard
from nos_search.show import csv_tables as tables
from nos_search.show import leaderboard as results
from nos_search.show.inline import inline
from nos_search.show.leaderboard import Row
from nos_search.show.live import Display
from nos_search.show.outlook import Limits
from nos_search.show.primitives import usage
from nos_search.show.simplified import formula, simplified
from nos_search.show.surfaces import Paths, figure_of
from nos_search.simplify import Better, Chain, Step
from nos_search.simplify.loss import Difference
from nos_search.store import Trial
from nos_search.task.score import SCORES as KINDS
from nos_search.train.evaluate import Comparison

from .conftest import Clock
from .hostile import (
    ALL,
    CONFIG,
    CURVE,
    EVIL,
    FORMULAS,
    OTHER,
    REFUSED,
    SCORES,
    TRIAL,
    Foreign,
    check_csv,
    check_drawing,
    check_page,
    check_plain,
    evil,
    printed,
    runs,
    variants,
)


def check_pages(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page around its drawings, which are attacked below: a thousand pages with them would take half an hour."""
    monkeypatch.setattr(report, "inline", lambda drawing, name: "<svg></svg>")
    for page in printed(runs(folder, text), report.render):  # type: ignore[arg-type]
        check_page(page)


def test_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_pages(tmp_path, ALL, monkeypatch)


@pytest.mark.slow
@pytest.mark.exhaustive
@evil
def test_report_of_each(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_pages(tmp_path, text, monkeypatch)


@evil
def test_report_with_drawings(tmp_path: Path, text: str) -> None:
    trial = replace(TRIAL, rule=text, reason=text, worker=text)
    check_page(report.render(Foreign(tmp_path, [trial, replace(OTHER, rule=text)], SCORES, CONFIG)))  # type: ignore[arg-type]


@evil
def test_tables(tmp_path: Path, text: str) -> None:
    for made in printed(runs(tmp_path, text), tables.trials_csv):  # type: ignore[arg-type]
        check_csv(made, ["id", "told", "status"])
    for made in printed(runs(tmp_path, text), tables.curves_csv):  # type: ignore[arg-type]
        check_csv(made, ["id", "part", "lr"])


def test_numbers_in_tables_stay_numbers() -> None:
    assert [escape.cell(value) for value in (-0.5, -3, None, True, float("-inf"))] == [-0.5, -3, None, True, -np.inf]
    assert escape.cell("-g") == "'-g"
    for text in FORMULAS:
        assert str(escape.cell(text)).lstrip()[0] in "'\\", text
    assert escape.cell("g - w") == "g - w"


def check_exports(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the run holds, the file is the same program: nothing but a comment can differ."""

    def source(run: Foreign) -> str:
        monkeypatch.setattr(export.Store, "open", lambda folder: run)
        monkeypatch.setattr(export, "_is_run", lambda source: True)
        return export._source(str(folder), 1)

    plain = ast.dump(ast.parse(source(Foreign(folder, [TRIAL, OTHER], SCORES, CONFIG))))
    same = (run for run in runs(folder, text) if run.trials()[0].rule == TRIAL.rule)
    for made in {*printed(same, source)}:  # most are equal
        made.encode("utf-8")
        check_plain(made)
        assert ast.dump(ast.parse(made)) == plain


def test_exported_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_exports(tmp_path, ALL, monkeypatch)


@pytest.mark.exhaustive
@evil
def test_exported_source_of_each(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_exports(tmp_path, text, monkeypatch)


@evil
def test_exported_rules(text: str) -> None:
    rules = [f"g * sign(m) #{text}", text]
    for rule in rules:
        try:
            made = export._source(rule, 1)
        except REFUSED:
            continue
        assert "import os" not in [line.strip().partition(";")[0] for line in made.splitlines()]


@evil
def test_leaderboard_as_text_and_json(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    plain = results.summary(Foreign(tmp_path, [TRIAL, OTHER], SCORES, CONFIG))  # type: ignore[arg-type]

    def shown(data: dict[str, Any], *, json: bool) -> str:
        print_summary(data, top=10, json=json)
        return capsys.readouterr().out

    count = len(shown(plain, json=False).splitlines())
    made = [data for data in variants(plain, text) if isinstance(data, dict)]
    for lines in printed(iter(made), lambda data: shown(data, json=False)):
        check_plain(lines)
        assert len(lines.splitlines()) <= count
    for lines in printed(iter(made), lambda data: shown(data, json=True)):
        assert lines.isascii()
        check_plain(lines)
        json.loads(lines)


COMPARISON = Comparison(
    "g", "digits", 2, 0.5, 0.1, 0.2, 0.5, 0.1, 0.2, 0, 1.0, (0.1, 0.1), (0.4, 0.6), (0.4, 0.6), (0.1, 0.2)
)


@evil
def test_comparisons(text: str) -> None:
    made = [row for row in variants(COMPARISON, text) if isinstance(row, Comparison)]
    named = [row for row in made if text in (row.rule, row.task)]  # its other text is refused where numbers belong
    for drawing in printed(iter(named), lambda row: plot.comparison([row, COMPARISON]).render("svg").decode()):
        check_drawing(drawing)
    for lines in printed(iter(made), lambda row: _table([row], {row.task: "loss"}, text)):
        check_plain(lines)
        assert len(lines.splitlines()) == 2
    check_drawing(plot.training(text, text, 0.1, CURVE).render("svg").decode())


@evil
def test_proofs(text: str) -> None:
    gap = {"mean": 0.5, "half": 0.1, "p": 0.01, "corrected": 0.01, "cells_agree": text, "verdict": "worse"}
    wide = {**gap, "interquartile_mean": 0.5, "steps_to_final": None, "reached": 0.0}
    judged = {"verdict": "better", "against": {text: gap}}
    task = {**judged, "searched": True, "differences": {text: gap}}
    rule = {
        **judged, "rule": text, "against": {text: wide}, "families": {text: judged}, "tasks": {text: task}, "diverged": 1,
        "trainings": 2,
    }  # fmt: skip
    contender = {"text": text, "cells": {text: {"test": 0.5, "lr": None, "diverged": 0}}}
    protocol = {
        "against": [text], "tasks": {text: {"family": text, "searched": True, "augment": True}}, "nets": {text: text}, "sizes": [text],
        "horizons": [1], "seeds": [1], "points": 1, "versions": {text: text},
        "tuned": {text: {text: {text: 0.1}}},
    }  # fmt: skip
    found = {"rules": [rule, {**rule, "verdict": "worse"}], "contenders": {text: contender}, "protocol": protocol}
    check_drawing(proof.forest(found).render("svg").decode())
    check_page(proof.page(found))
    check_plain(summary(found))
    assert len(summary(found).splitlines()) == 10


@evil
def test_chains(text: str) -> None:
    rule = replace(compile_rule("g"), text=text)
    step = Step(rule, text, {text: 0.5}, {text: Difference(0.1, 0.1, 3)})
    better = Better(0, rule, {text: 0.5}, {text: Difference(0.1, 0.1, 3)})
    chain = Chain([step, step], [step], {text: 0.1}, [step], {text: 0.1}, rule, [better])
    for made in (chain, replace(chain, steps=[step]), replace(chain, result=step.rule)):
        check_plain(simplified_chain(made, 3))


def test_drawings() -> None:
    """Each has all of the texts, side by side."""
    dots = [charts.Dot(k, 0.5, status, text) for k, text in enumerate(EVIL) for status in ("done", text)]
    positions = np.broadcast_to(start_vector(), (3, len(EVIL), len(LEARNING_RATES), len(start_vector())))
    curves = [charts.Curve(text, charts.found_look(k), [(1, 0.5)]) for k, text in enumerate(EVIL)]
    for drawing in (
        charts.rewards(dots, [(0, 0.5)], [], window=2),
        charts.learning(curves, KINDS["accuracy"]),
        charts.primitives(EVIL, [[0.5]] * len(EVIL), evaluations=1),
        charts.funnel([charts.Stage(text, 1, text) for text in EVIL]),
        *(replace(charts.swatch({}), title=text) for text in EVIL),
        figure_of(Paths(EVIL, positions, np.zeros((len(EVIL), len(SURFACES)), int))),
    ):
        assert drawing is not None
        check_drawing(drawing.render("svg").decode())
        check_drawing(inline(drawing, "name"))
    for text in EVIL:
        usage([text], periods=1, top=3)


@evil
def test_formulas(text: str) -> None:
    for rule in (text, f"sign({text})", f"g * {text!r}", f"{text}(g)", f"def rule(p, g, *, lr): return {text}"):
        for block in (False, True):
            check_plain(escape.lines(simplified(rule)))
            made = formula(rule, block=block)
            check_plain(made)
            tree = ElementTree.fromstring(made)
            assert not {element.tag for element in tree.iter()} & {"script", "img"}


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("live", [True, False])
@evil
def test_live_display(text: str, live: bool) -> None:
    """On a terminal rich writes escape sequences of its own; none may come from a trial."""
    bad = ("\x1b]0;", "\x1b[2J", "\x07", "\x9b", "\u202e", "\u2066", "\x85", "\u2028", "\0", "\x0b")
    for changed in variants(replace(TRIAL, rule="g"), text):
        stream = Terminal() if live else io.StringIO()
        if not isinstance(changed, Trial):
            continue
        try:
            with Display(stream, limits=Limits(trials=3, rungs=1), earlier=[OTHER], clock=Clock()) as display:
                display.on_start(changed, 0)
                display.on_trial(changed)
                display.on_promotion(changed, 1, replace(SCORES[0], task=text))
                display.on_start(changed, 1)
        except REFUSED:
            continue
        said = stream.getvalue()
        assert not [piece for piece in bad if piece in said], ascii(said)
        if not live:
            check_plain(said)
        if changed.rule == text == "[red]x[/red][/]":
            assert text in said


@evil
def test_tensorboard(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tags: list[str] = []

    class Writer:
        def __init__(self, folder: str) -> None:
            self.folder = folder

        def add_scalar(self, tag: str, value: float, step: int) -> None:
            tags.append(tag)
            float(value)

    monkeypatch.setattr(tensorboard, "summary_writer", lambda: Writer)
    stopped = replace(TRIAL, gates={"static": {"passed": False, "seconds": 0.1}})
    for trial in variants(stopped, text):
        if isinstance(trial, Trial):
            board = tensorboard.TensorBoard(tmp_path)
            try:
                board.on_trial(trial)
            except REFUSED:
                continue
    assert tags
    assert all(tag.isprintable() for tag in tags)


@evil
def test_notes_and_results(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    note(text)
    emit(text)
    emit(table([text, "x"], [[text, text]]))
    emit(as_json({text: text}))
    out, err = capsys.readouterr()
    check_plain(out)
    check_plain(err)
    assert escape.line(text).isprintable()
    assert len(table(["a"], [[text]]).split("\n")) == 2
    assert compile_rule("g").label == "g"


@evil
def test_words_for_the_shell(text: str) -> None:
    """bash reads back what was quoted, byte for byte, and no command takes it for an option."""
    if "\0" in text:
        pytest.skip("no file name holds one")
    for word in (text, f"-{text}", f"a b{text}"):
        quoted = escape.shell(word)
        assert quoted.isprintable()
        done = subprocess.run(["bash", "-c", f"printf %s {quoted}"], capture_output=True, check=True)
        want = word.encode("utf-8", "surrogateescape")
        assert done.stdout == (b"./" + want if word.startswith("-") else want)


def test_rows_of_the_leaderboard_are_what_was_stored(tmp_path: Path) -> None:
    """Escaping is the printers' work: what is read from a store is as it is."""
    run = Foreign(tmp_path, [replace(TRIAL, rule="-g\n")], [], CONFIG)
    rows: list[Row] = results.best_rows(run)  # type: ignore[arg-type]
    assert rows[0].rule == "-g\n"
