"""A new op does not compile before every back-end has it, and works once CONTRIBUTING's list has been followed.

Both in a copy of the sources: rows are added to its tables by the scripts below.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import nos_ext
from tests.compiling import compile_

ROOT = Path(__file__).resolve().parents[2]
CPU, CUDA = "csrc/backend/cpu", "csrc/backend/cuda"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not shutil.which("g++"), reason="no g++")]

# file -> what goes where: (the text before it, the text); "" is the end of the file
Edits = dict[str, list[tuple[str, str]]]

ROW = 'NOS_OP({name}, {arity}, {domain}, "", 0, 1, "a", "a", "#0", "an op for this test")\n'
# max(a, 0), and a / (1 + |a|), which is left to the block kernels; the list of CONTRIBUTING.md, step by step
STEPS: Edits = {
    "csrc/ops/ops.def": [("", ROW.format(name="relu", arity=1, domain="any") + ROW.format(name="soft", arity=1, domain="any"))],
    "csrc/ops/math.h": [(
        "// ---- transcendental",
        "template <class T>\nNOS_HD T relu(T a) {\n  return a > T(0) ? a : T(0);\n}\n"
        "template <class T>\nNOS_HD T soft(T a) {\n  return divide(a, T(1) + abs(a));\n}\n",
    )],
    "csrc/backend/cpu/native/native.def": [
        ("", "NOS_LOOP(relu, emit(VOp::max, {s[0], constant(kZero)}))\nNOS_KERNEL(soft, 0.3)\n"),
    ],
    "csrc/backend/cuda/interpreter/isa.def": [
        ("NOS_MOVE(ldc)", "NOS_ONE(relu, math::relu<T>(a))\nNOS_ONE(soft, math::soft<T>(a))\n"),
    ],
    "tests/reference/oracle.py": [(
        "}\n\n\ndef philox(",
        "    \"relu\": lambda a: np.where(a > 0, a, 0.0),\n    \"soft\": lambda a: a / (1 + np.abs(a)),\n",
    )],
    "tests/reference/bounds.py": [(
        "    \"sign\": lambda v, a: np.where(",
        "    \"relu\": _worst, \"soft\": _worst,\n",
    )],
}  # fmt: skip


def edited(folder: Path, edits: Edits) -> Path:
    """A copy of the sources with text put in."""
    for part in ("csrc", "tests/backend/cuda", "tests/ops", "tests/reference"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for name, changes in edits.items():
        text = (folder / name).read_text(encoding="utf-8")
        for before, new in changes:
            assert before in text, (name, before)
            at = text.index(before) if before else len(text)
            text = text[:at] + new + text[at:]
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def flags() -> list[str]:
    """The project's own: the options of CMakeLists.txt that make switches complete, and those of the numbers."""
    found = []
    for name, variable in (("CMakeLists.txt", "NOS_COMPLETE"), ("cmake/NosEngine.cmake", "NOS_NUMERICS")):
        (values,) = re.findall(rf"^set\({variable} (.*)\)$", (ROOT / name).read_text(encoding="utf-8"), re.M)
        found += values.split()
    assert "-Werror=switch" in found
    return ["-std=c++20", "-O0", *found]


def compiled(folder: Path, source: str, *options: str) -> subprocess.CompletedProcess[str]:
    return compile_("g++", [*flags(), "-I.", *options, source], root=folder, capture_output=True)


def op_row(name: str, arity: int, domain: str) -> Edits:
    return {"csrc/ops/ops.def": [("", ROW.format(name=name, arity=arity, domain=domain))]}


def vop_row(columns: str) -> Edits:
    return {"csrc/backend/cpu/native/vops.def": [("", f"NOS_VOP({columns})\n")]}


def without(*files: str) -> Edits:
    return {name: changes for name, changes in STEPS.items() if name not in files}


