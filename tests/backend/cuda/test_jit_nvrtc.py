"""NVRTC compiles what source.cc writes, for every architecture, without a spill; the cache and promotion keep what they
promise. Needs libnvrtc (`pip install nvidia-cuda-nvrtc`), no GPU."""

from __future__ import annotations

import collections
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import nos_ext
from nos_ext import _C
from nos_ext.optim import library
from tests.backend import programs as pg
from tests.waiting import HUNG, wait_until

ROOT = Path(__file__).resolve().parents[3]
HAVE = not _C.jit_status().startswith("off")
needs_nvrtc = pytest.mark.skipif(not HAVE, reason=_C.jit_status())
ARCHS = (80, 90, 100)
RULE = "g * exp(sign(g) * sign(m))"


def compiled(program: _C.Program, dtype: str, arch: int) -> str:
    """The assembler's log."""
    cubin, log = _C.nvrtc_compile(_C.cuda_source(program, [dtype] * (2 + len(program.state_names))), arch)
    assert cubin[:4] == b"\x7fELF"
    return log


def spills(log: str) -> list[int]:
    """Bytes of stack frames, spill stores and spill loads of all functions."""
    found = re.findall(r"(\d+) bytes (?:stack frame|spill stores|spill loads|cumulative stack size)", log)
    assert found, log
    return [int(n) for n in found]


def test_the_log_parser_sees_spills() -> None:
    assert spills("    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads") == [8, 4, 12]


@needs_nvrtc
@pytest.mark.parametrize("arch", ARCHS)
def test_library_rules_do_not_spill(arch: int) -> None:
    jobs = [(nos_ext.compile_rule(getattr(library, name)), dtype)
            for name, dtype in (("powersign", "float32"), ("adam", "bfloat16"), ("adamw", "float64"))]  # fmt: skip
    for program, dtype in jobs:
        assert not any(spills(compiled(program, dtype, arch))), program.name


@needs_nvrtc
@pytest.mark.parametrize(
    ("seed", "count"),
    [
        pytest.param(2, 8, id="some"),
        pytest.param(1, 40, marks=[pytest.mark.slow, pytest.mark.exhaustive], id="many"),
    ],
)
def test_random_rules_compile_without_a_spill(seed: int, count: int) -> None:
    rules = pg.random_rules(seed=seed, count=count)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        logs = list(pool.map(lambda p: compiled(p, "float32", 90), rules))
    bad = {i: spills(log) for i, log in enumerate(logs) if any(spills(log))}
    assert not bad, f"of {len(rules)} rules these spill: {bad}"


def disassembler() -> str | None:
    """nvdisasm of the toolkit, or of the wheel nvidia-cuda-nvdisasm."""
    wheels = (str(Path(p) / "nvidia" / "cu13" / "bin") for p in sys.path)
    return next(filter(None, (shutil.which("nvdisasm", path=w) for w in (None, *wheels))), None)


