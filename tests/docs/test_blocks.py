"""Every Python block of README and docs runs, or says why it cannot, and prints what the page says that it prints.

The blocks of a page run in their order, in one namespace and an empty folder. A block of `text` behind one is what it
prints. `<!-- not run: REASON -->` before a block names one of the REASONS below; such a block runs where it can.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import nos_ext
from nos_ext.optim import library

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
RULE_TEXTS = [ROOT / "docs" / "reference" / name for name in ("rules.md", "ops.md")]  # generated; no Python programs
REASONS: dict[str, Callable[[], bool]] = {
    "it needs a CUDA device": torch.cuda.is_available,
    "it needs several processes": lambda: False,
    "it needs a package that `make frameworks` installs": lambda: False,  # tests/frameworks/test_page.py runs these
}
TOLERANCE = 0.05  # of printed numbers, or one in their last place: torch's kernels round differently on other machines
BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>[^\n]*) -->\s*)?"
    r"^```python\n(?P<code>.*?)^```$"
    r"(?:\n\n```text\n(?P<output>.*?)^```$)?",
    re.DOTALL | re.MULTILINE,
)
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e-?\d+)?")


@dataclass(frozen=True)
class Block:
    """A Block is a piece of Python in a page: its source, the line above it, what it prints, and why it may not run."""

    code: str
    line: int
    output: str | None
    reason: str | None

    def run(self, page: Path, names: dict[str, object]) -> str:
        """Runs the block with the names of those before it, and returns what it printed."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(compile("\n" * self.line + self.code, str(page), "exec"), names)
        return said.getvalue()


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(m["code"], text.count("\n", 0, m.start("code")), m["output"], m["reason"]) for m in BLOCK.finditer(text)
    ]


def same(printed: str, said: str) -> bool:
    """Tells whether two texts are alike: the same words, and numbers that are nearly equal."""
    found, wanted = NUMBER.findall(printed), NUMBER.findall(said)
    words = [re.sub(r"\s+", " ", NUMBER.sub("#", text)).strip() for text in (printed, said)]
    near = [
        math.isclose(
            float(a), float(b), rel_tol=TOLERANCE, abs_tol=1.01 * 10.0 ** -len(b.partition(".")[2]) * ("." in b)
        )
        for a, b in zip(found, wanted, strict=False)
    ]
    return words[0] == words[1] and all(near)


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty folder; and what belongs to the whole process is put back."""
    monkeypatch.chdir(tmp_path)
    before = nos_ext.set_jit("never")
    with torch.random.fork_rng(devices=[]):
        yield
    nos_ext.set_jit(before)


WITH_BLOCKS = [page for page in PAGES if page not in RULE_TEXTS and blocks(page)]


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=lambda page: str(page.relative_to(ROOT)))
@pytest.mark.usefixtures("alone")
def test_python_blocks_run(page: Path) -> None:
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks(page):
        if block.reason is not None and not REASONS[block.reason]():
            continue
        printed = block.run(page, names)
        assert block.output is None or same(printed, block.output), f"line {block.line} prints\n{printed}"


def test_names_come_from_the_blocks_before(tmp_path: Path) -> None:
    """Blocks that do not run here are read at least: no name in them is from nowhere."""
    for page in WITH_BLOCKS:
        source = tmp_path / (page.stem + ".py")
        source.write_text("\n".join(block.code for block in blocks(page)), encoding="utf-8")
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821", "--output-format", "concise"]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_block_is_found() -> None:
    """None hides from the tests behind another way to write it."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        fences = re.findall(r"^ *(?:`{3,}|~{3,}) *(?:py|python|python3|pycon|ipython)\b.*$", text, re.MULTILINE | re.I)
        assert fences == ["```python"] * len(blocks(page)), page
        assert text.count("<!-- not run") == sum(block.reason is not None for block in blocks(page)), page
        outputs = len(re.findall(r"^```text$", text, re.MULTILINE))
        assert outputs == sum(block.output is not None for block in blocks(page)), f"{page}: text behind no block"


def test_pages_that_matter_run() -> None:
    assert ROOT / "README.md" in WITH_BLOCKS
    assert ROOT / "docs" / "index.md" in WITH_BLOCKS
    assert all(page in WITH_BLOCKS for page in (ROOT / "docs" / "tutorials").glob("*.md"))
    for page in WITH_BLOCKS:
        assert page.name in ("cuda.md",) or any(block.reason is None for block in blocks(page)), page


@pytest.mark.parametrize(
    ("printed", "said", "alike"),
    [
        ("loss 0.100\n", "loss 0.103\n", True),
        ("loss 0.100\n", "loss 0.200\n", False),
        ("loss 0.001\n", "loss 0.002\n", True),
        ("loss 0.001\n", "loss 0.003\n", False),
        ("a 1\n", "b 1\n", False),
        ("1 2\n", "1\n", False),
        ("  x   7e-05\n", "x 7.1e-05", True),
        ("v1 = mul m", "v2 = mul m", False),
    ],
)
def test_what_is_alike(printed: str, said: str, alike: bool) -> None:
    assert same(printed, said) is alike


@pytest.mark.parametrize("page", RULE_TEXTS, ids=lambda page: page.name)
def test_rule_texts_compile(page: Path) -> None:
    names = [nos_ext.compile_rule(block.code).name for block in blocks(page)]
    assert names == (list(library.names()) if page.name == "rules.md" else ["averaged"])
