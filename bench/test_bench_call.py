"""pytest-benchmark entry points: what a call and a new rule cost beside the arithmetic."""

from __future__ import annotations

from typing import Any

import pytest

import nos_ext
from bench.case import Arena
from bench.latency import fresh_texts
from bench.peers import ENGINE, contenders
from bench.population import SCENES, Scene, stack
from bench.population import contenders as population_contenders
from bench.rules import RULES
from bench.sizes import Size

pytestmark = pytest.mark.benchmark(max_time=0.2, min_rounds=5, warmup=True, warmup_iterations=2)


@pytest.mark.parametrize("tensors", [1, 10, 161])
def test_overhead(benchmark: Any, tensors: int) -> None:
    case = Arena(Size("tiny", "", ((16,),) * tensors)).case(RULES["powersign"])
    found, _ = contenders(case, ("torch.compile", "numexpr"))
    benchmark(next(c.run for c in found if c.name == ENGINE), 1)


@pytest.mark.parametrize("rule", ["powersign", "random40"])
def test_text_to_program(benchmark: Any, rule: str) -> None:
    texts = fresh_texts(RULES[rule])
    benchmark(lambda: nos_ext.compile_rule(next(texts)))


BY = ("apply_population", "apply_rule x K", "eager x K")


@pytest.mark.parametrize(
    ("scene", "by"),
    [pytest.param(s, by, id=f"{s.name}-{by}") for s in SCENES for by in BY if s.eager or by != "eager x K"],
)
def test_population(benchmark: Any, scene: Scene, by: str) -> None:
    benchmark.group = scene.name
    found = population_contenders(stack(scene.shapes, scene.rules, scene.k), scene.eager)
    benchmark(next(c.run for c in found if c.name == by), 1)
