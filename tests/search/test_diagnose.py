"""The battery of small problems: its gradients, its trials, and what is known of the known optimizers."""

from __future__ import annotations

import json

import numpy as np
import pytest

import nos_ext
from nos_search.cli import main
from nos_search.diagnose import battery
from nos_search.diagnose.battery import RATES, diagnose
from nos_search.diagnose.problems import BATTERY, DIMENSION, KINDS, STEPS, Problem
from nos_search.errors import UsageError
from nos_search.rules import compile_rule

NAMES = {(problem.kind, problem.level): problem for problem in BATTERY}


def of(kind: str, level: str) -> Problem:
    return NAMES[kind, level]


def run(rule: str, *problems: Problem, trials: int = 20) -> list[battery.Diagnosis]:
    return diagnose(compile_rule(rule).program.rule, trials=trials, problems=problems)


def test_names_tell_problems_apart() -> None:
    assert len(NAMES) == len(BATTERY) > 50
    assert len(KINDS) == 14


@pytest.mark.parametrize("problem", BATTERY, ids=lambda problem: f"{problem.kind}-{problem.level}")
def test_gradients_are_those_of_the_losses(problem: Problem) -> None:
    """Of the shape, in float64, by central differences at the start and half way from it."""
    shape, rng = problem.shape, np.random.RandomState(1)
    size = np.ones(DIMENSION) if problem.kind == "saddle" else shape.away.astype(np.float64)
    for share in (0.9, 0.5):
        x = share * size * np.sign(rng.normal(size=DIMENSION))
        found = shape.gradient(x)
        h = 1e-6 * np.abs(x)
        moved = x + np.diag(h), x - np.diag(h)
        slope = (shape.loss(moved[0]) - shape.loss(moved[1])) / (2 * h)
        scale = np.abs(slope).max()
        np.testing.assert_allclose(found, slope, rtol=2e-5, atol=1e-8 * scale)
        assert shape.loss(np.zeros(DIMENSION)) == (0.25 if problem.kind == "saddle" else 0)


@pytest.mark.parametrize("problem", BATTERY, ids=lambda problem: f"{problem.kind}-{problem.level}")
def test_trials_begin_where_they_say(problem: Problem) -> None:
    trials, again = problem.trials(6, seed=4), problem.trials(6, seed=4)
    np.testing.assert_array_equal(trials.start, again.start)
    assert not np.array_equal(trials.start, problem.trials(6, seed=5).start)
    x = trials.start[None].repeat(2, 0)
    if not problem.drift:
        # coordinates are rounded to float32 beside the minimum, wherever that is
        np.testing.assert_allclose(trials.loss(x, 0), trials.first[None].repeat(2, 0), rtol=1e-4)
    g, same = trials.gradient(x, 1), again.gradient(x, 1)
    np.testing.assert_array_equal(g, same)
    np.testing.assert_array_equal(g[0], g[1])  # trials at different rates meet the same draws
    assert (trials.first > 0).all()


