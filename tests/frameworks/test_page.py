"""docs/howto/frameworks.md: every block runs after the first one, where the package that it is about is installed."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).resolve().parents[2] / "docs" / "howto" / "frameworks.md"
SECTIONS = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
BLOCKS = {part.split("\n", 1)[0]: re.findall(r"```python\n(.*?)```", part, re.DOTALL) for part in SECTIONS}
(_, *FRAMEWORKS) = BLOCKS


def test_every_section_has_a_block() -> None:
    assert all(len(blocks) == 1 for blocks in BLOCKS.values())
    assert len(FRAMEWORKS) == 11


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::")
@pytest.mark.parametrize("section", FRAMEWORKS)
def test_a_block_trains_or_makes_an_optimizer(section: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (first,), (block,) = next(iter(BLOCKS.values())), BLOCKS[section]
    for package in re.findall(r"^(?:import|from) (\w+)", block, re.MULTILINE):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    torch.manual_seed(0)
    namespace: dict[str, object] = {}
    for code in (first, block):
        exec(compile(code, f"{PAGE.name}: {section}", "exec"), namespace)
