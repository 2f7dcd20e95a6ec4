"""What a reward says: scores against computation by hand, and that a run, its leaderboard and its exports name theirs."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from nos_search.cli import main
from nos_search.cli.arguments import parse
from nos_search.errors import UsageError
from nos_search.net import Inputs
from nos_search.rules import compile_rule
from nos_search.run.config import RunConfig
from nos_search.store import Store
from nos_search.task import SCORES, Task, load
from nos_search.task.base import IGNORED, Budget, Split
from nos_search.task.score import DIVERGED, Measured, scores
from nos_search.train.child import ScoringProtocol, score

TEXT = "the quick brown fox jumps over the lazy dog, and the dog sleeps on. " * 120


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A --data-dir with a short text."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "text.txt").write_text(TEXT)
    return tmp_path / "data"


def three_to_one() -> Task:
    """Three targets of the first class for each of the second, and some that do not count."""
    x = torch.zeros(8, 2, dtype=torch.int64)
    y = torch.tensor([0, 0, 1, 0, IGNORED, 0, 0, 1, 0, 0, IGNORED, 1, 0, 1, 0, 0]).view(8, 2)
    y[-1] = IGNORED
    split = Split(x, y)
    return Task("t", split, split, split, classes=2, width=2, budget=Budget(2, 1, 1), net="gru", depth=1,
                inputs=Inputs("text", vocabulary=2, length=2), score="bits-saved")  # fmt: skip


def test_bits_saved_by_hand() -> None:
    """8 and 4 of 12 targets: a blind guess costs log2(3) - 2/3 bits."""
    task = three_to_one()
    blind = (math.log2(3) - 2 / 3) * math.log(2)
    assert task.blind_loss == pytest.approx(blind, rel=1e-12)
    assert task.reward(Measured(0.1, 0.25 * blind)) == pytest.approx(0.75)
    assert task.reward(Measured(0.9, blind)) == pytest.approx(0.0)
    assert task.reward(Measured(0.9, 3 * blind)) == 0.0  # never below
    assert task.reward(Measured(1.0, 0.0)) == 1.0
    assert task.reward(DIVERGED) == task.reward(Measured(0.5, math.inf)) == 0.0
    assert task.with_options(score="accuracy").reward(Measured(0.4, 3 * blind)) == 0.4
    assert task.with_options(score="accuracy").reward(Measured(0.4, math.inf)) == 0.0
    with pytest.raises(UsageError, match="--score 'loss' is not known; choose one of: accuracy, bits-saved"):
        task.with_options(score="loss")


def test_a_part_of_the_data_is_scored_alike() -> None:
    task = load("charmlp")
    assert task.with_data(0.01).blind_loss == task.blind_loss


def test_where_every_guess_is_certain_nothing_can_be_saved() -> None:
    split = Split(torch.zeros(4, 1, 2, 2), torch.zeros(4, dtype=torch.int64))
    task = Task("one", split, split, split, classes=1, width=2, budget=Budget(2, 1, 1), net="mlp", score="bits-saved")
    assert task.blind_loss == 0.0
    assert task.reward(Measured(1.0, 0.0)) == 0.0


def test_image_tasks_are_scored_by_accuracy() -> None:
    task = load("digits")
    assert task.score == "accuracy"
    assert task.reward(Measured(0.25, 9.0)) == 0.25
    counts = Counter(task.train.y.tolist())
    assert task.blind_loss == pytest.approx(-sum(n / 1100 * math.log(n / 1100) for n in counts.values()))


@pytest.mark.parametrize("engine", ["torch", "auto"])
def test_an_outcome_is_the_share_of_the_last_loss(folder: Path, engine: str) -> None:
    task = load("charmlp", data_dir=folder).with_options(sweep_steps=20, train_steps=40)
    counts = Counter(task.train.y.tolist())
    blind = -sum(n / len(task.train) * math.log(n / len(task.train)) for n in counts.values())
    outcome = score(compile_rule("adam"), task, ScoringProtocol(engine=engine), seed=1, test=True)  # type: ignore[arg-type]
    curve = outcome.curve
    assert curve["score"] == [pytest.approx(max(0.0, 1 - loss / blind)) for loss in curve["val_loss"]]
    assert outcome.reward == curve["score"][-1] > 0.3
    assert outcome.test is not None
    assert 0.3 < outcome.test < 1
    assert curve["accuracy"] != curve["score"]
    assert all(row.keys() == {"lr", "steps", "accuracy", "score"} for row in curve["sweep"])
    assert max(curve["sweep"], key=lambda row: row["score"])["lr"] == outcome.lr
    same = score(compile_rule("adam"), task.with_options(score="accuracy"), ScoringProtocol(), seed=1)
    assert same.reward == same.curve["accuracy"][-1]
    assert "score" not in same.curve


def test_a_search_is_on_the_loss_of_a_text_unless_told_otherwise() -> None:
    _, args = parse(["run", "--out", "x"])
    assert args.task == RunConfig().task == "charmlp"
    assert load("charmlp").score == load("charlm").score == load("translate").score == "bits-saved"


def test_scores_of_a_curve() -> None:
    assert scores({"accuracy": [0.1], "score": [0.2]}) == [0.2]
    assert scores({"accuracy": [0.1]}) == [0.1]
    assert scores({"sweep": []}) == []


def few(*more: object) -> list[str]:
    return ["--sweep-steps", "8", "--train-steps", "12", *map(str, more)]


def test_a_run_remembers_its_score(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    options = ["--strategy", "evolution", "--trials", "12", "--data-dir", folder, "--task", "charmlp", "--out", out]
    assert main(["run", *few(*options)]) == 0
    shown = capsys.readouterr().out
    assert SCORES["bits-saved"].reward in shown
    assert "  bits  " in shown
    with Store.open(out) as store:
        assert store.config["score"] == "bits-saved"
        trials = {trial.id: trial for trial in store.trials()}
    assert main(["show", str(out), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["score"] == "bits-saved"
    best = data["best"]
    assert best["bits"] == pytest.approx(trials[best["trial"]].curve["val_loss"][-1] / math.log(2))
    assert best["reward"] == trials[best["trial"]].curve["score"][-1]
    assert main(["resume", str(out), "--trials", "14"]) == 0
    assert main(["export", str(out), "--format", "curves"]) == 0
    header, *rows = capsys.readouterr().out[-(10**6) :].partition("id,part")[2].splitlines()
    assert header.endswith("accuracy,score")
    assert any(row.startswith(f"{best['trial']},training") and row.endswith(str(best["reward"])) for row in rows)
    assert main(["report", str(out), "--no-baselines"]) == 0
    page = (out / "report.html").read_text()
    assert "validation bits saved of the best rule" in page
    assert f"<b>{best['bits']:.3f}</b><span>bits per guess that it leaves" in page
    assert SCORES["bits-saved"].reward in page
    assert "accuracy" not in page


def test_a_run_without_a_score_is_of_accuracies(folder: Path) -> None:
    """What a release wrote that knew no other score: it must not go on by another."""
    config = replace(RunConfig(task="charmlp"), data_dir=str(folder)).to_json()
    del config["score"], config["rung_score"]
    old = RunConfig.from_json(config)
    assert (old.score, old.rung_score) == ("accuracy", "accuracy")
    assert old.make_task().score == "accuracy"
    assert RunConfig(task="charmlp", data_dir=str(folder)).make_task().score == "bits-saved"
    with pytest.raises(UsageError, match="--score 'x' is not known"):
        RunConfig(score="x")


def test_an_old_run_goes_on_with_accuracies(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Made as the release before made it, which had no name for a score; its rungs, too."""
    out = tmp_path / "run"

    def old(config: RunConfig) -> dict[str, object]:
        return {name: value for name, value in asdict(config).items() if name not in ("score", "rung_score")}

    with monkeypatch.context() as patch:
        patch.setattr(RunConfig, "to_json", old)
        options = ["--strategy", "evolution", "--trials", "6", "--data-dir", folder, "--task", "charmlp", "--out", out]
        ladder = ["--promote", "charmlp", "--promote-eta", "3"]
        assert main(["run", *few(*options, *ladder, "--score", "accuracy")]) == 0
    with Store.open(out) as store:
        assert "score" not in store.config
    assert main(["resume", str(out), "--trials", "12"]) == 0
    assert SCORES["accuracy"].reward in capsys.readouterr().out
    with Store.open(out) as store:
        trained = [trial for trial in store.trials() if trial.status == "done"]
        climbed = [score for score in store.scores("promotion") if score.status == "done"]
    assert max(trial.id for trial in trained) >= 6
    assert all(trial.reward == trial.curve["accuracy"][-1] for trial in trained)
    assert len(climbed) >= 2
    assert all(score.reward == score.curve["tasks"][0]["accuracy"][-1] for score in climbed)