# what is missing -> (edits, the source that must not compile, what its errors name)
INCOMPLETE: dict[str, tuple[Edits, str, str]] = {
    "function: kernels": (without("csrc/ops/math.h"), f"{CPU}/kernels.cc", "relu"),
    "function: scalars": (without("csrc/ops/math.h"), "csrc/program/program.cc", "relu"),
    "native row: loops": (without(f"{CPU}/native/native.def"), f"{CPU}/native/expand.cc", "relu"),
    "native row: graph": (without(f"{CPU}/native/native.def"), f"{CPU}/native/graph.cc", "relu"),
    "CUDA instruction": (without(f"{CUDA}/interpreter/isa.def"), f"{CUDA}/interpreter/lower.cc", "k1_relu"),
    "CUDA lowering of a binary op": (op_row("atan2", 2, "any"), f"{CUDA}/interpreter/lower.cc", "b_atan2"),
    "CUDA lowering of a ternary op": (op_row("lerp", 3, "any"), f"{CUDA}/interpreter/lower.cc", "lerp"),
    "kernel of a random op": (op_row("cauchy", 1, "random"), f"{CPU}/kernels.cc", "cauchy"),
    "native row of a random op": (op_row("cauchy", 1, "random"), f"{CPU}/native/graph.cc", "cauchy"),
    "CUDA instruction of a random op": (op_row("cauchy", 1, "random"), f"{CUDA}/interpreter/lower.cc", "k1_cauchy"),
    "CUDA source of a random op": (op_row("cauchy", 1, "random"), f"{CUDA}/jit/source.cc", "cauchy"),
    "scalar op": (op_row("tan2", 1, "scalar"), "csrc/program/program.cc", "tan2"),
    "case of a CUDA move": ({f"{CUDA}/interpreter/isa.def": [("", "NOS_MOVE(swap)\n")]}, "tests/backend/cuda/host_run.cc", "k1_swap"),
    "case of a CUDA draw": ({f"{CUDA}/interpreter/isa.def": [("", "NOS_DRAW(cauchy)\n")]}, "tests/backend/cuda/host_run.cc", "k1_cauchy"),
    "column of a vector op": (vop_row("recip, 1, 0, 1, 0.1, absent(i)"), f"{CPU}/native/x86/emit_avx512.cc", "NOS_VOP"),
    "AVX2 code of a vector op": (vop_row("recip, 1, 0, 1, 0.1, recip(i), absent(i)"), f"{CPU}/native/x86/emit_avx2.cc", "recip"),
    "AVX-512 code of a vector op": (vop_row("recip, 1, 0, 1, 0.1, absent(i), recip(i)"), f"{CPU}/native/x86/emit_avx512.cc", "recip"),
    "name of an x86 instruction": (
        vop_row("recip, 1, 0, 1, 0.1, absent(i), unary(vrcp14ps, i)"), f"{CPU}/native/x86/emit_avx512.cc", "vrcp14ps"),
    "vector op that an op uses": (
        {f"{CPU}/native/native.def": [("NOS_LOOP(rsqrt", "NOS_LOOP(relu, emit(VOp::recip, {s[0]}))\n")]},
        f"{CPU}/native/expand.cc", "recip"),
    "reading of an argument": (
        {"csrc/program/arguments.def": [("", "NOS_OPTION(momentum, 0, 0, \"a number.\")\n")]}, "csrc/bind/scalars.cc", "momentum"),
}  # fmt: skip


def python_options() -> list[str]:
    import sysconfig

    pybind11 = pytest.importorskip("pybind11")
    return ["-I" + pybind11.get_include(), "-I" + sysconfig.get_paths()["include"]]


@pytest.mark.parametrize("missing", INCOMPLETE)
def test_what_is_missing_does_not_compile(missing: str, tmp_path: Path) -> None:
    edits, source, name = INCOMPLETE[missing]
    extra = python_options() if "/bind/" in source else []
    if "/bind/" in source and not (Path(extra[1][2:]) / "Python.h").exists():
        pytest.skip("no Python.h")
    result = compiled(edited(tmp_path, edits), source, *extra, "-fsyntax-only")
    errors = [line for line in result.stderr.splitlines() if "error" in line]
    assert result.returncode != 0, "it compiles"
    assert any(re.search(rf"\b{name}\b", line) for line in errors), result.stderr


def test_contributing_lists_the_files_of_a_new_op() -> None:
    section = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## To add an op")[1].split("\n## ")[0]
    steps = re.findall(r"^\d+\. .*?`([^`]+)`", section, re.M)
    assert steps[: len(STEPS)] == list(STEPS)
    assert steps[len(STEPS) :] == ["make docs", "make ulp"]
    assert all((ROOT / name).exists() for name in re.findall(r"`((?:csrc|tests|docs)/[^`]+)`", section))