def test_disturbances() -> None:
    plain, trials = of("stiff", "condition 10"), 4000
    base = Problem("", "", plain.shape).trials(trials, seed=0)
    x = base.start[None]
    exact = base.gradient(x, 1)

    def given(**settings: float) -> np.ndarray:
        return Problem("", "", plain.shape, **settings).trials(trials, seed=0).gradient(x, 1)  # type: ignore[arg-type]

    noise = given(noise=2.0) - exact
    assert abs(float(noise.std()) - 2) < 0.05
    heavy = given(noise=1.0, heavy=True) - exact
    assert abs(float(np.mean(np.abs(heavy) > 4.303)) - 0.05) < 0.01  # the 97.5 % quantile of t with 2 degrees
    sparse = given(present=0.1)
    assert abs(float((sparse != 0).mean()) - 0.1) < 0.01
    np.testing.assert_array_equal(sparse[sparse != 0], exact[sparse != 0])
    ratio = given(outliers=0.1) / exact
    assert set(np.unique(np.round(ratio))) == {1.0, 1000.0}
    assert abs(float((ratio > 2).any(axis=-1).mean()) - 0.1) < 0.02
    late = Problem("", "", plain.shape, delay=2).trials(trials, seed=0)
    seen = [late.gradient(x * k, k) for k in (1, 2, 3, 4)]
    np.testing.assert_array_equal(seen[0], seen[2])  # the first is all there is for so long
    assert not np.array_equal(seen[3], seen[2])
    moving = Problem("", "", plain.shape, drift=0.5).trials(trials, seed=0)
    np.testing.assert_allclose(np.linalg.norm(moving._own(x, 10) - moving._own(x, 0), axis=-1).mean(), 5.0, rtol=0.05)
    jumping = Problem("", "", plain.shape, jump=True).trials(trials, seed=0)
    half = STEPS // 2
    np.testing.assert_array_equal(jumping.loss(x, half), jumping.loss(x, 1))
    assert not np.array_equal(jumping.loss(x, half + 1), jumping.loss(x, half))


def test_gradient_descent_as_its_theory_says() -> None:
    """On a quadratic with curvatures c, error k shrinks by 1 - lr c_k per step: so the share of trials that come to the
    goal follows for every rate, and SGD passes condition 10 and not 1000."""
    for level, passes in (("condition 10", True), ("condition 1000", False)):
        problem = of("stiff", level)
        trials = problem.trials(50, seed=0)
        curvatures = np.geomspace(1 / float(level.split()[1]), 1, DIMENSION)
        error = (trials.start - trials._minimum).astype(np.float64)
        steps = np.arange(STEPS - 29, STEPS + 1)
        expected = []
        with np.errstate(all="ignore"):
            for lr in RATES:
                left = error[:, None] * (1 - lr * curvatures) ** steps[:, None]
                loss = (0.5 * curvatures * left**2).sum(-1).mean(-1)
                expected.append(float((loss <= problem.goal * trials.first).mean()))
        (found,) = run("sgd", problem, trials=50)
        assert found.solved == pytest.approx(max(expected), abs=0.021)  # one trial may lie on the line
        assert found.passed == passes
        assert found.rates == sum(share >= 0.9 for share in expected)


def test_what_is_known_of_known_optimizers() -> None:
    """Momentum for bad conditions, adaptive steps for bad scales, averages of squares against cliffs, none for Lion
    with sparse gradients."""
    passed = {
        rule: {
            (row.kind, row.level): row.passed
            for row in run(
                rule,
                of("stiff", "condition 1000"),
                of("badly scaled", "4 decades"),
                of("cliff", "steepness 12"),
                of("sparse", "20% present"),
            )
        }
        for rule in ("sgd", "momentum", "adam", "lion")
    }
    for kind, level, who in (
        ("stiff", "condition 1000", {"momentum", "adam", "lion"}),
        ("badly scaled", "4 decades", {"adam"}),
        ("cliff", "steepness 12", {"adam", "lion"}),
        ("sparse", "20% present", {"sgd", "momentum", "adam"}),
    ):
        assert {rule for rule, rows in passed.items() if rows[kind, level]} == who, kind


def test_rules_that_solve_nothing() -> None:
    for rule in ("0.01 * w", "-g", "g / (g - g)", "sign(w)"):
        rows = run(rule, *BATTERY, trials=8)
        assert not any(row.passed for row in rows), rule
    assert all(0 <= row.solved <= 1 and row.lr in RATES for row in rows)


