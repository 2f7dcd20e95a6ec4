"""A run as CSV, as an optuna journal, and for TensorBoard, Weights & Biases and MLflow."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
import struct
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nos_search.cli import main
from nos_search.errors import SearchError
from nos_search.show import csv_tables as tables
from nos_search.show import mlflow
from nos_search.show.scalars import Axis, Scalars
from nos_search.show.wandb import WeightsAndBiases
from nos_search.space import make_space
from nos_search.store import Score, Store


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


class Kept(Scalars):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[dict[str, float], Axis, int]] = []

    def write(self, values: dict[str, float], axis: Axis, step: int) -> None:
        self.rows.append((values, axis, step))

    def close(self) -> None:
        pass


def test_the_numbers_of_a_run(small_run: Path) -> None:
    with Store.open(small_run) as store:
        trials = sorted((trial for trial in store.trials() if trial.told is not None), key=lambda trial: trial.told)
    kept = Kept()
    for trial in trials:
        kept.on_trial(trial)
    assert [(axis, step) for _, axis, step in kept.rows] == [("evaluation", k) for k in range(len(trials))]
    for k, (values, _, _) in enumerate(kept.rows):
        so_far = trials[: k + 1]
        assert values["search/reward"] == trials[k].reward
        assert values["search/best"] == max(trial.reward for trial in so_far)
        assert values["search/trained"] == sum(trial.status in ("done", "diverged") for trial in so_far)
        stopped = [gate for gate, entry in trials[k].gates.items() if not entry["passed"]]
        for gate in stopped:
            assert values[f"gates/{gate}"] == sum(not t.gates.get(gate, {"passed": True})["passed"] for t in so_far)
        assert {name.removeprefix("strategy/") for name in values if name.startswith("strategy/")} == set(
            trials[k].metrics
        )
    later = Kept()  # of a run that goes on
    later.recall(trials[:20])
    for trial in trials[20:]:
        later.on_trial(trial)
    assert later.rows == kept.rows[20:]
    score = Score("promotion", "g", "", "digits", 1, {"trial": 7, "rung": 2}, "done", reward=0.5)
    kept.on_promotion(replace(trials[0], id=7), 2, score)
    kept.on_promotion(trials[0], 2, replace(score, reward=None))
    assert kept.rows[len(trials) :] == [({"promotion/rung2": 0.5}, "trial", 7)]


def records(data: bytes) -> Iterator[bytes]:
    """The records of a log of wandb's, which is a LevelDB log after a header of 7 bytes."""
    block, at, whole = 2**15, 7, b""
    while at + 7 <= len(data):
        if block - at % block < 7:
            at += block - at % block
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole one, or the end of one
            yield whole
            whole = b""


def test_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is sent: all is in the folder, and reads as the run was."""
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2 as proto

    monkeypatch.delenv("WANDB_MODE", raising=False)
    folder, small = tmp_path / "run", ["--sweep-steps", "4", "--train-steps", "6", "--width", "4", "--json"]
    assert main(["run", "--task", "digits", "--trials", "12", "--out", str(folder), "--log", "wandb", *small]) == 0
    assert json.loads(capsys.readouterr().out)["trials"] == 12  # wandb prints nothing among results
    (log,) = (folder / "wandb").glob("offline-run-*/*.wandb")
    rows = []
    for data in records(log.read_bytes()):
        record = proto.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            rows.append({item.nested_key[0]: json.loads(item.value_json) for item in record.history.item})
    with Store.open(folder) as store:
        rewards = {trial.told: trial.reward for trial in store.trials()}
    assert {row["evaluation"]: row["search/reward"] for row in rows} == {k: rewards[k] for k in range(12)}


def test_a_folder_does_not_tell_wandb_what_to_do(tmp_path: Path) -> None:
    """Its settings could name a server, which would get the key of the user."""
    pytest.importorskip("wandb")
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "settings").write_text("[default]\nbase_url = http://localhost:1\n")
    with pytest.raises(SearchError, match="settings would tell wandb what to do; remove it"):
        WeightsAndBiases(tmp_path / "wandb", {})


def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """All is in the folder, in the file that MLflow makes, and reads as the run was. A run that goes on has a part for
    each time. Nothing is left where the command was called."""
    for package in ("mlflow", "sqlalchemy", "alembic"):
        pytest.importorskip(package)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    folder, small = tmp_path / "run", ["--sweep-steps", "4", "--train-steps", "6", "--width", "4"]
    words = ["run", "--task", "digits", "--trials", "12", "--seed", "5", "--out", str(folder), *small]
    assert main([*words, "--log", "mlflow", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["trials"] == 12
    assert main(["resume", str(folder), "--trials", "15", "--log", "mlflow"]) == 0
    with Store.open(folder) as store:
        trials = {trial.told: trial for trial in store.trials() if trial.told is not None}
    with closing(sqlite3.connect(folder / "mlflow" / "mlflow.db")) as file:
        runs = file.execute("select run_uuid, name, status from runs order by start_time").fetchall()
        reward = "select step, value from metrics where run_uuid = ? and key = 'search/reward'"
        found = [dict(file.execute(reward, (run,)).fetchall()) for run, _, _ in runs]
        params = dict(file.execute("select key, value from params where run_uuid = ?", (runs[0][0],)))
    assert [(name, status) for _, name, status in runs] == [("run", "FINISHED")] * 2
    rewards = [
        {k: trials[k].reward for k in part if trials[k].reward is not None} for part in (range(12), range(12, 15))
    ]
    assert found == rewards
    assert (params["task"], params["seed"]) == ("digits", "5")
    assert list((tmp_path / "here").iterdir()) == []


class Client:
    """Stands for MLflow's, and for its module: keeps what it is sent, or fails."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.fault, self.sent = fault, list[list[Any]]()
        self.entities, self.tracking = self, self
        self.info, self.run_id, self.experiment_id = self, "7", "1"

    def MlflowClient(self, tracking_uri: str) -> Client:
        self.uri = tracking_uri
        return self

    def Param(self, key: str, value: str) -> tuple[str, str]:
        return key, value

    def Metric(self, key: str, value: float, timestamp: int, step: int) -> tuple[str, float, int]:
        return key, value, step

    def get_experiment_by_name(self, name: str) -> Client:
        return self

    def create_run(self, number: str, run_name: str) -> Client:
        return self

    def log_batch(self, run: str, metrics: Any = (), params: Any = ()) -> None:
        if self.fault:
            raise self.fault
        if metrics:
            self.sent.append(metrics)

    def set_terminated(self, run: str) -> None: ...


