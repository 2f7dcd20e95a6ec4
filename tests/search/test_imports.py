"""Imports go one way: nos_search builds on nos_ext, and each folder of nos_search on those before it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import nos_ext
import nos_search

# A folder imports from those on its left and from itself; "" are the modules beside the folders.
ORDER = (
    "", "numbers", "space", "strategy", "gate", "diagnose", "net", "task", "train", "executor", "store", "run", "prove", "show", "simplify",
    "constants", "bench", "testing", "api", "cli",
)  # fmt: skip
ROOT = Path(nos_search.__file__).parent


def imported(path: Path, root: Path) -> Iterator[tuple[str, ...]]:
    """The parts of every module that a file imports, wherever in it; one of its own package by its full name."""
    package = (root.name, *path.relative_to(root).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            module = (*base, *(node.module.split(".") if node.module else ()))
            # `from .. import store` imports the folder store, and `from ..store import place` does, too
            yield from ((*module, alias.name) for alias in node.names)


def folder(parts: tuple[str, ...]) -> str:
    return parts[1] if len(parts) > 1 and (ROOT / parts[1]).is_dir() else ""


# The two that stand for everything: the command, and the names of the package.
FILES = sorted(set(ROOT.rglob("*.py")) - {ROOT / "__main__.py", ROOT / "__init__.py"})


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_module_imports_from_folders_before_its_own(path: Path) -> None:
    mine = folder(("nos_search", *path.relative_to(ROOT).parts))
    theirs = {folder(parts) for parts in imported(path, ROOT) if parts[0] == "nos_search"}
    late = [name for name in theirs if ORDER.index(name) > ORDER.index(mine)]
    assert not late, f"{mine or 'a module beside the folders'} comes before {', '.join(late)}"


def test_every_folder_has_its_place() -> None:
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} == set(ORDER) - {""}


def test_only_the_entry_point_imports_the_command_line() -> None:
    assert ORDER[-1] == "cli"  # so that the test above keeps it from all others
    assert ("nos_search", "cli", "main") in set(imported(ROOT / "__main__.py", ROOT))


def test_the_engine_knows_nothing_of_the_search() -> None:
    root = Path(nos_ext.__file__).parent
    for path in root.rglob("*.py"):
        assert not any(parts[0] == "nos_search" for parts in imported(path, root)), path