def test_evaluate_and_train_say_what_they_show(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = few("--data-dir", folder, "--engine", "auto")
    assert main(["evaluate", "adam", "--tasks", "charmlp,digits", "--seeds", "2", *common]) == 0
    rows = [line.split()[:3] for line in capsys.readouterr().out.splitlines()]
    assert ["charmlp", "bits", "saved"] in rows
    assert ["digits", "accuracy"] in [row[:2] for row in rows]
    assert main(["train", "adam", "--task", "charmlp", *common]) == 0
    out = capsys.readouterr().out
    assert "validation bits saved" in out
    assert " bits" in out.splitlines()[1]
    assert main(["train", "adam", "--task", "charmlp", *common, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["score"], data["reward"]) == ("bits-saved", data["curve"]["score"][-1])
    assert main(["train", "adam", "--task", "charmlp", *common, "--json", "--score", "accuracy"]) == 0
    assert json.loads(capsys.readouterr().out)["reward"] == data["curve"]["accuracy"][-1]
    # a file of one score is not mixed with another's
    kept = ["evaluate", "g", "--tasks", "charmlp", "--seeds", "1", "--out", str(tmp_path / "kept.json"), *common]
    assert main([*kept, "--score", "accuracy"]) == 0
    assert main(kept) == 2
    assert "has trainings with charmlp score none, not bits-saved" in capsys.readouterr().err