def test_numbers_wait_for_mlflow_and_not_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client, times = Client(), iter([0.0, 1.0, 4.0, 6.0, 6.0, *[7.0] * 999])
    monkeypatch.setattr(mlflow, "package", lambda: client)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:1")
    log = mlflow.MLflow(tmp_path, {"task": "digits", "odd%name": "x"}, clock=lambda: next(times))
    assert client.uri == "http://localhost:1"
    for step in range(3):
        log.write({"search/reward": 0.5, "strategy/l%r": 1.0}, "evaluation", step)
    assert client.sent == [
        [
            (name, 0.5 + 0.5 * (name != "search/reward"), k)
            for k in range(3)
            for name in ("search/reward", "strategy/l_r")
        ]
    ]
    for step in range(300):
        log.write({"a": 0.0, "b": 0.0}, "trial", step)
    assert [len(each) for each in client.sent[1:]] == [400]
    log.close()
    assert [len(each) for each in client.sent[1:]] == [400, 200]


def test_what_mlflow_cannot_do_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(OSError("no space left\nand more"))
    monkeypatch.setattr(mlflow, "package", lambda: client)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(
        SearchError, match=r"^--log mlflow cannot begin: no space left; see MLFLOW_TRACKING_URI, or leave"
    ):
        mlflow.MLflow(tmp_path / "mlflow", {})
    client.fault = None
    log = mlflow.MLflow(tmp_path / "mlflow", {})
    assert client.uri == f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    log.write({"a": 1.0}, "trial", 1)
    client.fault = OSError("the server is gone")
    with pytest.raises(SearchError, match="--log mlflow cannot go on: the server is gone"):
        log.close()


@pytest.mark.parametrize("name", ["mlflow.db", "mlflow.db-journal"])
def test_a_folder_does_not_tell_mlflow_what_to_do(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow, "package", Client)
    (tmp_path / "mlflow").mkdir()
    if name == "mlflow.db":
        (tmp_path / "mlflow" / name).symlink_to(tmp_path / "victim")
    else:
        (tmp_path / "mlflow" / name).write_text("x")
    with pytest.raises(SearchError, match=r"is not a plain file of its own|journal would be obeyed; remove it"):
        mlflow.MLflow(tmp_path / "mlflow", {})
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize("name", ["wandb", "tensorboard", "mlflow"])
def test_what_a_log_needs_is_said_before_there_is_a_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    for words, status, said in (
        ([name], 1, f"; install it with: pip install 'nos-ext[{name}]'"),
        ([name], 1, f"--log {name} needs the package"),
        (["neptune"], 2, "--log 'neptune' is not known; choose one of: tensorboard, wandb, mlflow"),
    ):
        assert main(["run", "--task", "digits", "--out", str(tmp_path / "run"), "--log", *words]) == status
        assert said in capsys.readouterr().err
        assert not (tmp_path / "run").exists()
