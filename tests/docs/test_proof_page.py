"""The tables of docs/search.md about the long run say what the record of its proof says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PROOF: Any = json.loads((ROOT / "bench/results/proof-long.json").read_text(encoding="utf-8"))
PAGE = (ROOT / "docs/search.md").read_text(encoding="utf-8")


def gap(found: dict[str, Any]) -> str:
    return f"{found['mean']:+.2f} ± {found['half']:.2f}"


def test_differences_and_verdicts_are_those_on_record() -> None:
    assert (PROOF["protocol"]["sizes"], PROOF["protocol"]["horizons"]) == (["s", "m", "l"], [1, 4, 10])
    for number, rule in enumerate(PROOF["rules"], start=1):
        against = rule["against"]
        worse = ", ".join(name for name, each in against.items() if each["verdict"] == "worse")
        assert rule["verdict"] == "worse"
        assert f"| found {number} | {' | '.join(map(gap, against.values()))} | worse than {worse} |" in PAGE
        parts = " | ".join(gap(against[name]) for name in ("adamw", "adam", "muon"))
        assert f"| found {number} | 1, 4, 10 | s, m, l | {parts} |" in PAGE
        assert f"{against['adamw']['reached']:.0%}".replace("%", " %") in PAGE


def test_the_tasks_that_the_page_names() -> None:
    for rule in PROOF["rules"]:
        tasks = {name: {base: each["verdict"] for base, each in task["against"].items()}
                 for name, task in rule["tasks"].items()}  # fmt: skip
        assert {base for base, verdict in tasks["chirps"].items() if verdict == "better"} == {
            "adamw", "adam", "momentum", "lion",
        }  # fmt: skip
        assert tasks["autoencoder"]["adamw"] == tasks["autoencoder"]["adam"] == "worse"
        for name in ("chirps", "spanishlm", "friedman", "autoencoder", "patch10"):
            assert tasks[name]["muon"] == "worse"
        assert "better" not in [task["muon"] for task in tasks.values()]
