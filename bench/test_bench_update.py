"""pytest-benchmark entry points: a step of the main rules. `pytest bench --benchmark-json OUT`; ratios: bench.run."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from bench.case import Arena, Unavailable
from bench.peers import CONTENDERS, ENGINE, LIMIT
from bench.rules import RULES
from bench.sizes import SIZES

pytestmark = pytest.mark.benchmark(max_time=0.2, min_rounds=5, warmup=True, warmup_iterations=2)


@cache
def _arena(size: str) -> Arena:
    return Arena(SIZES[size])


@pytest.mark.parametrize(
    "contender", [LIMIT, ENGINE, "hand-fused", "eager", "_foreach", "optim foreach", "optim fused"]
)
@pytest.mark.parametrize("size", ["1e4", "1e6", "convnet"])
@pytest.mark.parametrize("rule", ["sgd", "adamw", "lion", "powersign", "random15"])
def test_update(benchmark: Any, rule: str, size: str, contender: str) -> None:
    benchmark.group = f"{rule} {size}"
    try:
        step = CONTENDERS[contender](_arena(size).case(RULES[rule]))
    except Unavailable as why:
        pytest.skip(str(why))
    benchmark(step.run, 1)
