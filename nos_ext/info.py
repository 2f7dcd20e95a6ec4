"""``python -m nos_ext.info``: what this installation is and can run on, which is what a report of a bug needs."""

from __future__ import annotations

import os
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Final

from . import _C, build_info

_BUILT_FROM: Final = re.compile(rb"nos_ext was built from sources ([0-9a-f]{12})")  # cmake/sources.py writes it
_READ: Final = ("NOS_", "OMP_", "KMP_", "CUDA_VISIBLE_DEVICES")  # how the variables begin that change what is done


def build_id() -> str:
    """Returns the beginning of the hash of the sources that the module was built from."""
    found = _BUILT_FROM.search(Path(_C.__file__).read_bytes())
    return found[1].decode() if found else "unknown"


def openmp_libraries() -> list[str]:
    """Returns the paths of the OpenMP libraries in this process, on Linux. Each has threads of its own, so one is what
    one wants."""
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return sorted(set(re.findall(r"(/.*/lib(?:gomp|omp|iomp5)\S*)$", maps, re.MULTILINE)))


def lines() -> list[str]:
    info = build_info()
    cpu, cuda = info["cpu"], info["cuda"]
    openmp = ", ".join(["OpenMP", *openmp_libraries()]) if cpu["openmp"] else "built without OpenMP"
    variables = [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith(_READ)]
    return [
        f"nos_ext   {info['version']} (build {build_id()}, bytecode version {info['bytecode_version']}, "
        f"{info['compiler']})",
        f"module    {_C.__file__}",
        f"system    {platform.platform()}",
        f"python    {platform.python_version()} ({platform.python_implementation()}) on {platform.machine()}",
        f"torch     {_version('torch')}",
        f"numpy     {_version('numpy')}",
        f"cpu       {cpu['isa']} in use, usable: {', '.join(cpu['isas'])}; set NOS_ISA to choose",
        f"native    {cpu['native']}",
        f"threads   {cpu['threads']} of {os.cpu_count()} processors ({openmp})",
        f"cuda      {cuda['status']}" + (f" (toolkit {cuda['toolkit']})" if cuda["toolkit"] else ""),
        f"cuda jit  {cuda['jit']}",
        f"set       {', '.join(variables) or 'no environment variable that is read'}",
    ]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    try:
        print("\n".join(lines()))
    except ValueError as error:  # an environment variable has a value that the engine refuses
        raise SystemExit(f"nos_ext: {error}") from None
