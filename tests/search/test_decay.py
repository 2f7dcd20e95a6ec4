"""Decays of the learning rate in the longer training, and the sentence about the baseline that evaluate ends with."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from nos_ext.schedules import CosineDecay, LinearCosineDecay
from nos_search.cli import main
from nos_search.errors import UsageError
from nos_search.rules import compile_rule
from nos_search.task import Task, load
from nos_search.train.child import ScoringProtocol, score, train
from nos_search.train.decay import DECAYS, Decay, factor
from nos_search.train.native import NativeTraining
from nos_search.train.training import Training

TOTAL = 12


def _scheduled(decay: Decay) -> list[float]:
    """The learning rates of torch's schedulers over a training, from 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = {
        "none": lambda: torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0),
        "linear": lambda: torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, TOTAL),
        "cosine": lambda: CosineDecay(optimizer, TOTAL),
        "linear_cosine": lambda: LinearCosineDecay(optimizer, TOTAL),
    }[decay]()
    rates = []
    for _ in range(TOTAL):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return rates


@pytest.fixture(scope="module")
def task() -> Task:
    digits = load("digits").with_options(net="mlp-1-8", train_steps=TOTAL, sweep_steps=4)
    return replace(digits, train=digits.train.first(300), val=digits.val.first(100))


@pytest.mark.parametrize("decay", DECAYS)
def test_factors_are_those_of_the_schedulers(decay: Decay) -> None:
    of = factor(decay, TOTAL)
    assert [of(step) for step in range(TOTAL)] == pytest.approx(_scheduled(decay), abs=1e-12)


@pytest.mark.parametrize("kind", [Training, NativeTraining])
@pytest.mark.parametrize("decay", DECAYS)
def test_a_training_takes_the_rates_of_the_scheduler(decay: Decay, kind: type[Training], task: Task) -> None:
    """A rule that only counts its learning rates: every weight falls by their sum. In pieces, as trainings are run."""
    training = kind(compile_rule("1"), task, lr=0.25, total_steps=TOTAL, seed=3, decay=decay)
    weights = (
        (lambda: [w.copy() for w in training.child.weights()])
        if isinstance(training, NativeTraining)
        else (lambda: [w.detach().numpy().copy() for w in training.weights.params])
    )
    before = weights()
    for until in (1, 5, 5, TOTAL):
        assert training.run(until)
    fallen = 0.25 * sum(_scheduled(decay))
    for old, new in zip(before, weights(), strict=True):
        np.testing.assert_allclose(old - new, fallen, rtol=1e-5)


def test_only_the_longer_training_decays(task: Task) -> None:
    rule = compile_rule("adam")
    plain, falling = (score(rule, task, ScoringProtocol(decay=decay), seed=1) for decay in ("none", "linear_cosine"))
    assert plain.curve["sweep"] == falling.curve["sweep"]
    assert plain.lr == falling.lr is not None
    assert plain.curve["loss"] != falling.curve["loss"]
    again = train(rule, task, lr=falling.lr, seed=1, kind=NativeTraining, decay="linear_cosine")
    assert again.curve["loss"] == falling.curve["loss"]


def test_a_decay_that_is_none() -> None:
    with pytest.raises(UsageError, match=r"--decay 'cosin' is not known; choose one of: none, linear, cosine"):
        ScoringProtocol(decay="cosin")  # type: ignore[arg-type]


FEW = ["--tasks", "digits", "--net", "mlp-1-8", "--sweep-steps", "4", "--train-steps", "12", "--decay", "cosine"]


def test_evaluate_ends_with_what_the_baseline_says(capsys: pytest.CaptureFixture[str]) -> None:
    """The last line is about the rule that is best on validation data, and says what its interval allows."""
    call = ["evaluate", "sgd", "0.0 * g", "--baseline", "adam", "--seeds", "4", *FEW]
    assert main(call) == 0
    *_, last = capsys.readouterr().out.strip().splitlines()
    assert main([*call, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["decay"] == "cosine"
    best = max((r for r in document["results"] if r["rule"] != "adam"), key=lambda r: r["val_mean"])
    mean, half = best["difference"]
    found = "no difference shown" if abs(mean) <= half else "better" if mean > 0 else "worse"
    wanted = (
        f"digits: {best['rule']} against adam on test data, paired over 4 seeds: accuracy {mean:+.4f} ± {half:.4f}: "
    )
    assert last == wanted + found


@pytest.mark.parametrize("more", [[], ["--seeds", "1", "--baseline", "adam"]])
def test_without_an_interval_nothing_is_said(more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "sgd", "adam", "--seeds", "2", *FEW, *more]) == 0
    assert "against" not in capsys.readouterr().out


def test_a_rule_that_is_far_worse(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "0.0 * g", "--baseline", "adam", "--seeds", "5", *FEW[:-2], "--train-steps", "60"]) == 0
    assert capsys.readouterr().out.strip().endswith(": worse")


def test_a_baseline_is_no_rival_of_itself_however_it_is_spelled(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "0.0 * g", "--baseline", " g*1.0", "--seeds", "2", *FEW]) == 0
    assert capsys.readouterr().out.strip().splitlines()[-1].startswith("digits: 0.0 * g against ")
