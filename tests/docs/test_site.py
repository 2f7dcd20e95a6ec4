"""The site is built without a warning and without a network, and its pages need none either."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import nos_ext
import nos_search
from nos_ext import optim, schedules

pytest.importorskip("mkdocs")
pytest.importorskip("material")
pytest.importorskip("mkdocstrings_handlers.python")
pytest.importorskip("latex2mathml")

ROOT = Path(__file__).resolve().parents[2]
NOWHERE = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
LOADED = r"""<(?:script|img|iframe|source)\b[^>]*?\bsrc=["']?([^"'\s>]+)|<link\b(?![^>]*canonical)[^>]*?\bhref=["']?([^"'\s>]+)"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, **NOWHERE, "NO_MKDOCS_2_WARNING": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_of_the_repository_is_there(site: Path) -> None:
    docs = ROOT / "docs"
    assert [p for p in docs.rglob("*.md") if not (site / p.relative_to(docs).with_suffix(".html")).exists()] == []
    for name in ("readme", "contributing", "changelog", "examples", "examples/search_on_your_data"):
        assert (site / f"{name}.html").exists()
    assert [path.name for path in (site / "site").iterdir()] == ["style.css"]


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = ["".join(found) for found in re.findall(LOADED, page.read_text(encoding="utf-8"))]
        assert [place for place in loaded if re.match(r"(?:https?:)?//", place)] == [], page
    for sheet in site.rglob("*.css"):
        assert re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", sheet.read_text(encoding="utf-8")) == [], sheet


def test_formulas_are_drawn(site: Path) -> None:
    for name, least in (("optim/powersign", 8), ("optim/addsign", 8), ("reference/rules", 46)):
        page = (site / f"{name}.html").read_text(encoding="utf-8")
        assert page.count("<math") >= least
        assert "arithmatex" not in page
        assert "$$" not in page


@pytest.mark.parametrize("module", [nos_ext, optim, schedules, nos_search], ids=lambda module: module.__name__)
def test_the_api_has_every_public_name(site: Path, module: object) -> None:
    name = module.__name__
    page = (site / "reference" / f"{name.replace('.', '_')}.html").read_text(encoding="utf-8")
    public = [each for each in module.__all__ if not each.startswith("__")]
    missing = [each for each in public if not re.search(rf'id="{re.escape(name)}(\.\w+)*\.{each}"', page)]
    assert missing == []
    assert "admonition" not in page, "a docstring has a section that griffe does not know"


def test_compiled_functions_have_signature_and_docstring(site: Path) -> None:
    page = re.sub(r"<[^>]+>", "", (site / "reference" / "nos_ext.html").read_text(encoding="utf-8"))
    assert "= _C." not in page
    assert "Apply one step of an update rule in place" in page
    assert re.search(r"apply_rule\(\s+bytecode_or_program: Program \| bytes,\s+params: Sequence\[Any\],", page)
    assert "Listing of the program, one instruction a line." in page
