"""ptxas and the machine code of every kernel stay within the gate's limits."""

from __future__ import annotations

import pytest

from tests.backend.cuda import gate


@pytest.mark.slow
@pytest.mark.skipif(not gate.nvcc(), reason="no nvcc: the kernels cannot be compiled here")
@pytest.mark.parametrize(
    "arch",
    [pytest.param("80", marks=pytest.mark.exhaustive), "90", pytest.param("100", marks=pytest.mark.exhaustive)],
)
def test_gate(arch: str) -> None:
    """`make gate` has more of them."""
    reports = gate.inspect(arch)
    gate.count_issued(reports)
    assert [p for r in reports for p in r.problems()] == []
    if not gate.nvdisasm():
        pytest.skip(
            "registers and spills checked; the machine code not: no nvdisasm (pip install nvidia-cuda-nvdisasm)"
        )


def test_a_bad_kernel_is_named_with_its_figures() -> None:
    limits = next(iter(gate.KERNELS.values()))
    bad = gate.Report("90", limits, registers=140, spills=24, local=3, branches=57, issued={"powersign": 107.0})
    assert bad.problems() == [
        "sm_90 interpreter f32: spills 24 bytes",
        "sm_90 interpreter f32: uses 140 registers, limit 128",
        "sm_90 interpreter f32: has 3 accesses to local memory",
        "sm_90 interpreter f32: has 57 indirect branches, expected 1",
        "sm_90 interpreter f32: issues 107.0 instructions per element for powersign, limit 95",
    ]


def test_local_memory_is_allowed_in_the_reduction_of_huge_angles_only() -> None:
    code = ["/*0000*/ LDL.64 R2, [R1] ;", ".L_x_1:", "/*0010*/ MOV R1, R2 ;"]
    slow = ["$_Z8prologue$__internal_trig_reduction_slowpathd:", "/*0020*/ STL.64 [R7], R30 ;", ".L_x_2:",
            "/*0030*/ @P3 LDL.64 R18, [R1+0x8] ;"]  # fmt: skip
    other = ["$_Z8prologue$__internal_accurate_pow:", "/*0040*/ STL.64 [R7], R30 ;"]
    assert gate.local_accesses(slow) == 0
    assert gate.local_accesses(code + slow + other) == 2
