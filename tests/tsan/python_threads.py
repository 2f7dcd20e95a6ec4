"""The compiled module under ThreadSanitizer, called from several Python threads at once. `make tsan` runs it.

Run with libtsan preloaded and $NOS_TSAN_MODULE naming the instrumented _C; NumPy only, as torch is not instrumented.
What is watched is what _C touches: plans, programs, lists of tensors, scratch, and with $NOS_ISA=baseline the arrays.
--plant: two threads write one array, and ThreadSanitizer must end the process.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import sys
import threading

spec = importlib.util.spec_from_file_location("nos_ext._C", os.environ["NOS_TSAN_MODULE"])
assert spec is not None
assert spec.loader is not None
sys.modules["nos_ext._C"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["nos_ext._C"])

import numpy as np  # noqa: E402

import nos_ext  # noqa: E402
from nos_ext.optim import library  # noqa: E402

THREADS, CALLS, N = 4, 60, 40_000  # elements: more than enough for the GIL to be given up
RULES = ["powersign", "adamw", "lion", "drop_g_exp_signs", "clip_rmsprop_plus_drop_mhat"]
PROGRAMS = [nos_ext.compile_rule(getattr(library, name)) for name in RULES]


def arrays(thread: int, slots: int, shape: tuple[int, ...]) -> list[list[np.ndarray]]:
    make = np.random.default_rng(thread)
    return [[make.random(shape, dtype=np.float32)] for _ in range(slots)]


def work(thread: int, out: list[bytes]) -> None:
    """Calls with shared programs on tensors of the thread's own, and what the others' calls may meet meanwhile."""
    kept = {name: arrays(thread, 2 + len(p.state_names), (N,)) for name, p in zip(RULES, PROGRAMS, strict=True)}
    stacked = arrays(thread, 3, (2, N // 2))
    one_state = [p for p in PROGRAMS if len(p.state_names) == 1][:2]
    for call in range(CALLS):
        name = RULES[call % len(RULES)]
        lists = kept[name]
        if call % 3 == 0:  # a gradient that has moved
            lists[1] = [lists[1][0].copy()]
        nos_ext.apply_rule(
            PROGRAMS[call % len(RULES)], lists[0], lists[1], lists[2:], lr=0.01, step=call + 1, seed=thread
        )
        nos_ext.apply_population(one_state, stacked[0], stacked[1], stacked[2:], lr=[0.01, 0.02], step=call + 1)
        if call % 10 == thread:
            fresh = nos_ext.Program.from_bytes(PROGRAMS[call % len(RULES)].bytecode)
            assert fresh.disassemble()
            nos_ext.apply_rule(
                fresh.bytecode,
                *arrays(thread, 2, (3,)),
                arrays(thread, len(fresh.state_names), (3,)),
                lr=0.1,
            )
            nos_ext._C.set_tuning(threads=1 + call % 3)
            gc.collect()
    out.append(b"".join(a.tobytes() for lists in (*kept.values(), stacked) for (a,) in lists))


def plant() -> None:
    one = arrays(0, 3, (N,))
    calls = [lambda: nos_ext.apply_rule(PROGRAMS[0], one[0], one[1], one[2:], lr=0.01) for _ in range(CALLS)]
    threads = [threading.Thread(target=lambda: [call() for call in calls]) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main() -> None:
    together: list[list[bytes]] = [[] for _ in range(THREADS)]
    threads = [threading.Thread(target=work, args=(i, together[i])) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(THREADS):
        alone: list[bytes] = []
        work(i, alone)
        assert together[i] == alone, f"thread {i}: not the bits of a run alone"
    print(
        f"python_threads: {THREADS} threads, {THREADS * CALLS} calls each of apply_rule and apply_population, no race"
    )


if __name__ == "__main__":
    plant() if "--plant" in sys.argv else main()
