"""What a run was measured on and with."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import nos_ext

from .peers import native

_ROOT: Final = Path(__file__).resolve().parents[1]
_PACKAGES: Final = ("torch", "numpy", "numexpr", "pytorch-optimizer", "lion-pytorch", "bitsandbytes", "torchao")


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    fields = dict(line.replace("\t", "").split(":", 1) for line in lines if ":" in line)
    return fields.get("model name", platform.machine()).strip()


def _caches() -> dict[str, str]:
    """Size by level, of the first core."""
    out = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = [(index / name).read_text().strip() for name in ("level", "type", "size")]
        except OSError:
            continue
        if kind != "Instruction":
            out[f"L{level}"] = size
    return out


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def describe(threads: int) -> dict[str, Any]:
    info = nos_ext.build_info()
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "caches": _caches(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "isa": info["cpu"]["isa"],
        "threads": threads,
        "python": platform.python_version(),
        "nos_ext": f"{info['version']} ({info['compiler']})",
        "native_flags": " ".join(native.flags()),
        "packages": {name: _version(name) for name in _PACKAGES},
        "commit": _git("rev-parse", "--short=12", "HEAD") + ("+changes" if _git("status", "--porcelain") else ""),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    }
