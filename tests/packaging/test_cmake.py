"""What CMake says when it is not given what it needs: the thing, and the remedy."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
Configure = Callable[..., str]
CMAKE = shutil.which("cmake", path=str(Path(sys.executable).parent)) or shutil.which("cmake")


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    """Configures a build that must fail; returns what CMake said, in one line."""
    if not CMAKE:
        pytest.skip("no cmake")

    def run(*arguments: str) -> str:
        command = [CMAKE, "-S", ROOT, "-B", tmp_path / "tree", "-DNOS_CUDA=OFF", *arguments]
        out = subprocess.run(command, capture_output=True, text=True)
        assert out.returncode != 0, out.stdout
        return " ".join(out.stderr.split())

    return run


@pytest.mark.parametrize("version", ["2.13.6", None])
def test_pybind11_that_is_too_old_or_missing(configure: Configure, tmp_path: Path, version: str | None) -> None:
    folder = tmp_path / "pybind11"
    folder.mkdir()
    if version:
        (folder / "pybind11Config.cmake").write_text("")
        (folder / "pybind11ConfigVersion.cmake").write_text(
            f"set(PACKAGE_VERSION {version})\nset(PACKAGE_VERSION_COMPATIBLE TRUE)\n"
        )
    where = f"-Dpybind11_DIR={folder}" if version else "-DCMAKE_DISABLE_FIND_PACKAGE_pybind11=ON"
    out = configure(f"-DPython_EXECUTABLE={sys.executable}", where)
    assert (f"pybind11 {version} in {folder} is too old" if version else "pybind11 was not found") in out
    assert f"install 'pybind11>=3.0,<4' for {sys.executable}" in out
    assert "-Dpybind11_DIR=" in out


def test_a_relative_path_of_python(configure: Configure) -> None:
    out = configure("-DPython_EXECUTABLE=.venv/bin/python")
    assert "Python_EXECUTABLE is '.venv/bin/python', a relative path; pass the whole path" in out