@needs_nvrtc
@pytest.mark.skipif(disassembler() is None, reason="needs nvdisasm (pip install nvidia-cuda-nvdisasm)")
@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_machine_code_of_a_rule(arch: int, dtype: str, tmp_path: Path) -> None:
    """No local memory, no generic access to a tensor, and a whole tile is 16 bytes an access."""
    for name, text in (("adam", library.adam), ("random", "tanh(g) * drop(m, 0.3) + abs(v) ** 0.3 * log(abs(g) + 1)")):
        program = nos_ext.compile_rule(text)
        slots = 2 + len(program.state_names)
        cubin, _ = _C.nvrtc_compile(_C.cuda_source(program, [dtype] * slots), arch)
        (tmp_path / "rule.cubin").write_bytes(cubin)
        command = [str(disassembler()), "-c", str(tmp_path / "rule.cubin")]
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = collections.Counter(re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", listing))
        assert found["EXIT"] > 0, "the listing was read"
        for banned in (r"LDL", r"STL", r"ST\.", r"LD\.E\.(128|U16)"):
            assert not [op for op in found if re.match(banned, op)], (name, found)
        width = "128" if dtype == "float32" else "64"
        read, written = (
            sum(n for op, n in found.items() if re.match(rf"{kind}\.E\.({width})", op)) for kind in ("LDG", "STG")
        )
        groups = 2  # of four elements per thread, in the path for whole tiles and in the other
        assert written == 2 * groups * (slots - 1), (name, found)
        assert read >= 2 * groups * slots, (name, found)


@needs_nvrtc
def test_refused_text_says_where() -> None:
    with pytest.raises(RuntimeError, match=r"rule.cu\(1\): error"):
        _C.nvrtc_compile("int f = x;", 90)
    with pytest.raises(RuntimeError, match="does not know the architecture sm_12;"):
        _C.nvrtc_compile("", 12)


# ---- the cache: each case in a process of its own, as the library and the settings are found once --------------------
BUILD = f"""
import nos_ext, sys
from nos_ext import _C
p = nos_ext.compile_rule({RULE!r})
cubin, from_disk = _C.jit_build(p, ["float32"] * 3, 90)
assert cubin[:4] == b"\\x7fELF"
print(from_disk, len(cubin))
"""


def child(code: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **env}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def output(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=HUNG)
    assert process.returncode == 0, err
    return out.strip()


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.cubin"))


@needs_nvrtc
def test_disk_cache_hit_miss_and_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOS_JIT_CACHE", raising=False)
    env = {"XDG_CACHE_HOME": str(tmp_path)}
    first = output(child(BUILD, **env))
    folder = tmp_path / "nos_ext" / "jit"
    (entry,) = entries(folder)
    assert first.startswith("False")
    assert output(child(BUILD, **env)) == first.replace("False", "True")
    good = entry.read_bytes()
    flipped = bytearray(good)
    flipped[-100] ^= 1
    huge = good[:16] + b"\xff" * 8 + good[24:]
    for damaged in (b"", good[:20], good[:-1], bytes(flipped), b"\0" * len(good), huge):
        entry.write_bytes(damaged)
        assert output(child(BUILD, **env)) == first, "damage is a miss, and repaired"
        assert entry.read_bytes() == good
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [p.name for p in folder.iterdir()] == [entry.name]


@needs_nvrtc
def test_cache_can_be_off_or_elsewhere_or_unusable(tmp_path: Path) -> None:
    assert output(child(BUILD, NOS_JIT_CACHE="0", XDG_CACHE_HOME=str(tmp_path))).startswith("False")
    assert not list(tmp_path.iterdir())
    assert output(child(BUILD, NOS_JIT_CACHE=str(tmp_path / "own"))).startswith("False")
    assert len(entries(tmp_path / "own")) == 1
    (tmp_path / "file").write_text("")
    assert output(child(BUILD, NOS_JIT_CACHE=str(tmp_path / "file" / "below"))).startswith("False")


@needs_nvrtc
def test_processes_share_the_cache_and_a_killed_one_leaves_no_half_entry(tmp_path: Path) -> None:
    env = {"NOS_JIT_CACHE": str(tmp_path)}
    outs = [output(p) for p in [child(BUILD, **env), child(BUILD, **env)]]
    assert {o.split()[1] for o in outs} == {outs[0].split()[1]}
    # writes one entry over and over until it is killed
    loop = f"""
import nos_ext, itertools
from nos_ext import _C
from tests.backend import programs as pg
from tests.waiting import HUNG, wait_until
print("on", flush=True)
for i in itertools.count():
    _C.jit_build(pg.random_rules(i, 1)[0], ["float32"] * (2 + len(pg.random_rules(i, 1)[0].state_names)), 90)
    print(i, flush=True)
"""  # noqa: F541
    for _ in range(2):
        victim = child(loop, **env)
        assert victim.stdout is not None
        victim.stdout.readline()
        victim.stdout.readline()
        time.sleep(0.05)
        victim.send_signal(signal.SIGKILL)
        victim.communicate()
    files = entries(tmp_path)
    assert len(files) >= 2
    for f in files:
        data = f.read_bytes()
        key, size = int.from_bytes(data[8:16], "little"), int.from_bytes(data[16:24], "little")
        assert len(data) == 32 + key + size
    assert output(child(BUILD, **env)).startswith("True")


# ---- promotion -------------------------------------------------------------------------------------------------------
@pytest.fixture
def settings() -> Iterator[None]:
    old = _C.set_jit("auto")
    yield
    _C.set_jit(old)


@needs_nvrtc
def test_auto_compiles_in_the_background_after_so_many_calls(
    settings: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOS_JIT_CACHE", str(tmp_path))
    nos_ext.set_jit("auto", after=5)
    program = nos_ext.compile_rule("g * tanh(m) * 0.123 + sqrt(abs(g))")

    def call() -> object:
        return _C.jit_build(program, ["float32"] * 3, 90, mode="auto")

    assert [call() for _ in range(4)] == [None] * 4
    assert not entries(tmp_path)
    wait_until(lambda: call() is not None)
    assert len(entries(tmp_path)) == 1
    other = nos_ext.compile_rule("g * tanh(m) * 0.456 + sqrt(abs(g))")
    calls = [_C.jit_build(other, ["float32"] * 3, 90, mode="auto") for _ in range(5)]
    assert calls[:4] == [None] * 4
    assert calls[4] is not None, "another constant: the same kernel, already there"
    assert _C.jit_build(program, ["float32"] * 3, 90, mode="never") is None
    assert _C.jit_build(program, ["bfloat16"] * 3, 90, mode="auto") is None, "other dtypes count for themselves"


@needs_nvrtc
def test_many_threads_ask_at_once(settings: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOS_JIT_CACHE", "0")
    program = nos_ext.compile_rule("g * tanh(g) - 0.5 * m")
    found: list[tuple[bytes, bool] | None] = []
    threads = [
        threading.Thread(target=lambda: found.append(_C.jit_build(program, ["float32"] * 3, 80, mode="always")))
        for _ in range(4)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(found) == 4
    assert None not in found
    assert len(set(found)) == 1


def test_without_nvrtc() -> None:
    """auto stays with the interpreter, always says why and what to do, build_info says so."""
    code = f"""
import nos_ext
from nos_ext import _C
nos_ext.set_jit("auto", after=1)
p = nos_ext.compile_rule({RULE!r})
assert _C.jit_status() == "off: switched off by NOS_NVRTC=0"
assert all(_C.jit_build(p, ["float32"] * 3, 90, mode="auto") is None for _ in range(3))
try:
    _C.jit_build(p, ["float32"] * 3, 90, mode="always")
except RuntimeError as e:
    print(e)
"""
    out = output(child(code, NOS_NVRTC="0"))
    assert "switched off by NOS_NVRTC=0" in out
    assert "jit='auto' it runs in the interpreter" in out
    code = "from nos_ext import _C; print(_C.jit_status())"
    assert "not a libnvrtc that can be loaded; unset it" in output(child(code, NOS_NVRTC="/nowhere/libnvrtc.so"))


def test_set_jit() -> None:
    old = nos_ext.set_jit("never")
    try:
        assert nos_ext.set_jit("always") == "never"
        with pytest.raises(ValueError, match="mode is 'sometimes'; pass 'auto', 'always' or 'never'"):
            nos_ext.set_jit("sometimes")
        with pytest.raises(TypeError, match="mode is None; pass 'auto', 'always' or 'never'"):
            nos_ext.set_jit(None)  # type: ignore[arg-type]
        for after in (-1, "x", 2**32):
            with pytest.raises((TypeError, ValueError), match=f"after is {after!r}; pass an integer from 0"):
                nos_ext.set_jit("auto", after=after)  # type: ignore[arg-type]
        assert nos_ext.set_jit("always") == "always"
        assert nos_ext.set_jit("auto") == "always"
    finally:
        nos_ext.set_jit(old)
    code = "import nos_ext; print(nos_ext.set_jit('auto'))"
    assert output(child(code, NOS_JIT="")) == "never", "the default"
    assert output(child(code, NOS_JIT="always")) == "always"
    process = child(code, NOS_JIT="sometimes")
    assert "NOS_JIT is 'sometimes'; pass 'auto', 'always' or 'never'" in process.communicate()[1]


@needs_nvrtc
@pytest.mark.parametrize("pause", [0, 0.01, 0.05, 0.1])
def test_a_process_may_end_while_a_rule_compiles(pause: float) -> None:
    code = f"""
import nos_ext, time
from nos_ext import _C
nos_ext.set_jit("auto", after=1)
_C.jit_build(nos_ext.compile_rule({RULE!r}), ["float32"] * 3, 90, mode="auto")
time.sleep({pause})
"""
    assert output(child(code, NOS_JIT_CACHE="0")) == ""
