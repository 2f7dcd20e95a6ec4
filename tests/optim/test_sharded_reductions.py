"""Norms and other reductions of FSDP2's shards and other DTensors: they are those of the whole tensors.

reductions_on_shards.py is what the processes do.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.optim.processes import run_together

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not torch.distributed.is_available() or not torch.distributed.is_gloo_available(), reason="torch has no gloo"
    ),
]


def run(part: str, number: int, folder: Path) -> None:
    run_together(Path(__file__).with_name("reductions_on_shards.py"), [part], number, folder)


def test_rules_have_what_one_process_has(tmp_path: Path) -> None:
    run("rules", 3, tmp_path)


def test_steps_of_all_kinds(tmp_path: Path) -> None:
    run("steps", 2, tmp_path)


def test_meshes_of_two_dimensions(tmp_path: Path) -> None:
    run("meshes", 4, tmp_path)
