"""Promotion: who earns which rung, reading a ladder, and that a rule that wins only the short task is found out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nos_search.errors import UsageError
from nos_search.rules import compile_rule
from nos_search.task import load
from nos_search.train.child import ScoringProtocol, score
from nos_search.train.promotion import Promotion, Rung, climb, due, promote


@pytest.fixture(scope="module")
def ladder() -> Promotion:
    task = load("digits").with_options(width=4, sweep_steps=4, train_steps=4)
    longer = task.with_options(train_steps=8)
    other = task.with_options(net="mlp-1-8")
    return Promotion((Rung("short", (task,)), Rung("longer", (longer,)), Rung("two", (task, other))), eta=2)


def earned(rewards: dict[str, list[float]]) -> list[tuple[str, int]]:
    return due(rewards, rungs=3, eta=2)


def test_due() -> None:
    assert earned({}) == []
    assert earned({"a": [0.5]}) == []  # the best half of one is nobody
    assert earned({"a": [0.5], "b": [0.6]}) == [("b", 1)]
    assert earned({"a": [0.5], "b": [0.6, 0.7]}) == []  # already there
    assert earned({"a": [0.5], "b": [0.6, 0.7], "c": [0.9], "d": [0.1]}) == [("c", 1)]
    rewards = {"a": [0.5, 0.4], "b": [0.6, 0.7], "c": [0.9], "d": [0.1], "e": [0.05]}
    assert earned(rewards) == [("b", 2), ("c", 1)]  # highest rung first
    rewards["b"].append(0.2)
    rewards["c"].append(0.9)
    assert earned(rewards) == [("c", 2)]  # b was let through when it was the better one of two
    rewards["c"].append(0.1)
    assert earned(rewards) == []


def test_ties_go_to_the_first_and_zero_earns_nothing() -> None:
    assert earned({"a": [0.5], "b": [0.5]}) == [("a", 1)]
    assert earned({"a": [0.0], "b": [0.0]}) == []


def test_nothing_lies_above_the_top() -> None:
    assert earned({"a": [0.5, 0.5, 0.5], "b": [0.6, 0.6, 0.6]}) == []


def test_promote_is_the_mean_of_scores(ladder: Promotion) -> None:
    rule = compile_rule("adam")
    outcome = promote(rule, ladder, 2, seed=5)
    parts = [score(rule, task, ladder.protocol, seed=5) for task in ladder.rungs[2].tasks]
    assert outcome.reward == pytest.approx(sum(part.reward for part in parts) / 2)
    assert [row["reward"] for row in outcome.curve["tasks"]] == [part.reward for part in parts]
    assert (outcome.status, outcome.lr) == ("done", parts[0].lr)
    assert promote(rule, ladder, 2, seed=5) == outcome
    assert (
        promote(rule, ladder, 0, seed=5).reward
        == score(rule, ladder.rungs[0].tasks[0], ScoringProtocol(), seed=5).reward
    )
    assert promote(compile_rule("log(-1 - g * g)"), ladder, 2, seed=5).status == "diverged"


def test_climb(ladder: Promotion) -> None:
    rules = [compile_rule(text) for text in ("adam", "-g", "log(-1 - g * g)", "m_hat")]
    outcomes = climb(rules, ladder, seed=1)
    reached = [len(rungs) for rungs in outcomes]
    assert sorted(reached) == [1, 1, 2, 3]
    assert reached[2] == 1
    first = [rungs[0].reward for rungs in outcomes]
    assert {k for k, n in enumerate(reached) if n > 1} == set(sorted(range(4), key=lambda k: -first[k])[:2])
    assert climb([compile_rule("log(-1 - g * g)")], ladder, seed=1)[0][0].status == "diverged"


def test_a_rule_that_wins_the_short_task_only_is_found_out() -> None:
    """Adam's step, frozen after ten steps of training: unbeaten in ten steps, left behind in eighty."""
    task = load("digits").with_options(net="mlp-1-32", sweep_steps=8)
    short, long = task.with_options(train_steps=10), task.with_options(train_steps=80)
    promotion = Promotion((Rung("short", (short,)), Rung("long", (long,))), eta=2)
    flash = "def flash(p, g, m, v, *, lr):\n    m = 0.9 * m + 0.1 * g\n    v = 0.999 * v + 0.001 * g ** 2\n    u = m / (1 - 0.9 ** t) / (sqrt(v / (1 - 0.999 ** t)) + 1e-8)\n    return p - lr * where(t <= 10, u, 0), m, v\n"
    rules = [compile_rule(flash), compile_rule("adam")]
    on_short, on_long = ([promote(rule, promotion, rung, seed=1).reward for rule in rules] for rung in (0, 1))
    assert on_short[0] == pytest.approx(on_short[1], abs=0.02)
    assert on_long[1] > on_long[0] + 0.05


def test_reading_a_ladder() -> None:
    promotion = Promotion.parse("digits, digits:mlp-1-8*4@0.5, digits + fashion@0.1", eta=3)
    assert promotion.eta == 3
    assert [rung.text for rung in promotion.rungs] == ["digits", "digits:mlp-1-8*4@0.5", "digits + fashion@0.1"]
    first, second, third = (rung.tasks for rung in promotion.rungs)
    assert first[0].budget == load("digits").budget
    assert (str(second[0].spec), len(second[0].train), second[0].budget.train_steps) == ("mlp-1-8", 550, 132)
    assert second[0].budget.sweep_steps == first[0].budget.sweep_steps
    assert [(task.name, len(task.train)) for task in third] == [("digits", 1100), ("fashion", 500)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--promote '' is not known; choose one of: charmlp"),
        ("digits,,digits", "--promote '' is not known"),
        ("mnist", "--promote 'mnist' is not known"),
        ("digits*x", "--promote: 'x' in 'digits\\*x' is not a number above 0"),
        ("digits*-1", "'-1' in 'digits\\*-1' is not a number above 0"),
        ("digits@2", "data fraction 2 is outside"),
        ("digits:gru", "--net 'gru' is not known"),
    ],
)
def test_ladders_that_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Promotion.parse(text)


def test_wrong_ladders() -> None:
    with pytest.raises(UsageError, match="no rung"):
        Promotion(())
    with pytest.raises(UsageError, match="eta 1 is below 2"):
        Promotion.parse("digits", eta=1)


def test_the_example_of_the_docs(capsys: pytest.CaptureFixture[str]) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "tasks.md"
    (block,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(block, "tasks.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" [")[0] for line in lines] == ["adam", "g", "noise", "g * exp(sign(g) * sign(m))"]
    assert sorted(line.count(",") for line in lines) == [0, 0, 1, 2]
