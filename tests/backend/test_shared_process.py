"""The engine among others in one process: threads that change its tensors meanwhile, forks, subinterpreters, and a
floating-point environment that is not its own."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef

import nos_ext
from nos_ext import optim

SLOW = " + ".join(f"pow(abs(m), {1 + k / 64})" for k in range(64))
RULE = f"""
def rule(p, g, m, *, lr):
    m = 0.9 * m + g
    return p - lr * ({SLOW}), m
"""
SIZE = 1 << 20  # elements: a call takes a tenth of a second, without the GIL


@pytest.fixture
def patient_threads() -> Iterator[None]:
    """No thread is made to give the GIL away: it changes hands only where a call releases it."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    nos_ext._C.set_tuning(threads=1)
    yield
    nos_ext._C.set_tuning()
    sys.setswitchinterval(before)


def during(call: Callable[[Any], object], change: Callable[[], None]) -> bool:
    """Calls call(lr) in a thread, and change() while that runs without the GIL.

    False, with change() not called, if the call was over before this thread was given a processor.
    """
    entered, left = [], []

    class Lr:
        def __float__(self) -> float:
            entered.append(True)
            return 0.1

    def run() -> None:
        call(Lr())
        left.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    while not entered:
        time.sleep(0)
    caught = not left
    if caught:
        change()
    thread.join()
    assert left, "the call failed"
    return caught


def catch(attempt: Callable[[], bool]) -> None:
    """Repeats an attempt, which makes everything anew, until it has caught its call in the middle."""
    assert any(attempt() for _ in range(50)), "no call has released the GIL"


def is_alive(tensor: Any) -> Callable[[], bool]:
    """A function that says whether the memory of a tensor is still there."""
    if isinstance(tensor, np.ndarray):
        reference = weakref.ref(tensor)
        return lambda: reference() is not None
    storage = StorageWeakRef(tensor.untyped_storage())
    return lambda: not storage.expired()


def arrays() -> list[np.ndarray]:
    return [np.ones(SIZE, np.float32) for _ in range(3)]


def tensors() -> list[torch.Tensor]:
    return [torch.ones(SIZE) for _ in range(3)]


@pytest.mark.usefixtures("patient_threads")
@pytest.mark.parametrize("make", [arrays, tensors])
@pytest.mark.parametrize("victim", ["params", "grads", "state"])
def test_a_list_changes_while_the_call_runs(make: Callable[[], list[Any]], victim: str) -> None:
    program = nos_ext.compile_rule(RULE)

    def attempt() -> bool:
        lists = dict(zip(("params", "grads", "state"), ([t] for t in make()), strict=True))
        alive, seen = is_alive(lists[victim][0]), []

        def change() -> None:
            lists[victim][0] = None
            seen.append(alive())

        def call(lr: Any) -> None:
            nos_ext.apply_rule(program, lists["params"], lists["grads"], [lists["state"]], lr=lr)

        call(0.1)  # tensors that the call knows: asking new ones gives the GIL away, too
        caught = during(call, change)
        assert seen == [True] * caught
        assert alive() != caught, "the call keeps memory after its end"
        return caught

    catch(attempt)


@pytest.mark.usefixtures("patient_threads")
@pytest.mark.parametrize("victim", [0, 1, 2])
@pytest.mark.parametrize("population", [False, True])
def test_a_tensor_gets_other_memory_while_the_call_runs(victim: int, population: bool) -> None:
    program = nos_ext.compile_rule(RULE)

    def attempt() -> bool:
        given = [torch.ones(1, SIZE) for _ in range(3)]
        p, g, m = given
        alive, seen = is_alive(given[victim]), []

        def change() -> None:
            given[victim].data = torch.zeros(1, SIZE)
            seen.append(alive())

        def call(lr: Any) -> None:
            if population:
                nos_ext.apply_population([program], [p], [g], [[m]], lr=lr)
            else:
                nos_ext.apply_rule(program, [p], [g], [[m]], lr=lr)

        call(0.1)  # tensors that the call knows: asking new ones gives the GIL away, too
        caught = during(call, change)
        assert seen == [True] * caught
        assert alive() != caught
        assert torch.equal(given[victim], torch.zeros(1, SIZE)) or not caught
        return caught

    catch(attempt)


@pytest.mark.usefixtures("patient_threads")
def test_a_parameter_gets_other_memory_while_an_optimizer_steps() -> None:
    def attempt() -> bool:
        w = torch.nn.Parameter(torch.ones(SIZE))
        w.grad = torch.ones(SIZE)
        optimizer = optim.RuleOptimizer([w], RULE, 0.1)
        optimizer.step()
        alive, seen = is_alive(w), []

        def change() -> None:
            w.data = torch.zeros(SIZE)
            seen.append(alive())

        def step(lr: Any) -> None:
            float(lr)
            optimizer.step()

        caught = during(step, change)
        assert seen == [True] * caught
        assert alive() != caught
        assert torch.equal(w, torch.zeros(SIZE)) or not caught
        return caught

    catch(attempt)


