"""`python -m nos_ext.info` has what a report of a bug needs."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import nos_ext
from nos_ext import _C

ROOT = Path(__file__).resolve().parents[2]
EMPTY = {name: value for name, value in os.environ.items() if not name.startswith(("NOS_", "OMP_", "KMP_", "CUDA_"))}


def told(**env: str) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "nos_ext.info"], cwd=ROOT, env={**EMPTY, **env}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return {line[:10].strip(): line[10:] for line in done.stdout.splitlines()}


def test_versions_machine_and_build() -> None:
    lines = told(OMP_NUM_THREADS="1", NOS_ISA="baseline")
    assert lines["nos_ext"].startswith(f"{nos_ext.__version__} (build ")
    assert platform.python_version() in lines["python"]
    assert lines["torch"] == metadata.version("torch")
    assert lines["numpy"] == metadata.version("numpy")
    assert lines["module"] == _C.__file__
    assert lines["cpu"].startswith("baseline in use, usable: baseline")
    assert lines["threads"].startswith(f"1 of {os.cpu_count()} processors")
    assert lines["cuda"]
    assert lines["set"] == "NOS_ISA=baseline, OMP_NUM_THREADS=1"
    assert told()["set"] == "no environment variable that is read"


def test_a_variable_that_is_refused_takes_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nos_ext.info"], cwd=ROOT, env={**EMPTY, "NOS_ISA": "x"}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert re.fullmatch(r"nos_ext: NOS_ISA is 'x'; this machine runs: .*\n", done.stderr)


def test_the_build_is_that_of_cmake_s_sources() -> None:
    """The module that is loaded has the whole hash; the report has its beginning."""
    found = re.search(r"\(build (\w+),", told()["nos_ext"])
    assert found
    whole = re.search(b"built from sources ([0-9a-f]{64})", Path(_C.__file__).read_bytes())
    assert (whole[1].decode()[:12] if whole else "unknown") == found[1]


def test_the_openmp_library_is_named() -> None:
    if sys.platform == "linux" and nos_ext.build_info()["cpu"]["openmp"]:
        assert re.search(r"\(OpenMP, /\S*libgomp\S*\)", told()["threads"])
