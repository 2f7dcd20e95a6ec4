"""Stacked children: slice k computes what a training of its own computes, dies alone, and can be left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

import nos_ext
from nos_search.rules import compile_rule
from nos_search.task import Task, load
from nos_search.task.score import DIVERGED
from nos_search.train.allocator import keep_freed_memory
from nos_search.train.child import ScoringProtocol, score
from nos_search.train.graph import Graphs, GraphStack, NoRoomError, StepGraph
from nos_search.train.stack import Stack, pays
from nos_search.train.training import Cohort, Singles, Training, loss_is_due

RULES = ["g", "adam", "g * exp(sign(g) * sign(m_hat))", "drop(m_hat, 0.3) * exp(noise)"]
LRS = [0.1, 1e-3, 0.01, 0.03]


def double(task: Task) -> Task:
    """The same task in float64, where rounding cannot hide a mistake."""
    splits = {name: replace(getattr(task, name), x=getattr(task, name).x.double()) for name in ("train", "val", "test")}
    return replace(task, **splits)


def small(name: str, net: str) -> Task:
    task = load(name).with_options(net=net)
    budget = replace(task.budget, batch_size=8)
    return replace(task, budget=budget, val=task.val.first(20))


@pytest.mark.parametrize("net", ["convnet-2-4", "mlp-1-8", "wrn-10-1"])
def test_stack_is_its_children_in_double(net: str) -> None:
    """Bound: 1e-16 of rounding a step, amplified by at most 1e4 in ten steps."""
    task = double(small("digits", net))
    rules = [compile_rule(text) for text in RULES]
    stack: Cohort = Stack(rules, task, lrs=LRS, total_steps=10, seed=3)
    singles = [Training(rule, task, lr=lr, total_steps=10, seed=3) for rule, lr in zip(rules, LRS, strict=True)]
    stack.run(10)
    for training in singles:
        training.run(10)
    for k, training in enumerate(singles):
        for stacked, single in zip(stack._raw, training.weights.params, strict=True):  # type: ignore[attr-defined]
            assert torch.allclose(stacked[k], single, rtol=0, atol=1e-11)
        for stacked, single in zip(stack._running, training.weights.running, strict=True):  # type: ignore[attr-defined]
            assert torch.allclose(stacked[k], single, rtol=0, atol=1e-10)
    assert stack.steps() == [10] * 4
    assert stack.losses() == pytest.approx([training.loss for training in singles], abs=1e-10)
    for ours, theirs in zip(stack.measure(task.val), [training.measure(task.val) for training in singles], strict=True):
        assert ours.accuracy == theirs.accuracy
        assert ours.loss == pytest.approx(theirs.loss, abs=1e-10)


@pytest.mark.parametrize(
    ("name", "net"),
    [
        ("charmlp", "mlp-1-8"),
        ("charlm", "gru-1-8"),
        ("charlm", "transformer-1-8"),
        ("translate", "gru-1-8"),
        ("translate", "transformer-1-8"),
    ],
)
def test_stacks_of_token_networks(name: str, net: str) -> None:
    """Three steps in float32 from equal weights: parameters agree to 1e-5 of their size."""
    task = small(name, net)
    rules = [compile_rule("g"), compile_rule("m_hat")]
    stack = Stack(rules, task, lrs=[0.1, 0.03], total_steps=3, seed=3)
    stack.run(3)
    for k, (rule, lr) in enumerate(zip(rules, [0.1, 0.03], strict=True)):
        training = Training(rule, task, lr=lr, total_steps=3, seed=3)
        training.run(3)
        for stacked, single in zip(stack._raw, training.weights.params, strict=True):
            assert torch.allclose(stacked[k], single, rtol=1e-4, atol=1e-5)
        assert stack.losses()[k] == pytest.approx(training.loss, rel=1e-5)


def test_a_dead_child_takes_nobody_along() -> None:
    task = double(small("digits", "convnet-2-4"))
    rules = [compile_rule(text) for text in ("g", "log(-1 - g * g)", "m_hat")]
    stack = Stack(rules, task, lrs=[0.1, 0.1, 0.1], total_steps=6, seed=1)
    stack.run(3)
    assert stack.alive() == [True, False, True]
    assert stack.steps() == [3, 1, 3]
    assert stack.measure(task.val)[1] is DIVERGED
    kept = stack.keep([2, 0])
    kept.run(6)
    for k, text in enumerate(("m_hat", "g")):
        training = Training(compile_rule(text), task, lr=0.1, total_steps=6, seed=1)
        training.run(3)
        training.run(6)
        assert kept.losses()[k] == pytest.approx(training.loss, abs=1e-10)
        for stacked, single in zip(kept._raw, training.weights.params, strict=True):
            assert torch.allclose(stacked[k], single, rtol=0, atol=1e-11)
    assert kept.steps() == [6, 6]


def test_all_dead_stop_at_once() -> None:
    task = small("digits", "mlp-1-8")
    stack = Stack([compile_rule("log(-1 - g * g)")] * 3, task, lrs=[1.0, 0.1, 0.01], total_steps=50, seed=1)
    stack.run(50)
    assert stack.alive() == [False] * 3
    assert max(stack.steps()) == 1
    assert stack.measure(task.val) == [DIVERGED] * 3


@pytest.mark.parametrize("sweep", ["halving", "full"])
def test_score_by_stack_and_by_singles(sweep: str) -> None:
    """The sweep picks the same rate, so that the longer training, which is never stacked, gives the same bits."""
    task = double(load("digits").with_options(net="mlp-1-8", sweep_steps=20, train_steps=6))
    rule = compile_rule("g * exp(sign(g) * sign(m_hat))")
    one = score(rule, task, ScoringProtocol(sweep, stack=False), seed=2)  # type: ignore[arg-type]
    two = score(rule, task, ScoringProtocol(sweep, stack=True), seed=2)  # type: ignore[arg-type]
    assert (one.lr, one.reward, one.curve["accuracy"]) == (two.lr, two.reward, two.curve["accuracy"])
    assert one.curve["sweep"] == two.curve["sweep"]
    bad = score(compile_rule("log(-1 - g * g)"), task, ScoringProtocol(sweep, stack=True), seed=2)  # type: ignore[arg-type]
    assert (bad.status, bad.lr) == ("diverged", None)


def test_the_cpu_trains_one_after_the_other_by_default() -> None:
    assert not pays(load("digits"))


def test_a_device_is_asked_seldom_but_early() -> None:
    cuda = torch.device("cuda")
    assert [step for step in range(1, 50) if loss_is_due(step, cuda)] == [1, 2, 4, 8, 16, 32, 48]
    assert all(loss_is_due(step, torch.device("cpu")) for step in range(1, 50))


def test_singles_are_trainings() -> None:
    task = small("digits", "mlp-1-8")
    cohort = Singles.start([compile_rule("g")] * 2, task, lrs=[0.1, 0.2], total_steps=4, seed=1)
    cohort.run(4)
    training = Training(compile_rule("g"), task, lr=0.2, total_steps=4, seed=1)
    training.run(4)
    kept = cohort.keep([1])
    assert (kept.lrs, kept.steps(), kept.losses(), kept.alive()) == ([0.2], [4], [training.loss], [True])
    assert kept.measure(task.val) == [training.measure(task.val)]


def test_keeping_memory_changes_no_bit() -> None:
    """It is set for the process by the first score(); results before and after are the same."""
    task = small("digits", "convnet-2-4")

    def weights() -> list[torch.Tensor]:
        training = Training(compile_rule("adam"), task, lr=0.01, total_steps=5, seed=1)
        training.run(5)
        return [param.detach().clone() for param in training.weights.params]

    before = weights()
    assert keep_freed_memory() in (True, False)
    assert all(torch.equal(a, b) for a, b in zip(before, weights(), strict=True))


# --- the captured stack, with the body called where a GPU would replay it ---------------------------------------------


class Update:
    """nos_ext.CapturedStep, as far as the graph uses it, by apply_population."""

    def __init__(self, lists: tuple[Any, ...], rules: list[Any], total_steps: int) -> None:
        self.lists, self.total_steps = lists, total_steps
        self.programs, self.lrs = [nos_ext.compile_rule(rule) for rule in rules], [0.0] * len(rules)
        self.step, self.seed = 1, 0

    def load(self, program: nos_ext.Program, *, index: int, lr: float) -> None:
        if len(program.bytecode) > 2000:
            raise ValueError("room for 512")
        self.programs[index], self.lrs[index] = program, lr

    def set(self, *, step: int, seed: int) -> None:
        self.step, self.seed = step, seed

    def __call__(self) -> None:
        needed = max(len(program.state_names) for program in self.programs)
        params, grads, slots = self.lists
        nos_ext.apply_population(
            self.programs, params, grads, slots[:needed], lr=self.lrs, step=self.step, total_steps=self.total_steps,
            seed=self.seed,
        )  # fmt: skip
        self.step += 1


class Replayed(StepGraph):
    made = 0

    def _captured_step(self, rules: list[Any], total_steps: int) -> Any:
        return Update((self.params, self._grads, self.slots), rules, total_steps)

    def _capture(self, body: Callable[[], None]) -> Callable[[], None]:
        Replayed.made += 1
        for _ in range(3):  # as the warm-up does: nothing of it may be left
            body()
        return body


@pytest.mark.parametrize("net", ["convnet-2-4", "mlp-1-8", "wrn-10-1"])
def test_a_captured_stack_is_a_stack(net: str) -> None:
    """Also when the same graph serves other rules, after halving, and back."""
    task, graphs = double(small("digits", net)), Graphs(Replayed)
    before = Replayed.made
    for texts in (RULES, list(reversed(RULES)), ["rmsprop * exp(ld)", "g", "adam", "y_hat"]):
        rules = [compile_rule(text) for text in texts]
        ours: Stack = GraphStack(rules, task, lrs=LRS, total_steps=14, seed=3, graphs=graphs)
        theirs = Stack(rules, task, lrs=LRS, total_steps=14, seed=3)
        for until, which in ((5, [2, 0]), (9, [1]), (14, None)):
            ours.run(until)
            theirs.run(until)
            for one, two in zip(ours._raw + ours._running, theirs._raw + theirs._running, strict=True):
                assert torch.allclose(one, two, rtol=0, atol=1e-10)
            assert ours.losses() == pytest.approx(theirs.losses(), abs=1e-10)
            assert (ours.steps(), ours.alive()) == (theirs.steps(), theirs.alive())
            for one, two in zip(ours.measure(task.val), theirs.measure(task.val), strict=True):
                assert one.accuracy == two.accuracy
                assert one.loss == pytest.approx(two.loss, abs=1e-9)
            if which is not None:
                ours, theirs = ours.keep(which), theirs.keep(which)
    assert Replayed.made - before == 3  # for 4, 2 and 1 children, whatever the rules


def test_a_rule_beyond_the_room_of_a_graph() -> None:
    task = small("digits", "mlp-1-8")
    large = compile_rule("+".join(f"g ** {k} * sin({k} * lr)" for k in range(100)))
    with pytest.raises(NoRoomError, match="room for 512"):
        GraphStack([large], task, lrs=[0.1], total_steps=3, seed=1, graphs=Graphs(Replayed))


def test_graphs_are_kept_by_task_and_shape() -> None:
    task, graphs = small("digits", "mlp-1-8"), Graphs(Replayed)
    first = graphs.get(task, 2, 10)
    assert graphs.get(task, 2, 10) is first
    assert graphs.get(task, 3, 10) is not first
    assert graphs.get(replace(task), 2, 10) is not first
    for count in range(10, 18):
        graphs.get(task, count, 10)
    assert graphs.get(task, 2, 10) is not first  # the oldest went


def _no_gpu() -> bool:
    return not (torch.cuda.is_available() and nos_ext.build_info()["cuda"]["enabled"])


@pytest.mark.skipif(_no_gpu(), reason="needs a CUDA device and a CUDA build")
@pytest.mark.parametrize("net", ["convnet-2-4", "wrn-10-1"])
def test_a_captured_stack_on_a_gpu(net: str) -> None:
    pytest.importorskip("sklearn")
    task = double(small("digits", net)).to("cuda")
    for texts in (RULES, list(reversed(RULES))):
        rules = [compile_rule(text) for text in texts]
        ours = GraphStack(rules, task, lrs=LRS, total_steps=10, seed=3)
        theirs = Stack(rules, task, lrs=LRS, total_steps=10, seed=3)
        for until in (5, 10):
            ours.run(until)
            theirs.run(until)
            for one, two in zip(ours._raw + ours._running, theirs._raw + theirs._running, strict=True):
                torch.testing.assert_close(one, two, rtol=0, atol=1e-9)
            ours, theirs = ours.keep([2, 0, 1, 3]), theirs.keep([2, 0, 1, 3])
    assert score(compile_rule("adam"), load("digits").to("cuda"), ScoringProtocol(), seed=1).reward > 0.5
