"""Tries wheels where users are: in new environments without a compiler, with the oldest and the newest NumPy, and torch.

    python -m tests.packaging.try_wheel WHEEL [--torch VERSION ...]

The environments are those of the Python that runs this. Without --torch it is tried beside the torch of constraints.txt and
without one. PyPI's torch for Linux is a build with CUDA of several GB, which is why the other supported versions are not
tried unless they are named.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# the oldest NumPy that has wheels for a Python; for the older ones it is the one that pyproject.toml asks for
OLDEST = {10: "1.24.0", 11: "1.24.0", 12: "1.26.0", 13: "2.1.0", 14: "2.3.2"}

USE = """
import re, sys
{first}
import numpy as np
import nos_ext
from nos_ext import info
assert nos_ext.__file__.startswith(sys.prefix), nos_ext.__file__
p = [np.ones(3, np.float32)]
nos_ext.apply_rule(nos_ext.compile_rule("g"), p, [np.ones(3, np.float32)], [], lr=0.5)
assert p[0].tolist() == [0.5] * 3
if {torch}:
    import torch
    from nos_ext import optim
    w = torch.ones(3, requires_grad=True)
    w.grad = torch.ones(3)
    optim.PowerSign([w], lr=0.5, base=2.0).step()
    assert w.tolist() == [0.0] * 3, w
    big = [torch.ones(10**6, requires_grad=True)]
    big[0].grad = torch.ones(10**6)
    optim.create("adamw", big, lr=0.1).step()
    torch.ones(1000, 1000) @ torch.ones(1000, 1000)
    assert len(info.openmp_libraries()) == (sys.platform == "linux"), info.openmp_libraries()
else:
    assert "torch" not in sys.modules
print("\\n".join(info.lines()))
"""


def run(*command: str | Path, **options: str) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)  # type: ignore[call-overload]
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command[:6]))} failed\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return str(done.stdout)


def try_one(wheel: Path, numpy: str | None, torch: str | None, folder: Path) -> str:
    """Installs the wheel into a new environment and uses it there. Returns what nos_ext.info says."""
    run(sys.executable, "-m", "venv", folder)
    python = folder / "bin" / "python"
    wanted = [str(wheel), f"numpy=={numpy}" if numpy else "numpy", *([f"torch=={torch}"] if torch else [])]
    run(python, "-m", "pip", "--disable-pip-version-check", "install", "-q", "--only-binary", ":all:", *wanted)
    said = ""
    for first in ("import torch", "") if torch else ("",):  # whichever comes first brings the OpenMP library
        env = {"PATH": "/nowhere", "HOME": os.environ.get("HOME", "/")}  # no compiler, and no sources
        code = USE.format(first=first, torch=bool(torch))
        said = run(python, "-c", code, env=env, cwd=str(folder))  # type: ignore[arg-type]
    return said


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--torch", nargs="*", help="versions; the default is that of constraints.txt")
    options = parser.parse_args(arguments)
    pinned = re.findall(r"^torch==(\S+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    oldest = OLDEST[sys.version_info.minor]
    tries: list[tuple[str | None, str | None]] = [(oldest, None), (None, None)]
    tries += [
        (numpy, torch) for torch in (pinned if options.torch is None else options.torch) for numpy in (oldest, None)
    ]
    for numpy, torch in tries:
        with tempfile.TemporaryDirectory() as folder:
            said = try_one(options.wheel.resolve(), numpy, torch, Path(folder) / "venv")
        facts = {line[:10].strip(): line[10:] for line in said.splitlines()}
        print(
            f"python {sys.version.split()[0]}, numpy {facts['numpy']}, torch {facts['torch']}: fine ({facts['threads']})"
        )


if __name__ == "__main__":
    main()
