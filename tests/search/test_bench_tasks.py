"""The bench of tasks: its rules, the decay of its long training, and its figures against the trainings themselves."""

from __future__ import annotations

import json

import pytest
import torch
from scipy.stats import spearmanr

import nos_ext
from nos_ext.schedules import LinearCosineDecay
from nos_search.bench.tasks import decayed, random_rules
from nos_search.cli import main
from nos_search.cli.output import markdown
from nos_search.rules import compile_rule
from nos_search.task import load
from nos_search.train.child import ScoringProtocol, score
from nos_search.train.seeds import derive_seed


def test_rules_are_repeatable_and_all_different() -> None:
    rules = random_rules(12, 5)
    assert [rule.key for rule in rules] == [rule.key for rule in random_rules(12, 5)]
    assert len({rule.key for rule in rules}) == 12
    assert {rule.key for rule in random_rules(12, 6)} != {rule.key for rule in rules}


def test_the_decay_is_that_of_the_schedule() -> None:
    """On a gradient of 1 the parameter moves by the learning rate of the step."""
    program = decayed("g").program
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.5)
    schedule = LinearCosineDecay(optimizer, decay_steps=20, beta=0.001)
    place = torch.zeros(1, dtype=torch.float64)
    for step in range(1, 21):
        before = float(place)
        nos_ext.apply_rule(
            program, [place], [torch.ones(1, dtype=torch.float64)], [], lr=0.5, step=step, total_steps=20
        )
        assert before - float(place) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
        optimizer.step()
        schedule.step()


def test_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    """Rewards are those of score(); the order is that of the trainings which it says it made."""
    options = ["--tasks", "digits", "--rules", "5", "--seeds", "2", "--times", "2", "--seed", "3", "--engine", "torch"]
    assert main(["bench", "tasks", *options, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)["figures"]["digits"]
    task = load("digits")
    seeds = [derive_seed(3, "short", k) for k in range(2)]
    adam = [score(compile_rule("(adam)"), task, ScoringProtocol(), seed=seed).reward for seed in seeds]
    assert figures["known"]["adam"] == adam
    assert len(figures["random"]) == 5
    first = {"adam": adam[0], "g": figures["known"]["sgd"][0]}
    assert set(figures["long"]) <= {*figures["random"], "g", "m_hat", "rmsprop", "adam", "sign(m_hat)",
                                    "g * exp(sign(g) * sign(m_hat))", "g * (1 + sign(g) * sign(m_hat))"}  # fmt: skip
    names = ("sgd", "momentum", "rmsprop", "adam", "signum", "powersign", "addsign")
    shorts = dict(zip(list(figures["long"])[: len(names)], (figures["known"][name][0] for name in names), strict=True))
    assert {name: shorts[name] for name in first} == first
    shorts |= {rule: figures["random"][rule] for rule in figures["long"] if rule not in shorts}
    want = spearmanr([shorts[rule] for rule in figures["long"]], list(figures["long"].values())).statistic
    assert figures["order"] == pytest.approx(want)
    assert all(0.3 < end <= 1 for end in figures["long"].values())


def test_markdown() -> None:
    assert markdown(["a", "b"], [["x|y", "1\n2"]]) == "\n| a | b |\n|---|---|\n| x\\|y | 1\\n2 |\n"


def test_wrong_options(capsys: pytest.CaptureFixture[str]) -> None:
    for options, message in (
        (["--rules", "1"], "--rules 1 is below 2"),
        (["--engine", "gpu"], "--engine 'gpu' is not known"),
        (["--tasks", "charmlp,x"], "--tasks 'x' is not known; choose one of: charmlp"),
    ):
        assert main(["bench", "tasks", *options]) == 2
        assert message in capsys.readouterr().err
