"""The examples run, at small size, and what they train learns."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

import pytest

from tests.fresh import python

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def run(name: str, *arguments: str) -> str:
    # The trainers ask no server for anything.
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    code = f"import runpy; runpy.run_path({str(EXAMPLES / name)!r}, run_name='__main__')"
    done = python(code, *arguments, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def losses(text: str) -> tuple[float, float]:
    found = re.search(r"loss (\S+) -> (\S+)$", text, re.MULTILINE)
    assert found, text
    return float(found[1]), float(found[2])


def needs(package: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"{package} is not installed")


def test_write_your_rule() -> None:
    text = run("write_your_rule.py")
    assert float(re.findall(r"loss (\S+)", text)[0]) < 0.1
    assert "tanh" in text


@pytest.mark.slow
@needs("sklearn")
def test_train_powersign() -> None:
    text = run("train_powersign.py", "--epochs", "3")
    assert float(re.findall(r"test (\S+)", text)[-1]) > 0.85


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("with_transformers.py", marks=needs("transformers")),
        pytest.param("with_lightning.py", marks=needs("lightning")),
        pytest.param("with_accelerate.py", marks=needs("accelerate")),
    ],
)
def test_trainers(name: str) -> None:
    first, last = losses(run(name))
    assert last < 0.8 * first


def test_every_example_is_tested() -> None:
    """Here, and "external_proposer.py" in tests/search/test_external.py."""
    text = Path(__file__).read_text(encoding="utf-8")
    assert all(f'"{path.name}"' in text for path in EXAMPLES.glob("*.py"))
