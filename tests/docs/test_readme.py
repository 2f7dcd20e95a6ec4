"""README and docs: the links lead somewhere, and the index has every page. test_blocks.py runs their blocks."""

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


def test_the_site_has_every_page_in_its_menu() -> None:
    """MkDocs says so, too, where it is installed."""
    menu = re.findall(r"^ +- [^:\n]+: ([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert pages - set(menu) == set()
    assert len(menu) == len(set(menu))
