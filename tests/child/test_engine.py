"""--engine: children by own kernels in the place of torch's, in every command that trains."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nos_ext import _C
from nos_search.cli import main
from nos_search.errors import UsageError
from nos_search.rules import compile_rule
from nos_search.run import trainings
from nos_search.run.children import make_executor
from nos_search.run.config import RunConfig
from nos_search.store import Store
from nos_search.task import Task, load
from nos_search.task.base import IGNORED, Split
from nos_search.train import room, side
from nos_search.train.child import Outcome, ScoringProtocol, Sweep, score
from nos_search.train.engine import kind_of
from nos_search.train.native import NativeTraining
from nos_search.train.training import Batches, Training

pytestmark = pytest.mark.skipif(_C.child_kernels() is None, reason="needs fused multiply-adds")
torch.set_num_threads(1)  # as in a run; more only slow such small networks down
RULES = ("g", "m_hat / (sqrt(v_hat) + 1e-3)", "g * exp(sign(g) * sign(m_hat))", "drop(g, 0.3) + 0.01 * noise")


def digits(net: str | None = None) -> Task:
    return load("digits").with_options(net=net, sweep_steps=8, train_steps=12)


@pytest.mark.parametrize("net", [None, "convnet-1-5", "mlp-2-16"])
@pytest.mark.parametrize("rule", RULES)
def test_the_first_steps_agree_to_rounding(net: str | None, rule: str) -> None:
    """Same weights, same batches, same draws. A rule of signs may turn a rounding error into a step, so only few steps
    are compared."""
    task = digits(net)
    theirs, ours = (
        kind(compile_rule(rule), task, lr=0.03, total_steps=12, seed=3) for kind in (Training, NativeTraining)
    )
    for until in (1, 2, 4):
        assert theirs.run(until)
        assert ours.run(until)
        assert ours.step == theirs.step == until
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-4)
        one, two = ours.measure(task.val), theirs.measure(task.val)
        assert one.accuracy == pytest.approx(two.accuracy, abs=0.02)
        assert one.loss == pytest.approx(two.loss, rel=2e-3)


@pytest.mark.parametrize("name", ["charmlp", "teacher", "chirps", "spanish", "tabular"])
@pytest.mark.parametrize("rule", RULES)
def test_the_first_steps_of_single_passes_agree_to_rounding(rule: str, name: str) -> None:
    task = load(name)
    task = replace(task, val=task.val.first(500))
    theirs, ours = (
        kind(compile_rule(rule), task, lr=0.03, total_steps=12, seed=3) for kind in (Training, NativeTraining)
    )
    for until in (1, 2, 4):
        assert theirs.run(until)
        assert ours.run(until)
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-4)
        one, two = ours.measure(task.val), theirs.measure(task.val)
        assert one.loss == pytest.approx(two.loss, rel=1e-3)
        assert task.reward(one) == pytest.approx(task.reward(two), abs=1e-3)


@pytest.mark.parametrize(("name", "net"), [("charlm", "gru-1-96"), ("charlm", "gru-2-20"), ("spanishlm", "gru-1-96")])
@pytest.mark.parametrize("rule", RULES)
def test_the_first_steps_of_a_language_model_agree_to_rounding(name: str, net: str, rule: str) -> None:
    task = load(name).with_options(net=net)
    task = replace(task, val=task.val.first(70))
    theirs, ours = (
        kind(compile_rule(rule), task, lr=0.03, total_steps=12, seed=3) for kind in (Training, NativeTraining)
    )
    for until in (1, 2, 4):
        assert theirs.run(until)
        assert ours.run(until)
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-4)
        one, two = ours.measure(task.val), theirs.measure(task.val)
        assert one.accuracy == pytest.approx(two.accuracy, abs=0.01)
        assert one.loss == pytest.approx(two.loss, rel=2e-3)


def test_taken_in_pieces_or_as_a_whole() -> None:
    task, rule = digits(), compile_rule("drop(m_hat, 0.2) + 0.01 * noise")
    whole, pieces = (NativeTraining(rule, task, lr=0.01, total_steps=12, seed=5) for _ in range(2))
    whole.run(12)
    for until in (1, 5, 5, 12):
        pieces.run(until)
        pieces.measure(task.val)
    assert all(map(np.array_equal, whole.child.weights(), pieces.child.weights()))


def test_batches_at_once_are_those_one_by_one() -> None:
    """Over the end of an epoch, whose last examples do not fill a batch."""
    task = digits()
    count = 3 * len(task.train) // task.budget.batch_size
    one_by_one, at_once = Batches(task, 3), Batches(task, 3)
    assert torch.equal(torch.cat([one_by_one.next() for _ in range(count)]), at_once.next(count))
    assert torch.equal(one_by_one.next(), at_once.next())


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_a_rule_that_diverges_scores_zero(engine: str) -> None:
    outcome = score(compile_rule("1e30 * g"), digits(), ScoringProtocol(engine=engine), seed=1)  # type: ignore[arg-type]
    assert (outcome.status, outcome.reward, outcome.lr) == ("diverged", 0.0, None)


def test_rewards_agree_over_seeds() -> None:
    """Engines differ in rounding, which a training amplifies; on average they find the same rewards."""
    task, rule = load("digits"), compile_rule("m_hat / (sqrt(v_hat) + 1e-3)")
    rewards = np.array([
        [score(rule, task, ScoringProtocol(engine=engine), seed=seed).reward for seed in range(4)]
        for engine in ("torch", "native")
    ])  # fmt: skip
    differences = rewards[1] - rewards[0]
    assert rewards.min() > 0.7
    assert abs(differences.mean()) < 5.84 * differences.std(ddof=1) / 2 + 1e-9  # t of 99 %, three degrees


@pytest.mark.parametrize("sweep", ["fine", "full"])
def test_rates_side_by_side_have_the_same_bits(sweep: Sweep) -> None:
    task = digits()
    for text in ("adam", "drop(m_hat, 0.3) * exp(noise)", "1e30 * g"):
        one, *more = (
            score(compile_rule(text), task, ScoringProtocol(sweep, engine="native", threads=threads), seed=3, test=True)
            for threads in (1, 2, 5)
        )
        assert more == [one, one]


def test_seeds_side_by_side_have_the_same_bits(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    most: list[int] = []
    inside = threading.Semaphore(0)
    real = trainings.score

    def watched(*args: Any, **more: Any) -> Outcome:
        inside.release()
        most.append(inside._value)
        try:
            return real(*args, **more)
        finally:
            inside.acquire()

    monkeypatch.setattr(trainings, "score", watched)
    words = ["evaluate", "adam", "m_hat", "--seeds", "4", "--sweep-steps", "8", "--train-steps", "40", "--json"]
    printed = []
    for threads in ("1", "3"):
        most.clear()
        assert main([*words, "--threads", threads]) == 0
        printed.append(json.loads(capsys.readouterr().out))
        assert max(most) <= int(threads)
    assert printed[0] == printed[1]
    assert printed[0]["engine"] == "native"  # of auto


def test_threads_leave_each_worker_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side, "cores", lambda: 8)
    assert [RunConfig(workers=n).make_protocol().threads for n in (1, 2, 3, 8, 9)] == [8, 4, 2, 1, 1]
    assert RunConfig(threads=3).make_protocol().threads == 3
    assert (RunConfig().torch_threads, RunConfig(threads=3).torch_threads) == (1, 3)


def test_auto_takes_torch_where_there_are_no_kernels() -> None:
    assert kind_of("auto", digits()) is NativeTraining
    assert kind_of("torch", digits()) is Training
    assert kind_of("auto", digits("wrn-10-1")) is Training
    double = digits()
    x = double.train.x.double()
    in_double = Task("d", *(type(double.train)(x, double.train.y),) * 3, classes=10, width=8, budget=double.budget)
    assert kind_of("auto", in_double) is Training
    with pytest.raises(
        UsageError, match=r"--engine native: there are no kernels for --net wrn-10-1; use --engine auto"
    ):
        NativeTraining(compile_rule("g"), digits("wrn-10-1"), lr=0.1, total_steps=1, seed=1)
    with pytest.raises(UsageError, match="--engine"):
        ScoringProtocol(engine="cuda")  # type: ignore[arg-type]


def test_a_run_keeps_its_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same run in one piece and resumed: the same rewards, by the engine that the store names."""
    options = ["--task", "digits", "--strategy", "random", "--seed", "4", "--engine", "native",
               "--sweep-steps", "8", "--train-steps", "12"]  # fmt: skip
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(["run", *options, "--trials", "12", "--out", str(whole)]) == 0
    assert main(["run", *options, "--trials", "5", "--out", str(parts)]) == 0
    assert main(["resume", str(parts), "--trials", "12"]) == 0
    capsys.readouterr()
    shown = []
    for folder in (whole, parts):
        with Store.open(folder) as store:
            assert RunConfig.from_json(store.config).engine == "native"
        assert main(["show", str(folder), "--json"]) == 0
        shown.append(json.loads(capsys.readouterr().out))
    assert shown[0]["leaderboard"] == shown[1]["leaderboard"]
    assert any(row["reward"] > 0 for row in shown[0]["leaderboard"])


