"""Owns the bench of child training: a step and a whole search by own kernels and by torch, and on request torch's child
against the same with eager updates, the share of the update in a step, and what it would bring to stack the rates of a
sweep.

The eager contender differs in one thing: its update is written op by op in torch, tensor by tensor, as search systems
without an engine run a rule. Network, data, batches, sweep and evaluation are the same. The contenders take turns, and
ratios are medians over rounds.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nos_ext import _C

from ..bounds import check_count
from ..errors import UsageError
from ..rules import CompiledRule, compile_rule
from ..task import Task, load
from ..train.child import LEARNING_RATES, ScoringProtocol, score
from ..train.engine import Engine
from ..train.native import NativeTraining, why_not
from ..train.stack import Stack
from ..train.training import Singles, Training
from .base import BenchResult
from .whole import pace

ENGINES: tuple[Engine, ...] = ("torch", "native")
_TURN = 0.15  # seconds of a turn of an engine
Update = Callable[[Tensor, Tensor, list[Tensor], float, int], Tensor]


def _m_hat(g: Tensor, state: list[Tensor], t: int) -> Tensor:
    state[0].mul_(0.9).add_(g, alpha=0.1)
    return state[0] / (1 - 0.9**t)


def _g_exp_signs(p: Tensor, g: Tensor, state: list[Tensor], lr: float, t: int) -> Tensor:
    return g * torch.exp(torch.sign(g) * torch.sign(_m_hat(g, state, t)))


def _adam(p: Tensor, g: Tensor, state: list[Tensor], lr: float, t: int) -> Tensor:
    m_hat = _m_hat(g, state, t)
    state[1].mul_(0.999).addcmul_(g, g, value=0.001)
    return m_hat / (torch.sqrt(state[1] / (1 - 0.999**t)) + 1e-8)


def _exp_signs_plus_clip(p: Tensor, g: Tensor, state: list[Tensor], lr: float, t: int) -> Tensor:
    return (torch.exp(torch.sign(g) * torch.sign(_m_hat(g, state, t))) + torch.clamp(g, -1e-4, 1e-4)) * g


def _rmsprop_drop(p: Tensor, g: Tensor, state: list[Tensor], lr: float, t: int) -> Tensor:
    state[1].mul_(0.999).addcmul_(g, g, value=0.001)
    rmsprop = g / (torch.sqrt(state[1] / (1 - 0.999**t)) + 1e-8)
    kept = (torch.rand_like(g) >= 0.3).to(g.dtype)
    return torch.clamp(rmsprop, -1e-5, 1e-5) + _m_hat(g, state, t) * kept


# Rule text for the engine, and the same update in eager torch.
EAGER: dict[str, Update] = {
    "g * exp(sign(g) * sign(m_hat))": _g_exp_signs,
    "adam": _adam,
    "(exp(sign(g) * sign(m_hat)) + clip(g, 1e-4)) * g": _exp_signs_plus_clip,
    "clip(rmsprop, 1e-5) + drop(m_hat, 0.3)": _rmsprop_drop,
}


class Eager(Training):
    """This is a training whose update is written in eager torch."""

    def __init__(self, rule: CompiledRule, task: Task, *, lr: float, total_steps: int, seed: int) -> None:
        super().__init__(rule, task, lr=lr, total_steps=total_steps, seed=seed)
        self._eager = EAGER[rule.text]
        self._slots = [[torch.zeros_like(raw), torch.zeros_like(raw)] for raw in self._raw]

    def _update(self, grads: list[Tensor]) -> None:
        for p, g, state in zip(self._raw, grads, self._slots, strict=True):
            p.sub_(self._eager(p, g, state, self.lr, self.step), alpha=self.lr)


def _seconds(kind: type[Training], rule: CompiledRule, task: Task, protocol: ScoringProtocol, seed: int) -> float:
    """Measures how long it takes to score a rule with trainings of a class."""
    start = time.perf_counter()
    score(rule, task, protocol, seed=seed, kind=kind)
    return time.perf_counter() - start


def _share(kind: type[Training], rule: CompiledRule, task: Task, steps: int) -> tuple[float, float]:
    """Returns the seconds that a step takes, and the share of its update."""

    class Timed(kind):  # type: ignore[misc, valid-type]
        spent = 0.0

        def _update(self, grads: list[Tensor]) -> None:
            start = time.perf_counter()
            super()._update(grads)
            self.spent += time.perf_counter() - start

    training = Timed(rule, task, lr=1e-3, total_steps=2 * steps, seed=1)
    training.run(steps)
    training.spent = 0.0
    start = time.perf_counter()
    training.run(2 * steps)
    whole = time.perf_counter() - start
    return whole / steps, training.spent / whole


def _stacked(rule: CompiledRule, task: Task, steps: int) -> tuple[float, float]:
    """Returns the seconds of a step of seven rates, first one after the other, then as a stack."""
    times = []
    rules, lrs = [rule] * len(LEARNING_RATES), [1e-3] * len(LEARNING_RATES)
    for cohort in (
        Singles.start(rules, task, lrs=lrs, total_steps=2 * steps, seed=1),
        Stack(rules, task, lrs=lrs, total_steps=2 * steps, seed=1),
    ):
        cohort.run(steps)
        start = time.perf_counter()
        cohort.run(2 * steps)
        times.append((time.perf_counter() - start) / steps)
    return times[0], times[1]


def _engines(rule: CompiledRule, task: Task, rounds: int, *, with_native: bool) -> dict[str, float]:
    """Returns the milliseconds of a step by each engine, which take turns: the median over turns of processor time."""
    kinds: dict[str, type[Training]] = {"torch": Training} | ({"native": NativeTraining} if with_native else {})
    trainings = {name: kind(rule, task, lr=1e-3, total_steps=10**9, seed=1) for name, kind in kinds.items()}
    times: dict[str, list[float]] = {name: [] for name in trainings}
    for turn in range(rounds + 1):
        for name, training in trainings.items():
            start, first = time.process_time(), training.step
            while training.step == first or time.process_time() - start < _TURN:
                training.run(training.step + 1 + (training.step - first))  # twice as many each time
            if turn:  # the first turn warms up
                times[name].append((time.process_time() - start) / (training.step - first) * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", default="digits", metavar="NAME", help="default digits")
    parser.add_argument(
        "--seconds", type=float, default=15.0, metavar="S", help="of a whole search with each engine (default 15)"
    )
    parser.add_argument("--eager", action="store_true", help="compare with updates in eager torch as well (minutes)")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="turns of each contender (default 7)")
    parser.add_argument("--steps", type=int, default=200, metavar="N", help="steps for the shares (default 200)")


def run(options: argparse.Namespace, *, note: Callable[[str], None]) -> BenchResult:
    check_count("--rounds", options.rounds)
    check_count("--steps", options.steps)
    if not 0 < options.seconds < math.inf:
        raise UsageError(f"--seconds {options.seconds:g} is not a positive number; say how long to search")
    task = load(options.task)
    torch.set_num_threads(1)
    result = _compare_engines(task, options.rounds, options.seconds, note)
    if options.eager:
        _compare_with_eager(task, options.rounds, options.steps, result, note)
    return result


def _compare_engines(task: Task, rounds: int, seconds: float, note: Callable[[str], None]) -> BenchResult:
    """Measures a step, and a whole search, by each engine."""
    rule = compile_rule("adam")
    note(f"measuring a step of {task.spec} on {task.name}")
    missing = why_not(task)
    ms = _engines(rule, task, rounds, with_native=missing is None)
    ratio = ms["torch"] / ms["native"] if "native" in ms else None
    note("measuring the peak of a core")
    peak = _C.peak_gflops(0.5) or None
    gflops = None
    if missing is None:
        child = NativeTraining(rule, task, lr=1e-3, total_steps=1, seed=1).child
        gflops = 2 * child.multiply_adds / ms["native"] * 1e-6
    paces = {name: pace(task, name, seconds=seconds, step_ms=ms[name], note=note) for name in ENGINES if name in ms}
    result = BenchResult(
        f"children of task {task.name} ({task.spec}), one core",
        ["engine", "ms/step", "rules/hour", "GFLOP/s"],
        notes=["rules/hour: trained rules of a whole search, with controller, gates, store and sweep"],
    )
    for name, found in paces.items():
        rate = f"{found.rules:.0f}{' (reckoned)' if found.reckoned else ''}"
        result.rows.append([name, f"{ms[name]:.4f}", rate, f"{gflops:.1f}" if name == "native" else ""])
    if missing is not None:
        result.notes.append(f"no own kernels: {missing}")
    else:
        result.notes.append(f"torch / native: {ratio:.2f} a step; the peak of a core is {peak or 0:.0f} GFLOP/s")
    if any(found.reckoned for found in paces.values()):
        result.notes.append("reckoned: from the time of a step, as one child would take too long")
    result.head = {
        "task": task.name,
        "net": str(task.spec),
        "ms_per_step": {"native": ms.get("native"), "torch": ms["torch"]},
        "ratio": ratio,
        "rules_per_hour": {name: paces[name].rules if name in paces else None for name in ("native", "torch")},
        "gflops": gflops,
        "peak_gflops": peak,
    }
    return result


def _compare_with_eager(task: Task, rounds: int, steps: int, result: BenchResult, note: Callable[[str], None]) -> None:
    """Adds what torch's children cost with the engine's update, with an eager one, and as a stack."""
    result.notes.append("")
    for text in EAGER:
        note(f"measuring {text}")
        row = _rule(compile_rule(text), task, rounds, steps)
        result.figures[text] = row
        result.notes.append(
            f"{text}: by torch with --sweep full {row['engine_ms']:.1f} ms, with eager updates {row['eager_ms']:.1f} "
            f"({row['ratio']:.2f} times), with --sweep halving {row['halving_ms']:.1f}; of a step of "
            f"{row['step_us']:.0f} us the update is {row['update_share']:.1%}, an eager one "
            f"{row['eager_update_share']:.1%}"
        )
    for net in ("convnet", "mlp") if task.shape.kind == "image" else (task.net,):
        chosen = task if net == task.net else task.with_options(net=net)
        one, stack = _stacked(compile_rule("adam"), chosen, steps)
        result.figures[f"stack of 7, {chosen.spec}"] = {"singles_ms": one * 1e3, "stack_ms": stack * 1e3}
        result.notes.append(
            f"seven children of {chosen.spec}: {one * 1e3:.2f} ms a step one after the other, {stack * 1e3:.2f} ms "
            f"as a stack ({stack / one:.2f})"
        )


def _median_ratio(a: Sequence[float], b: Sequence[float]) -> float:
    return statistics.median(x / y for x, y in zip(a, b, strict=True))


def _rule(rule: CompiledRule, task: Task, rounds: int, steps: int) -> dict[str, float]:
    full, halving = ScoringProtocol("full"), ScoringProtocol("halving")
    contenders: dict[str, Callable[[int], float]] = {
        "engine": lambda seed: _seconds(Training, rule, task, full, seed),
        "eager": lambda seed: _seconds(Eager, rule, task, full, seed),
        "halving": lambda seed: _seconds(Training, rule, task, halving, seed),
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for seed in range(rounds + 1):
        for name, call in contenders.items():
            spent = call(seed)
            if seed:  # the first round warms up
                times[name].append(spent)
    shares = [(*_share(Training, rule, task, steps), *_share(Eager, rule, task, steps)) for _ in range(3)]
    step, share, _, eager_share = (statistics.median(column) for column in zip(*shares, strict=True))
    middle = {name: statistics.median(values) for name, values in times.items()}
    return {
        "engine_ms": middle["engine"] * 1e3,
        "eager_ms": middle["eager"] * 1e3,
        "ratio": _median_ratio(times["eager"], times["engine"]),
        "halving_ms": middle["halving"] * 1e3,
        "rules_per_hour": 3600 / middle["halving"],
        "step_us": step * 1e6,
        "update_share": share,
        "eager_update_share": eager_share,
    }
