"""Gates and strategies by their throughput, on one core: `python -m bench.gates --json bench/results/gates.json`.

Rows: uniformly drawn strings through the gates static, effect, fingerprint and canonical (no reward known before, so
nothing is spared by earlier runs); rules screened on the analytic surfaces at 7 learning rates and 200 steps, from
their tokens and from compiled programs; one ask and tell of every strategy. The best of `--rounds` rounds.

--families N measures something else: from which distance on rules differ by more than seeds (bench/families.py). With
N = 400 it takes some five minutes.

--calibrate N also trains a digits child for N random rules that the descent test and the screening would judge, to see
what their thresholds keep and lose.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import nos_ext
from nos_search.gate import Funnel, Gates
from nos_search.gate.judge import TokenJudge
from nos_search.gate.screen import STEPS, screen
from nos_search.space import ProgramSpace, SearchSpace, Space, Tokens
from nos_search.strategy import STRATEGIES, Result, Strategy, create

from . import families
from .machine import describe


def strings(space: SearchSpace, n: int, seed: int = 0) -> list[Tokens]:
    generator = torch.Generator().manual_seed(seed)
    return [space.sample(generator) for _ in range(n)]


class _Cheap(Funnel):
    """Only the gates up to the canonical form; nothing is compiled for those that pass."""

    def __init__(self, space: SearchSpace) -> None:
        super().__init__(space, Gates(descent=None, screen=None))

    def _family(self, cases: object) -> None:
        """Asks nothing of those that pass, so that no rule is made of them either."""


def gates_rate(space: SearchSpace, n: int, seed: int) -> dict[str, Any]:
    batch = strings(space, n, seed)
    funnel = _Cheap(space)
    start = time.perf_counter()
    verdicts = funnel.admit(batch)
    seconds = time.perf_counter() - start
    per_gate: dict[str, dict[str, float]] = {}
    for verdict in verdicts:
        for gate, share in verdict.seconds.items():
            row = per_gate.setdefault(gate, {"entered": 0, "stopped": 0, "seconds": 0.0})
            row["entered"] += 1
            row["seconds"] += share
        if verdict.gate:
            per_gate[verdict.gate]["stopped"] += 1
    return {"rate": n / seconds, "gates": per_gate, "passed": sum(v.status == "passed" for v in verdicts)}


def screen_rate(space: Space, n: int, seed: int) -> dict[str, float]:
    """From tokens to scores, compiling included; and the part of the surfaces alone."""
    batch = [v.tokens for v in _Cheap(space).admit(strings(space, 2 * n, seed)) if v.status == "passed"][:n]
    judge = TokenJudge(space)
    start = time.perf_counter()
    judge.start(batch)
    programs = [judge.screening(row) for row in range(len(batch))]
    compiled = time.perf_counter()
    screen(programs, steps=STEPS)
    end = time.perf_counter()
    return {"rate": len(batch) / (end - start), "surfaces_only": len(batch) / (end - compiled), "rules": len(batch)}


def strategy_cost(strategy: Strategy, n: int) -> float:
    """Milliseconds of one ask and one tell, in the long run."""

    def play(count: int) -> None:
        for _ in range(count):
            (candidate,) = strategy.ask(1)
            reward = sum(token % 2 == 0 for token in candidate.tokens) / len(candidate.tokens)
            strategy.tell([Result(candidate.tokens, reward, candidate.id)])

    play(n)
    start = time.perf_counter()
    play(n)
    return (time.perf_counter() - start) / n * 1e3


def calibrate(n: int, seed: int = 5) -> dict[str, Any]:
    """Digits rewards of rules on both sides of each threshold."""
    from nos_search.task import load
    from nos_search.train.child import ScoringProtocol, score

    space = Space(groups=2)
    open_gates = Funnel(space, Gates(descent=-1.0, screen=0.0))
    passed = [v for v in open_gates.admit(strings(space, 3 * n, seed)) if v.rule is not None][:n]
    task = load("digits")
    rows = []
    for verdict in passed:
        assert verdict.rule is not None
        rows.append(
            (verdict.cosine or 0.0, verdict.score or 0.0, score(verdict.rule, task, ScoringProtocol(), seed=1).reward)
        )
    gates = Gates()
    assert gates.descent is not None
    assert gates.screen is not None
    groups = {
        "stopped by descent": [r for c, _, r in rows if c < gates.descent],
        "stopped by screen": [r for c, s, r in rows if c >= gates.descent and s < gates.screen],
        "passed": [r for c, s, r in rows if c >= gates.descent and s >= gates.screen],
    }
    return {
        name: {
            "rules": len(found),
            "reward above 0.3": sum(r > 0.3 for r in found),
            "reward above 0.8": sum(r > 0.8 for r in found),
            "best": max(found, default=0.0),
        }
        for name, found in groups.items()
    }


def best(rounds: int, measure: Callable[[int], Any], key: Callable[[Any], float]) -> Any:
    return max((measure(k) for k in range(rounds)), key=key)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gates", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--strings", type=int, default=20_000, metavar="N")
    parser.add_argument("--rules", type=int, default=2_000, metavar="N")
    parser.add_argument("--calibrate", type=int, default=0, metavar="N")
    parser.add_argument("--families", type=int, default=0, metavar="N", help="score N rules for families alone")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    nos_ext._C.set_tuning(threads=1)
    if args.families:
        found = families.measure(args.families, seed=5, note=lambda text: print(text, file=sys.stderr, flush=True))
        print(families.table(found))
        _write(args.json, {"format": 1, "machine": describe(1), "families": found})
        return 0
    document: dict[str, Any] = {"format": 1, "machine": describe(1), "rounds": args.rounds, "strings": args.strings}
    print("| what | per second, one core |\n|---|---|")
    document["gates"] = {}
    for name, space, n in (
        ("nos, 2 groups", Space(groups=2), args.strings),
        ("nos, 3 groups", Space(groups=3), args.strings),
        ("program, 5 lines", ProgramSpace(), max(1, args.strings // 10)),
    ):
        found = best(args.rounds, lambda seed, space=space, n=n: gates_rate(space, n, seed), lambda row: row["rate"])  # type: ignore[misc]
        document["gates"][name] = found
        print(f"| strings to the canonical gate, {name} | {found['rate']:,.0f} |", flush=True)
    document["screen"] = best(
        args.rounds, lambda seed: screen_rate(Space(groups=2), args.rules, seed), lambda row: row["rate"]
    )
    print(f"| rules screened, compiled from tokens | {document['screen']['rate']:,.0f} |")
    print(f"| rules screened, compiled before | {document['screen']['surfaces_only']:,.0f} |")
    print("\n| gate, nos 2 groups | entered | stopped | us each |\n|---|---|---|---|")
    for gate, row in document["gates"]["nos, 2 groups"]["gates"].items():
        print(f"| {gate} | {row['entered']} | {row['stopped']} | {1e6 * row['seconds'] / row['entered']:.1f} |")
    print("\n| strategy | ms per ask and tell |\n|---|---|")
    document["strategies"] = {}
    alone = {"mutants": 0, "warm_start": 0}
    for name, options in (
        ("random", {}),
        ("evolution", {}),
        ("controller", {}),
        *[("controller", {"algorithm": algorithm, **alone}) for algorithm in ("ppo", "reinforce", "trpo")],
        ("optuna", {}),
    ):
        label = f"{name} {options['algorithm']} alone" if options else name
        try:
            strategy = create(name, Space(groups=2), seed=1, options=options)
        except ValueError as error:  # optuna is not installed
            print(error, file=sys.stderr)
            continue
        document["strategies"][label] = strategy_cost(strategy, 40 if name == "optuna" else 400)
        print(f"| {label} | {document['strategies'][label]:.3f} |", flush=True)
    assert {label.split()[0] for label in document["strategies"]} <= set(STRATEGIES)
    if args.calibrate:
        document["calibration"] = calibrate(args.calibrate)
        print("\n| digits rewards of rules | rules | above 0.3 | above 0.8 | best |\n|---|---|---|---|---|")
        for name, row in document["calibration"].items():
            print(f"| {name} | {' | '.join(str(round(v, 3)) for v in row.values())} |")
    _write(args.json, document)
    return 0


def _write(path: str | None, document: dict[str, Any]) -> None:
    if path:
        Path(path).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
