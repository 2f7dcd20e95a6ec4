"""The gate of near-equal rules, and the families that a funnel and a run find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nos_search.errors import UsageError
from nos_search.gate import Funnel, Gates
from nos_search.gate.families import THRESHOLD
from nos_search.run.config import RunConfig
from nos_search.run.families import families_of
from nos_search.run.search import Search
from nos_search.show.leaderboard import best_rows, summary
from nos_search.space import ProgramSpace, Space, encode
from nos_search.store import Store
from nos_search.strategy import ControllerStrategy, Result, Strategy

from .conftest import StubExecutor, stub_search, table


def test_the_threshold_of_the_gate_is_a_distance() -> None:
    with pytest.raises(UsageError, match=r"gate family 2 is outside \(0, 1\); it is a distance of rules"):
        Gates(family=2)
    assert Gates.from_json({}).family is None


def test_the_gate_answers_what_behaves_nearly_alike() -> None:
    space = Space(groups=2)
    plain_rule, ornament, other = (encode(space, text) for text in ("rmsprop", "rmsprop - clip(g, 1e-05)", "adam"))
    batch, numbers = [plain_rule, ornament, other], [10, 11, 12]
    assert [v.status for v in Funnel(space).admit(batch, numbers)] == ["passed"] * 3
    funnel = Funnel(space, Gates(family=THRESHOLD))
    found = funnel.admit(batch, numbers)
    assert [(v.status, v.gate, v.duplicate_of) for v in found] == [
        ("passed", "", None),
        ("duplicate", "family", 10),
        ("passed", "", None),
    ]
    assert [v.status for v in funnel.admit([ornament], [20])] == ["passed"]  # nothing was recorded
    assert funnel.record(10, plain_rule) == 10
    (again,) = funnel.admit([ornament], [21])
    assert (again.gate, again.duplicate_of, again.rule) == ("family", 10, None)
    assert again.gates()["family"]["passed"] is False


@pytest.mark.parametrize("space", [Space(groups=2), ProgramSpace(lines=3)], ids=["nos", "program"])
def test_recorded_one_by_one_or_restored_the_families_are_the_same(space) -> None:
    generator = torch.Generator().manual_seed(0)
    one, two = Funnel(space), Funnel(space)
    strings = [
        verdict.tokens for verdict in Funnel(space).admit([space.sample(generator) for _ in range(200)]) if verdict.rule
    ]
    one.admit(strings[::2])  # so that half of them are known from the gates, and half are not
    found = [one.record(k, tokens) for k, tokens in enumerate(strings)]
    assert found == two.restore(list(enumerate(strings)))
    assert len(one.families) == len(two.families) == len(set(found))
    assert found[0] == 0


# --- runs ------------------------------------------------------------------------------------------------------------


class _Listening(ControllerStrategy):
    """A controller that keeps what it was told."""

    told: list[Result]

    def tell(self, results: Sequence[Result]) -> None:
        self.told = [*getattr(self, "told", []), *results]
        super().tell(results)


def test_a_strategy_is_told_families_and_a_resumed_one_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[_Listening] = []

    def make(config: RunConfig) -> Strategy:
        made.append(_Listening(config.make_space(), seed=config.seed, **config.strategy_options))
        return made[-1]

    monkeypatch.setattr(RunConfig, "make_strategy", make)
    options = {"algorithm": "pqt", "mutants": 0.5, "hidden": 8, "embedding": 4, "batch": 8}
    config = RunConfig(trials=150, batch=8, strategy_options=options, space=Space(groups=1).config())
    stub_search(tmp_path / "whole", config, StubExecutor())
    stub_search(tmp_path / "parts", replace(config, trials=40), StubExecutor())
    stub_search(tmp_path / "parts", config, StubExecutor())
    assert table(tmp_path / "parts") == table(tmp_path / "whole")
    monkeypatch.setattr(Store, "checkpoint", lambda store: None)  # so that all answers are told once more
    with Store.open(tmp_path / "whole", write=True) as store:
        Search(store, config, StubExecutor())
    whole, first, rest, again = (strategy.told for strategy in made)
    assert [*first, *rest] == again == whole
    with Store.open(tmp_path / "whole") as store:
        trials = {trial.id: trial for trial in store.trials()}
        families = families_of(store, trials.values())
    assert any(family != number for number, family in families.items())
    for result in whole:
        assert result.id is not None
        trial = trials[result.id]
        of = trial.duplicate_of if trial.status == "duplicate" else trial.id
        assert result.family == families.get(-1 if of is None else of)
        assert result.founds == (trial.status in ("done", "diverged") and families[trial.id] == trial.id)
    assert {result.founds for result in whole if result.family is not None} == {True, False}


def test_a_leaderboard_has_the_best_rule_of_each_family(tmp_path: Path) -> None:
    gates = {"descent": None, "screen": None}
    config = RunConfig(trials=200, strategy="random", gates=gates, space=Space(groups=1).config())
    stub_search(tmp_path / "run", config, StubExecutor())
    with Store.open(tmp_path / "run") as store:
        every, best = best_rows(store, every=True), best_rows(store)
        families = families_of(store, store.trials())
        short, full = summary(store), summary(store, every=True)
    assert len(best) < len(every)
    assert [row.rank for row in best] == list(range(1, len(best) + 1))
    for row in best:
        mine = [each for each in every if each.family == row.family]
        assert (row.rule, row.reward) == (mine[0].rule, mine[0].reward)  # they are sorted
        assert row.members == sum(family == row.family for family in families.values())
    assert [row.family for row in best] == list(dict.fromkeys(row.family for row in every))
    assert short["families"] == full["families"] == len(set(families.values()))
    assert (len(short["leaderboard"]), len(full["leaderboard"])) == (len(best), len(every))
