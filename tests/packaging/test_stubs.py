"""nos_ext/_C.pyi says exactly what the compiled module has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_stub_matches_the_module(tmp_path: Path) -> None:
    allow = tmp_path / "allow"
    # the last line: pybind11's metaclass, which a stub cannot name
    allow.write_text(
        "nos_ext\\._C\\._OpRow.*\nnos_ext\\._C\\._pybind11_conduit.*\nnos_ext\\._C\\..*_pybind11_conduit_v1_\nnos_ext\\._C\\.(CapturedStep|Child|Program|Stepper|FloatEnvironment)\n"
    )
    out = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "nos_ext._C", "--ignore-positional-only", "--allowlist", str(allow),
         "--ignore-unused-allowlist", "--mypy-config-file", str(ROOT / "pyproject.toml")],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert out.returncode == 0, out.stdout + out.stderr
