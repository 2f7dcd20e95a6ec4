"""What the packages import is what pyproject.toml declares, and the version is written in one place."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

import nos_ext

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# imported as -> distributed as, where that differs
DISTRIBUTIONS = {"sklearn": "scikit-learn", "skimage": "scikit-image", "mlflow": "mlflow-skinny"}
OURS = {"nos_ext", "nos_search"}


def name_of(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    assert found, requirement
    return found[0].lower()


DECLARED = {
    "": {name_of(r) for r in PROJECT["dependencies"]},
    **{extra: {name_of(r) for r in list_} for extra, list_ in PROJECT["optional-dependencies"].items()},
}


def imports(package: Path) -> dict[str, set[str]]:
    """Third-party packages -> files that import them."""
    found: dict[str, set[str]] = {}
    for file in package.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            else:
                continue
            for top in {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - OURS:
                found.setdefault(top, set()).add(str(file.relative_to(ROOT)))
    return found


@pytest.mark.parametrize(
    ("package", "extras"),
    [
        ("nos_ext", ("", "torch", "testing", "plot", "frameworks")),
        (
            "python/nos_search",
            ("", "search", "plot", "photos", "mnist1d", "ray", "optuna", "tensorboard", "wandb", "mlflow"),
        ),
    ],
)
def test_every_import_is_declared(package: str, extras: tuple[str, ...]) -> None:
    found = imports(ROOT / package)
    assert "numpy" in found
    declared = set().union(*(DECLARED.get(extra, set()) for extra in extras))
    undeclared = {name: files for name, files in found.items() if DISTRIBUTIONS.get(name, name) not in declared}
    assert undeclared == {}


def test_the_version_is_that_of_pyproject() -> None:
    assert nos_ext.__version__ == nos_ext.build_info()["version"] == PROJECT["version"]
    tracked = [
        *ROOT.glob("*.py"),
        ROOT / "CMakeLists.txt",
        *(ROOT / "nos_ext").rglob("*.py"),
        *(ROOT / "python").rglob("*.py"),
    ]
    assert [str(file) for file in tracked if PROJECT["version"] in file.read_text()] == []
