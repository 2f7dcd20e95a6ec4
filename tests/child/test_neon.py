"""The kernels' NEON path gives the bits of the AVX2 path, forward and backward, for every layer.

It is compiled by a cross compiler and runs in an emulator, so the test needs both, and a processor with AVX2.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.compiling import compile_

ROOT = Path(__file__).parents[2]
CHILD = ROOT / "csrc/child"
CROSS, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
# The only table of kernels stands under the name that child.cc knows, and child.cc finds it to be supported.
FLAGS = [
    "-std=c++20", "-O1", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-w",
    "-DNOS_CHILD_ISA=avx2", "-DNOS_HAVE_AVX2", "-D__builtin_cpu_supports(x)=1",
]  # fmt: skip


def has_avx2() -> bool:
    cpu = Path("/proc/cpuinfo")
    return platform.machine() == "x86_64" and cpu.exists() and {"avx2", "fma"} <= set(cpu.read_text().split())


def build(compiler: str, flags: list[str], folder: Path) -> Path:
    folder.mkdir()
    sources = [
        Path(__file__).with_name("steps.cc"),
        *(p for p in CHILD.glob("*.cc") if p.stem not in ("training", "peak", "peak_loop")),
        *(CHILD / "kernels").glob("*.cc"),
    ]

    def compiled(source: Path) -> Path:
        out = folder / f"{source.parent.name}_{source.stem}.o"
        compile_(compiler, [*FLAGS, *flags, "-c", source, "-o", out], root=ROOT, check=True)
        return out

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compiled, sources))
    program = folder / "steps"
    subprocess.run([compiler, "-static", *map(str, objects), "-o", str(program)], check=True)
    return program


@pytest.mark.slow
@pytest.mark.skipif(not has_avx2(), reason="needs AVX2 to compare with")
@pytest.mark.skipif(not shutil.which(CROSS) or not shutil.which(EMULATOR), reason=f"needs {CROSS} and {EMULATOR}")
def test_neon_has_the_bits_of_avx2(tmp_path: Path) -> None:
    ours = build("g++", ["-mavx2", "-mfma", "-mf16c"], tmp_path / "avx2")
    theirs = build(CROSS, [], tmp_path / "neon")
    want = subprocess.run([ours], capture_output=True, text=True, check=True).stdout.splitlines()
    got = subprocess.run([EMULATOR, theirs], capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(want) == 6
    assert "nan" not in "".join(want)
    assert got == want
