"""No test asserts wall time or needs a free core: `make test` must pass on a machine that is busy with other things."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CLOCKS = {"time", "time_ns", "perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns", "sleep"}  # of module time
ALLOWED = {  # file, what it uses: why nothing is asserted of it
    ("tests/waiting.py", "sleep"): "between two questions; the one home of waiting",
    ("tests/waiting.py", "monotonic"): "only turns a wait without end into a failure",
    ("tests/backend/cuda/test_jit_nvrtc.py", "sleep"): "a random moment to kill a process at",
    ("tests/faults/kill.py", "sleep"): "a random moment to kill a process at",
    ("tests/backend/test_shared_process.py", "sleep"): "gives the interpreter's lock away",
    ("tests/search/test_external.py", "0.3 s"): "for a program that never does what is waited for",
    ("python/nos_search/testing/executor.py", "sleep"): "a worker that hangs, and a wait for a mark",
}


def uses(source: str) -> Iterator[tuple[str, int]]:
    """Each clock, sleep or limit of seconds in a text, with its line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "time" and node.attr in CLOCKS:
                yield node.attr, node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            yield from ((name.name, node.lineno) for name in node.names if name.name in CLOCKS)
        elif isinstance(node, ast.Call):
            limits = [word.value for word in node.keywords if word.arg in ("timeout", "deadline")]
            name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            if name in ("join", "wait", "result"):  # of threads, processes, events and futures
                limits += node.args[:1]
            for limit in limits:
                # to wait for 0 s is to ask
                if isinstance(limit, ast.Constant) and type(limit.value) in (int, float) and limit.value:
                    yield f"{limit.value} s", node.lineno


def test_no_wall_time() -> None:
    files = [*ROOT.glob("tests/**/*.py"), *ROOT.glob("bench/test_*.py")]
    files += [*ROOT.glob("nos_ext/testing/**/*.py"), *ROOT.glob("python/nos_search/testing/**/*.py")]
    found = {}
    for file in files:
        name = file.relative_to(ROOT).as_posix()
        for what, line in uses(file.read_text(encoding="utf-8")):
            found.setdefault((name, what), []).append(line)
    for (name, what), lines in found.items():
        assert (name, what) in ALLOWED, (
            f"{name}, lines {lines}: {what}; count work, pass a clock in, use time.thread_time() with a wide bound, or "
            "wait for an event by tests.waiting (wait_until, HUNG)"
        )
    assert set(ALLOWED) <= set(found), "the table names what is not there any more"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import time\nassert time.perf_counter() - start < 1", "perf_counter"),
        ("from time import monotonic", "monotonic"),
        ("process.wait(timeout=120)", "120 s"),
        ("thread.join(5)", "5 s"),
        ("queue.get(timeout=0.5)", "0.5 s"),
        ("settings(deadline=200)", "200 s"),
        ("executor.make(timeout=60.0)", "60.0 s"),
    ],
)
def test_what_is_found(source: str, found: str) -> None:
    assert [what for what, _ in uses(source)] == [found]


def test_what_is_not() -> None:
    source = "', '.join(names)\ntime.thread_time()\nprocess.wait(timeout=HUNG)\nd.get(5)\nsettings(deadline=None)"
    assert not list(uses(source))


def test_hypothesis_has_no_deadline() -> None:
    hypothesis = pytest.importorskip("hypothesis")
    assert hypothesis.settings().deadline is None
    assert set(hypothesis.settings().suppress_health_check) == set(hypothesis.HealthCheck)
