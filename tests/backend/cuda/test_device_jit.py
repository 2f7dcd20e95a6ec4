"""The compiled tier on a real device: the CPU's bits, loading in place of the interpreter, settings. Skipped without."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

import nos_ext
from tests.backend import programs as pg
from tests.backend.cuda.test_device import assert_same_bits, compare, make, to_device

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.skipif(not nos_ext.build_info()["cuda"]["enabled"], reason="this build has no CUDA back-end"),
    pytest.mark.skipif(nos_ext._C.jit_status().startswith("off"), reason=nos_ext._C.jit_status()),
]
SIZES = (1, 5, 1023, 2048, 4100, 70001)
ARGUMENTS = {"lr": 0.1, "step": 3, "total_steps": 10.0, "seed": 5, "grad_scale": 2.0}


@pytest.fixture(autouse=True)
def compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("NOS_JIT_CACHE", str(tmp_path))
    before = nos_ext.set_jit("always")
    yield
    nos_ext.set_jit(before)


@pytest.mark.parametrize("name", [*pg.ELEMENTWISE, *pg.RANDOM])
def test_every_op(name: str, tmp_path: Path) -> None:
    compare(pg.of_op(name), make(1, SIZES, [torch.float32] * 4), **ARGUMENTS)
    assert list(tmp_path.glob("*.cubin")), "it was compiled, not interpreted"


@pytest.mark.parametrize("dtypes", [["float32"] * 4, ["bfloat16", "float16", "float32", "bfloat16"], ["float16"] * 4])
@pytest.mark.parametrize("offset", [0, 1])
def test_random_rules(dtypes: list[str], offset: int) -> None:
    rng = random.Random(len(dtypes[0]) + offset)
    for length in (3, 10, 20, 40):
        program = pg.random_program(rng, length, states=2)
        compare(program, make(length, SIZES, [getattr(torch, d) for d in dtypes], offset), offset=offset, **ARGUMENTS)


def test_double_of_exact_ops() -> None:
    program = nos_ext.compile_rule("sqrt(abs(g)) / (abs(m) + 0.5) - max(g, m)")
    compare(program, make(2, SIZES, [torch.float64] * 3), **ARGUMENTS)


def test_auto_changes_over_without_a_change_of_bits(tmp_path: Path) -> None:
    """A training that is compiled in the middle equals one that never is."""
    nos_ext.set_jit("auto", after=10)
    program = nos_ext.compile_rule("g * exp(sign(g) * sign(m)) + 0.01 * tanh(m)")
    cpu = make(3, SIZES, [torch.float32] * 3)
    gpu = to_device(cpu)
    step = 0
    while not list(tmp_path.glob("*.cubin")) or step % 10:
        step += 1
        assert step < 10_000_000, "no kernel was compiled"
        for lists in (cpu, gpu):
            nos_ext.apply_rule(program, lists[0], lists[1], lists[2:], lr=1e-3, step=step)
    for lists in (cpu, gpu):
        for more in range(10):
            nos_ext.apply_rule(program, lists[0], lists[1], lists[2:], lr=1e-3, step=step + more)
    assert_same_bits(cpu, gpu)


def test_mixed_dtypes_of_a_launch_are_interpreted(tmp_path: Path) -> None:
    program = nos_ext.compile_rule("g * 0.5")
    params = [torch.ones(5000, device="cuda", dtype=d) for d in (torch.float16, torch.bfloat16)]
    nos_ext.apply_rule(program, params, [torch.ones_like(p) for p in params], {}, lr=1.0)
    assert not list(tmp_path.glob("*.cubin"))
    assert [p[0].item() for p in params] == [0.5, 0.5]
