"""A compiled module says from which sources it was built, so that one that was built elsewhere or earlier can be judged."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULE = f"nos_ext/_C{sysconfig.get_config_var('EXT_SUFFIX')}"


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "cmake/sources.py", *arguments], cwd=root, capture_output=True, text=True)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small one, with a "module" that is what the build would compile."""
    for folder in ("csrc/ops", "cmake", "nos_ext", "tests"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "CMakeLists.txt").write_text("project(x)\n")
    (tmp_path / "csrc/ops/a.h").write_text("int a;\n")
    shutil.copy(ROOT / "cmake/sources.py", tmp_path / "cmake")
    assert run(tmp_path, "--write", MODULE).returncode == 0
    return tmp_path


def test_a_module_of_these_sources(project: Path) -> None:
    (project / "tests/test_a.py").write_text("")
    (project / "csrc/ops/a.h").touch()
    out = run(project, "--check")
    assert (out.returncode, out.stdout) == (0, f"{MODULE} was built from these sources ({run(project).stdout[:12]})\n")


@pytest.mark.parametrize("change", ["a.write_text('int b;')", "a.rename(a.with_name('b.h'))", "a.with_name('b.h').touch()",
                                    "a.parents[2].joinpath('CMakeLists.txt').write_text('')"])  # fmt: skip
def test_a_module_of_other_sources_is_told_from_them(project: Path, change: str) -> None:
    before = run(project).stdout
    eval(change, {"a": project / "csrc/ops/a.h"})
    out = run(project, "--check")
    assert out.returncode == 1
    assert f"{MODULE} was built from other sources ({before[:12]}, these are {run(project).stdout[:12]})" in out.stdout


def test_a_module_that_says_nothing_or_is_not_there(project: Path) -> None:
    (project / MODULE).write_bytes(b"\x7fELF")
    assert "does not say from which sources" in run(project, "--check").stdout
    (project / MODULE).unlink()
    out = run(project, "--check")
    assert (out.returncode, out.stdout) == (1, f"there is no {MODULE}, the module for this Python\n")
    assert run(project, "--chek").returncode == 2