def test_a_trial_is_a_tensor_for_rules_with_norms() -> None:
    """As one call of apply_rule for each trial and rate would have it."""
    problem, trials = of("noisy", "sd 0.3"), 3
    program = nos_ext.compile_rule("def f(p, g, *, lr): return p - lr / (norm(g) + 1e-8) * g")
    expected = []
    for lr in RATES:
        mine = problem.trials(trials, seed=0)
        x = mine.start.copy()
        left = np.zeros(trials)
        for step in range(1, STEPS + 1):
            g = mine.gradient(x[None], step)[0]
            for k in range(trials):
                nos_ext.apply_rule(program, [x[k]], [g[k]], (), lr=float(np.float32(lr)), step=step)
            if step > STEPS - 30:
                left += mine.loss(x[None], step)[0] / 30
        expected.append(float((left <= problem.goal * mine.first).mean()))
    (found,) = diagnose(program.rule, trials=trials, problems=[problem])
    assert (found.solved, found.rates) == (max(expected), sum(share >= 0.9 for share in expected))


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    few = BATTERY[:1] + BATTERY[8:10]
    monkeypatch.setattr("nos_search.cli.diagnose.BATTERY", few)
    monkeypatch.setattr(battery.diagnose, "__kwdefaults__", {**battery.diagnose.__kwdefaults__, "problems": few})
    assert main(["diagnose", "sgd", "adam", "--trials", "8"]) == 0
    out = capsys.readouterr().out
    assert "stiff" in out.splitlines()[1]
    assert [line.split()[-1] for line in out.splitlines()[2:]] == ["sgd", "adam"]
    assert main(["diagnose", "adam", "--trials", "8", "--levels"]) == 0
    out = capsys.readouterr().out
    assert "condition 10" in out
    assert "1.00 (" in out
    assert main(["diagnose", "adam", "--trials", "8", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["trials"] == 8
    assert [row["kind"] for row in document["results"][0]["problems"]] == [problem.kind for problem in few]
    assert document["results"][0]["passed"] == 3


WIDE = [f"s{k}" for k in range(8)]
WIDE_RULE = f"def wide(p, g, {', '.join(WIDE)}, *, lr): return p - lr * g, {', '.join(f'g + {s}' for s in WIDE)}"


@pytest.mark.parametrize("command", [["diagnose", "--trials", "2"], ["surfaces", "--steps", "2"]])
def test_a_rule_without_a_state_to_spare(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """It is refused before another rule is run."""
    assert main([*command, "sgd", WIDE_RULE]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "rule 'wide' has 8 states; to run at many learning rates at once it may have 7" in err
    assert "running" not in err


@pytest.mark.parametrize("command", [["diagnose", "--trials", "2"], ["surfaces", "--steps", "2"]])
@pytest.mark.parametrize("rule", ["g + normal(sqrt(lr))", "drop(g, lr)"])
def test_a_rule_that_needs_its_rate_as_a_number(
    command: list[str], rule: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is refused before another rule is run."""
    assert main([*command, "sgd", rule]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"rule '{rule}' cannot run at many learning rates at once: lr is a tensor then, and the last argument" in err
    assert "put a number there that does not depend on lr" in err
    assert "running" not in err


def test_a_rule_without_an_instruction_to_spare() -> None:
    body = "\n".join(["    u = g", *["    u = tanh(u)"] * 4093])
    program = compile_rule(f"def long(p, g, *, lr):\n{body}\n    return p * (1 - 0.1 * lr) - lr * lr * u").program
    assert len(program) == 4096
    with pytest.raises(UsageError, match=r"rule 'long' cannot run .*: with lr as a state, .*4096; make it shorter"):
        diagnose(program.rule, trials=2)


def test_what_is_finished_is_shown_after_ctrl_c(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few, calls = BATTERY[:1], []

    def interrupted(rule: object, **options: object) -> list[battery.Diagnosis]:
        calls.append(rule)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return battery.diagnose(rule, trials=2, problems=few)  # type: ignore[arg-type]

    monkeypatch.setattr("nos_search.cli.diagnose.diagnose", interrupted)
    assert main(["diagnose", "sgd", "adam", "lion"]) == 130
    out, err = capsys.readouterr()
    assert [line.split()[-1] for line in out.splitlines()[2:]] == ["sgd", "adam"]
    assert "interrupted" in err
