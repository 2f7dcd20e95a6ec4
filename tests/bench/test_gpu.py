"""The GPU benches without a GPU: contenders compute the same, records are written row by row, pages say what was measured
and what was not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import nos_ext
from bench.case import Contender
from bench.gpu import fast, page, predictions, probe, run, scenes, suites, timing
from bench.gpu.ask import Wrong
from bench.gpu.contenders import COMPILED, GRAPH, INTERPRETER, contenders
from bench.rules import RULES

ROOT = Path(__file__).resolve().parents[2]


def test_scenes_are_what_they_say() -> None:
    sizes = scenes.SCENES
    assert sizes["2^27"].elements == 2**27
    assert (sizes["gpt2"].tensors, sizes["5000x256"].tensors) == (148, 5000)
    assert {c[0] for c in scenes.CELLS} == set(sizes)
    assert all(c[1] in RULES and c[2] in scenes.DTYPES for c in scenes.CELLS)
    # PowerSign reads p, g, m and writes p, m
    assert scenes.bytes_moved(sizes["2^27"], "powersign", "float32") == 20 * 2**27
    assert scenes.bytes_moved(sizes["2^27"], "powersign", "bfloat16") == 10 * 2**27


@pytest.mark.parametrize("rule", sorted({c[1] for c in scenes.CELLS}))
def test_contenders_make_the_same_step(rule: str) -> None:
    size = scenes.shrunk(scenes.SCENES["L2"])
    results = {}
    names = [c.name for c in contenders(scenes.case(size, rule, "float32", "cpu"))[0]]
    assert INTERPRETER in names
    for name in names:
        case = scenes.case(size, rule, "float32", "cpu")
        found, missing = contenders(case)  # each has made one step by now, on the same tensors: start again
        assert {COMPILED, GRAPH} <= set(missing)
        fresh = scenes.case(size, rule, "float32", "cpu")
        for mine, start in zip(case.lists, fresh.lists, strict=True):
            for a, b in zip(mine, start, strict=True):
                a.data.copy_(b.data)
        (chosen,) = (c for c in found if c.name == name)
        if name.startswith("torch") or name == "RuleOptimizer":
            continue  # with states of their own; tests/bench/test_contenders.py and the conformance suite compare them
        chosen.run(1)
        results[name] = [p.detach().clone() for p in case.params]
    start = [p.detach() for p in scenes.case(size, rule, "float32", "cpu").params]
    for name, params in results.items():
        for a, b, s in zip(params, results[INTERPRETER], start, strict=True):
            assert not torch.equal(a, s), name
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_measure_reports_time_per_call_and_ratio() -> None:
    now = 0.0

    def lasts(seconds: float) -> Callable[[int], None]:
        def run(calls: int) -> None:
            nonlocal now
            now += seconds * calls

        return run

    found = [Contender("one", lasts(1e-3)), Contender("three", lasts(3e-3))]
    rows = timing.measure(found, "one", "cpu", 0.05, clock=lambda: now)
    assert rows["one"]["us"] == pytest.approx(1000)
    assert (rows["one"]["us_q1"], rows["one"]["us_q3"], rows["one"]["host_us"]) == pytest.approx((1000, 1000, 1000))
    assert rows["three"]["us"] == pytest.approx(3000)
    assert (rows["one"]["ratio"], rows["three"]["ratio"]) == pytest.approx((1, 3))
    before = now
    timing.measure(found, "one", "cpu", 0.0, clock=lambda: now)
    assert now - before == pytest.approx(4 * 4e-3 + 3 * (2e-3 + 3e-3))  # 2 + 2 first calls, then three rounds


def test_dry_run_and_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes, "CELLS", (scenes.CELLS[0], ("L2", "adam", "bfloat16")))
    assert run.main(["main", "--out", str(tmp_path), "--device", "cpu", "--seconds", "inf"]) == 0
    record = json.loads((tmp_path / "results.json").read_text())
    assert [c["scene"] for c in record["cells"]] == ["2^27", "L2"]
    text = "\n\n".join(page.sections(page.load(tmp_path)))
    assert "dry run" in text
    assert "yes" not in text
    assert "CUDA graphs need CUDA tensors" in text


def test_time_that_is_up_is_said(tmp_path: Path) -> None:
    rows = list(suites.cells("cpu", 1.0, lambda: 0.5))
    assert all(r["skipped"] == "no time was left" for r in rows)
    assert len(rows) == len(scenes.CELLS)


def measured(us: float, **more: float) -> dict[str, Any]:
    return {"us": us, "host_us": us, "ratio": 1.0, "us_q1": us, "us_q3": us, "peer": False, **more}


def record(engine_us: float) -> dict[str, Any]:
    cell = {
        "scene": "2^27", "rule": "adam", "dtype": "float32", "elements": 2**27, "tensors": 1, "bytes": 28 * 2**27,
        "missing": {}, "contenders": {INTERPRETER: measured(engine_us), "torch fused": measured(1400.0)},
    }  # fmt: skip
    machine = {"device": "Some GPU", "torch": "2", "python": "3", "date": "a day"}
    copy = {"elements": 2**27, "us": 358.0, "gb_per_s": 3000.0}
    return {"schema": 1, "machine": machine, "copy": copy, "cells": [cell], "first_update": {"ms": 2.0}}


def test_predictions_are_judged() -> None:
    rows = {r.what: r for r in predictions.ROWS}
    adam = rows["interpreter, Adam, 2^27 f32, part of copy bandwidth"]
    value = adam.value(record(1300.0))
    assert value == pytest.approx(28 * 2**27 / 1300.0 * 1e-3 / 3000)
    assert adam.met(value)
    assert not adam.met(adam.value(record(1500.0)) or 0)
    ratio = rows["torch fused Adam / interpreter, 2^27"]
    assert ratio.value(record(1500.0)) == pytest.approx(1400 / 1500)
    assert rows["text of a new rule to its first update"].met(2.0) is False
    table = page.predictions(record(1300.0))
    assert "| 0.96 | yes |" in table
    assert "| 2.00 ms | **no** |" in table
    assert "not measured" in table


def test_committed_records_are_shown(tmp_path: Path) -> None:
    assert page.committed(tmp_path) == []
    folder = tmp_path / "h100-2030-01-01"
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(record(1300.0)))
    text = page.committed(tmp_path)
    assert text[:2] == ["## CUDA", "### h100-2030-01-01"]
    assert "Some GPU" in text[2]
    (folder / "results.json").write_text('{"schema": 9}')
    with pytest.raises(ValueError, match="schema 9"):
        page.committed(tmp_path)


def test_wrong_usage_of_the_script() -> None:
    for arguments in (["--hosts"], ["--host", "chekc"], ["report"]):
        out = subprocess.run(["bash", "bench/gpu/run.sh", *arguments], cwd=ROOT, capture_output=True, text=True)
        assert out.returncode == 2
        assert f"'{arguments[-1]}' is neither --host nor a stage" in out.stderr
        assert "build check tests" in out.stderr
    assert page.main(["/nowhere"]) == 1
    assert page.main([]) == 2


def test_another_package_of_the_name_tests_is_not_taken_for_ours(tmp_path: Path) -> None:
    """Some wheels install one beside their own."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "__init__.py").write_text("raise RuntimeError('not ours')\n")
    path = os.pathsep.join([str(ROOT), str(ROOT / "python"), str(tmp_path)])
    command = [sys.executable, "-m", "tests.backend.cuda.gate", "--help"]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert out.returncode == 0, out.stderr
    assert "compute capabilities" in out.stdout


