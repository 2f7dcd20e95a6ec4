"""The table of tasks has every task, with the network, the steps and the score that it has in the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nos_search.errors import UsageError
from nos_search.task.registry import TASKS, load

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")
ROWS = {row[0].strip("`"): row[1:] for row in re.findall(r"^\| (`[\w-]+`)" + r" \| (.*?)" * 6 + r" \|$", PAGE, re.M)}
SCORES = {"accuracy": "accuracy", "bits saved": "bits-saved"}


def test_every_task_has_a_row() -> None:
    assert {*TASKS} <= {*ROWS}


@pytest.mark.parametrize("name", TASKS)
def test_the_row_is_that_of_the_code(name: str) -> None:
    try:
        task = load(name)
    except UsageError as error:
        pytest.skip(str(error))
    _, _, net, steps, score, _ = ROWS[name]
    assert net.split()[0] == str(task.spec)
    assert steps == f"{task.budget.sweep_steps} / {task.budget.train_steps}"
    assert SCORES[score.split(",")[0]] == task.score
    for pool in re.findall(r"new ones for ([\d,]+) steps", ROWS[name][0]):
        assert task.epoch == int(pool.replace(",", ""))
