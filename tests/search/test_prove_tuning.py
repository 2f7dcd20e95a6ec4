"""How prove tunes: the space of a rule's constants, the search for a learning rate, and trainings of matrices."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import nos_ext
from nos_ext import _C
from nos_search.prove.space import FACTOR, WEIGHT_DECAYS, Space
from nos_search.prove.trials import Rung
from nos_search.prove.tuning import DECADES, HIGHEST, LOWEST, STEPS, Ask, Plan, Tuned, contend, rate_of, together
from nos_search.rules import compile_rule
from nos_search.task import load
from nos_search.train.child import Outcome, train
from nos_search.train.engine import kind_for
from nos_search.train.matrices import MatrixTraining, hidden
from nos_search.train.training import Training


def step(program: nos_ext.Program, lr: float = 0.5, steps: int = 3) -> np.ndarray:
    """A few steps of a rule on fixed gradients, in float64 and without the engine."""
    params: list[Any] = [np.linspace(-1, 1, 5)]
    state: Any = {name: [np.zeros(5)] for name in program.state_names}
    for k in range(steps):
        grads = [np.cos(np.arange(5.0) + k)]
        params, state = program.reference(params, grads, state, lr=lr, step=k + 1, total_steps=10)
    return params[0]


def test_the_space_of_a_library_rule() -> None:
    space = Space.of(compile_rule("adamw"))
    assert [each.name for each in space.hypers] == ["beta1", "beta2"]  # not eps, not weight_decay
    assert space.settings(0) == {"weight_decay": 0.01, "beta1": 0.9, "beta2": 0.999}
    assert space.point(0) is space.rule
    seen = [space.settings(k) for k in range(1, 64)]
    assert {each["weight_decay"] for each in seen} == set(WEIGHT_DECAYS)
    assert all(0.5 <= each["beta1"] <= 0.9875 and 0.992 <= each["beta2"] < 1 for each in seen)
    assert len({each["beta1"] for each in seen}) > 40
    found = space.point(5).program
    assert found.hyperparameters["beta1"] == space.settings(5)["beta1"]
    assert found.hyperparameters["weight_decay"] == space.settings(5)["weight_decay"]
    assert found.hyperparameters["eps"] == 1e-8
    changed = compile_rule("adamw").program.rule
    want = nos_ext.Rule("x", changed.state_names, {**changed.hyperparameters, **space.settings(5)}, changed.outputs)
    assert np.array_equal(step(found), step(want.compile()))
    assert space.describe()["decoupled_on_top"] is False


def test_numbers_in_the_text_are_constants_and_small_whole_ones_are_not() -> None:
    text = "g * exp(1 * sign(g)) * 0.8 - clip(m_hat, 1e-4) ** 2 + 12.5 * 1e-8 * g + drop(g, 0.3)"
    space = Space.of(compile_rule(text))
    assert [each.value for each in space.numbers] == [0.8, 1e-4, 12.5, 0.3]
    assert [each.name for each in space.hypers] == ["beta1"]
    settings = space.settings(3)
    a, b, c, d = (settings[f"number {k}"] for k in range(1, 5))
    assert all(v / FACTOR <= w <= v * FACTOR for v, w in zip((0.8, 1e-4, 12.5), (a, b, c), strict=True))
    assert 0.3 / 0.7 / FACTOR <= d / (1 - d) <= 0.3 / 0.7 * FACTOR
    found = space.point(3).program
    want = compile_rule(
        f"g * exp(1 * sign(g)) * {a!r} - clip(m_hat, {b!r}) ** 2 + {c!r} * 1e-8 * g + drop(g, {d!r})"
    ).program
    beta = settings["beta1"]
    decay = settings["weight_decay"]
    params = [np.linspace(-1, 1, 5, dtype=np.float32)]
    mine, theirs = [params[0].copy()], [params[0].copy()]
    grads = [np.cos(np.arange(5, dtype=np.float32))]
    nos_ext.apply_rule(found, mine, grads, nos_ext.init_state(found, mine), lr=0.1)
    nos_ext.apply_rule(want, theirs, grads, nos_ext.init_state(want, theirs), lr=0.1, beta1=beta)
    assert mine[0] == pytest.approx(theirs[0] - 0.1 * decay * params[0], abs=1e-7)


def test_functions_keep_their_text_but_for_the_numbers() -> None:
    text = """
    def mine(p, g, m, *, lr, beta=0.95, base=e):  # é
        m = beta * m + (1 - beta) * g
        return p - lr * (0.25 * m + 3 * g), m
    """
    space = Space.of(compile_rule(text))
    assert [each.value for each in space.numbers] == [0.25]
    assert [each.name for each in space.hypers] == ["beta", "base"]
    assert space.settings(1) == {"weight_decay": 1e-3, "beta": 0.95, "base": 2.718, "number 1": 0.25}  # Sobol's middle
    assert space.point(1).program.hyperparameters["weight_decay"] == 1e-3


@pytest.mark.parametrize(
    "text",
    [
        "  0.25 * g",
        "\ufeff0.25 * g",
        "# a comment with \u2028 in it\r\n0.25 * g",
        "# at the left\n    def f(p, g, *, lr):\n        # \u2028 \x0c é\n        return p - lr * (0.25 * g)\n",
    ],
)
def test_numbers_are_found_wherever_they_stand(text: str) -> None:
    space = Space.of(compile_rule(text))
    assert [each.value for each in space.numbers] == [0.25]
    k = next(k for k in range(1, 20) if space.settings(k)["weight_decay"] == 0)
    first = np.linspace(-1, 1, 5)
    assert step(space.point(k).program, steps=1) == pytest.approx(
        first - 0.5 * space.settings(k)["number 1"] * np.cos(np.arange(5.0))
    )


def test_weight_decay_goes_on_top_of_rules_without() -> None:
    for text in ("g", "adam * exp(sign(g))", "def f(p, g, s, *, lr): return p - lr * norm(g) * s, g"):
        space = Space.of(compile_rule(text))
        assert space.describe()["decoupled_on_top"] is True
        k = next(k for k in range(1, 20) if space.settings(k)["weight_decay"] == 0.1)
        names = {n: v for n, v in space.settings(k).items() if n.startswith("beta")}
        plain = compile_rule(text).program.rule
        want = nos_ext.Rule("x", plain.state_names, {**plain.hyperparameters, **names}, plain.outputs).compile()
        first = np.linspace(-1, 1, 5)
        assert step(space.point(k).program, steps=1) == pytest.approx(step(want, steps=1) - 0.5 * 0.1 * first)


def test_spaces_of_rules_that_orthogonalize() -> None:
    space = Space.of(compile_rule("muon", matrices=True))
    assert "adjust='match_rms_adamw'" in space.rule.program.to_text()
    assert [each.name for each in space.hypers] == ["momentum"]
    found = space.point(2)
    assert isinstance(found.program, nos_ext.MatrixProgram)
    assert found.program.hyperparameters["momentum"] == space.settings(2)["momentum"]
    assert "adjust='match_rms_adamw'" in found.text


# --- the search for a rate -------------------------------------------------------------------------------------------


def answered(asking: Any, score: Callable[[Ask], float]) -> tuple[Any, list[Ask]]:
    """Runs a generator with made-up scores, where below 0 is diverged."""
    asked: list[Ask] = []
    outcomes = None
    while True:
        try:
            asks = next(asking) if outcomes is None else asking.send(outcomes)
        except StopIteration as stop:
            return stop.value, asked
        asked += asks
        outcomes = []
        for ask in asks:
            value = score(ask)
            curve = {"steps": [1], "score": [value], "val_loss": [1 - value]}
            good = Outcome("done", value, rate_of(ask.rate), curve, value)
            outcomes.append(good if value >= 0 else Outcome("diverged", 0.0, rate_of(ask.rate), {}))


PLAN = Plan(points=3, seed=77, seeds=(1, 2))


def hill(best: float) -> Callable[[Ask], float]:
    return lambda ask: max(0.0, 0.9 - 0.01 * abs(ask.rate - best))


@pytest.mark.parametrize("best", [-40, -19, -10, 0, 3, 13])
def test_the_best_rate_is_found_wherever_it_lies(best: int) -> None:
    tuned, asked = answered(contend(Space.of(compile_rule("adam")), [4], PLAN), hill(best))
    (cell,) = tuned
    assert cell.rate == best
    assert (cell.point, cell.validation) == (0, pytest.approx(0.9))
    tuning = [ask for ask in asked if not ask.counts]
    assert len({(ask.rule.text, ask.rate) for ask in tuning}) <= 60
    assert {ask.seed for ask in tuning} == {77}
    assert [(ask.rule.text, ask.rate, ask.seed) for ask in asked if ask.counts] == [
        ("adam", best, 1),
        ("adam", best, 2),
    ]
    first = {ask.rate for ask in tuning if ask.rule.text == "adam"}
    assert set(DECADES) <= first
    assert {best - 1, best + 1} <= first  # refined to one step on both sides


def test_rates_are_searched_again_in_every_cell() -> None:
    """The best rate falls by three steps a cell; constants are tuned in the first cell only."""
    tuned, asked = answered(
        contend(Space.of(compile_rule("momentum")), [0, 1, 2], PLAN),
        lambda ask: max(0.0, 0.5 + 0.3 * (ask.rule.text != "momentum") - 0.01 * abs(ask.rate - (-14 - 3 * ask.cell))),
    )
    assert [cell.rate for cell in tuned] == [-14, -17, -20]
    assert len({cell.point for cell in tuned} - {0}) == 1  # a point that beat the rule as it is
    chosen = {ask.rule.text for ask in asked if ask.cell > 0}
    assert len(chosen) == 1
    assert chosen == {Space.of(compile_rule("momentum")).point(tuned[0].point).text}


def test_what_diverges_everywhere_has_a_score_of_zero() -> None:
    tuned, asked = answered(contend(Space.of(compile_rule("g")), [0, 1], PLAN), lambda ask: -1.0)
    assert tuned == [Tuned(0, None, 0.0, (Outcome("diverged", 0.0, None),) * 2)] * 2
    assert not any(ask.counts for ask in asked)
    # large rates diverge: what is left is found, and a cell in which all near it diverge looks further down
    tuned, _ = answered(
        contend(Space.of(compile_rule("g")), [0, 1], PLAN),
        lambda ask: -1.0 if ask.rate > -21 * ask.cell else max(0.0, 0.9 + 0.01 * ask.rate),
    )
    assert [cell.rate for cell in tuned] == [0, -21]


@pytest.mark.parametrize("alive", [0, 2])
def test_a_point_that_diverges_everywhere_loses(alive: int) -> None:
    """The only point that trains at all is chosen, be it the rule as it is or one that was tried later."""
    space = Space.of(compile_rule("momentum"))
    chosen = space.point(alive).text
    tuned, asked = answered(
        contend(space, [0, 1], PLAN), lambda ask: 0.5 - 0.01 * abs(ask.rate) if ask.rule.text == chosen else -1.0
    )
    assert [(cell.point, cell.rate) for cell in tuned] == [(alive, 0)] * 2
    assert {ask.rule.text for ask in asked if ask.counts} == {chosen}


def test_a_walk_ends_at_the_ends_of_the_lattice() -> None:
    tuned, _ = answered(contend(Space.of(compile_rule("g")), [0], Plan(1, 7, (1,))), lambda ask: 0.5 - 1e-3 * ask.rate)
    assert tuned[0].rate == LOWEST
    tuned, asked = answered(
        contend(Space.of(compile_rule("g")), [0], Plan(1, 7, (1,))), lambda ask: 0.5 + 1e-3 * ask.rate
    )
    assert tuned[0].rate == HIGHEST
    for ask in asked:
        assert Rung.of(Rung(3, ask.rate, ask.counts).number) == (3, ask.rate, ask.counts)


def test_together() -> None:
    def one(count: int) -> Any:
        total = 0
        for _ in range(count):
            outcomes = yield [Ask(compile_rule("g"), count, 0, 0, counts=False)] * count
            total += sum(outcome.reward for outcome in outcomes)
        return total

    found, asked = answered(together([one(0), one(1), one(3)]), lambda ask: float(ask.cell))
    assert found == [0, 1, 27]
    assert [ask.cell for ask in asked] == [1, 3, 3, 3] + [3] * 6
    assert answered(together([]), hill(0)) == ([], [])


def test_rates() -> None:
    assert rate_of(0) == 1.0
    assert rate_of(-STEPS) == pytest.approx(0.1)
    assert rate_of(1) / rate_of(0) == pytest.approx(1.3895, abs=1e-4)
    for rung in (Rung(0, -35, False), Rung(7, 7, True), Rung(0, LOWEST, True), Rung(2, HIGHEST, False)):
        assert Rung.of(rung.number) == rung
        assert rung.number >= 0


# --- matrices --------------------------------------------------------------------------------------------------------


def test_which_weights_are_hidden_matrices() -> None:
    task = load("charmlp")
    params = task.model().init(torch.Generator().manual_seed(0)).params
    assert [list(p.shape) for p, yes in zip(params, hidden(task, params), strict=True) if yes] == [[64, 128]]
    task = load("digits").with_options(width=4)
    params = task.model().init(torch.Generator().manual_seed(0)).params
    assert [p.dim() for p, yes in zip(params, hidden(task, params), strict=True) if yes] == [4, 4]


def test_matrices_train_as_two_rules_side_by_side() -> None:
    """Against torch's own optimizers, from the same weights on the same batches. Torch's Muon multiplies in bfloat16,
    whose 8 bits are good for about a hundredth of a step."""
    task = load("charmlp").with_options(width=8)
    rule = compile_rule("muon", matrices=True)
    mine = MatrixTraining(rule, task, lr=0.01, total_steps=4, seed=3)
    twin = Training(compile_rule("g"), task, lr=0.01, total_steps=4, seed=3)
    chosen = hidden(task, twin.weights.params)
    matrices = [p for p, yes in zip(twin.weights.params, chosen, strict=True) if yes]
    rest = [p for p, yes in zip(twin.weights.params, chosen, strict=True) if not yes]
    optimizers = [
        torch.optim.Muon(matrices, lr=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=0.01),
    ]
    start = [param.detach().clone() for param in twin.weights.params]
    for k in range(4):
        assert mine.run(k + 1)
        index = twin._batches.next()
        logits = twin.model.logits(twin.weights, task.train.x[index], training=True)
        for optimizer in optimizers:
            optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, task.train.y[index]).backward()
        for optimizer in optimizers:
            optimizer.step()
    for got, want, first in zip(mine.weights.params, twin.weights.params, start, strict=True):
        assert (got - want).norm() < 0.05 * (want - first).norm()


@pytest.mark.skipif(_C.child_kernels() is None, reason="needs fused multiply-adds")
@pytest.mark.parametrize("name", ["charmlp", "digits"])
def test_matrices_by_own_kernels(name: str) -> None:
    task = load(name).with_options(width=4, train_steps=8)
    rule = compile_rule("muon", matrices=True)
    mine, theirs = (
        train(
            rule, task, lr=0.01, seed=5, test=True, kind=kind_for(engine, task, rule), points=2, decay="linear_cosine"
        )
        for engine in ("native", "torch")
    )
    assert kind_for("native", task, rule) is not kind_for("torch", task, rule)
    assert mine.curve["steps"] == theirs.curve["steps"] == [4, 8]
    assert mine.curve["val_loss"] == pytest.approx(theirs.curve["val_loss"], rel=2e-3)
    assert math.isfinite(mine.curve["loss"][-1])
