"""The pages of docs/reference about nos_search are those that the parsers and docstrings make."""

from __future__ import annotations

import re

import nos_search
from nos_ext import docgen as writer
from nos_search.bench import BENCHES
from nos_search.cli import docgen
from nos_search.cli.arguments import COMMANDS

PAGES = docgen.pages()


def test_fresh() -> None:
    assert writer.stale(PAGES) == [], "run python -m nos_search.cli.docgen"


def test_every_command_has_a_section_with_its_options() -> None:
    sections = dict(re.findall(r"^## ([^\n]*)\n(.*?)(?=^## |\Z)", PAGES["cli.md"], re.DOTALL | re.MULTILINE))
    assert [*sections] == [*COMMANDS, *(f"bench {name}" for name in BENCHES)]
    assert "nos-search run [OPTIONS] --out DIR\n" in sections["run"]
    assert "nos-search evaluate [OPTIONS] [RULE|DIR ...]\n" in sections["evaluate"]
    assert "nos-search train [OPTIONS] RULE\n" in sections["train"]
    assert "- `--strategy controller|evolution|random|optuna|external`: what proposes rules" in sections["run"]
    assert "- `--json`: print JSON\n" in sections["prove"]
    assert "--markdown" in sections["bench child"]


def test_text_of_the_help_cannot_become_markup() -> None:
    assert r"TASK\[:NET\]\[\*TIMES\]\[@PART\]" in PAGES["cli.md"]
    assert "[docs/tasks.md](../tasks.md)" in PAGES["cli.md"]


def test_every_public_name_is_described() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\S.* \S.*) \|$", PAGES["nos_search.md"], re.MULTILINE)
    assert [name for name, _ in rows] == [name for name in nos_search.__all__ if not name.startswith("__")]
