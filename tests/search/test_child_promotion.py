"""Promotion: reading a ladder, and that a rule that wins only the short task is found out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nos_search.errors import UsageError
from nos_search.rules import compile_rule
from nos_search.task import Task, load
from nos_search.train import promotion as promotion_module
from nos_search.train.child import ScoringProtocol, score
from nos_search.train.promotion import Part, Promotion, Rung, climb, part_scores, promote
from nos_search.train.seeds import derive_seed


@pytest.fixture(scope="module")
def ladder() -> Promotion:
    task = load("digits").with_options(width=4, sweep_steps=4, train_steps=4)
    longer = task.with_options(train_steps=8)
    other = task.with_options(net="mlp-1-8")
    return Promotion((Rung.of("short", task), Rung.of("longer", longer), Rung.of("two", task, other)), eta=2)


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


def test_several_seeds_and_a_decay(ladder: Promotion) -> None:
    """Each seed has a training of its own, with the rate that falls; the reward is the mean over tasks of those means."""
    rule, protocol = compile_rule("adam"), ScoringProtocol(decay="linear_cosine")
    first, second = ladder.rungs[2].tasks
    rung = Rung("both", (Part.of(first, 3), Part.of(second)))
    outcome = promote(rule, Promotion((rung,), protocol=protocol), 0, seed=5)
    seeds = [5, derive_seed(5, 1), derive_seed(5, 2)]
    parts = [score(rule, first, protocol, seed=seed).reward for seed in seeds]
    last = score(rule, second, protocol, seed=5).reward
    assert [(row["part"], row["seed"]) for row in outcome.curve["tasks"]] == [*((0, seed) for seed in seeds), (1, 5)]
    assert [row["reward"] for row in outcome.curve["tasks"]] == [*parts, last]
    assert part_scores(outcome.curve) == pytest.approx([sum(parts) / 3, last])
    assert outcome.reward == pytest.approx((sum(parts) / 3 + last) / 2)
    assert parts[0] != score(rule, first, ScoringProtocol(), seed=5).reward


def test_scores_of_older_runs_and_of_no_ladder() -> None:
    """A release that had one seed kept one row for each task, without its number. What is damaged has no scores."""
    assert part_scores({"tasks": [{"task": "a", "reward": 0.25}, {"task": "a", "reward": 0.5}]}) == [0.25, 0.5]
    for rows in (None, 3, [], ["x"], [{"reward": "y"}], [{"reward": 2}], [{"reward": 0.5, "part": "0"}]):
        assert part_scores({"tasks": rows}) == []
    assert part_scores({}) == []


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
    promotion = Promotion((Rung.of("short", short), Rung.of("long", long)), eta=2)
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


def test_the_search_s_own_task_and_seeds() -> None:
    own = load("digits").with_options(net="mlp-1-8", train_steps=7)
    (first, second) = Promotion.parse("own*10#3, own:mlp-1-4@0.5 + digits#2", own=own).rungs
    assert [part.seeds for part in (*first.parts, *second.parts)] == [3, 1, 2]
    assert (str(first.tasks[0].spec), first.tasks[0].budget.train_steps) == ("mlp-1-8", 70)
    assert first.tasks[0].budget.sweep_steps == own.budget.sweep_steps
    assert (str(second.tasks[0].spec), len(second.tasks[0].train)) == ("mlp-1-4", 550)
    assert second.tasks[1].budget == load("digits").budget
    assert first.tasks[0].train is own.train  # no second copy


def test_tasks_wait_for_the_first_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    def remember(name: str, **options: object) -> Task:
        loaded.append(name)
        return load("digits")

    monkeypatch.setattr(promotion_module, "load", remember)
    ladder = Promotion.parse("digits*2, teacher + charlm", at_once=False).to("cpu")
    assert loaded == []
    assert len(ladder.rungs[1].tasks) == len(ladder.rungs[1].tasks) == 2
    assert loaded == ["teacher", "charlm"]
    Promotion.parse("digits*2, teacher + charlm")
    assert loaded == ["teacher", "charlm", "digits", "teacher", "charlm"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--promote: '' names no task; for example --promote 'own"),
        ("digits,,digits", "--promote: '' names no task"),
        ("mnist", "--promote 'mnist' is not known"),
        ("digits*x", "--promote: 'x' in 'digits\\*x' is not a number above 0"),
        ("digits*-1", "'-1' in 'digits\\*-1' is not a number above 0"),
        ("digits#0", "'0' in 'digits#0' is not a number of seeds from 1 to 1000"),
        ("digits#2.5", "'2.5' in 'digits#2.5' is not a number of seeds"),
        ("own*10", "'own\\*10': own is the task of a search, and there is none; name a task"),
        ("digits@2", "--promote: '2' in 'digits@2' is not a number above 0 and up to 1"),
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
