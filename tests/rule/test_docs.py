"""The pages under docs/reference are those that the tables make."""

from __future__ import annotations

from pathlib import Path

import pytest

from nos_ext import docgen
from nos_ext.ops import OPS
from nos_ext.optim import library
from nos_ext.rule import OPERANDS


def test_fresh() -> None:
    assert docgen.stale() == [], "run python -m nos_ext.docgen"


def test_pages_have_every_row() -> None:
    pages = docgen.pages()
    assert all(f"`{name}(" in pages["ops.md"] for name in OPS)
    assert all(f"`{name}`" in pages["operands.md"] for name in OPERANDS)
    assert all(f"## {name}\n" in pages["rules.md"] for name in library.names())


def test_stale_pages_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docgen, "FOLDER", tmp_path / "reference")
    assert docgen.main(["--check"]) == 1
    assert docgen.main([]) == 0
    assert docgen.main(["--check"]) == 0
    (tmp_path / "reference" / "ops.md").write_text("old")
    assert docgen.stale() == ["ops.md"]
    assert docgen.main(["--what"]) == 2
