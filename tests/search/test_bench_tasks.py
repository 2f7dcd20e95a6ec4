"""The bench of tasks: its rules, and its figures against the trainings themselves."""

from __future__ import annotations

import json
import statistics

import pytest
from scipy.stats import spearmanr

from nos_search.bench.sample import random_rules
from nos_search.cli import main
from nos_search.cli.output import markdown
from nos_search.known import RULES
from nos_search.rules import compile_rule
from nos_search.task import load
from nos_search.train.child import Outcome, ScoringProtocol, score, train
from nos_search.train.engine import kind_of
from nos_search.train.seeds import derive_seed


def test_rules_are_repeatable_and_all_different() -> None:
    rules = random_rules(12, 5)
    assert [rule.key for rule in rules] == [rule.key for rule in random_rules(12, 5)]
    assert len({rule.key for rule in rules}) == 12
    assert "adam" not in {rule.text for rule in random_rules(60, derive_seed(1, "rules"))}  # it is drawn, and is known
    assert {rule.key for rule in random_rules(12, 6)} != {rule.key for rule in rules}


def test_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    """Rewards are those of score(); the order is that of the trainings which it says it made."""
    options = ["--tasks", "digits", "--rules", "12", "--seeds", "2", "--times", "2", "--seed", "3"]
    assert main(["bench", "tasks", *options, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)["figures"]["digits"]
    task = load("digits")
    seeds = [derive_seed(3, "short", k) for k in range(2)]
    adam = [score(compile_rule("(adam)"), task, ScoringProtocol(), seed=seed).reward for seed in seeds]
    assert figures["known"]["adam"] == adam
    assert len(figures["random"]) == 12
    names = ("sgd", "momentum", "rmsprop", "adam", "signum", "powersign", "addsign")
    shorts = {RULES[name].update: figures["known"][name][0] for name in names} | figures["random"]
    assert set(figures["long"]) == {rule for rule, reward in shorts.items() if reward >= statistics.fmean(adam) / 2}
    want = spearmanr([shorts[rule] for rule in figures["long"]], list(figures["long"].values())).statistic
    assert figures["order"] == pytest.approx(want)
    best = sorted(figures["long"], key=lambda rule: (-shorts[rule], -figures["long"][rule]))[:3]
    want = spearmanr([shorts[rule] for rule in best], [figures["long"][rule] for rule in best]).statistic
    assert figures["order_of_best"] == pytest.approx(want)
    # the long training of one of them, by hand
    rate = score(compile_rule("(adam)"), task, ScoringProtocol(), seed=seeds[0]).lr
    assert rate is not None
    longer = task.with_options(train_steps=2 * task.budget.train_steps)

    def trained(lr: float, number: int) -> Outcome:
        seed = derive_seed(3, "long", number)
        kind = kind_of("auto", task)
        return train(compile_rule("(adam)"), longer, lr=lr, seed=seed, test=True, kind=kind, decay="linear_cosine")

    ends = {lr: [trained(lr, k) for k in range(2)] for lr in (rate / 10**0.5, rate, rate * 10**0.5)}
    best_rate = max(ends, key=lambda lr: ends[lr][0].reward)
    assert figures["long"]["adam"] == pytest.approx(sum(end.test or 0.0 for end in ends[best_rate]) / 2)
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
