"""The commands evaluate and train: intervals against an independent formula, workers, drawings, JSON, wrong usage."""

from __future__ import annotations

import json
import math
import statistics
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from nos_search.cli import main
from nos_search.cli.training import shown_loss
from nos_search.known import EVALUATED
from nos_search.rules import CompiledRule, compile_rule, parse_stored_rule
from nos_search.run import trainings
from nos_search.show import plot
from nos_search.show.leaderboard import best_rows
from nos_search.store import Store
from nos_search.task import load
from nos_search.train.child import Outcome, ScoringProtocol, score
from nos_search.train.evaluate import half_width, summarise
from nos_search.train.seeds import derive_seed

SMALL = ["--sweep-steps", "4", "--train-steps", "6", "--width", "4"]


def call(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    try:
        status = main([str(arg) for arg in args])
    except SystemExit as leave:
        status = int(leave.code or 0)
    out, err = capsys.readouterr()
    return status, out, err


def test_t_interval() -> None:
    """Quantiles of Student's t from the printed tables: 12.706, 4.303, 2.776 and 2.262 for 1, 2, 4 and 9 degrees."""
    for count, quantile in ((2, 12.706), (3, 4.303), (5, 2.776), (10, 2.262)):
        values = [math.sin(k) for k in range(count)]
        want = quantile * statistics.stdev(values) / math.sqrt(count)
        assert half_width(values) == pytest.approx(want, rel=2e-4)
    assert half_width([0.5]) is None
    assert half_width([0.5, 0.5]) == 0


def fixed(monkeypatch: pytest.MonkeyPatch, tests: dict[str, list[float]]) -> None:
    """Puts made-up test scores in the place of trainings: for each rule one for each seed."""
    left = {rule: iter(values) for rule, values in tests.items()}

    def made_up(rule: CompiledRule, *more: object, **options: object) -> Outcome:
        value = next(left[rule.text])
        return Outcome("done", value, 0.1, {"val_loss": [1.0]}, value)

    monkeypatch.setattr(trainings, "score", made_up)


@pytest.mark.parametrize(
    ("mine", "theirs", "said"),
    [
        ([0.52, 0.54], [0.51, 0.53], "no difference shown"),  # the same step with two seeds
        ([0.52, 0.52], [0.51, 0.51], "no difference shown"),
        (
            [0.52, 0.12, 0.32],
            [0.5, 0.1, 0.3],
            "no difference shown",
        ),  # equal but for roundings, and far less than seeds
        ([0.9, 0.9, 0.9], [0.1, 0.1, 0.1], "better"),
        ([0.1, 0.12, 0.14, 0.13], [0.9, 0.92, 0.94, 0.93], "worse"),
        ([0.5, 0.6, 0.7], [0.5, 0.6, 0.7], "no difference shown"),
    ],
)
def test_equal_differences_have_the_noise_of_the_scores(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    mine: list[float],
    theirs: list[float],
    said: str,
) -> None:
    words = ["evaluate", "g", "--baseline", "adam", "--seeds", len(mine), *SMALL]
    fixed(monkeypatch, {"g": mine, "adam": theirs})
    status, out, err = call(capsys, *words)
    assert status == 0, err
    assert out.splitlines()[-1].endswith(f": {said}")
    fixed(monkeypatch, {"g": mine, "adam": theirs})
    mean, half = json.loads(call(capsys, *words, "--json")[1])["results"][0]["difference"]
    assert mean == pytest.approx(mine[0] - theirs[0])
    assert (half == 0) == (mine == theirs)
    assert (abs(mean) > half) == (said != "no difference shown")


def test_evaluate_against_scores(capsys: pytest.CaptureFixture[str]) -> None:
    """Everything in the JSON from outcomes that are scored here, one by one."""
    status, out, _ = call(
        capsys, "evaluate", "adam", "g", "--seeds", 3, "--seed", 4, "--baseline", "sgd", "--json", *SMALL
    )
    assert status == 0
    data = json.loads(out)
    assert (data["format"], data["interval"], data["nets"]) == (
        2,
        "Student t, 95%, half width",
        {"digits": "convnet-2-4"},
    )
    assert [result["rule"] for result in data["results"]] == ["adam", "g", "sgd"]
    task = load("digits").with_options(width=4, sweep_steps=4, train_steps=6)
    tests = {}
    for result in data["results"]:
        outcomes = [
            score(compile_rule(result["rule"]), task, ScoringProtocol(), seed=derive_seed(4, "evaluate", k), test=True)
            for k in range(3)
        ]
        tests[result["rule"]] = [outcome.test or 0.0 for outcome in outcomes]
        assert result["tests"] == tests[result["rule"]]
        assert result["vals"] == [outcome.reward for outcome in outcomes]
        assert result["lrs"] == [outcome.lr for outcome in outcomes]
        assert result["test_mean"] == pytest.approx(statistics.fmean(result["tests"]))
        assert result["test_ci"] == pytest.approx(4.303 * statistics.stdev(result["tests"]) / math.sqrt(3), rel=2e-4)
        assert result["loss"] == pytest.approx(statistics.fmean(o.curve["val_loss"][-1] for o in outcomes))
    gaps = [a - b for a, b in zip(tests["adam"], tests["sgd"], strict=True)]
    mean, half = data["results"][0]["difference"]
    assert mean == pytest.approx(statistics.fmean(gaps))
    assert half == pytest.approx(4.303 * statistics.stdev(gaps) / math.sqrt(3), rel=2e-4)
    assert data["results"][2]["difference"] == [0, 0]
    assert tests["g"] == tests["sgd"]


def test_a_diverged_run_counts_as_zero() -> None:
    task = load("digits").with_options(width=4, sweep_steps=4, train_steps=6)
    good = score(compile_rule("g"), task, ScoringProtocol(), seed=1, test=True)
    bad = score(compile_rule("log(-1 - g * g)"), task, ScoringProtocol(), seed=1, test=True)
    row = summarise("x", "digits", [good, bad])
    assert (row.diverged, row.seeds, row.tests[1], row.lrs[1]) == (1, 2, 0.0, None)
    assert row.test_mean == pytest.approx((good.test or 0) / 2)
    assert row.loss == good.curve["val_loss"][-1]
    assert summarise("x", "digits", [bad]).loss is None


def test_tasks_are_grouped_and_the_best_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(
        capsys,
        "evaluate",
        "w",
        "adam",
        "adam",
        "--tasks",
        "digits,charlm",
        "--seeds",
        1,
        "--net",
        "mlp",
        "--baseline",
        "adam",
        *SMALL,
    )
    assert (status, out) == (2, "")
    assert "--net 'mlp' is not known; choose one of: gru, transformer" in err
    status, out, _ = call(
        capsys,
        "evaluate",
        "w",
        "adam",
        "adam",
        "--tasks",
        "digits",
        "--seeds",
        1,
        "--net",
        "mlp-1-8",
        "--baseline",
        "adam",
        *SMALL[:4],
    )
    assert status == 0
    lines = out.splitlines()
    assert [line.split()[-1] for line in lines] == ["rule", "adam", "w"]  # named twice, run once
    assert "test - adam" in lines[0]
    assert "+0.0000" in lines[1]
    assert "±" not in out  # one seed has no interval


def test_rules_may_begin_with_a_minus(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(capsys, "evaluate", "--seeds", 1, *SMALL, "--", "-g")
    assert status == 0
    assert out.splitlines()[1].endswith(" -g")


@pytest.mark.slow
def test_workers_give_the_same_bits(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["evaluate", "adam", "drop(g, 0.1)", "--seeds", 2, "--tasks", "digits", "--json", *SMALL]
    one, two = (json.loads(call(capsys, *args, "--workers", workers)[1]) for workers in (1, 2))
    assert one == two


def test_known_optimizers(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(
        capsys, "evaluate", "--known", "--seeds", 1, "--sweep-steps", 1, "--train-steps", 1, "--width", 2, "--json"
    )
    assert status == 0
    assert tuple(result["rule"] for result in json.loads(out)["results"]) == EVALUATED


def texts(path: Path) -> list[str]:
    return [element.text or "" for element in ET.parse(path).iter() if element.tag.endswith("text")]


def test_plots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Well-formed SVG that names every rule and task, means in order of the accuracies."""
    path = tmp_path / "compare.svg"
    rule = "g * exp(sign(g) * sign(m_hat))"
    status, out, err = call(capsys, "evaluate", "adam", rule, "--seeds", 2, "--plot", path, "--json", *SMALL)
    assert status == 0
    assert f"wrote {path}" in err
    shown = texts(path)
    assert {"digits, 2 seeds", "one seed", "mean", "95% t interval of the mean"} <= set(shown)
    assert "test accuracy (share of examples)" in shown
    assert {"adam", rule} <= set(shown)
    results = sorted(json.loads(out)["results"], key=lambda r: -r["test_mean"])
    (means,) = [e for e in ET.parse(path).iter() if e.get("id") == "means"]
    xs = [float(e.get("x", "nan")) for e in means.iter() if e.tag.endswith("}use")]
    assert xs == sorted(xs, reverse=True)
    assert len(xs) == 2
    assert f"{results[0]['test_mean']:.4f}" in shown
    assert all(0 <= x <= 1000 for x in xs)


def test_plot_of_equal_values() -> None:
    """Nothing to spread: still a drawing with finite numbers."""
    task = load("digits").with_options(width=2, sweep_steps=1, train_steps=1)
    outcome = score(compile_rule("g"), task, ScoringProtocol(), seed=1, test=True)
    text = plot.comparison([summarise("a < b & c", "digits", [outcome, outcome])]).render("svg").decode()
    ET.fromstring(text)
    assert "nan" not in text
    assert "a &lt; b &amp; c" in text


def test_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "curve.svg"
    args = [
        "train",
        "adam",
        "--task",
        "digits",
        "--net",
        "mlp-1-16",
        "--train-steps",
        33,
        "--sweep-steps",
        11,
        "--plot",
        path,
    ]
    status, out, err = call(capsys, *args)
    assert status == 0
    assert "sweeping the learning rate of adam on digits (mlp-1-16)" in err
    lines = out.splitlines()
    assert lines[0].split() == ["step", "training", "loss", "validation", "accuracy", "validation", "loss"]
    assert [line.split()[0] for line in lines[1:4]] == ["11", "22", "33"]
    status, out, _ = call(capsys, *args, "--json")
    data = json.loads(out)
    assert (
        lines[-1]
        == f"lr {data['lr']:g}: accuracy {data['reward']:.4f} on validation data, {data['test']:.4f} on test data"
    )
    assert data["reward"] == data["curve"]["accuracy"][-1] > 0.5
    assert len(data["sweep"]) == 7 + 4  # decades, then around the best
    assert {"training step", "loss (nats)", "accuracy (share of examples)", "training", "validation"} <= set(
        texts(path)
    )
    for name in ("training-loss", "validation-loss", "accuracy"):
        (group,) = [e for e in ET.parse(path).iter() if e.get("id") == name]
        assert len([e for e in group.iter() if e.tag.endswith("}use")]) == 3, name


def test_train_at_a_given_rate(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capsys, "train", "g", "--lr", "0.05", "--json", *SMALL)
    assert status == 0
    assert "sweep" not in err
    data = json.loads(out)
    assert (data["lr"], data["sweep"], data["status"]) == (0.05, [], "done")
    assert data["curve"]["steps"] == [2, 4, 6]  # shorter than an epoch: five points at most


def test_train_on_characters(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--task", "charlm", "--net", "gru-1-16", "--lr", "0.01", "--train-steps", "25", "--json"]
    status, out, _ = call(capsys, "train", "adam", *args)
    assert status == 0
    data = json.loads(out)
    assert data["curve"]["val_loss"][-1] < math.log(63) - 0.5  # better than uniform
    assert data["curve"]["accuracy"][-1] > 0.15  # the share of spaces is 0.19
    assert data["reward"] == data["curve"]["score"][-1] > 0.03
    status, out, _ = call(capsys, "train", "adam", *args[:-1])
    assert f"{data['curve']['val_loss'][-1] / math.log(2):.3f} bits" in out


def test_train_that_diverges(capsys: pytest.CaptureFixture[str]) -> None:
    bad = "log(-1 - g * g)"
    status, out, err = call(capsys, "train", bad, *SMALL)
    assert (status, out) == (1, "")
    assert f"{bad} diverges on digits at every learning rate from 1e-5 to 10" in err
    status, out, _ = call(capsys, "train", bad, "--lr", "1", *SMALL)
    assert status == 0
    assert "diverged at lr 1" in out


def test_losses_in_their_units() -> None:
    assert shown_loss("bits", math.log(2)) == "1.000 bits"
    assert shown_loss("perplexity", math.log(50)) == "50 ppl"
    assert shown_loss("perplexity", 1e6).endswith("ppl")
    assert shown_loss("loss", 0.5) == "0.5000 nats"
    assert shown_loss("loss", None) == "-"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["evaluate", "g", "--workers", "0"], "--workers 0 is below 1"),
        (["evaluate", "g", "--device", "tpu"], "--device 'tpu' is not known; choose one of: cpu, cuda"),
        (["evaluate", "g", "--plot", "/no/such/folder/x.svg"], "--plot /no/such/folder/x.svg cannot be written"),
        (
            ["evaluate", "g", "--plot", "x.jpg"],
            "x.jpg ends in no format that is drawn; choose a name that ends in .svg",
        ),
        (["train", "g", "--plot", "svg"], "svg ends in no format that is drawn"),
        (["evaluate", "g", "--baseline", "g g"], "rule 'g g' is not valid"),
        (["evaluate", "g", "--net", "gru"], "--net 'gru' is not known; choose one of: convnet, wrn, mlp"),
        (["evaluate", "g", "--tasks", ""], "--tasks '' is not known"),
        (["evaluate", "g", "--data-dir", "/no/where"], "--data-dir /no/where is not a folder"),
        (["train", "g", "--task", "digits,fashion"], "train takes one task; evaluate takes several"),
        (["train", "g", "--lr", "0"], "--lr 0 is not a positive number"),
        (["train", "g", "--lr", "nan"], "--lr nan is not a positive number"),
        (["train", "g", "--threads", "0"], "--threads 0 is below 1"),
        (["train"], "RULE"),
        (["train", "sgdd"], "rule 'sgdd' is not valid"),
    ],
)
def test_wrong_usage(args: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capsys, *args)
    assert (status, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


def test_the_best_rules_of_a_run(small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Store.open(small_run) as store:
        best = [parse_stored_rule(row.rule, small_run, row.trial).text for row in best_rows(store)]
    status, out, err = call(capsys, "evaluate", small_run, "sgd", "--top", "2", "--seeds", "1", "--json", *SMALL)
    assert status == 0, err
    assert [result["rule"] for result in json.loads(out)["results"]] == [*best[:2], "sgd"]
    for source, message in ((tmp_path, "holds no run"), (small_run, "--top 0 is below 1")):
        status, _, err = call(capsys, "evaluate", source, "--top", "0" if source == small_run else "1")
        assert (status, message in err) == (2, True), err


@pytest.mark.parametrize("command", [["evaluate", "g"], ["run"], ["run", "--workers", "2"]])
def test_cuda_is_refused_where_there_is_none(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: list[str]
) -> None:
    import torch

    import nos_ext

    if torch.cuda.is_available() and nos_ext.build_info()["cuda"]["enabled"]:
        pytest.skip("this machine trains on CUDA")
    out = ["--out", str(tmp_path / "run")] if command[0] == "run" else []
    status, _, err = call(capsys, *command, "--device", "cuda", *SMALL, *out)
    assert status == 2
    assert not (tmp_path / "run").exists()
    assert "--device cuda: " in err
    assert "use --device cpu" in err
