"""nos_ext imports one way: no circle, no step up the order, and nothing of nos_search.

The graph is read from the sources, imports inside of functions included, for a circle that hides there is still one.
What only type checkers see (`if TYPE_CHECKING`) does not count.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
Graph = dict[str, set[str]]


def modules(folder: Path) -> dict[str, Path]:
    """Every module of a package by its name. A stub stands for a compiled module."""
    found = {}
    for path in sorted([*folder.rglob("*.py"), *folder.rglob("*.pyi")]):
        parts = [folder.name, *path.relative_to(folder).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def statements(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        for child in node.orelse:
            yield from statements(child)
        return
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node
    for child in ast.iter_child_nodes(node):
        yield from statements(child)


def imported(module: str, path: Path) -> Iterator[str]:
    """The full names that a module imports: modules, or things in modules."""
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    for statement in statements(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(statement, ast.Import):
            yield from (name.name for name in statement.names)
        else:
            parts = package.split(".")[: len(package.split(".")) + 1 - statement.level] if statement.level else []
            base = ".".join([*parts, *([statement.module] if statement.module else [])])
            yield from (f"{base}.{name.name}" for name in statement.names)


def import_graph(folder: Path) -> Graph:
    """Module -> the modules of the package that it makes Python run.

    To import a module of another package is to run that package's __init__, too. One's own packages are running
    already.
    """
    known = modules(folder)
    graph: Graph = {}
    for module, path in known.items():
        edges = graph[module] = set()
        for name in imported(module, path):
            target = name if name in known else name.rpartition(".")[0]
            if target in known:
                parts = target.split(".")
                packages = {".".join(parts[:k]) for k in range(1, len(parts))}
                edges |= {target, *[p for p in packages & known.keys() if not f"{module}.".startswith(f"{p}.")]}
        edges.discard(module)
    return graph


def path_between(graph: Graph, start: str, goal: str) -> list[str]:
    """The shortest way along imports from one module to another; empty if there is none."""
    before = dict.fromkeys(sorted(graph[start]), start)
    queue = list(before)
    for module in queue:
        if module == goal:
            break
        for x in sorted(graph[module] - before.keys()):
            before[x] = module
            queue.append(x)
    if goal not in before:
        return []
    way = [goal]
    while len(way) == 1 or way[-1] != start:
        way.append(before[way[-1]])
    return way[::-1]


def check_no_circle(graph: Graph) -> None:
    circles = [path_between(graph, module, module) for module in sorted(graph)]
    shortest = min([circle for circle in circles if circle], key=len, default=None)
    assert shortest is None, f"these modules import each other in a circle: {' -> '.join(shortest or [])}"


@pytest.fixture(scope="module")
def graph() -> Graph:
    return import_graph(ROOT / "nos_ext")


def test_there_is_no_circle(graph: Graph) -> None:
    assert len(graph) > 50
    check_no_circle(graph)


def test_the_language_is_built_in_one_order(graph: Graph) -> None:
    """expr <- definition <- compile <- program, and the printers of rules between definition and program."""
    order = [f"nos_ext.rule.{name}" for name in ("expr", "definition", "compile", "program")]
    printers = [f"nos_ext.rule.printers.{name}" for name in ("function_text", "latex", "mathml", "pytorch")]
    pairs = [*pairwise(order)]
    pairs += [(order[1], printer) for printer in printers] + [(printer, order[3]) for printer in printers]
    for lower, upper in pairs:
        assert path_between(graph, upper, lower), f"{upper} no longer stands on {lower}"
        assert not path_between(graph, lower, upper), " -> ".join(path_between(graph, lower, upper))


def test_the_engine_does_not_know_the_search() -> None:
    for module, path in modules(ROOT / "nos_ext").items():
        assert not [name for name in imported(module, path) if name.split(".")[0] == "nos_search"], module


PLANTED = {
    "in a function": {"a": "from .b import x", "b": "def f():\n    from . import a"},
    "through a package": {
        "a": "from .sub.c import x",
        "sub/__init__": "from ..b import x",
        "sub/c": "",
        "b": "from . import a",
    },
    "of three": {"a": "from .b import x", "b": "import package.d", "d": "from package.a import x"},
}


def write(folder: Path, sources: dict[str, str]) -> Path:
    for name, source in {"__init__": "", **sources}.items():
        path = folder / "package" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return folder / "package"


@pytest.mark.parametrize("kind", PLANTED)
def test_circles_are_found_and_named(kind: str, tmp_path: Path) -> None:
    names = [f"package.{name}".removesuffix("/__init__") for name in PLANTED[kind] if name != "sub/c"]
    with pytest.raises(AssertionError, match="in a circle") as error:
        check_no_circle(import_graph(write(tmp_path, PLANTED[kind])))
    assert " -> ".join([*names, names[0]]) in str(error.value)


def test_type_checkers_may_see_more(tmp_path: Path) -> None:
    hidden = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .b import x"
    graph = import_graph(write(tmp_path, {"a": hidden, "b": "from .a import x"}))
    assert graph == {"package": set(), "package.a": set(), "package.b": {"package.a"}}
