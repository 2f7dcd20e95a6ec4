"""The CUDA back-end's use of streams, events and pinned memory, against a fake runtime that does everything late."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import nos_ext
from tests.backend.cuda import gate, host

REDUCING = [
    """
def clipped(p, g, m, k, *, lr, beta=0.9):
    m = beta * m + (1 - beta) * g * min(1, 1 / global_norm(g))
    k = beta * k + (1 - beta) * norm(m)
    return p - lr * m * norm(p) / (k + 1e-6), m, k
""",
    "drop(g, 0.5) / (1 + rms(g - p) + max_abs(g))",
]
RULES = ["g * exp(sign(g) * sign(m)) + normal(0.01)", "adam * ld", "drop(rmsprop, 0.5) + m_hat * y", *REDUCING, "g"]


def cuda_headers() -> Path | None:
    """The folder of cuda_runtime_api.h beside nvcc."""
    if not gate.nvcc():
        return None
    out = subprocess.run([gate.nvcc(), "--dryrun", "x.cu"], capture_output=True, text=True)  # type: ignore[list-item]
    tops = [line.split("=", 1)[1].strip() for line in out.stderr.splitlines() if line.startswith("#$ TOP=")]
    found = [Path(top) / folder for top in tops for folder in ("include", "targets/x86_64-linux/include")]
    return next((p for p in found if (p / "cuda_runtime_api.h").exists()), None)


@pytest.mark.slow
def test_steps_on_a_lazy_device(tmp_path: Path) -> None:
    headers = cuda_headers()
    if not headers:
        pytest.skip("no CUDA headers")
    runtime = "csrc/backend/cuda/runtime"
    program = host.link(
        "fake_device",
        ["tests/backend/cuda/fake_device.cc", *(f"{runtime}/{name}.cc" for name in ("runtime", "launch", "backend", "device_passes", "reducing_job", "captured_step"))],
        host.SANITIZED,
        own=["-isystem", str(headers)],
    )  # fmt: skip
    files = []
    for k, text in enumerate(RULES):
        files.append(tmp_path / f"{k}.bytecode")
        files[-1].write_bytes(nos_ext.compile_rule(text).bytecode)
    out = subprocess.run([program, *files], capture_output=True, text=True, env={"ASAN_OPTIONS": "detect_leaks=0"})
    assert out.returncode == 0, out.stdout + out.stderr[-4000:]
    assert out.stdout == "ok\n"