def program(op: str) -> bytes:
    """p <- op(g) in the copy, whose new opcodes follow those of this module."""
    code = len(nos_ext.op_table()) + ["relu", "soft"].index(op)
    text = struct.pack("<H", 1) + b"r"
    hypers = struct.pack("<H", 2) + b"lr" + struct.pack("<Bd", 0, 0.0)
    return b"NOSP" + struct.pack("<6H", 1, 0, 1, 0, 0, 1) + text + hypers + struct.pack("<BBHHHH", code, 0, 1, 0, 0, 2)


def build_engine(folder: Path) -> Path:
    """new_op.cc with the CPU back-end of the copy."""
    cmake = (ROOT / "cmake" / "NosEngine.cmake").read_text(encoding="utf-8")
    sources = [s for s in re.findall(r"csrc/[\w/]+\.cc", cmake) if "/kernels.cc" not in s and "/child/" not in s]
    isas = [isa for isa in nos_ext.build_info()["cpu"]["isas"] if isa != "baseline"][-1:]
    work: list[tuple[str, list[str]]] = [("tests/ops/new_op.cc", [])]
    # Two sources that are half of all each, as most of their time goes into the same headers. Sources that are next to
    # each other in the list may be alike, and define the same names.
    for half in (0, 1):
        (folder / f"half{half}.cc").write_text("".join(f'#include "{s}"\n' for s in sources[half::2]))
        work.append((f"half{half}.cc", [f"-DNOS_HAVE_{isa.upper()}" for isa in isas]))
    for isa in ("baseline", *isas):
        (values,) = re.findall(rf"^set\(NOS_FLAGS_{isa} (.*)\)$", cmake, re.M)
        work.append((f"{CPU}/kernels.cc", [f"-DNOS_ISA={isa}", *values.replace('""', "").split()]))

    def one(number: int) -> str:
        source, options = work[number]
        out = f"{number}.o"
        result = compiled(folder, source, *options, "-c", "-o", out)
        assert result.returncode == 0, result.stderr
        return out

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(one, range(len(work))))
    subprocess.run(["g++", *objects, "-o", "engine", "-pthread"], cwd=folder, check=True)
    return folder / "engine"


def load(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return edited(tmp_path_factory.mktemp("new_op"), STEPS)


G = np.concatenate([
    np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, 3e38, -3e38], np.float32),
    np.random.default_rng(3).standard_normal(1000).astype(np.float32),
])  # fmt: skip


def expected(copy: Path, op: str) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.asarray(load(copy / "tests/reference/oracle.py", "new_oracle").ORACLE[op](G.astype(np.float64)))


def test_an_op_made_by_the_list_works(copy: Path) -> None:
    engine = build_engine(copy)
    (copy / "g").write_bytes(G.tobytes())
    for op in ("relu", "soft"):
        (copy / "program").write_bytes(program(op))
        results = []
        for native in ("0", "1"):
            run = subprocess.run([engine, "program", "g"], cwd=copy, env={**os.environ, "NOS_NATIVE": native},
                                 capture_output=True, check=True)  # fmt: skip
            results.append(np.frombuffer(run.stdout, np.float32))
            status = nos_ext.build_info()["cpu"]["native"]
            assert run.stderr.decode() == ("off: NOS_NATIVE=0" if native == "0" else status)
            np.testing.assert_allclose(results[-1], expected(copy, op), rtol=3e-7, atol=0)
        assert np.array_equal(results[0].view(np.uint32), results[1].view(np.uint32))


def test_an_op_made_by_the_list_works_on_cuda(copy: Path) -> None:
    """The interpreter's kernel, run on the host."""
    script = f"""
import os, sys, numpy as np
from pathlib import Path
from tests.backend.cuda import host
host.ROOT = Path({str(copy)!r})
os.environ["NOS_HOST_KERNEL"] = str(host.build("-O0"))
class Foreign:
    bytecode = Path("program").read_bytes()
    hyperparameters = {{"lr": None}}
g = np.frombuffer(Path("g").read_bytes(), np.float32).copy()
p = np.ones_like(g)
host.apply([Foreign], [p], [g], [], groups=[{{"lr": 1.0}}])
sys.stdout.buffer.write(p.tobytes())
"""
    (copy / "g").write_bytes(G.tobytes())
    for op in ("relu", "soft"):
        (copy / "program").write_bytes(program(op))
        run = subprocess.run([sys.executable, "-c", script], cwd=copy, capture_output=True, check=False,
                             env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])})  # fmt: skip
        assert run.returncode == 0, run.stderr.decode()
        result = np.frombuffer(run.stdout, np.float32)
        np.testing.assert_allclose(result, expected(copy, op), rtol=3e-7, atol=0)
