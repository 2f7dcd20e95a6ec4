"""What is done to a wheel before other machines get it, and the settings by which CI builds all of them."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from nos_ext import _C, build_info

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
TAG = f"cp{sys.version_info.major}{sys.version_info.minor}"

BOTH = """
import sys
sys.path.insert(0, sys.argv[1])
{imports}
import numpy as np
from nos_ext import _C
assert _C.__file__.startswith(sys.argv[1])
paths = {{line.split()[-1] for line in open("/proc/self/maps") if "libgomp" in line}}
print(*paths)
"""


@pytest.fixture(scope="module")
def repaired(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel with the module of this installation, and little else."""
    if sys.platform != "linux" or not build_info()["cpu"]["openmp"]:
        pytest.skip("there is no libgomp to pack")
    for tool in ("auditwheel", "patchelf"):
        if shutil.which(tool, path=PATH) is None:
            pytest.skip(f"no {tool}")
    folder = tmp_path_factory.mktemp("wheel")
    wheel = folder / f"nos_ext-1.0-{TAG}-{TAG}-linux_{os.uname().machine}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(_C.__file__, f"nos_ext/{Path(_C.__file__).name}")
        archive.writestr("nos_ext/__init__.py", "")
        archive.writestr("nos_ext-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: nos-ext\nVersion: 1.0\n")
        tag = wheel.stem.split("-", 2)[2]
        archive.writestr("nos_ext-1.0.dist-info/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {tag}\n")
        archive.writestr("nos_ext-1.0.dist-info/RECORD", "".join(f"{name},,\n" for name in archive.namelist()))
    command = [sys.executable, ROOT / ".ci" / "repair_wheel.py", wheel, folder / "out"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PATH": PATH})
    assert done.returncode == 0, done.stderr
    (out,) = (folder / "out").glob("*.whl")
    assert re.fullmatch(rf"{re.escape(str(out))} \(\d+\.\d MB\)\n", done.stdout)
    return out


def test_a_repaired_wheel_is_for_other_machines(repaired: Path) -> None:
    assert "manylinux_2_" in repaired.name
    with zipfile.ZipFile(repaired) as archive:
        names = archive.namelist()
        record = archive.read("nos_ext-1.0.dist-info/RECORD").decode()
    assert "nos_ext.libs/libgomp.so.1" in names
    assert all(name in record for name in names if not name.endswith("/"))
    assert not any("torch" in name for name in names)


@pytest.mark.parametrize("imports", ["import torch", "from nos_ext import _C\nimport torch"])
def test_torch_and_the_module_use_one_openmp_library(repaired: Path, tmp_path: Path, imports: str) -> None:
    """Whichever is imported first."""
    with zipfile.ZipFile(repaired) as archive:
        archive.extractall(tmp_path)
    code = BOTH.format(imports=imports)
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, env=env, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    (library,) = done.stdout.split()
    assert ("/nos_ext.libs/" in library) == (imports != "import torch")


def test_wheels_are_built_for_the_pythons_that_are_tested() -> None:
    built = re.findall(r"cp3(\d+)-\*", PROJECT["tool"]["cibuildwheel"]["build"])
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    matrix = re.search(r"^ +python: \[(.*)\]", text, re.MULTILINE)
    assert matrix
    assert built == re.findall(r"3\.(\d+)", matrix[1])
    assert PROJECT["project"]["requires-python"] == f">=3.{built[0]}"
    command = PROJECT["tool"]["cibuildwheel"]["linux"]["repair-wheel-command"]
    script = re.search(r"\{project\}/(\S+)", command)
    assert script
    assert (ROOT / script[1]).is_file()
    assert script[1] in (ROOT / "MANIFEST.in").read_text(encoding="utf-8")


@pytest.mark.skipif(importlib.util.find_spec("cibuildwheel") is None, reason="no cibuildwheel")
def test_cibuildwheel_understands_its_settings() -> None:
    command = [sys.executable, "-m", "cibuildwheel", "--platform", "linux", "--archs", "x86_64"]
    done = subprocess.run([*command, "--print-build-identifiers", "."], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [f"cp3{minor}-manylinux_x86_64" for minor in range(10, 15)]
