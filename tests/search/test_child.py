"""Training of children: the network, the sweep, divergence, repeatability, and that good rules beat bad ones."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from nos_ext.optim import library
from nos_search.errors import UsageError
from nos_search.net import ConvNet
from nos_search.rules import CompiledRule, compile_rule, parse_rule_argument
from nos_search.task import Task, load
from nos_search.task.base import Split
from nos_search.task.score import Measured
from nos_search.train.child import LEARNING_RATES, ScoringProtocol, best_rate, score
from nos_search.train.engine import Engine, kind_of
from nos_search.train.evaluate import compare
from nos_search.train.seeds import derive_seed
from nos_search.train.training import Training
from tests.reference.named import ONE_PROGRAM


@pytest.fixture(scope="module")
def digits() -> Task:
    return load("digits")


@pytest.fixture(scope="module")
def tiny(digits: Task) -> Task:
    return digits.with_options(width=4, sweep_steps=4, train_steps=13)


def test_network_shapes_and_seeds() -> None:
    net = ConvNet(channels=3, size=(28, 20), width=6, classes=7)
    weights = net.init(torch.Generator().manual_seed(1))
    assert [tuple(p.shape) for p in weights.params] == [
        (6, 3, 3, 3), (6,), (6,), (6,), (6, 6, 3, 3), (6,), (6,), (6,), (7, 6 * 7 * 5), (7,)
    ]  # fmt: skip
    assert all(p.requires_grad and p.is_contiguous() for p in weights.params)
    again = net.init(torch.Generator().manual_seed(1))
    assert all(torch.equal(a, b) for a, b in zip(weights.params, again.params, strict=True))
    other = net.init(torch.Generator().manual_seed(2))
    assert not torch.equal(weights.params[0], other.params[0])
    x = torch.randn(5, 3, 28, 20, generator=torch.Generator().manual_seed(3))
    assert net.logits(weights, x, training=True).shape == (5, 7)


def test_running_statistics_average_the_first_batches() -> None:
    net = ConvNet(channels=1, size=(8, 8), width=2, classes=2)
    weights = net.init(torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(2)
    batches = [torch.randn(50, 1, 8, 8, generator=generator) for _ in range(4)]
    means = []
    for x in batches:
        h = torch.relu(torch.nn.functional.conv2d(x, weights.params[0], weights.params[1], padding=1))
        means.append(h.mean((0, 2, 3)).detach())
        net.logits(weights, x, training=True)
    assert torch.allclose(weights.running[0], torch.stack(means).mean(0), atol=1e-6)
    before = [tensor.clone() for tensor in weights.running]
    net.logits(weights, batches[0], training=False)
    assert all(torch.equal(a, b) for a, b in zip(before, weights.running, strict=True))


def test_sgd_is_plain_gradient_descent(tiny: Task) -> None:
    """Ten steps of rule `g` against the same steps written with torch."""
    training = Training(compile_rule("g"), tiny, lr=0.05, total_steps=10, seed=1)
    shadow = Training(compile_rule("g"), tiny, lr=0.05, total_steps=10, seed=1)
    training.run(10)
    for _ in range(10):
        index = shadow._batches.next()
        logits = shadow.model.logits(shadow.weights, tiny.train.x[index], training=True)
        loss = torch.nn.functional.cross_entropy(logits, tiny.train.y[index])
        for param, grad in zip(shadow.weights.params, torch.autograd.grad(loss, shadow.weights.params), strict=True):
            param.data -= 0.05 * grad
    for a, b in zip(training.weights.params, shadow.weights.params, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_every_example_is_seen_once_an_epoch(tiny: Task) -> None:
    training = Training(compile_rule("g"), tiny, lr=0.1, total_steps=1, seed=1)
    for _ in range(2):
        epoch = torch.cat([training._batches.next() for _ in range(11)])
        assert len(epoch.unique()) == 1100


@pytest.mark.parametrize("sweep", ["fine", "halving", "full"])
def test_equal_seeds_give_equal_bits(tiny: Task, sweep: str) -> None:
    rule = compile_rule("drop(m_hat, 0.3) * exp(noise)")
    protocol = ScoringProtocol(sweep=sweep)  # type: ignore[arg-type]
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one = score(rule, tiny, protocol, seed=5, test=True)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(2)
    assert score(rule, tiny, protocol, seed=5, test=True) == one
    assert score(rule, tiny, protocol, seed=6, test=True) != one


def test_curve(tiny: Task) -> None:
    outcome = score(compile_rule("adam"), tiny, ScoringProtocol(sweep="full"), seed=1)
    assert outcome.status == "done"
    assert outcome.curve["steps"] == [11, 13]
    assert outcome.curve["accuracy"][-1] == outcome.reward
    assert len(outcome.curve["loss"]) == 2
    assert [row["lr"] for row in outcome.curve["sweep"]] == list(LEARNING_RATES)
    assert [row["steps"] for row in outcome.curve["sweep"]] == [4] * 7
    best = max(outcome.curve["sweep"], key=lambda row: row["accuracy"])
    assert outcome.lr in {row["lr"] for row in outcome.curve["sweep"] if row["accuracy"] == best["accuracy"]}
    assert outcome.test is None


def test_halving_stops_the_worse_half(tiny: Task) -> None:
    task = tiny.with_options(sweep_steps=20)
    outcome = score(compile_rule("clip(g, 0.001)"), task, ScoringProtocol("halving"), seed=1)
    assert sorted(row["steps"] for row in outcome.curve["sweep"]) == [5, 5, 5, 10, 10, 20, 20]
    chosen = next(row for row in outcome.curve["sweep"] if row["lr"] == outcome.lr)
    assert chosen["steps"] == 20
    short = score(compile_rule("clip(g, 0.001)"), tiny.with_options(sweep_steps=8), ScoringProtocol("halving"), seed=1)
    assert [row["steps"] for row in short.curve["sweep"]] == [8] * 7


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_the_fine_sweep_goes_on_around_the_best_decade(tiny: Task, engine: Engine) -> None:
    """By the same criterion: score, then the lower loss, then the lower rate."""
    task = tiny.with_options(sweep_steps=20)
    for text in ("m_hat", "adam", "sign(g)"):
        rule = compile_rule(text)
        coarse, first = best_rate(rule, task, ScoringProtocol("halving", engine=engine), seed=2)
        chosen, rows = best_rate(rule, task, ScoringProtocol("fine", engine=engine), seed=2)
        assert coarse is not None
        around = [coarse / 4, coarse / 2, coarse * 2, coarse * 4]
        assert [row for row in rows if row["lr"] not in around] == first
        assert [row["lr"] for row in rows] == sorted([*LEARNING_RATES, *around])
        ends = {}
        for lr in (coarse, *around):
            training = kind_of(engine, task)(rule, task, lr=lr, total_steps=20, seed=2)
            for stop in (5, 10, 20):
                training.run(stop)
            ends[lr] = (-training.measure(task.val).accuracy, training.loss, lr)
        assert chosen == min(ends.values())[2]
    bad = score(compile_rule("log(-1 - g * g)"), tiny, ScoringProtocol("fine", engine=engine), seed=1)
    assert (bad.status, len(bad.curve["sweep"])) == ("diverged", 7)


class Falling(Training):
    """This trains nothing. Every rate scores the same, and the loss falls with each step; it is lowest at 0.002."""

    def __init__(self, rule: CompiledRule, task: Task, *, lr: float, **_: Any) -> None:
        self.lr, self.step, self.alive, self.loss = lr, 0, True, math.nan

    def run(self, until: int) -> bool:
        worse = abs(math.log10(self.lr / 0.002))
        losses = [9 - 0.1 * step + 0.01 * worse for step in range(self.step, until)]
        self.loss, self.step = sum(losses) / max(1, len(losses)), until
        return True

    def measure(self, split: Split) -> Measured:
        return Measured(0.5, 1.0)


def test_equal_scores_are_told_apart_by_losses_of_the_same_steps(tiny: Task) -> None:
    """A loss that falls is lower over the last steps than over all of them, whatever the rate."""
    rule, protocol = compile_rule("g"), ScoringProtocol("fine", stack=False)
    for steps in (8, 20, 41):
        chosen, _ = best_rate(rule, tiny.with_options(sweep_steps=steps), protocol, seed=1, kind=Falling)
        assert chosen == pytest.approx(0.002)


@pytest.mark.parametrize(
    "text", ["log(-abs(g))", "exp(exp(exp(w + 9))) * g", "g / (g - m + m - g)", "sqrt(-1 - g * g)"]
)
def test_divergence_scores_nothing_and_stops_at_once(tiny: Task, text: str) -> None:
    outcome = score(compile_rule(text), tiny, ScoringProtocol(), seed=1)
    assert (outcome.status, outcome.reward, outcome.lr) == ("diverged", 0.0, None)
    assert max(row["steps"] for row in outcome.curve["sweep"]) <= 2
    training = Training(compile_rule(text), tiny, lr=0.1, total_steps=50, seed=1)
    assert not training.run(50)
    assert training.step <= 2
    assert training.measure(tiny.val).accuracy == 0.0


def test_divergence_in_the_longer_training(tiny: Task) -> None:
    """Fine for as many steps as the sweep has, then out of bounds."""
    task = tiny.with_options(sweep_steps=2, train_steps=40)
    protocol = ScoringProtocol("full", learning_rates=(1e-5,))
    blown = score(compile_rule("-g * exp(m / m_hat * 60)"), task, protocol, seed=1)
    assert (blown.status, blown.reward, blown.lr) == ("diverged", 0.0, 1e-5)


def test_good_rules_beat_bad_ones(digits: Task) -> None:
    """The whole point of a reward. Chance is 0.1."""
    rewards = {
        text: score(compile_rule(text), digits, ScoringProtocol(), seed=1).reward
        for text in ("g", "adam", "g * exp(sign(g) * sign(m_hat))", "g**3", "noise", "-g", "exp(g)", "0.1 * w")
    }
    for good in ("g", "adam", "g * exp(sign(g) * sign(m_hat))"):
        assert rewards[good] > 0.75, rewards
    assert rewards["g**3"] < rewards["g"] - 0.1
    for bad in ("noise", "-g", "exp(g)", "0.1 * w"):
        assert rewards[bad] < 0.45, rewards


def test_internal_decays_know_the_length_of_their_training(tiny: Task) -> None:
    """ld is 1 in the first step and 1/T in the last."""

    def step(text: str, total: int, before: int) -> list[torch.Tensor]:
        training = Training(compile_rule(text), tiny, lr=0.1, total_steps=total, seed=1)
        training.run(before)
        start = [param.detach().clone() for param in training.weights.params]
        training.run(before + 1)
        return [a - b for a, b in zip(training.weights.params, start, strict=True)]

    for a, b in zip(step("ld * g", 5, 0), step("g", 5, 0), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(step("ld * g", 5, 1)[0], step("ld * g", 50, 1)[0])


def test_derived_seeds() -> None:
    assert derive_seed(1, "a") == derive_seed(1, "a")
    seeds = {derive_seed(k, name) for k in range(50) for name in "ab"}
    assert len(seeds) == 100
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_protocol_and_rule_errors() -> None:
    with pytest.raises(UsageError, match="--sweep 'binary' is not known; choose one of: fine, halving, full"):
        ScoringProtocol(sweep="binary")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="learning rates"):
        ScoringProtocol(learning_rates=(0.1, math.nan))
    with pytest.raises(UsageError, match=r"rule 'g \* gg' is not valid(.|\n)*\^"):
        parse_rule_argument("g * gg")


def test_library_names() -> None:
    assert {"sgd", "momentum", "adam", "powersign", "addsign"} <= set(library.names())
    for name in library.names():
        if name in ONE_PROGRAM:
            assert parse_rule_argument(name).program == library.get(name).compile()
    with pytest.raises(UsageError, match="rule 'muon' has orthogonalize, which a search cannot score"):
        parse_rule_argument("muon")


def test_compare(tiny: Task) -> None:
    rule = compile_rule("sgd")
    seeds = [3, 4, 5]
    result = compare(rule, tiny, ScoringProtocol(), seeds=seeds)
    single = [score(rule, tiny, ScoringProtocol(), seed=seed, test=True) for seed in seeds]
    assert result.val_mean == pytest.approx(sum(o.reward for o in single) / 3)
    assert result.test_mean == pytest.approx(sum(o.test for o in single) / 3)  # type: ignore[misc]
    mean = sum(o.reward for o in single) / 3
    assert result.val_std == pytest.approx(math.sqrt(sum((o.reward - mean) ** 2 for o in single) / 2))
    assert (result.rule, result.task, result.seeds, result.diverged) == ("sgd", "digits", 3, 0)
    bad = compare(compile_rule("log(-1 - g * g)"), tiny, ScoringProtocol(), seeds=[1])
    assert (bad.val_mean, bad.val_std, bad.test_mean, bad.diverged, bad.lrs) == (0.0, 0.0, 0.0, 1, (None,))
