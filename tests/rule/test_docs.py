"""The pages under docs/reference are those that the tables make."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import nos_ext
from nos_ext import docgen, optim, schedules
from nos_ext.ops import OPS
from nos_ext.optim import library
from nos_ext.rule import OPERANDS


def test_fresh() -> None:
    assert docgen.stale(docgen.pages()) == [], "run python -m nos_ext.docgen"


def test_pages_have_every_row() -> None:
    pages = docgen.pages()
    assert all(f"`{name}(" in pages["ops.md"] for name in OPS)
    assert all(f"`{name}`" in pages["operands.md"] for name in OPERANDS)
    assert all(f"## {name}\n" in pages["rules.md"] for name in library.names())
    for module in (nos_ext, optim, schedules):
        page = pages[f"{module.__name__.replace('.', '_')}.md"]
        about = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", page, re.MULTILINE))
        assert [*about] == [name for name in module.__all__ if not name.startswith("__")]
        assert all(" " in text and "->" not in text for text in about.values()), "a docstring is missing"


def test_stale_pages_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docgen, "FOLDER", tmp_path / "reference")
    made = docgen.pages()
    assert docgen.main(["--check"], made, "this") == 1
    assert docgen.main([], made, "this") == 0
    assert docgen.main(["--check"], made, "this") == 0
    (tmp_path / "reference" / "ops.md").write_text("old")
    assert docgen.stale(made) == ["ops.md"]
    assert docgen.main(["--what"], made, "this") == 2
