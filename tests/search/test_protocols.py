"""--protocol paper: what it decides, where it is recorded, and what it says where it does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from nos_search.cli import main
from nos_search.run.config import RunConfig
from nos_search.store import Store
from nos_search.task import load
from nos_search.train.protocols import PAPER_TASKS, paper


@pytest.mark.parametrize("name", ["digits", "fashion"])
def test_the_paper_s_child(name: str) -> None:
    task = paper(load(name))
    epoch = len(task.train) // 100
    assert (str(task.spec), task.budget.batch_size) == ("convnet-2-32", 100)
    assert (task.budget.sweep_steps, task.budget.train_steps) == (epoch, 5 * epoch)


def test_a_run_keeps_the_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    words = [
        "--task",
        "digits",
        "--protocol",
        "paper",
        "--strategy",
        "random",
        "--trials",
        "1",
        "--gate",
        "descent=0.9",
    ]
    assert main(["run", *words, "--out", str(folder)]) == 0
    for _ in range(2):
        with Store.open(folder) as store:
            config = RunConfig.from_json(store.config)
        assert (config.protocol, config.sweep, config.score, config.net) == (
            "paper",
            "full",
            "accuracy",
            "convnet-2-32",
        )
        assert (config.sweep_steps, config.train_steps) == (11, 55)
        assert config.make_protocol().sweep == "full"
        assert str(config.make_task().spec) == "convnet-2-32"
        assert main(["resume", str(folder), "--trials", "2"]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["evaluate", "g", "--tasks", "digits,charlm", "--protocol", "paper"],
            "--protocol paper with --tasks charlm: the paper's child classifies images; choose one of: digits, fashion, "
            "cifar10, or leave --protocol out",
        ),
        (["train", "g", "--task", "patch10", "--protocol", "paper"], "--protocol paper with --task patch10: "),
        (["run", "--task", "translate", "--protocol", "paper"], "--protocol paper with --task translate: "),
        (
            ["run", "--task", "digits", "--protocol", "paper", "--sweep", "fine"],
            "--protocol paper decides --sweep itself; leave one",
        ),
        (["train", "g", "--protocol", "paper", "--net", "mlp"], "--protocol paper decides --net itself; leave one"),
        (["train", "g", "--protocol", "paper", "--train-steps", "9"], "decides --train-steps itself; leave one"),
        (["train", "g", "--protocol", "paper", "--score", "accuracy"], "decides --score itself; leave one"),
        (["train", "g", "--protocol", "papers"], "--protocol 'papers' is not known; choose one of: default, paper"),
    ],
)
def test_what_does_not_fit(words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, *(["--out", str(tmp_path / "run")] if words[0] == "run" else [])]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_paper_s_tasks_are_tasks() -> None:
    for name in PAPER_TASKS:
        RunConfig(task=name, protocol="paper")
