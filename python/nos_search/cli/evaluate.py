"""Owns the command evaluate, which sets rules against each other over several seeds and tasks."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, replace

from ..bounds import check_count
from ..errors import SearchError, UsageError
from ..known import EVALUATED
from ..prove.statistics import LARGEST, alike, freedom_of, paired, pooled_deviation
from ..rules import CompiledRule, distinct, parse_rule_argument
from ..run.trainings import LoadTasks, Wanted, make_tasks_executor, run_all
from ..show import plot
from ..store import files
from ..store.record import Record
from ..task import SCORES, Task
from ..train.child import ScoringProtocol
from ..train.engine import check_trains, engine_of
from ..train.evaluate import CONFIDENCE, Comparison, summarise
from ..train.seeds import derive_seed
from .output import as_json, emit, note, number, table
from .plots import draw
from .training import check_common, load_all, open_record, recipes, rules_of, scoring, shown_loss, where_kept


def call(args: argparse.Namespace) -> int:
    _check(args)
    rules, baseline = _rules(args)
    protocol = scoring(args, args.tasks, "--tasks")
    chosen = recipes(args, args.tasks, "--tasks")
    tasks = load_all(chosen)
    check_trains(protocol.engine, tasks)
    seeds = [derive_seed(args.seed, "evaluate", k) for k in range(args.seeds)]
    record = open_record(args.out, args, protocol, tasks)
    wanted = [Wanted(rule, k, seed) for k in range(len(tasks)) for rule in rules for seed in seeds]
    fault: BaseException | None = None
    try:
        _train(args, LoadTasks(tuple(chosen), protocol), tasks, wanted, record)
    except (KeyboardInterrupt, SearchError) as error:  # what is finished is shown all the same
        fault = error
        done = sum(record.get(tasks[each.task].name, each.rule.text, each.seed) is not None for each in wanted)
        note(f"{done} of {len(wanted)} trainings are finished, and {where_kept(args.out)}")
    results = _results(rules, baseline, tasks, seeds, record)
    if results or fault is None:
        _show(args, protocol, tasks, results, rules, baseline)
    if fault is not None:
        raise fault
    return 0


# --- before anything is trained --------------------------------------------------------------------------------------


def _check(args: argparse.Namespace) -> None:
    check_count("--seeds", args.seeds, "3 or more show the spread")
    check_count("--workers", args.workers)
    if args.top < 1:
        raise UsageError(f"--top {args.top} is below 1; say how many of a run's best rules")
    check_common(args)
    if args.out is not None:
        files.check_place("--out", args.out)
        if os.path.exists(args.out) and not os.path.isfile(args.out):
            raise UsageError(f"--out {args.out} is no file that can be read again; choose another file")
    files.check_apart({"--out": args.out, "--plot": args.plot})


def _rules(args: argparse.Namespace) -> tuple[list[CompiledRule], CompiledRule | None]:
    """Returns the rules to compare, each once, and the baseline, which is one of them."""
    named = [rule for word in dict.fromkeys(args.rules) for rule in rules_of(word, args.top)]
    rules = [*named, *(parse_rule_argument(name) for name in EVALUATED if args.known)]
    if not rules:
        raise UsageError("no RULE: name rule text, a library rule such as adam, a run folder, or --known")
    if args.baseline is None:
        return distinct(rules), None
    baseline = parse_rule_argument(args.baseline)
    rules = distinct([*rules, baseline])
    return rules, next(rule for rule in rules if rule.text == baseline.text)


# --- the trainings ---------------------------------------------------------------------------------------------------


def _train(
    args: argparse.Namespace, loader: LoadTasks, tasks: Sequence[Task], wanted: Sequence[Wanted], record: Record
) -> None:
    """Trains what the record lacks, and adds it to the record."""
    missing = [each for each in wanted if record.get(tasks[each.task].name, each.rule.text, each.seed) is None]
    if not missing:
        return
    said: set[tuple[int, str]] = set()

    def started(each: Wanted) -> None:
        if (each.task, each.rule.text) not in said:
            said.add((each.task, each.rule.text))
            task = tasks[each.task]
            note(f"evaluating {each.rule.label} on {task.name} ({task.spec}), {args.seeds} seed(s)")

    with make_tasks_executor(
        loader, tasks, workers=args.workers, threads=args.threads or 1, clock=time.perf_counter
    ) as executor:
        for each, outcome in run_all(executor, missing, started=started):
            record.add(tasks[each.task].name, each.rule.text, each.seed, outcome)


def _results(
    rules: Sequence[CompiledRule],
    baseline: CompiledRule | None,
    tasks: Sequence[Task],
    seeds: Sequence[int],
    record: Record,
) -> list[Comparison]:
    """Returns one row for each rule and task of which every seed is finished."""
    results: list[Comparison] = []
    for task in tasks:
        rows = {}
        for rule in rules:
            found = [record.get(task.name, rule.text, seed) for seed in seeds]
            outcomes = [outcome for outcome in found if outcome is not None]
            if len(outcomes) == len(seeds):
                rows[rule.text] = summarise(rule.label, task.name, outcomes, score=task.score)
        base = None if baseline is None else rows.get(baseline.text)
        results += [row if base is None else _against(row, base) for row in rows.values()]
    return results


def _against(row: Comparison, base: Comparison) -> Comparison:
    """Returns the row with its difference to the baseline. Differences that are all equal say nothing of their noise,
    so that their interval rests on the spread of both rules' scores, which is taken as a share of the difference at
    least (prove/statistics.py)."""
    found = row.against(base)
    gaps = [mine - other for mine, other in zip(row.tests, base.tests, strict=True)]
    if len(gaps) < 2 or not alike(gaps):
        return found
    deviation = max(pooled_deviation([row.tests, base.tests]), abs(gaps[0]) / LARGEST)
    half = paired([gaps[0] / deviation] * len(gaps), freedom_of([row.tests, base.tests])).half
    return replace(found, difference=(gaps[0], None if half is None else deviation * half))


# --- what is shown ---------------------------------------------------------------------------------------------------


def _show(
    args: argparse.Namespace,
    protocol: ScoringProtocol,
    tasks: Sequence[Task],
    results: Sequence[Comparison],
    rules: Sequence[CompiledRule],
    baseline: CompiledRule | None,
) -> None:
    label = None if baseline is None else baseline.label
    if args.json:
        document = {
            "format": 2,
            "seed": args.seed,
            "sweep": protocol.sweep,
            "engine": engine_of(protocol.engine, tasks),
            "decay": protocol.decay,
            "augment": args.augment,
            "interval": f"Student t, {CONFIDENCE:.0%}, half width",
            "baseline": None if baseline is None else baseline.text,
            "nets": {task.name: str(task.spec) for task in tasks},
            "rules": {rule.label: rule.text for rule in rules},
            "results": [asdict(result) for result in results],
        }
        emit(as_json(document), keep=True)
    else:
        emit(_table(results, {task.name: task.loss_name for task in tasks}, label), keep=True)
        if args.seeds > 1:
            note(
                f"±: half width of the {CONFIDENCE:.0%} Student t interval over {args.seeds} seeds; "
                "a sweep for each run"
            )
        for task in tasks:
            verdict = _verdict([each for each in results if each.task == task.name], label)
            if verdict is not None:
                emit(verdict, keep=True)
    if args.plot is not None and results:
        draw(args.plot, plot.comparison(results))


def _table(results: Sequence[Comparison], units: dict[str, str], baseline: str | None) -> str:
    header = ["task", "score", "validation", "test", "loss", "lr", "diverged", "rule"]
    if baseline is not None:
        header.insert(4, f"test - {baseline}")
    rows = []
    for r in sorted(results, key=lambda r: (list(units).index(r.task), -r.test_mean)):
        row = [
            r.task,
            SCORES[r.score].label,
            _spread(r.val_mean, r.val_ci),
            _spread(r.test_mean, r.test_ci),
            shown_loss(units[r.task], r.loss),
            ",".join(dict.fromkeys(number(lr) for lr in r.lrs)),
            f"{r.diverged}/{r.seeds}",
            r.rule,
        ]
        if baseline is not None:
            row.insert(4, _spread(*r.difference, digits="+.4f") if r.difference is not None else "")
        rows.append(row)
    return table(header, rows)


def _verdict(results: Sequence[Comparison], baseline: str | None) -> str | None:
    """Says whether the rule that is best on validation data beats the baseline on test data. The choice is not made by
    the test data, which would favour the rule that was lucky there. Returns None where there is no difference with an
    interval."""
    rivals = [each for each in results if each.difference is not None and each.rule != baseline]
    if not rivals:
        return None
    best = max(rivals, key=lambda each: each.val_mean)
    assert best.difference is not None
    mean, half = best.difference
    if half is None:
        return None
    found = "no difference shown" if abs(mean) <= half else "better" if mean > 0 else "worse"
    return (
        f"{best.task}: {best.rule} against {baseline} on test data, paired over {best.seeds} seeds: "
        f"{SCORES[best.score].label} {mean:+.4f} ± {half:.4f}: {found}"
    )


def _spread(mean: float, half: float | None, digits: str = ".4f") -> str:
    return f"{mean:{digits}}" if half is None else f"{mean:{digits}} ± {half:.4f}"
