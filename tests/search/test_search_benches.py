"""The benches of `nos-search bench` that set own kernels beside torch: what they print for programs, and that the
numbers mean what they say."""

from __future__ import annotations

import json

import numpy as np
import pytest

from nos_ext import _C
from nos_search.bench.agreement import accepted, rank_correlation
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


def test_rules_of_the_agreement_are_different_functions_and_the_same_every_time() -> None:
    rules = accepted(12, seed=3)
    assert len({rule.key for rule in rules}) == 12
    assert [rule.text for rule in accepted(12, seed=3)] == [rule.text for rule in rules]


def test_rank_correlation_is_scipy_s() -> None:
    from scipy.stats import spearmanr

    rng = np.random.default_rng(1)
    a = rng.integers(0, 6, 40).tolist()  # with ties
    b = (np.array(a) + rng.integers(0, 4, 40)).tolist()
    assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert rank_correlation([1.0, 1.0], [1.0, 2.0]) == 0.0
