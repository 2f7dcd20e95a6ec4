"""When memory runs out the answer is MemoryError: no abort, and no other message."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Every allocation of C++ from the n-th on fails, or the n-th alone.
SHIM = r"""
#include <cstdlib>
#include <new>
namespace {
long left = -1;
bool all = false, failed = false;
void* get(std::size_t n, std::size_t align) {
  if (left == 0) {
    failed = true;
    if (!all) left = -1;
    throw std::bad_alloc();
  }
  if (left > 0) --left;
  void* p = align ? std::aligned_alloc(align, (n + align - 1) / align * align) : std::malloc(n ? n : 1);
  if (!p) throw std::bad_alloc();
  return p;
}
}  // namespace
extern "C" void fail_from(long n, int every) { failed = false, all = every, left = n; }
extern "C" int fail_stop() { left = -1; return failed; }
void* operator new(std::size_t n) { return get(n, 0); }
void* operator new[](std::size_t n) { return get(n, 0); }
void* operator new(std::size_t n, std::align_val_t a) { return get(n, static_cast<std::size_t>(a)); }
void* operator new[](std::size_t n, std::align_val_t a) { return get(n, static_cast<std::size_t>(a)); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
"""

# What is tried; each ends well or with MemoryError.
CALLS = r"""
import gc, sys
import numpy as np
import nos_ext
from nos_ext import _C
from nos_ext.optim import library

program = nos_ext.compile_rule(library.adam)
plain = nos_ext.compile_rule("g")
good, bad = program.bytecode, program.bytecode[:-1]
params, grads = [np.ones(5, np.float32)], [np.ones(5, np.float32)]
state = {"m": [np.zeros(5, np.float32)], "v": [np.zeros(5, np.float32)]}
stacked = [np.ones((2, 3))], [np.ones((2, 3))]

class Number:
    def __float__(self):
        return float(str(1.5) + "0")

def refused(call, *args, **keywords):
    try:
        call(*args, **keywords)
    except ValueError:
        return
    raise AssertionError("a ValueError was expected")

CALLS = {
    "from_bytes": lambda: _C.Program(good),
    "refused bytes": lambda: refused(_C.Program, bad),
    "listing": program.disassemble,
    "parts": lambda: (program.code, program.scalar_code, program.outputs, program.constants, program.bytecode,
                      program.identity(), program.state_names, program.hyperparameters),
    "scalars": lambda: program.eval_scalars(1, 2, [1.0] * len(program.hyperparameters)),
    "first call": lambda: nos_ext.apply_rule(_C.Program(good), params, grads, state, lr=0.1),
    "call": lambda: nos_ext.apply_rule(program, params, grads, state, lr=Number(), beta1=Number()),
    "refused call": lambda: refused(nos_ext.apply_rule, program, params, grads, {"m": 1}, lr=0.1),
    "integer": lambda: nos_ext.apply_rule(program, params, grads, state, lr=0.1, step=3.0),
    "population": lambda: nos_ext.apply_population([plain, plain], *stacked, [], lr=[Number(), 0.1]),
    "op table": _C.op_table,
}
for call in CALLS.values():
    call()
gc.disable()

def attempts(start, stop):
    found = 0
    for name, call in CALLS.items():
        for n in range(400):
            error = None
            start(n)
            try:
                call()
            except BaseException as caught:
                error = caught
            failed = stop()
            if error is not None and type(error) is not MemoryError:
                sys.exit(f"{name}, allocation {n}: {type(error).__name__}: {error}")
            found += error is not None
            if failed is False or (failed is None and error is None and n > 60):
                break
    print(found)
"""


def run(script: str, *args: str, **environment: str) -> str:
    """The output of a Python process that must end by itself and well."""
    done = subprocess.run(
        [sys.executable, "-c", script, *args],
        env={"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs a C++ compiler and LD_PRELOAD")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.cc").write_text(SHIM)
    subprocess.run(
        [compiler, "-std=c++17", "-shared", "-fPIC", "-o", folder / "shim.so", folder / "shim.cc"], check=True
    )
    return folder / "shim.so"


@pytest.mark.slow
@pytest.mark.parametrize("every", ["0", "1"], ids=["one", "all that follow"])
def test_allocations_of_the_engine_fail(shim: Path, every: str) -> None:
    script = (
        CALLS
        + r"""
import ctypes
library = ctypes.CDLL(None)
library.fail_from.argtypes = [ctypes.c_long, ctypes.c_int]
attempts(lambda n: library.fail_from(n, int(sys.argv[1])), lambda: bool(library.fail_stop()))
"""
    )
    assert int(run(script, every, LD_PRELOAD=str(shim))) > 300


REPEATED = r"""
import ctypes, sys
import numpy as np
import nos_ext

library = ctypes.CDLL(None)
library.fail_from.argtypes = [ctypes.c_long, ctypes.c_int]
program = nos_ext.compile_rule(sys.argv[1])
tensors = lambda x, *shape: [np.full(shape, x, np.float32) for _ in range(3)]

def states(n):
    numbers = program.per_tensor_states
    return {name: tensors(0.5) if name in numbers else tensors(0.5, n) for name in program.state_names}

failures = 0
for n in range(600):
    params, grads, state = tensors(1.0, 4 + n), tensors(2.0, 4 + n), states(4 + n)
    expected, memory = tensors(1.0, 4 + n), states(4 + n)
    library.fail_from(n, 0)
    try:
        nos_ext.apply_rule(program, params, grads, state, lr=0.1)
    except MemoryError:
        failed = library.fail_stop()
        failures += 1
        assert all((p == 1).all() for p in params), n
        assert all((x == 0.5).all() for one in state.values() for x in one), n
        nos_ext.apply_rule(program, params, grads, state, lr=0.1)  # whatever the failed call has left behind
    failed = library.fail_stop()
    nos_ext.apply_rule(nos_ext.Program.from_bytes(program.bytecode), expected, grads, memory, lr=0.1)
    assert all(map(np.array_equal, params, expected)), n
    assert all(all(map(np.array_equal, state[name], memory[name])) for name in memory), n
print(failures)
"""
GLOBALLY = (
    "def f(p, g, m, k, *, lr):\n    m = 0.9 * m + g\n    u = m / global_norm(m)\n"
    "    return p - lr * u / global_norm(u + p), m, norm(m)\n"
)


@pytest.mark.slow
@pytest.mark.parametrize(("text", "least"), [("m + 0.5 * g", 10), (GLOBALLY, 20)], ids=["one pass", "three passes"])
def test_a_failed_call_changes_nothing_and_leaves_no_plan(shim: Path, text: str, least: int) -> None:
    assert int(run(REPEATED, text, LD_PRELOAD=str(shim))) > least


FRESH_THREADS = r"""
import ctypes, sys, threading
import numpy as np
import nos_ext

library = ctypes.CDLL(None)
library.fail_from.argtypes = [ctypes.c_long, ctypes.c_int]
program = nos_ext.compile_rule("def f(p, g, m, *, lr):\n    m = 0.9 * m + g\n    "
                               "return p - lr * exp(sign(g) * sign(m)) * g / norm(m), m\n")
tensors = lambda x: [np.full(4096, x, np.float32) for _ in range(16)]
params, grads, state = tensors(1.0), tensors(2.0), {"m": tensors(0.5)}
call = lambda: nos_ext.apply_rule(program, params, grads, state, lr=0.1)
call()
found = []

def attempt(n):  # this thread, and those of OpenMP that work for it, have no memory of their own yet
    before = params[0].copy(), state["m"][0].copy()
    library.fail_from(n, 1)
    try:
        call()
        failed = library.fail_stop()
    except MemoryError:
        failed = library.fail_stop()
        assert all((p == before[0]).all() for p in params), n
        assert all((m == before[1]).all() for m in state["m"]), n
    found.append(bool(failed))
    call()

for n in range(200):
    thread = threading.Thread(target=attempt, args=[n])
    thread.start()
    thread.join()
    if not found[n]:
        break
print(sum(found))
"""


@pytest.mark.slow
@pytest.mark.parametrize("threads", ["1", "2"])
def test_threads_that_get_no_memory_leave_the_work_to_others_or_refuse_it_all(shim: Path, threads: str) -> None:
    """An exception on a thread of OpenMP would end the process."""
    assert int(run(FRESH_THREADS, LD_PRELOAD=str(shim), OMP_NUM_THREADS=threads)) > 4


@pytest.mark.slow
def test_allocations_of_python_fail() -> None:
    pytest.importorskip("_testcapi")
    script = (
        CALLS
        + r"""
import _testcapi
attempts(lambda n: _testcapi.set_nomemory(n, n + 1), _testcapi.remove_mem_hooks)
"""
    )
    assert int(run(script)) > 50


LIMITED = r"""
import resource, sys
import nos_ext
from nos_ext import _C
from nos_ext.optim import library

good = nos_ext.compile_rule(library.adam).bytecode
CALLS = {
    "from_bytes": lambda: nos_ext.Program.from_bytes(good),
    "compile": lambda: nos_ext.compile_rule("g * m + 0.5 * v"),
    "function": lambda: nos_ext.compile_rule(grow),
    "listing": lambda: nos_ext.Program.from_bytes(good).disassemble() * 20,
    "export": lambda: nos_ext.Program.from_bytes(good).to_pytorch(),
}

def grow(p, g, *, lr):
    kept.append(bytearray(1 << 16))
    return p - lr * g

with open("/proc/self/status") as status:
    used = next(int(line.split()[1]) for line in status if line.startswith("VmSize")) * 1024
kept = []
limit = used + int(sys.argv[2]) * 2**20
call = CALLS[sys.argv[1]]
call()
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    while True:
        kept.append(call())
except MemoryError:
    kept.clear()
    print("MemoryError")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("megabytes", [3, 20])
@pytest.mark.parametrize("call", ["from_bytes", "compile", "function", "listing", "export"])
def test_little_memory(call: str, megabytes: int) -> None:
    assert run(LIMITED, call, str(megabytes)) == "MemoryError\n"
