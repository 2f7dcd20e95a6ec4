"""The study of strategies: its tables, and the page that shows them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench import study
from nos_search.errors import UsageError
from nos_search.space import ProgramSpace, Space
from nos_search.strategy import Result
from nos_search.strategy.evolution import EvolutionStrategy

ROOT = Path(__file__).resolve().parents[2]


def result(label: str, seed: int, top: float) -> dict[str, object]:
    return {
        "label": label, "seed": seed, "proposals": 30, "children": 10, "families": 4, "new_families": 0.25,
        "last_proposals": 0.1, "last_children": 0.2, "best": 0.5, "top": top, "kept": 0.3,
    }  # fmt: skip


def test_strategies_are_compared_seed_by_seed() -> None:
    """The differences are 0.1, 0.2 and 0.3: their mean is 0.2, and Student's t of two degrees of freedom is 4.3027, which
    is to be multiplied with 0.1 / sqrt(3)."""
    results = [result("a", seed, 0.5 + seed / 10) for seed in (1, 2, 3)]
    results += [result("b", seed, 0.5) for seed in (3, 2, 1, 4)]
    assert study.paired(results).splitlines()[-1] == "| b | 3 | +0.2000 +- 0.2484 |"
    assert study.table(results).splitlines()[-1].startswith("| b | 4 | 30 | 10 | 4 +- 0 | 0.250 +- 0.000 |")


def test_a_folder_goes_on_with_equal_settings_alone(tmp_path: Path) -> None:
    """Programs, whose text is a function, are trained again, too."""
    job = study.Job(
        "random", "random", {}, {}, 1, 1, "charmlp", ProgramSpace().config(), str(tmp_path / "run"), 3, 4, unseen=1
    )
    assert study.run_task(job)["children"] == 1
    found = study.run_task(replace(job, children=2))
    assert (found["children"], found["seed"]) == (2, 1)
    assert found["rule"].startswith("def rule(")
    with pytest.raises(UsageError, match=r"run is of a run with another train_steps; choose another --out"):
        study.run_task(replace(job, children=3, train_steps=5))


def test_surfaces_tell_families_as_a_run_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """A duplicate has the family of the rule that it repeats."""
    told: list[Result] = []
    tell = EvolutionStrategy.tell
    monkeypatch.setattr(EvolutionStrategy, "tell", lambda self, results: [told.extend(results), tell(self, results)][1])
    job = study.Job("evolution", "evolution", {}, {}, 1, 60, "surfaces", Space(groups=1).config(), "")
    found = study.run_surfaces(job)
    families = {result.id: result.family for result in told if not result.duplicate}
    repeats = [result for result in told if result.duplicate]
    assert repeats
    assert all(result.family is not None and families[result.family] == result.family for result in repeats)
    assert found["families"] == len({result.family for result in told} - {None})


@pytest.mark.parametrize("name", ["study-charmlp", "study-charmlp-5000", "study-charmlp-10000"])
def test_the_page_shows_the_record(name: str) -> None:
    results = json.loads((ROOT / "bench" / "results" / f"{name}.json").read_text())["results"]
    page = (ROOT / "docs" / "search.md").read_text()
    assert study.table(results) in page
    assert study.paired(results) in page