@pytest.mark.usefixtures("patient_threads")
def test_versions_of_a_list_that_has_changed() -> None:
    """Autograd hears of the tensors that were written, not of those that lie in the list afterwards."""
    program = nos_ext.compile_rule(RULE)

    def attempt() -> bool:
        written, g, m = tensors()
        other = torch.ones(SIZE)
        params = [written]

        def call(lr: Any) -> None:
            nos_ext.apply_rule(program, params, [g], [[m]], lr=lr)

        call(0.1)
        caught = during(call, lambda: params.insert(0, other))
        assert (written._version, other._version) == (2, 0)
        return caught

    catch(attempt)


def test_a_number_that_empties_the_lists() -> None:
    """Python code that runs in the middle of a call may change what the call was given."""
    program = nos_ext.compile_rule(RULE)
    n = 8

    class Subclass(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            for one in (params, grads, *state):
                one.clear()
            return super().__torch_function__(function, types, args, kwargs or {})

    for place in range(3):
        made = [[torch.ones(16) for _ in range(n)] for _ in range(3)]
        made[place][0] = torch.ones(16).as_subclass(Subclass)
        params, grads, *state = made
        kept = params[-1]
        nos_ext.apply_rule(program, params, grads, state, lr=1.0)
        assert not torch.equal(kept, torch.ones(16))


class Moves(torch.Tensor):
    """A gradient whose `is_neg`, which every call asks, gives the parameter other memory."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function is torch.Tensor.is_neg:
            args[0].parameter.data = torch.full((40_000,), 3.0)
        return super().__torch_function__(function, types, args, kwargs or {})


def moving_generator(p: torch.Tensor) -> Iterator[torch.Tensor]:
    p.data = torch.full((40_000,), 3.0)
    yield torch.ones(40_000)


def moving_subclass(p: torch.Tensor) -> list[torch.Tensor]:
    g = torch.ones(40_000).as_subclass(Moves)
    g.parameter = p
    p.gradient = g
    return [g]


@pytest.mark.parametrize("grads", [moving_generator, moving_subclass])
@pytest.mark.parametrize("population", [False, True])
def test_memory_that_a_later_argument_replaces(grads: Callable[[torch.Tensor], Any], population: bool) -> None:
    """40,000 elements: the system takes memory of that size back at once, and little enough to keep the GIL."""
    program = nos_ext.compile_rule("g")
    kept = []  # an object at the address of one that is gone would be taken for it
    for _ in range(3):  # with a new plan, and with one that is known
        p = torch.zeros(40_000)
        kept.append(p)
        if population:
            p = p.view(1, -1)
            with pytest.raises(ValueError, match="shape"):  # what the gradient has made of it
                nos_ext.apply_population([program], [p], grads(p), [], lr=0.5)
            assert torch.equal(p.detach(), torch.full((40_000,), 3.0))
        else:
            nos_ext.apply_rule(program, [p], grads(p), {}, lr=0.5)
            assert torch.equal(p, torch.full((40_000,), 2.5))


def test_an_array_whose_shape_a_later_argument_replaces() -> None:
    p = np.zeros((2, 3), np.float32)

    def grads() -> Iterator[np.ndarray]:
        p.shape = (6,)
        yield np.ones(6, np.float32)

    nos_ext.apply_rule(nos_ext.compile_rule("g"), [p], grads(), {}, lr=1.0)
    assert np.array_equal(p, np.full(6, -1.0, np.float32))


@pytest.mark.parametrize("call", ["rule", "population", "step"])
def test_short_calls_while_another_thread_gives_a_tensor_other_memory(call: str) -> None:
    """Nothing asserts but that the process lives and the numbers are those of some memory that the tensor had."""
    n, program = 40_000, nos_ext.compile_rule("g")
    p = torch.nn.Parameter(torch.zeros(1, n))
    over = threading.Event()

    def replace() -> None:
        while not over.is_set():
            p.data = torch.zeros(1, n)

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        for _ in range(1500):
            g = torch.ones(1, n)
            with torch.no_grad():
                if call == "rule":
                    nos_ext.apply_rule(program, [p], [g], {}, lr=1.0)
                elif call == "population":
                    nos_ext.apply_population([program], [p], [g], [], lr=1.0)
                else:
                    p.grad = g
                    optim.RuleOptimizer([p], program, 1.0).step()
    finally:
        over.set()
        thread.join()
    seen = p.detach().unique()
    assert torch.equal(seen, seen.round())
    assert seen.max() <= 0


def run_script(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    env = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env)


FORK = """
import os, signal, sys
import numpy as np
import nos_ext
from nos_ext import _C
program = nos_ext.compile_rule("g * exp(sign(g) * sign(m))")
n = 1_000_000
p, g = np.ones(n, np.float32), np.ones(n, np.float32)
state = nos_ext.init_state(program, [p])
def call(): nos_ext.apply_rule(program, [p], [g], state, lr=0.1)
{before}
child = os.fork()
if child == 0:
    signal.alarm(120)  # a hang ends the child with a signal
    {child}
    call()
    os._exit(0 if p[0] == p[-1] != 1 and _C.build_info()["cpu"]["threads"] == 1 else 1)
call()
assert "torch" not in sys.modules
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.parametrize("before", ["call()", "pass", "_C.set_tuning(threads=2); call()"])
@pytest.mark.parametrize("child", ["pass", "_C.set_tuning(threads=2)"])
def test_a_forked_child_answers(before: str, child: str) -> None:
    done = run_script(FORK.format(before=before, child=child), OMP_NUM_THREADS="2")
    assert done.returncode == 0, done.stderr


SUBINTERPRETER = """
import signal, sys
signal.alarm(120)
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
{first}
one = interpreters.create()
code = '''
import sys
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
try:
    module_from_spec(spec_from_loader("nos_ext._C", ExtensionFileLoader("nos_ext._C", {path!r})))
except ImportError as e:
    print(e)
'''
interpreters.run_string(one, code)
"""


@pytest.mark.parametrize("first", ["", "import nos_ext"])
def test_a_subinterpreter_is_refused(first: str) -> None:
    from nos_ext import _C

    done = run_script(SUBINTERPRETER.format(first=first, path=_C.__file__))
    assert done.returncode == 0, done.stderr
    assert "subinterpreter" in done.stdout


ROUNDINGS = {"downward": 0x400, "upward": 0x800, "toward zero": 0xC00}  # <fenv.h> of x86
LIBM = ctypes.CDLL(None)


@contextmanager
def rounding(mode: int) -> Iterator[None]:
    assert LIBM.fesetround(mode) == 0
    try:
        yield
        assert LIBM.fegetround() == mode, "the caller's rounding is lost"
    finally:
        LIBM.fesetround(0)


@contextmanager
def flushing() -> Iterator[None]:
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor does not flush subnormals")
    try:
        yield
        assert float(np.float32(1e-39) * np.float32(0.5)) == 0, "the caller's flushing is lost"
    finally:
        torch.set_flush_denormal(False)


ENVIRONMENTS: dict[str, Callable[[], Any]] = {
    **({name: (lambda mode=mode: rounding(mode)) for name, mode in ROUNDINGS.items()} if platform.machine() == "x86_64" else {}),
    "flushing": flushing,
}  # fmt: skip

NUMERIC_RULES = [
    "def rule(p, g, m, *, lr, beta=0.9):\n    m = beta * m + (1 - beta) * g\n    return p - lr * 0.1 * m / (sqrt(abs(m)) + 1e-8), m\n",
    "def rule(p, g, *, lr, k=3.0):\n    return p * 0.3 + lr * exp(g / k) * log(abs(p) + lr / 7)\n",
    "def rule(p, g, *, lr):\n    return drop(p * 1e-3, 0.5) * g + normal(lr / 3)\n",
]


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_same_program_in_any_floating_point_environment(name: str) -> None:
    text = "g * (1 - 0.9) / 3 + 1e-310 * m * 0.123456789012345678"
    wanted = nos_ext.compile_rule(text).bytecode
    with ENVIRONMENTS[name]():
        got = nos_ext.compile_rule(text).bytecode
    assert got == wanted


class Step:
    """One step of a rule whose program has not been called before: the engine makes its constants ready within it."""

    def __init__(self, source: str, dtype: torch.dtype) -> None:
        self.program = nos_ext.compile_rule(source)
        make = torch.Generator().manual_seed(3)
        # from subnormal to large
        self.p, self.g = (
            (torch.randn(5000, generator=make) * 10.0 ** torch.randint(-42, 3, (5000,), generator=make)).to(dtype)
            for _ in range(2)
        )
        self.state = nos_ext.init_state(self.program, [self.p])

    def run(self) -> None:
        nos_ext.apply_rule(self.program, [self.p], [self.g], self.state, lr=0.3, step=7, grad_scale=3.0)

    def results(self) -> list[torch.Tensor]:
        return [t.view(torch.int16) for t in (self.p, *(t for tensors in self.state.values() for t in tensors))]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("number", range(len(NUMERIC_RULES)))
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_same_bits_in_any_floating_point_environment(name: str, number: int, dtype: torch.dtype, threads: int) -> None:
    wanted, got = (Step(NUMERIC_RULES[number], dtype) for _ in range(2))
    nos_ext._C.set_tuning(chunk=256, threads=threads)
    try:
        wanted.run()
        with ENVIRONMENTS[name]():
            got.run()
    finally:
        nos_ext._C.set_tuning()
    for a, b in zip(got.results(), wanted.results(), strict=True):
        assert torch.equal(a, b)
