"""The harness keeps the right rounds; records are rendered and compared."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from bench import compare, harness, record, render, run
from bench.case import Contender
from bench.harness import Measured, Tier
from bench.peers import ENGINE, LIMIT

ROOT = Path(__file__).resolve().parents[2]


def measured(name: str, samples: dict[int, float], peer: bool = True) -> Measured:
    return Measured(Contender(name, lambda n: None, peer=peer), 1, Tier.EVERY, samples)


def test_rounds_of_a_disturbed_batch_are_dropped() -> None:
    a = measured("a", {0: 1.0, 1: 1.0, 2: 9.0})
    slow = measured("slow", {2: 90.0})
    outcome = harness._outcome([a, slow], [(0.0, [0, 1]), (0.9, [2])])
    assert (outcome.kept, outcome.noisy, outcome.times(a)) == (1, False, [1.0, 1.0])
    assert outcome.ratios(slow, a) == [10.0], "a contender with no quiet round is compared within the one it has"


def test_a_contender_that_only_warmed_up_has_that_sample() -> None:
    fast = measured("fast", {harness.WARM_UP: 2.0, 0: 1.0})
    slow = measured("slow", {harness.WARM_UP: 8.0})
    outcome = harness._outcome([fast, slow], [(0.0, [0])])
    assert (outcome.times(fast), outcome.times(slow), outcome.ratios(slow, fast)) == ([1.0], [8.0], [4.0])


def test_without_a_quiet_batch_the_quietest_are_kept() -> None:
    a = measured("a", {0: 1.0, 1: 2.0, 2: 3.0})
    outcome = harness._outcome([a], [(0.9, [0]), (0.5, [1]), (0.7, [2])])
    assert outcome.noisy
    assert outcome.quiet == {1, 2}


def test_summary_has_medians_of_ratios() -> None:
    engine = measured(ENGINE, {0: 2.0, 1: 4.0, 2: 2.0}, peer=False)
    peer = measured("peer", {0: 4.0, 1: 4.0, 2: 6.0})
    limit = measured(LIMIT, {0: 1.0, 1: 1.0, 2: 1.0}, peer=False)
    outcome = harness._outcome([limit, engine, peer], [(0.0, [0, 1, 2])])
    rows = harness.summary(outcome, ENGINE, LIMIT)["contenders"]
    assert rows["peer"]["ratio"] == 2.0
    assert rows[ENGINE]["of_limit"] == 0.5
    assert rows[ENGINE]["ratio"] == 1.0


def test_tiers() -> None:
    assert Tier.of(1e-3, 1e-6) is Tier.EVERY
    assert Tier.of(0.1, 1e-2) is Tier.BATCH
    assert Tier.of(1.0, 1e-2) is Tier.ONCE
    assert Tier.of(5.0, 1e-2) is Tier.NEVER
    assert not Tier.NEVER.joins(0, 0)
    assert [Tier.BATCH.joins(b, r) for b, r in ((0, 0), (0, 1), (1, 0))] == [True, False, True]
    assert [Tier.ONCE.joins(b, r) for b, r in ((0, 0), (0, 1), (1, 0))] == [True, False, False]


def test_calibration_fills_the_sample() -> None:
    calls = 0

    def step(n: int) -> None:
        nonlocal calls
        for _ in range(n):
            calls += 1

    repeat, _ = harness.calibrate(step, 50e-6)
    assert repeat > 1
    assert calls > repeat
    assert harness.calibrate(step, 0.0)[0] == 1


def row(us: float, ratio: float, *, peer: bool = True, **more: Any) -> dict[str, Any]:
    spread = {"us_q1": us * 0.9, "us_q3": us * 1.1, "ratio_q1": ratio * 0.9, "ratio_q3": ratio * 1.1}
    return {"us": us, "ratio": ratio, "samples": 5, "repeat": 1, "peer": peer, **spread, **more}


def cell(us: float, **head: Any) -> dict[str, Any]:
    contenders = {
        LIMIT: row(us / 2, 0.5, peer=False, of_limit=1.0),
        ENGINE: row(us, 1.0, peer=False, of_limit=0.5),
        "hand-fused": row(us * 0.8, 0.8, peer=False, of_limit=0.6),
        "eager": row(us * 4, 4.0, of_limit=0.12),
        "torch.compile": row(us * 0.9, 0.9, of_limit=0.55, build_seconds=1.5),
    }
    watch = {"batches": 5, "kept": 4, "foreign": 0.02, "noisy": False}
    return head | watch | {"missing": {"numexpr": "numexpr is not installed"}, "contenders": contenders}


@pytest.fixture
def small_record(tmp_path: Path) -> Path:
    measured_cells = [
        cell(10.0, rule=rule, size=size, elements=10, tensors=1, bytes=200)
        for rule in ("sgd", "powersign")
        for size in ("1e4", "1e6")
    ]
    data = {
        "schema": run.SCHEMA,
        "machine": {"cpu": "a cpu", "threads": 2, "packages": {"torch": "2"}, "date": "today", "commit": "abc"},
        "config": {},
        "seconds": 12.0,
        "update": [*measured_cells, {"size": "1e8", "skipped": "needs more memory"}],
        "overhead": [cell(1.0, rule="adam", size="10 x 16")],
        "latency": [cell(100.0, rule="powersign", operations=11)],
        "loop": [cell(100.0, rule="adam", batch=32)],
        "optim": [
            cell(100.0, scene="step alone", base=ENGINE),
            cell(100.0, scene="a ConvNet", base=ENGINE, training_us=900.0),
        ],
        "population": [cell(100.0, scene="one tensor", candidates=64)],
        "states": [
            cell(
                100.0,
                scene="AdamW",
                state_bytes=dict.fromkeys(cell(1.0)["contenders"], 2.03),
                absent={"other": "no kernel"},
            ),
            cell(100.0, scene="AdamW on the host", base=ENGINE, threads=2),
        ],
        "memory": [{"rule": "adam", "contender": ENGINE, "growth": 1e6, "peak": 2e6}],
        "skipped": {},
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps(data))
    return path


def test_render(small_record: Path, tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    assert render.main([str(small_record), "--out", str(page)]) == 0
    text = page.read_text()
    assert "| sgd | **0.90x** torch.compile | **0.90x** torch.compile |" in text
    assert "| powersign | **50 %** (60 %) | **50 %** (60 %) |" in text
    assert "ahead of the best peer in 0, within 5 % of it in 0, and behind in 4" in text
    assert "needs more memory" in text
    assert "| nos_ext | 100 | 1.00 | 10.0% |" in text
    assert "| other | | no kernel | |" in text.replace("  ", " ")
    assert "| 2 | nos_ext | 0.1 | 1.00x |" in text
    assert "performance.svg" in text
    for table in (block for block in text.split("\n\n") if block.startswith("|")):
        assert len({line.count(" | ") for line in table.splitlines()}) == 1, table
    ElementTree.parse(tmp_path / "performance.svg")


def test_the_committed_pages_are_those_of_the_record() -> None:
    found = record.load(ROOT / "bench" / "results" / "cpu.json")
    assert (ROOT / "docs" / "performance.md").read_text() == render.page(found, "performance.svg")
    readme = (ROOT / "README.md").read_text()
    assert readme == render.with_headline(readme, found)


def test_the_table_of_a_readme_without_a_place_for_it(small_record: Path) -> None:
    with pytest.raises(ValueError, match=r"README\.md has no place for the table"):
        render.with_headline("# Title\n", record.load(small_record))


def test_render_of_one_suite(small_record: Path, tmp_path: Path) -> None:
    data = json.loads(small_record.read_text())
    small = {key: data[key] for key in ("schema", "machine", "latency")}
    small_record.write_text(json.dumps(small))
    assert render.main([str(small_record), "--out", str(tmp_path / "p.md")]) == 0
    assert not (tmp_path / "p.svg").exists()


def test_compare(small_record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = json.loads(small_record.read_text())
    data["update"][0]["contenders"][ENGINE] |= {"us": 20.0, "of_limit": 0.25}
    other = tmp_path / "b.json"
    other.write_text(json.dumps(data))
    assert compare.main([str(small_record), str(other), "--above", "1.5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[1].split() == ["update", "sgd", "1e4", "10.00", "20.00", "2.00", "2.00"]


@pytest.mark.parametrize("content", ["no json", "[]", '{"schema": 0}'])
def test_a_file_that_is_no_record(tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    assert compare.main([str(path), str(path)]) == 1
    assert render.main([str(path), "--out", str(tmp_path / "y.md")]) == 1
    assert str(path) in capsys.readouterr().err


def test_unknown_names_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run.arguments(["--only", "adamx"])
    assert "'adamx' is not one of sgd, momentum" in capsys.readouterr().err


def test_a_run_from_end_to_end(tmp_path: Path) -> None:
    out = tmp_path / "run.json"
    options = ["--quick", "--only", "momentum", "--sizes", "1e4", "--suites", "update,latency", "--json", str(out)]
    assert run.main(options) == 0
    data = record.load(out)
    (found,) = record.cells(data)
    assert {LIMIT, ENGINE, "eager", "_foreach"} <= set(found["contenders"])
    assert data["machine"]["threads"] >= 1
    assert render.main([str(out), "--out", str(tmp_path / "page.md")]) == 0
