"""README and docs: the Python blocks run, the links lead somewhere, and the index has every page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "examples" / "recipes" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]


def test_python_blocks_of_searching_from_python_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = ROOT / "docs" / "howto" / "search_from_python.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    assert len(blocks) >= 5
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, page.name, "exec"), namespace)
    assert (tmp_path / "runs" / "products" / "report.html").exists()


def test_python_blocks_of_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) >= 4
    monkeypatch.chdir(tmp_path)  # one block writes a file
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)
    assert (tmp_path / "powersign.py").exists()


def links(page: Path) -> list[tuple[str, str]]:
    """Lists the relative links of a page, each as its path and what follows the # in it."""
    found = re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", page.read_text())
    return [(target, anchor) for target, anchor in found if not re.match(r"[a-z]+:", target)]


def anchors(page: Path) -> set[str]:
    """Lists the anchors that GitHub gives the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_relative_links(page: Path) -> None:
    for target, anchor in links(page):
        path = page.parent / target if target else page
        assert path.exists(), target
        if anchor and path.suffix == ".md":
            assert anchor in anchors(path), f"{target}#{anchor}"


def test_the_index_has_every_page() -> None:
    index = ROOT / "docs" / "index.md"
    linked = [(index.parent / target).resolve() for target, _ in links(index)]
    pages = {path for ending in ("md", "html") for path in (ROOT / "docs").rglob(f"*.{ending}")} - {index}
    missing = sorted(str(page.relative_to(ROOT)) for page in pages - set(linked))
    assert missing == [], "give each of these pages a line in docs/index.md"
    assert len(linked) == len(set(linked)), "a page has two lines in docs/index.md"
    assert ("docs/index.md", "") in links(ROOT / "README.md")
