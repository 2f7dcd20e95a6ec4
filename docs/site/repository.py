"""A hook of MkDocs: what pages link to outside of docs/ becomes part of the site.

Links in the pages are those that work on GitHub, where `../CONTRIBUTING.md` and `../examples` are files of the
repository. A Markdown file, a Python file, a notebook and a folder that some page links to become pages here, anything
else a file beside them, and the links are turned to where they are on the site.
"""

from __future__ import annotations

import ast
import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).resolve().parents[2]
DOCS: Final = ROOT / "docs"
_LINK: Final = re.compile(r"(?<=\]\()[^)\s#:]+(?=[#)])")  # the path of a relative link
_FENCE: Final = "~" * 5  # no source has so many
_PARAGRAPH: Final = "\n\n"  # what ends one
_made_of: dict[str, Path] = {}  # the address of a page that is made here -> what it is made of


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds what the pages link to, what that links to, and so on."""
    queue = [DOCS / file.src_uri for file in files.documentation_pages()]
    while queue:
        source = queue.pop()
        for path in _linked(source, _text(source)):
            address = _address(path)
            if path.is_relative_to(DOCS) or files.get_file_from_path(address):
                continue
            place: dict[str, Any] = {"inclusion": InclusionLevel.NOT_IN_NAV}  # it may be in nav all the same
            if address.endswith(".md"):
                _made_of[address] = path
                queue.append(path)
                files.append(File.generated(config, address, content=_text(path), **place))
            else:
                files.append(File.generated(config, address, abs_src_path=str(path), **place))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns the links of a page to where things are on the site."""
    here = page.file.src_uri
    source = _made_of.get(here, DOCS / here)

    def turned(match: re.Match[str]) -> str:
        path = (source.parent / match[0]).resolve()
        return posixpath.relpath(_address(path), posixpath.dirname(here) or ".") if path.exists() else match[0]

    return _LINK.sub(turned, markdown)


def _linked(source: Path, text: str) -> Iterator[Path]:
    for match in _LINK.finditer(text):
        path = (source.parent / match[0]).resolve()
        if path.exists() and path.is_relative_to(ROOT):
            yield path


def _address(path: Path) -> str:
    """Says where on the site a file of the repository is."""
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS).as_posix()
    inside = path.relative_to(ROOT)
    if path.suffix == ".md":
        return inside.as_posix().lower()  # a page README.md would be taken for the first page of the site
    return (inside.with_suffix(".md") if path.is_dir() or path.suffix in (".py", ".ipynb") else inside).as_posix()


def _text(source: Path) -> str:
    """Makes the Markdown of a page."""
    if source.is_dir():
        return _folder(source)
    text = source.read_text(encoding="utf-8")
    if source.suffix == ".py":
        return f"# `{source.relative_to(ROOT).as_posix()}`\n\n{_FENCE}python\n{text}{_FENCE}\n"
    return _notebook(source, text) if source.suffix == ".ipynb" else text


def _notebook(source: Path, text: str) -> str:
    parts = []
    for cell in json.loads(text)["cells"]:
        lines = "".join(cell["source"])
        parts.append(f"{_FENCE}python\n{lines}\n{_FENCE}" if cell["cell_type"] == "code" else lines)
    parts.append(f"This page is the notebook `{source.relative_to(ROOT).as_posix()}`.")
    return "\n\n".join(parts)


def _folder(folder: Path) -> str:
    lines = []
    for path in sorted(folder.iterdir()):
        about = ""
        if path.suffix == ".py":
            about = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        elif path.suffix == ".ipynb":
            about = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"]).lstrip("# ")
        if about and path.name != "__init__.py":
            lines.append(
                f"- [{path.name}]({folder.name}/{path.name}): {' '.join(about.partition(_PARAGRAPH)[0].split())}"
            )
    return f"# `{folder.relative_to(ROOT).as_posix()}`\n\n" + "\n".join(lines) + "\n"
