"""Hostile run folders and objects for the attacks on printers, and what each format must hold against them."""

from __future__ import annotations

import csv
import io
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from jinja2 import UndefinedError

from nos_search.errors import SearchError
from nos_search.run import baselines
from nos_search.run.config import RunConfig
from nos_search.store import Score, Trial

from .test_report import Page

LINE_ENDS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
EVIL = [
    "<script>alert(1)</script>\"><img src=x onerror='alert(1)'>' onload='alert(1)",
    '=cmd|"/C calc"!A0',
    "-1+1,b;c\"d'e",
    "\x1b[2J\x1b]0;owned\x07\x9b31mred abc\u202egnp.exe\u2066\u200e[/][red]",
    "[red]x[/red][/]",
    "".join(f"x{end}import os; os.system('touch owned')" for end in LINE_ENDS),
    '"""\nimport os\n"""\'\'\'\\',
    "\0null, half a pair \udc80 {{ 7 * 7 }}{% x %}",
    "g " + "(" * 300,
    "1" + "0" * 400,
]
ALL = "".join(EVIL)  # where it does not matter what a text begins with
FORMULAS = ["+1+1", "-1+1", "@SUM(1)", "\t=1", "\r=1", " =1", "\uff1d1"]  # the last is a wide equals sign
# Text where a number belongs, or a name in place of one that is needed.
REFUSED = (TypeError, ValueError, KeyError, AttributeError, IndexError, ArithmeticError, UndefinedError, SearchError)
evil = pytest.mark.parametrize("text", EVIL, ids=[ascii(text)[:40] for text in EVIL])


def variants(value: Any, text: str) -> Iterator[Any]:
    """The value with `text` in place of each of its parts, one after another: fields, keys, values, elements."""
    if is_dataclass(value):
        for entry in fields(value):
            for changed in variants(getattr(value, entry.name), text):
                yield replace(value, **{entry.name: changed})
    elif isinstance(value, dict):
        for key, item in value.items():
            yield {(text if other == key else other): kept for other, kept in value.items()}
            for changed in variants(item, text):
                yield {**value, key: changed}
    elif isinstance(value, (list, tuple)):
        for k, item in enumerate(value):
            for changed in variants(item, text):
                yield type(value)([*value[:k], changed, *value[k + 1 :]])
    yield text


class Foreign:
    """A run folder that nobody has checked."""

    state = "stopped"

    def __init__(self, folder: Path, trials: list[Trial], scores: list[Score], config: dict[str, Any]) -> None:
        self.folder, self._trials, self._scores, self.config = folder, trials, scores, config
        self.versions = {"torch": "2.10", "isa": "avx2"}

    def trials(self) -> list[Trial]:
        return self._trials

    def scores(self, purpose: str) -> list[Score]:
        return [score for score in self._scores if score.purpose == purpose]

    def being_written(self) -> bool:
        return False

    def __enter__(self) -> Foreign:
        return self

    def __exit__(self, *_: object) -> None:
        return None


CURVE = {
    "sweep": [{"lr": 0.1, "steps": 4, "accuracy": 0.5}],
    "steps": [1, 2],
    "loss": [2.0, 1.0],
    "accuracy": [0.25, 0.5],
    "val_loss": [2.0, 1.0],
}
TRIAL = Trial(
    0, (1,) * 10, "g * sign(m)", "key", 7, "done", 0.5, 0.1, None, "why", 1e9, 2.0, CURVE, {"baseline": 0.25},
    {"static": {"passed": True, "seconds": 0.01}}, "print", 0, 0, 0, 1, "host:1",
)  # fmt: skip
OTHER = replace(TRIAL, id=1, told=1, status="duplicate", duplicate_of=0)
CONFIG = RunConfig(promote="digits*2", trials=2).to_json()
SCORES = [
    Score("promotion", TRIAL.rule, "key", "digits*2", 3, {"trial": 0, "rung": 1}, "done", 0.5, 0.1, None, CURVE, 1.0),
    Score(
        "baseline", "adam", "key", "digits", RunConfig.from_json(CONFIG).child_seed,
        baselines.budget(RunConfig.from_json(CONFIG)), "done", 0.5, 0.1, None, CURVE, 1.0,
    ),
]  # fmt: skip


def runs(folder: Path, text: str) -> Iterator[Foreign]:
    """Run folders with `text` somewhere."""
    for trial in variants(TRIAL, text):
        if isinstance(trial, Trial):
            yield Foreign(folder, [trial, OTHER], SCORES, CONFIG)
    for k, score in enumerate(SCORES):
        for changed in variants(score, text):
            if isinstance(changed, Score):
                yield Foreign(folder, [TRIAL, OTHER], [*SCORES[:k], changed, *SCORES[k + 1 :]], CONFIG)
    for config in variants(CONFIG, text):
        if isinstance(config, dict):
            yield Foreign(folder, [TRIAL, OTHER], SCORES, config)
    for versions in variants({"torch": "2.10"}, text):
        foreign = Foreign(folder, [TRIAL, OTHER], SCORES, CONFIG)
        if isinstance(versions, dict):
            foreign.versions = versions
            yield foreign


def printed(makers: Iterator[Any], call: Callable[[Any], str]) -> list[str]:
    """What a printer makes of each object, those left out that it refuses for text in the place of a number."""
    texts = []
    for made in makers:
        try:
            texts.append(call(made))
        except REFUSED:
            continue
    assert texts
    return texts


def check_plain(text: str) -> None:
    """Lines of printable characters: nothing that a terminal obeys or a reader of lines takes for an end."""
    assert all(part.isprintable() for part in text.split("\n")), ascii(text)


def check_page(text: str) -> None:
    check_plain(text)
    text.encode("utf-8")
    page = Page(text)
    assert page.open == []
    assert page.loads == []
    assert not {"script", "img", "iframe", "link", "object"} & set(page.tags)
    assert not re.search(r"<[^>]*\son\w+\s*=", re.sub(r'"[^"]*"', '""', text))


def check_drawing(text: str) -> None:
    check_plain(text)
    for element in ElementTree.fromstring(text).iter():
        assert element.tag.rpartition("}")[2] in {
            "svg", "g", "defs", "use", "text", "path", "rect", "title", "style", "clipPath",
            "metadata", "RDF", "Work", "type", "format",
        }  # fmt: skip
        for name, value in element.attrib.items():
            assert not name.startswith("on")
            assert not name.endswith("href") or value.startswith("#")
            assert "url(" not in value.replace("url(#", "")


def check_csv(text: str, columns: list[str]) -> None:
    text.encode("utf-8")
    lines = text.removesuffix("\n").split("\n")
    check_plain(text)
    rows = list(csv.reader(io.StringIO(text)))
    assert len(rows) == len(lines)
    for row in rows:
        assert len(row) == len(rows[0])
        for cell in row:
            try:
                float(cell)
            except ValueError:
                assert cell.lstrip()[:1] not in ("=", "+", "-", "@", "\uff1d"), row
    assert rows[0][: len(columns)] == columns
