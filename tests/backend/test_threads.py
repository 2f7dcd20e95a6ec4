"""A thousand calls of every kind from several Python threads at once, each with the bits of a run alone."""

from __future__ import annotations

import functools
import gc
import itertools
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

import nos_ext
from nos_ext.optim import PowerSign, RuleOptimizer, library

THREADS, CALLS = 5, 208  # 1,040 calls in all, eight of each kind in a thread, and again one thread after the other
SIZES = (3, 700, 20_000, 120_000)  # elements; the large ones give up the GIL and work on several threads
RULES = ("powersign", "adamw", "lion", "drop_g_exp_signs", "sgd")
PROGRAMS = {name: nos_ext.compile_rule(getattr(library, name)) for name in RULES}  # shared by all threads
Call = Callable[[int], None]


def rule_calls(thread: int) -> Iterator[tuple[Call, list[torch.Tensor]]]:
    """apply_rule with each program on each size; every third gradient is a new tensor at another address."""
    make = torch.Generator().manual_seed(thread)
    for program, size in itertools.product(PROGRAMS.values(), SIZES):
        p, g, *state = (torch.rand(size, generator=make) for _ in range(2 + len(program.state_names)))
        grads = [g]

        def call(step: int, program=program, p=p, grads=grads, state=state) -> None:
            if step % 3 == 0:
                grads[0] = grads[0].clone()
            nos_ext.apply_rule(program, [p], grads, [[s] for s in state], lr=1e-3, step=step, seed=thread)

        yield call, [p, *state]


def array_calls(thread: int) -> Iterator[tuple[Call, list[torch.Tensor]]]:
    """The same from bytecode on NumPy arrays, in half precision and double."""
    make = np.random.default_rng(thread)
    program = PROGRAMS["powersign"]
    for dtype in (np.float16, np.float64):
        p, g, m = (make.random(5000).astype(dtype) for _ in range(3))

        def call(step: int, p=p, g=g, m=m) -> None:
            nos_ext.apply_rule(program.bytecode, [p], [g], {"m": [m]}, lr=1e-3, step=step, maximize=True)

        yield call, [torch.from_numpy(p), torch.from_numpy(m)]


def population_calls(thread: int) -> Iterator[tuple[Call, list[torch.Tensor]]]:
    make = torch.Generator().manual_seed(100 + thread)
    programs = [PROGRAMS["powersign"], PROGRAMS["lion"], nos_ext.compile_rule(f"g * {thread + 1} + m")]
    for size in (100, 50_000):
        p, g, m = (torch.rand(3, size, generator=make) for _ in range(3))

        def call(step: int, p=p, g=g, m=m) -> None:
            nos_ext.apply_population(programs, [p], [g], [[m]], lr=[1e-3, 1e-4, 1e-5], step=step)

        yield call, [p, m]


def optimizer_calls(thread: int) -> Iterator[tuple[Call, list[torch.Tensor]]]:
    make = torch.Generator().manual_seed(200 + thread)
    for build in (PowerSign, functools.partial(RuleOptimizer, rule=library.adamw, lr=1e-3)):
        params = [torch.nn.Parameter(torch.rand(s, generator=make)) for s in SIZES]
        optimizer = build(params)

        def call(step: int, params=params, optimizer=optimizer) -> None:
            for i, p in enumerate(params):
                p.grad = None if (step + i) % 4 == 0 else torch.full_like(p, 1 / step)
            optimizer.step()
            if step % 3 == 0:
                optimizer.load_state_dict(optimizer.state_dict())

        yield call, [p.detach() for p in params]


def train(thread: int) -> list[torch.Tensor]:
    """All kinds of calls in turn; what they have written."""
    kinds = [*rule_calls(thread), *array_calls(thread), *population_calls(thread), *optimizer_calls(thread)]
    for number in range(CALLS):
        kinds[number % len(kinds)][0](number // len(kinds) + 1)
    return [tensor for _, tensors in kinds for tensor in tensors]


@pytest.mark.slow
def test_a_thousand_concurrent_calls() -> None:
    results: dict[int, list[torch.Tensor]] = {}
    done = threading.Event()

    def disturb() -> None:
        """What other threads of a program do: they collect garbage, set the number of threads, make programs."""
        for number in itertools.count():
            if done.is_set():
                return
            torch.set_num_threads(1 + number % 3)
            gc.collect()
            fresh = nos_ext.compile_rule(f"g * {number} + m * {number % 7}")
            nos_ext.apply_rule(fresh, [torch.ones(9)], [torch.ones(9)], [[torch.ones(9)]], lr=0.1)

    def work(thread: int) -> None:
        results[thread] = train(thread)

    before = torch.get_num_threads()
    threads = [threading.Thread(target=work, args=(i,)) for i in range(THREADS)]
    other = threading.Thread(target=disturb)
    try:
        for thread in (*threads, other):
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        done.set()
        other.join()
        torch.set_num_threads(before)
    assert sorted(results) == list(range(THREADS)), "a thread has failed"
    for i in range(THREADS):
        assert all(map(torch.equal, results[i], train(i))), f"thread {i}: not the bits of a run alone"
