"""ptxas and the machine code of every kernel stay within the gate's limits."""

from __future__ import annotations

import pytest

from tests.backend.cuda import gate


@pytest.mark.slow
@pytest.mark.skipif(not gate.nvcc(), reason="no nvcc: the kernels cannot be compiled here")
@pytest.mark.parametrize("arch", ["80", "90", "100"])
def test_gate(arch: str) -> None:
    reports = gate.inspect(arch)
    assert [p for r in reports for p in r.problems()] == []
    if not gate.nvdisasm():
        pytest.skip(
            "registers and spills checked; the machine code not: no nvdisasm (pip install nvidia-cuda-nvdisasm)"
        )


def test_a_bad_kernel_is_named_with_its_figures() -> None:
    limits = next(iter(gate.KERNELS.values()))
    bad = gate.Report("90", limits, registers=140, spills=24, local=3, branches=57)
    assert bad.problems() == [
        "sm_90 interpreter f32: spills 24 bytes",
        "sm_90 interpreter f32: uses 140 registers, limit 128",
        "sm_90 interpreter f32: has 3 accesses to local memory",
        "sm_90 interpreter f32: has 57 indirect branches, expected 1",
    ]
