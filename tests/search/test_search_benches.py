"""The benches of `nos-search bench` that set own kernels beside torch: what they print for programs, and that the
numbers mean what they say."""

from __future__ import annotations

import json

import pytest

from nos_ext import _C
from nos_search.bench.sample import rank_correlation
from nos_search.cli import main

pytestmark = pytest.mark.skipif(_C.child_kernels() is None, reason="needs fused multiply-adds")


def test_child_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "child", "--task", "digits", "--seconds", "0.5", "--rounds", "1", "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert (found["format"], found["bench"], found["task"], found["net"]) == (1, "child", "digits", "convnet-2-8")
    assert found["ratio"] == pytest.approx(found["ms_per_step"]["torch"] / found["ms_per_step"]["native"])
    assert found["ratio"] > 1.5
    assert found["rules_per_hour"]["native"] > found["rules_per_hour"]["torch"] > 0
    assert 0 < found["gflops"] < found["peak_gflops"]
    assert "searching with --engine native" in err


def test_child_without_kernels_has_torch_s_half(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nos_search.bench.child.why_not", lambda task: "there are none here")
    assert main(["bench", "child", "--seconds", "0.01", "--rounds", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ms_per_step"]["native"] is found["rules_per_hour"]["native"] is found["ratio"] is None
    assert found["rules_per_hour"]["torch"] > 0  # reckoned: no child fits into the time
    assert "no own kernels: there are none here" in found["notes"]


def test_agreement(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "agreement", "--rules", "3", "--seed", "2", "--json"]) == 0
    (figures,) = json.loads(capsys.readouterr().out)["figures"].values()
    assert figures["rules"] == 3
    assert figures["difference"] == pytest.approx(figures["native"] - figures["torch"])
    assert main(["bench", "agreement", "--tasks", "digits", "--net", "wrn-10-1"]) == 2
    assert "there are no kernels for --net wrn-10-1" in capsys.readouterr().err


def test_rank_correlation() -> None:
    assert rank_correlation([(1, 3), (2, 2), (3, 1)]) == pytest.approx(-1)
    assert rank_correlation([(1, 1), (1, 2), (2, 3)]) == pytest.approx(0.866, abs=1e-3)  # equal values share their rank
    assert rank_correlation([(1, 1), (1, 2), (1, 3)]) is None
    assert rank_correlation([(1, 1), (2, 2)]) is None