@pytest.mark.slow
def test_stages_by_name_without_a_gpu(tmp_path: Path) -> None:
    """Results come back as few files, and only of what was asked for; a second call keeps what it did not ask for."""
    environment = {**os.environ, "OUT": str(tmp_path), "PYTHON": sys.executable}

    def script(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", "bench/gpu/run.sh", "--host", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)

    first = script("check")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "0 with other bits" in first.stdout
    assert [line.split()[1] for line in first.stdout.splitlines() if line.startswith("== ")] == [
        "check",
        *first_words(first),
    ]
    (tmp_path / "results.of.an.earlier.call").touch()
    second = script("sanitizer")
    assert second.returncode == 0, second.stdout + second.stderr
    assert {p.name for p in tmp_path.iterdir()} == {"results.of.an.earlier.call", "logs.tgz"}


def test_every_question_of_the_probe_has_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    before = nos_ext.set_jit("auto")
    try:
        assert probe.main(["--device", "cpu", "--here", "--but", "captured_child_stack"]) == 0
        assert nos_ext.set_jit("auto") == "auto"
    finally:
        nos_ext.set_jit(before)
    answers = capsys.readouterr().out
    assert "captured_child_stack" not in answers
    for name in probe.BY_NAME.keys() - {"captured_child_stack"}:
        assert f"{name}: " in answers
    for name in ("bits_of_both_tiers", "every_op_at_the_edges", "host_time_of_a_step", "share_of_copy_by_chunk"):
        assert f"{name}: needs" not in answers
    assert "memcheck: needs a device" in answers
    with pytest.raises(SystemExit):
        probe.main(["what_is_love"])


def test_answers_that_are_not_good(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """WRONG, FAILED and late ones say so, and leave the others alone."""

    def wrong(device: str) -> str:
        raise Wrong("2 + 2 = 5")

    with monkeypatch.context() as patched:
        patched.setitem(probe.BY_NAME, "build", wrong)
        assert probe.main(["build", "--here", "--device", "cpu"]) == 1
    assert capsys.readouterr().out == "build: WRONG: 2 + 2 = 5\n"
    monkeypatch.setenv("NOS_ISA", "avx9000")
    assert probe.main(["build", "memcheck", "--device", "cpu"]) == 1
    monkeypatch.delenv("NOS_ISA")
    answers = capsys.readouterr().out.splitlines()
    assert answers[0] == "build:"
    assert answers[1].startswith("  FAILED, exit status 1: ")
    assert "NOS_ISA is 'avx9000'" in answers[1]
    assert answers[2:] == ["memcheck: needs a device"]
    monkeypatch.setitem(probe.QUESTIONS, probe.BY_NAME["build"], 0)
    assert probe.main(["build", "memcheck", "--device", "cpu"]) == 1
    assert capsys.readouterr().out.splitlines() == ["build: LATE: no answer within 0 s", "memcheck: needs a device"]


def test_what_the_profiler_printed() -> None:
    text = (
        '==PROF== Connected\n"ID","Kernel Name","Metric Name","Metric Unit","Metric Value"\n'
        '"0","interpreter","dram__throughput.avg.pct_of_peak_sustained_elapsed","%","91.5"\n'
        '"0","interpreter","smsp__average_warps_issue_stalled_long_scoreboard_per_issue_active.ratio","inst","12.25"\n'
        '"1","interpreter","something.else","%","1"\n"1","interpreter","gpu__time_duration.sum","us","480.1"\n'
    )
    assert fast.profile_rows(text) == ["DRAM 91.5 %, stalls: memory 12.25", "time 480.1 us"]
    assert fast.profile_rows("==ERROR== no permission\n") == []


def first_words(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Of the script's last line: the seconds it took."""
    return [done.stdout.splitlines()[-1].split()[1]]
