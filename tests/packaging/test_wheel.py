"""Wheels and sdists work where users are: another directory, no torch at build time, no nvcc, no system cmake or ninja."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# The whole module, in a quarter of the time: what is tested here is how it is packed, and not how fast it is.
QUICK = "-DNOS_UNITY=ON -DCMAKE_CXX_FLAGS_RELEASE=-O0 -DCMAKE_INTERPROCEDURAL_OPTIMIZATION=OFF"
USE = """
import sys, pathlib
import numpy as np
import nos_ext
assert pathlib.Path(nos_ext.__file__).is_relative_to(sys.prefix), nos_ext.__file__
p = [np.ones(3, np.float32)]
nos_ext.apply_rule(nos_ext.compile_rule("g"), p, [np.ones(3, np.float32)], {}, lr=0.5)
assert p[0].tolist() == [0.5] * 3
assert "torch" not in sys.modules
print(nos_ext.build_info()["cuda"]["status"])
"""


def run(*command: str | Path, cwd: Path, **env: str) -> str:
    env = {**os.environ, "PYTHONPATH": "", **env}  # what is found is what was installed
    out = subprocess.run([str(c) for c in command], cwd=cwd, env=env, capture_output=True, text=True)
    assert out.returncode == 0, f"{command}\n{out.stdout[-4000:]}\n{out.stderr[-4000:]}"
    return out.stdout


def copied(folder: Path) -> list[str]:
    """Copies what git tracks, or would, into a folder, and returns the names."""
    names = run("git", "ls-files", "-co", "--exclude-standard", cwd=ROOT).splitlines()
    names = [name for name in names if (ROOT / name).is_file()]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((ROOT / name).read_bytes())
    return names


PACKED = {
    "nos_ext/py.typed",
    "nos_ext/_C.pyi",
    "nos_search/py.typed",
    "nos_search/cli/__init__.py",
    "nos_search/store/store.py",
}


def check_packed(names: set[str]) -> None:
    assert names >= PACKED
    assert any(n.startswith("nos_search/data/") for n in names)
    assert not any(n.startswith(("tests/", "csrc/", "bench/", "build/")) for n in names)


def test_what_is_packed(tmp_path: Path) -> None:
    """By setuptools of this environment, without a compiler: an sdist has all that a build reads, and a wheel that comes
    of it all of the packages."""
    pytest.importorskip("setuptools", minversion="77")
    tracked = copied(tmp_path)

    def setup(*arguments: str | Path, cwd: Path) -> None:
        run(sys.executable, "-c", "import setuptools; setuptools.setup()", "-q", *arguments, cwd=cwd)

    setup("sdist", "--dist-dir", tmp_path / "dist", cwd=tmp_path)
    (sdist,) = (tmp_path / "dist").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    needed = {name for name in tracked if name.startswith(("csrc/", "cmake/", "nos_ext/", "python/"))}
    needed |= {"CMakeLists.txt", "LICENSE", "pyproject.toml", "setup.py"}
    assert {name for name in needed if not (unpacked / name).is_file()} == set()

    setup("build_py", "--build-lib", tmp_path / "lib", cwd=unpacked)
    built = {path.relative_to(tmp_path / "lib").as_posix() for path in (tmp_path / "lib").rglob("*") if path.is_file()}
    check_packed(built)
    packages = {name.removeprefix("python/") for name in needed if name.startswith(("nos_ext/", "python/"))}
    assert {name for name in packages if name.endswith(".py")} == {name for name in built if name.endswith(".py")}


@pytest.mark.slow
@pytest.mark.exhaustive
def test_sdist_to_wheel_to_use_elsewhere(tmp_path: Path) -> None:
    """Tracked files -> sdist -> wheel, both in pip's isolation with nothing on PATH but the C++ compiler's folder."""
    source = tmp_path / "source"
    source.mkdir()
    copied(source)
    tools = tmp_path / "tools"  # the compiler and git, but no cmake, ninja or nvcc
    tools.mkdir()
    for tool in ("cc", "gcc", "c++", "g++", "as", "ld", "ar", "ranlib", "nm", "strip", "sh", "uname", "env"):
        found = subprocess.run(["which", tool], capture_output=True, text=True).stdout.strip()
        if found:
            (tools / tool).symlink_to(found)

    build_venv = tmp_path / "build-venv"
    venv.create(build_venv, with_pip=True)
    python = build_venv / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "build", cwd=tmp_path)
    run(python, "-m", "build", "--outdir", tmp_path / "dist", source, cwd=tmp_path, PATH=str(tools), CMAKE_ARGS=QUICK)

    (sdist,) = (tmp_path / "dist").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {n.split("/", 1)[1] for n in archive.getnames() if "/" in n}
    assert {"csrc/ops/ops.def", "cmake/NosEngine.cmake", "CMakeLists.txt", "LICENSE", "nos_ext/_C.pyi"} <= names

    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (module,) = (n for n in names if n.startswith("nos_ext/_C.") and n.endswith(".so"))
        assert run(python, "cmake/sources.py", cwd=ROOT).strip().encode() in archive.read(module)
        check_packed(names)

    use_venv = tmp_path / "use-venv"
    venv.create(use_venv)
    run(sys.executable, "-m", "pip", "--python", use_venv, "install", "-q", wheel, cwd=tmp_path)
    out = run(use_venv / "bin" / "python", "-c", USE, cwd=tmp_path)
    assert out.startswith("off: no nvcc was found at build time")
    run(use_venv / "bin" / "python", "-m", "nos_ext.info", cwd=tmp_path)


def test_import_without_torch() -> None:
    """The engine, the language and the library do not need torch."""
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import nos_ext\n"
        "from nos_ext.optim import library\n"
        "print(len(nos_ext.compile_rule(library.powersign)))\n"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert int(out.stdout) > 0
