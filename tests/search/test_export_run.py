"""A run as CSV, as an optuna journal, and for TensorBoard."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from nos_search.cli import main
from nos_search.show import csv_tables as tables
from nos_search.space import make_space
from nos_search.store import Store


def test_trials_as_csv(small_run: Path) -> None:
    with Store.open(small_run) as store:
        text = tables.trials_csv(store)
        trials = {trial.id: trial for trial in store.trials() if trial.told is not None}
        space = make_space(store.config["space"])
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [int(row["told"]) for row in rows] == list(range(len(trials)))
    assert any(row["rule"].startswith("'-") for row in rows)  # a spreadsheet would take -g for a formula
    for row in rows:
        trial = trials[int(row["id"])]
        rule = row["rule"].removeprefix("'")
        assert (rule, row["status"], float(row["reward"])) == (trial.rule, trial.status, trial.reward)
        assert row["token.op1.1"] == space.names(trial.tokens)[0]
        for gate, entry in trial.gates.items():
            assert float(row[f"gate.{gate}.seconds"]) == entry["seconds"]


def test_curves_as_csv(small_run: Path) -> None:
    with Store.open(small_run) as store:
        rows = list(csv.DictReader(io.StringIO(tables.curves_csv(store))))
        trials = [trial for trial in store.trials() if trial.status == "done"]
    last = {int(row["id"]): row for row in rows if row["part"] == "training"}
    for trial in trials:
        assert float(last[trial.id]["accuracy"]) == trial.reward
    assert len([row for row in rows if row["part"] == "sweep" and int(row["id"]) == trials[0].id]) == 7 + 4


def test_wrong_exports(small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for args, message in (
        (["adam", "--format", "csv"], "export adam --format csv: that is for run folders; name one"),
        ([small_run, "--format", "xml"], "--format 'xml' is not known; choose one of: torch, csv, curves, optuna"),
        ([small_run, "--format", "csv", "--out", tmp_path / "no" / "x.csv"], "cannot be written"),
    ):
        assert main(["export", *map(str, args)]) == 2
        assert message in capsys.readouterr().err


def test_optuna_reads_the_journal(small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    optuna = pytest.importorskip("optuna")
    path = tmp_path / "run.log"
    args = ["export", str(small_run), "--format", "optuna", "--out", str(path)]
    assert main(args) == 0
    assert capsys.readouterr().out.strip() == str(path)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    study = optuna.load_study(study_name=small_run.name, storage=storage)
    with Store.open(small_run) as store:
        trials = [trial for trial in store.trials() if trial.told is not None]
        space = make_space(store.config["space"])
    assert len(study.trials) == len(trials)
    for theirs, trial in zip(study.trials, trials, strict=True):
        assert theirs.value == trial.reward
        assert tuple(theirs.params[p.name] for p in space.positions) == space.names(trial.tokens)
        assert theirs.user_attrs["rule"] == trial.rule
    assert study.best_value == max(trial.reward for trial in trials if trial.reward is not None)
    assert main(args) == 2  # optuna would take a second journal for more of the first
    assert "exists; choose another file, or add --force" in capsys.readouterr().err


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    small = ["--sweep-steps", "4", "--train-steps", "6", "--width", "4"]
    folder = tmp_path / "run"
    assert main(["run", "--task", "digits", "--trials", "12", "--out", str(folder), "--tensorboard", *small]) == 0
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    with Store.open(folder) as store:
        best = max(trial.reward or 0.0 for trial in store.trials())
    rewards = events.Scalars("search/reward")
    assert [event.step for event in rewards] == list(range(12))
    assert events.Scalars("search/best")[-1].value == pytest.approx(best)
