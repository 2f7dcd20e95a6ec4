"""The bench of the recipes: how rates are found, and one small comparison with real trainings."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from bench import recipes


class Pretended(recipes.Trainings):
    """Trainings whose loss is least at the lattice number `best`, and which diverge above `limit`."""

    best, limit = 0, 99
    tried: list[int]

    def train(self, rule: str, wanted: Iterable[tuple[int, int]]) -> list[dict[str, float] | None]:
        rates = [rate for rate, _ in wanted]
        self.tried.extend(rates)
        return [None if rate > self.limit else {"validation_loss": 1.0 + (rate - self.best) ** 2} for rate in rates]


@pytest.mark.parametrize(("best", "limit", "found"), [(-5, 99, -5), (4, 99, 4), (-15, 99, -15), (0, -4, -4)])
def test_the_best_rate_is_found_within_and_beyond_the_decades(best: int, limit: int, found: int) -> None:
    trainings = Pretended("gpt", [], Path(), 1)
    object.__setattr__(trainings, "tried", [])
    Pretended.best, Pretended.limit = best, limit
    assert trainings.tune("sgd") == found
    assert len(trainings.tried) == len(set(trainings.tried))
    assert {found - 1, found + 1} <= set(trainings.tried)


def test_trainings_are_kept_and_the_table_has_every_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = "--depth 1 --width 8 --heads 1 --context 8 --batch-size 2 --epochs 2 --epoch-steps 2"
    monkeypatch.setitem(recipes.RECIPES, "gpt", replace(recipes.RECIPES["gpt"], data=_few_words, options=small))
    monkeypatch.setattr(recipes.Trainings, "tune", lambda self, rule: {"sgd": -6, "sign(g)": 12}[rule])
    given = ["gpt", "--rules", "sgd,sign(g)", "--seeds", "2", "--out", str(tmp_path / "out")]
    written = []
    for _ in range(2):
        assert recipes.main([*given, "--json", str(tmp_path / "all.json")]) == 0
        table = capsys.readouterr().out
        results = sorted((tmp_path / "out" / "gpt").glob("*/result.json"))
        written.append([(path, path.stat().st_mtime_ns) for path in results])
    assert len(written[0]) == 4
    assert written[0] == written[1]  # the second call found all
    path = results[0]  # as after an interruption between two epochs
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({**whole, "history": whole["history"][:1]}))
    assert recipes.main(given) == 0
    capsys.readouterr()
    assert [row["loss"] for row in json.loads(path.read_text())["history"]] == [row["loss"] for row in whole["history"]]
    assert "| sgd | 0.01 |" in table
    sgd, sign = json.loads((tmp_path / "all.json").read_text())["gpt"]
    assert len(sgd["validation_loss"]) == 2
    assert sgd["diverged"] == 0
    assert sign["rule"] == "sign(g)"


def _few_words(folder: Path) -> list[str]:
    (folder / "text").write_text("in the beginning " * 40, encoding="utf-8")
    return [str(folder / "text")]