@pytest.mark.parametrize(
    ("options", "engine"),
    [
        ([], "native"),
        (["--task", "digits", "--net", "wrn-10-1", "--promote", "none"], "torch"),
        (["--promote", "digits:wrn-10-1"], "auto"),
    ],
)
def test_a_run_writes_down_what_auto_came_to(options: list[str], engine: str, tmp_path: Path) -> None:
    few = ["--sweep-steps", "2", "--train-steps", "2", "--trials", "1", "--strategy", "random"]
    assert main(["run", *few, *options, "--out", str(tmp_path / "run")]) == 0
    with Store.open(tmp_path / "run") as store:
        assert store.config["engine"] == engine
        assert (store.config["sweep"], store.config["protocol"]) == ("fine", "default")


def test_a_configuration_without_an_engine_is_torch_s() -> None:
    config = RunConfig().to_json()
    del config["engine"]
    assert RunConfig.from_json(config).engine == "torch"


def test_evaluate_and_train(capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--sweep-steps", "8", "--train-steps", "12", "--engine", "native", "--json"]
    assert main(["evaluate", "adam", "--tasks", "digits", "--seeds", "2", *few]) == 0
    assert json.loads(capsys.readouterr().out)["engine"] == "native"
    assert main(["train", "adam", "--task", "digits", *few]) == 0
    native = json.loads(capsys.readouterr().out)
    assert main(["train", "adam", "--task", "digits", *few, "--engine", "torch"]) == 0
    theirs = json.loads(capsys.readouterr().out)
    assert native["steps" if "steps" in native else "curve"] is not None
    assert native != theirs
    assert main(["train", "adam", "--task", "charlm", "--net", "gru-1-8", *few]) == 0
    assert json.loads(capsys.readouterr().out)["test"] > 0.1
    assert main(["train", "adam", "--task", "charlm", "--net", "transformer", *few]) == 2
    assert "--engine native: there are no kernels for --net transformer" in capsys.readouterr().err


def test_a_search_that_kernels_cannot_serve_is_refused_before_it_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ["--task", "digits", "--sweep-steps", "8", "--train-steps", "12", "--engine", "native"]
    out = tmp_path / "run"
    for search in (["--net", "wrn-10-1"], ["--promote", "digits:wrn-10-1"]):
        assert main(["run", *few, *search, "--trials", "3", "--out", str(out)]) == 2
        assert "--engine native: there are no kernels for --net wrn-10-1" in capsys.readouterr().err
        assert not out.exists()
    assert main(["run", *few, "--trials", "3", "--out", str(out)]) == 0
    monkeypatch.setattr("nos_search.train.native.why_not", lambda task: "this machine has none")
    assert main(["resume", str(out), "--trials", "9"]) == 2
    assert "--engine native: this machine has none" in capsys.readouterr().err


def test_children_that_have_no_room_at_once_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers have seven children each, one for each rate of the sweep."""
    config = RunConfig(task="digits", workers=2, width=8)
    task = config.make_task()
    size = NativeTraining(compile_rule("g"), task, lr=0.1, total_steps=1, seed=1).child.memory
    monkeypatch.setattr(room, "machine_memory", lambda: 14.0 * size)
    make_executor(config, task, clock=lambda: 0.0).close()
    monkeypatch.setattr(room, "machine_memory", lambda: 14.0 * size - 1)
    with pytest.raises(UsageError, match=r"--workers 2: 14 children of digits take .* MB; choose at most 1 of them"):
        make_executor(config, task, clock=lambda: 0.0)
    make_executor(replace(config, engine="torch"), task, clock=lambda: 0.0).close()  # torch's sizes are not known
    monkeypatch.setattr(room, "machine_memory", lambda: float(size))
    with pytest.raises(UsageError, match=r"--workers 1: 7 children of digits .*; choose a smaller --net or --width"):
        make_executor(replace(config, workers=1), task, clock=lambda: 0.0)
    small = ["--task", "digits", "--trials", "2", "--out", str(tmp_path / "run")]
    assert main(["run", *small]) == 2
    assert not (tmp_path / "run").exists()
    assert main(["evaluate", "adam", "--tasks", "digits", "--seeds", "1", "--workers", "2", "--train-steps", "2"]) == 2


def test_this_machine_says_how_much_memory_it_has() -> None:
    assert room.machine_memory() > 2**28


def nothing_asked(task: Task, part: str, count: int | None = None) -> Task:
    """The task whose split of that name asks nothing of its first `count` examples, or of any."""
    split = getattr(task, part)
    y = split.y.clone()
    y[:count] = IGNORED
    return replace(task, **{part: Split(split.x, y)})


@pytest.mark.parametrize("name", ["digits", "charlm"])
@pytest.mark.parametrize("kind", [Training, NativeTraining])
def test_a_batch_that_asks_nothing_teaches_nothing(kind: type[Training], name: str) -> None:
    """Its loss is 0 and its gradient zeros, so plain descent leaves the weights where they are."""
    task = load(name).with_options(net={"digits": "convnet-1-5", "charlm": "gru-1-8"}[name])
    task = replace(task, train=task.train.first(9), budget=replace(task.budget, batch_size=1))
    training = kind(compile_rule("g"), nothing_asked(task, "train", 8), lr=0.5, total_steps=9, seed=2)

    def weights() -> list[np.ndarray]:
        if isinstance(training, NativeTraining):
            return training.child.weights()
        return [param.detach().numpy().copy() for param in training.weights.params]

    losses = []
    for step in range(1, 10):
        before = weights()
        assert training.run(step)
        losses.append(training.loss)
        assert all(map(np.array_equal, before, weights())) == (training.loss == 0)
    assert sum(loss > 0 for loss in losses) == 1  # an epoch


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_a_split_that_asks_nothing_is_refused(part: str) -> None:
    count = getattr(digits(), part).y.numel()
    with pytest.raises(
        UsageError, match=f"task digits: none of the {count} targets of its split '{part}' counts.*give"
    ):
        nothing_asked(digits(), part)
