"""``python -m nos_ext.info``: what this installation is and can run on."""

from __future__ import annotations

import platform
from importlib import metadata

from . import build_info


def lines() -> list[str]:
    info = build_info()
    cpu, cuda = info["cpu"], info["cuda"]
    try:
        torch = metadata.version("torch")
    except metadata.PackageNotFoundError:
        torch = "not installed"
    return [
        f"nos_ext   {info['version']} (bytecode version {info['bytecode_version']}, {info['compiler']})",
        f"python    {platform.python_version()} on {platform.machine()}",
        f"torch     {torch}",
        f"cpu       {cpu['isa']} in use, usable: {', '.join(cpu['isas'])}; set NOS_ISA to choose",
        f"native    {cpu['native']}",
        f"threads   {cpu['threads']} ({'OpenMP' if cpu['openmp'] else 'built without OpenMP'})",
        f"cuda      {cuda['status']}" + (f" (toolkit {cuda['toolkit']})" if cuda["toolkit"] else ""),
        f"cuda jit  {cuda['jit']}",
    ]


if __name__ == "__main__":
    print("\n".join(lines()))
