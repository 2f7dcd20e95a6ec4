"""CONTRIBUTING says where things are added; what it names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
SECTIONS = dict(re.findall(r"^## To add (.*?)\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE))
THINGS = (
    *(
        "op",
        "library rule",
        "optimizer class",
        "command",
        "drawing",
        "strategy",
        "space",
        "executor",
        "task",
        "network",
        "layer",
    ),
    "back-end",
)


@pytest.mark.parametrize("thing", THINGS)
def test_a_section_says_how_to_add(thing: str) -> None:
    (body,) = [body for title, body in SECTIONS.items() if re.search(rf"\b{thing}\b", title)]
    paths = re.findall(r"`([\w./<>-]+/[\w./<>-]+)`", body)
    assert any(path.startswith("tests/") for path in paths), "no test is named that tells"
    assert re.search(r"^1\. ", body, re.MULTILINE), "the files are not in an order"


def test_every_path_is_there() -> None:
    paths = set(re.findall(r"`([\w.-]+/[\w./-]+|\w+\.(?:py|md|toml|txt))`", TEXT))
    assert len(paths) > 40
    roots = (ROOT, ROOT / "python", ROOT / "csrc" / "backend" / "cpu", ROOT / "csrc" / "backend" / "cuda")
    missing = [path for path in sorted(paths) if not any((root / path).exists() for root in roots)]
    assert [path for path in missing if path not in BESIDE] == []


# Named without their folder, as the text says what they are beside.
BESIDE = ("registry.py", "base.py")


def test_every_name_in_code_is_there() -> None:
    """Tables and functions that a step names are in the file that it names."""
    for body in SECTIONS.values():
        for step in re.findall(r"^\d\. (.*?)(?=^\d\. |\n\n|\Z)", body, re.DOTALL | re.MULTILINE):
            files = [ROOT / path for path in re.findall(r"`([\w./-]+\.(?:py|def|h|cc))`", step) if "/" in path]
            texts = "".join(file.read_text() for file in files if file.is_file())
            for name in re.findall(r"`(_?[A-Z][A-Za-z_]{3,}|test_\w+)`", step):
                if files and not (ROOT / "tests" / name).exists():
                    assert name in texts, f"{name} is not in {[str(f.relative_to(ROOT)) for f in files]}"
