"""Strategies against each other at equal numbers of trained children: `python -m bench.study --out runs/study`.

Each (strategy, seed) is a run of its own, in a folder of its own, that goes on where it was when the command is given
again. --reward digits trains children on scikit-learn's digits as `nos-search run` does, and --reward charmlp on
characters; --reward surfaces takes the score of the screening on analytic surfaces instead: a thousand times cheaper,
for tuning a strategy, and no proof of anything about training. A strategy that trains too little of what it proposes is
stopped after 50 proposals for each child.

Printed per strategy, as mean and 95 % confidence interval over seeds (Student's t): the mean reward of the last 200
proposals (what the strategy has learned to write; a rejected rule counts 0, a repeated one what it earned), the same of
the last 200 children, the number of families of the trained rules, the share of the last 200 proposals that began a
family, and the best child of the run. The best of a
thousand rewards is also the luckiest, so if children train, the best rules of the run's 20 best families are trained
again with seeds that the search has not seen (--unseen, 5): "top" is their mean validation score, "kept" the mean test
score of the one whose validation score was best.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .machine import describe

_LAST = 200
_TOP = 20
_MOST_PROPOSALS = 50  # for each child
_LIMITS = ("children", "trials")  # of a run, which may rise
_COLUMNS = ("families", "new_families", "last_proposals", "last_children", "best", "top", "kept")


@dataclass(frozen=True)
class Job:
    """One run. options: of the strategy, beyond its defaults; gates: thresholds beyond theirs; label: how the table
    calls it; unseen: seeds with which the best are trained again."""

    label: str
    strategy: str
    options: dict[str, Any]
    gates: dict[str, Any]
    seed: int
    children: int
    reward: str
    space: dict[str, Any]
    folder: str
    sweep_steps: int | None = None
    train_steps: int | None = None
    unseen: int = 5


def run_task(job: Job) -> dict[str, Any]:
    """A search with the in-process executor, to `children` trained children; continues what the folder holds."""
    from nos_search.errors import UsageError
    from nos_search.executor import InProcess
    from nos_search.gate import Gates
    from nos_search.rules import parse_stored_rule
    from nos_search.run.children import ChildScorer
    from nos_search.run.config import RunConfig, versions
    from nos_search.run.families import families_of
    from nos_search.run.search import Search
    from nos_search.show.leaderboard import leaderboard
    from nos_search.store import Store
    from nos_search.train.evaluate import compare
    from nos_search.train.seeds import derive_seed

    folder = Path(job.folder)
    config = RunConfig(
        task=job.reward,
        strategy=job.strategy,
        strategy_options=job.options,
        seed=job.seed,
        space=job.space,
        gates={**Gates().to_json(), **job.gates},
        threads=1,
        children=job.children,
        trials=_MOST_PROPOSALS * job.children,
        sweep_steps=job.sweep_steps,
        train_steps=job.train_steps,
    )
    task, protocol = config.make_task(), config.make_protocol()
    config = config.in_force(task)
    exists = (folder / "search.db").exists()
    with Store.open(folder, write=True) if exists else Store.create(folder, config.to_json(), versions()) as store:
        differs = [
            name
            for name, value in config.to_json().items()
            if name not in _LIMITS and json.dumps(value) != json.dumps(store.config.get(name))
        ]
        if differs:
            raise UsageError(f"{folder} is of a run with another {', '.join(differs)}; choose another --out")
        executor = InProcess(ChildScorer(task, protocol), threads=1, clock=time.perf_counter)
        Search(store, config, executor).run()
        trials = [trial for trial in store.trials() if trial.told is not None]
        families = families_of(store, trials)
    unseen = [derive_seed(job.seed, f"unseen{k}") for k in range(job.unseen)]
    best = [parse_stored_rule(row.rule, folder, row.trial) for row in leaderboard(trials, families=families)[:_TOP]]
    again = [compare(rule, task, protocol, seeds=unseen) for rule in best]
    kept = max(again, key=lambda comparison: comparison.val_mean)
    found = _outcome(
        job,
        [trial.reward or 0.0 for trial in trials],
        [trial.reward or 0.0 for trial in trials if trial.trained],
        kept.rule,
        [families.get(trial.id) == trial.id for trial in trials],
    )
    top = statistics.fmean(comparison.val_mean for comparison in again)
    return {**found, "top": top, "kept": kept.test_mean}


def run_surfaces(job: Job) -> dict[str, Any]:
    """The same loop without store and children: the reward is the score of the screening."""
    import torch

    from nos_search.gate import Funnel, Gates
    from nos_search.space import make_space
    from nos_search.strategy import Result, create

    torch.set_num_threads(1)
    space = make_space(job.space)
    strategy = create(job.strategy, space, seed=job.seed, options=job.options)
    funnel = Funnel(space, Gates(**{"screen": 0.0, **job.gates}))
    proposed: list[float] = []
    children: list[float] = []
    begins: list[bool] = []
    known: dict[int, tuple[float, int | None]] = {}  # reward and family by candidate
    best_of: dict[int | None, float] = {}  # by family
    best, rule = -1.0, ""
    while len(children) < job.children:
        (candidate,) = strategy.ask(1)
        (verdict,) = funnel.admit([candidate.tokens], [candidate.id])
        reward, family = 0.0, None
        if verdict.status == "duplicate":
            reward, family = known[verdict.duplicate_of or 0]
        elif verdict.status == "passed":
            reward, family = verdict.score or 0.0, funnel.record(candidate.id, candidate.tokens)
            known[candidate.id] = reward, family
            best_of[family] = max(reward, best_of.get(family, 0.0))
            children.append(reward)
            if reward > best:
                best, rule = reward, space.text(candidate.tokens)
        proposed.append(reward)
        duplicate = verdict.status == "duplicate"
        begins.append(family == candidate.id)
        strategy.tell([Result(candidate.tokens, reward, candidate.id, duplicate=duplicate, family=family)])
        if len(proposed) > _MOST_PROPOSALS * job.children:
            break  # the strategy writes the same few rules for ever
    found = _outcome(job, proposed, children, rule, begins)
    return {**found, "top": statistics.fmean(sorted(best_of.values(), reverse=True)[:_TOP])}


def _outcome(
    job: Job, proposed: Sequence[float], children: Sequence[float], rule: str, begins: Sequence[bool]
) -> dict[str, Any]:
    """Sums up a run. `begins` says of each proposal whether it was trained and began a family."""
    return {
        "label": job.label,
        "seed": job.seed,
        "proposals": len(proposed),
        "children": len(children),
        "families": sum(begins),
        "new_families": statistics.fmean(begins[-_LAST:]),
        "last_proposals": statistics.fmean(proposed[-_LAST:]),
        "last_children": statistics.fmean(children[-_LAST:]),
        "best": max(children),
        "rule": rule,
    }


def run(job: Job) -> dict[str, Any]:
    start = time.perf_counter()
    found = run_surfaces(job) if job.reward == "surfaces" else run_task(job)
    return {**found, "seconds": time.perf_counter() - start}


def table(results: Sequence[dict[str, Any]]) -> str:
    from nos_search.train.evaluate import half_width

    columns = [column for column in _COLUMNS if column in results[0]]
    lines = ["| strategy | seeds | proposals | children | " + " | ".join(c.replace("_", " ") for c in columns) + " |"]
    lines.append("|---|---|---|---|" + "---|" * len(columns))
    for label in dict.fromkeys(result["label"] for result in results):
        rows = [result for result in results if result["label"] == label]
        cells = []
        for column in columns:
            values = [row[column] for row in rows]
            half = half_width(values)
            digits = 0 if column == "families" else 3
            cells.append(f"{statistics.fmean(values):.{digits}f}" + ("" if half is None else f" +- {half:.{digits}f}"))
        proposals = statistics.fmean(row["proposals"] for row in rows)
        children = statistics.fmean(row["children"] for row in rows)
        lines.append(f"| {label} | {len(rows)} | {proposals:.0f} | {children:.0f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def paired(results: Sequence[dict[str, Any]]) -> str:
    """Lists how far "top" of the first strategy is above that of each other one, over the seeds that both have."""
    from nos_search.train.evaluate import half_width

    tops: dict[str, dict[int, float]] = {}
    for result in results:
        tops.setdefault(result["label"], {})[result["seed"]] = result["top"]
    (first, mine), *others = tops.items()
    lines = [f"| top of {first}, less that of | seeds | mean |", "|---|---|---|"]
    for label, theirs in others:
        found = [mine[seed] - theirs[seed] for seed in mine if seed in theirs]
        half = half_width(found)
        lines.append(
            f"| {label} | {len(found)} | {statistics.fmean(found):+.4f}{'' if half is None else f' +- {half:.4f}'} |"
        )
    return "\n".join(lines)


def parse(name: str) -> tuple[str, str, dict[str, Any], dict[str, Any]]:
    """ "controller:algorithm=trpo,gate.family=0.002" -> (label, strategy, options, gates)."""
    strategy, _, rest = name.partition(":")
    options: dict[str, Any] = {}
    gates: dict[str, Any] = {}
    for pair in filter(None, rest.split(",")):
        option, _, value = pair.partition("=")
        into, option = (gates, option[5:]) if option.startswith("gate.") else (options, option)
        try:
            into[option] = json.loads(value)
        except ValueError:
            into[option] = value
    return name, strategy, options, gates


def main(argv: Sequence[str] | None = None) -> int:
    from nos_search.space import ProgramSpace, Space

    parser = argparse.ArgumentParser(prog="python -m bench.study", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--strategies", nargs="+", default=["controller", "evolution", "random"], metavar="NAME[:OPTION=VALUE,...]"
    )
    parser.add_argument("--seeds", type=int, default=5, metavar="N")
    parser.add_argument("--first-seed", type=int, default=1, metavar="K")
    parser.add_argument("--children", type=int, default=1000, metavar="M", help="trained per run")
    parser.add_argument("--reward", choices=("digits", "charmlp", "surfaces"), default="digits")
    parser.add_argument("--unseen", type=int, default=5, metavar="N", help="seeds that train the best again")
    parser.add_argument("--sweep-steps", type=int, metavar="N", help="of digits children (default: the task's)")
    parser.add_argument("--train-steps", type=int, metavar="N", help="fewer make a harder reward")
    parser.add_argument("--space", choices=("nos", "program"), default="nos")
    parser.add_argument("--groups", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at once, one core each")
    parser.add_argument("--out", default="runs/study", metavar="DIR", help="one folder per run; given again, goes on")
    parser.add_argument("--json", metavar="FILE", help="write all results")
    args = parser.parse_args(argv)
    space = (Space(groups=args.groups) if args.space == "nos" else ProgramSpace()).config()
    jobs = []
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for label, strategy, options, gates in map(parse, args.strategies):
            folder = Path(args.out) / f"{label.replace(':', '-').replace(',', '-')}-{seed}"
            steps = (args.sweep_steps, args.train_steps)
            run_of = (label, strategy, options, gates, seed, args.children, args.reward, space, str(folder))
            jobs.append(Job(*run_of, *steps, args.unseen))
    results = []
    with multiprocessing.get_context("spawn").Pool(args.jobs) as pool:
        for result in pool.imap(run, jobs):
            results.append(result)
            if args.json:  # what is finished stays, should this be stopped
                _write(args.json, vars(args), results)
            print(
                f"{result['label']} seed {result['seed']}: {result['proposals']} proposals, {result['children']} "
                f"children, last {_LAST} proposals {result['last_proposals']:.3f}, best {result['best']:.3f} "
                f"({result['seconds']:.0f} s)",
                file=sys.stderr,
                flush=True,
            )
    print(table(results))
    if len({result["label"] for result in results}) > 1:
        print("\n" + paired(results))
    return 0


def _write(path: str, arguments: dict[str, Any], results: Sequence[dict[str, Any]]) -> None:
    settings = {name: value for name, value in arguments.items() if name not in ("out", "json")}
    document = {"format": 1, "machine": describe(1), "arguments": settings, "results": results}
    Path(path).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
