"""Owns the document that a proof leaves, fit for JSON: the verdicts, what they rest on, and all of the protocol."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ..task.score import scores
from .families import SEARCHED, family_of
from .protocol import Contender, Found, describe
from .space import FACTOR, NEAR_ONE
from .statistics import ALPHA, LARGEST, SMALLEST, paired, steps_to
from .tuning import Tuned, rate_of
from .verdict import BETTER, WORSE, Against, Judged, Judgement, judge

FORMAT = 1


def document(
    found: Found,
    rules: Sequence[int],
    baselines: Sequence[int],
    *,
    versions: Mapping[str, str],
    times: Mapping[str, Any],
    searched: Collection[str] = (),
) -> dict[str, Any]:
    """Returns the document. Rules and baselines are numbers of contenders. `searched` are the tasks that these rules
    were found on, besides those of any search."""
    searched = {*SEARCHED, *searched}
    names = [found.contenders[k].name for k in baselines]
    judged = judge(found.scores, rules, baselines)
    return {
        "format": FORMAT,
        "rules": [
            _rule(found, rule, baselines, names, each, searched) for rule, each in zip(rules, judged, strict=True)
        ],
        "contenders": {
            contender.name: _contender(found, contender, row)
            for contender, row in zip(found.contenders, found.tuned, strict=True)
        },
        "protocol": _protocol(found, names, versions, times, searched),
    }


def _rule(
    found: Found,
    rule: int,
    baselines: Sequence[int],
    names: Sequence[str],
    judgement: Judgement,
    searched: Collection[str],
) -> dict[str, Any]:
    against = _against(judgement.against, names)
    for k, (base, name) in enumerate(zip(baselines, names, strict=True)):
        against[name] |= {
            "interquartile_mean": judgement.quartiles[k],
            **_steps(found.tuned[rule], found.tuned[base]),
        }
    tasks, families = (
        {name: _judged(unit, names) for name, unit in units.items()} for units in (judgement.tasks, judgement.families)
    )
    for name, task in tasks.items():
        task["searched"] = name in searched
        task["differences"] = _differences(found, rule, baselines, names, name)
    row = found.tuned[rule]
    return {
        "rule": found.contenders[rule].name,
        "verdict": judgement.verdict,
        "against": against,
        "families": families,
        "tasks": tasks,
        "diverged": sum(each.status == "diverged" for cell in row for each in cell.outcomes),
        "trainings": sum(len(cell.outcomes) for cell in row),
    }


def _against(against: Sequence[Against], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "mean": each.test.mean,
            "half": each.test.half,
            "p": each.test.p,
            "corrected": each.corrected,
            "verdict": each.verdict,
            "cells_agree": {1: BETTER, -1: WORSE, 0: None}[each.agreed],
        }
        for name, each in zip(names, against, strict=True)
    }


def _judged(judged: Judged, names: Sequence[str]) -> dict[str, Any]:
    return {"verdict": judged.verdict, "against": _against(judged.against, names)}


def _differences(
    found: Found, rule: int, baselines: Sequence[int], names: Sequence[str], task: str
) -> dict[str, dict[str, Any]]:
    """Returns the differences in test score on a task, over its cells, in the units of the score."""
    scored = found.scores
    mine = [name == task for name in scored.tasks]
    gaps = {
        name: paired((scored.values[rule] - scored.values[base])[mine].mean(0))
        for name, base in zip(names, baselines, strict=True)
    }
    return {name: {"mean": gap.mean, "half": gap.half} for name, gap in gaps.items()}


def _steps(mine: Sequence[Tuned], theirs: Sequence[Tuned]) -> dict[str, Any]:
    """Returns how far into its training the rule reaches the baseline's final score on validation data: the median
    share of the steps where it does, and the share of trainings in which it does."""
    shares = []
    count = 0
    for cell, other in zip(mine, theirs, strict=True):
        for one, base in zip(cell.outcomes, other.outcomes, strict=True):
            if base.status == "diverged":
                continue
            count += 1
            if one.status == "diverged":
                continue
            steps = one.curve["steps"]
            reached = steps_to(scores(base.curve)[-1], steps, scores(one.curve))
            if reached is not None:
                shares.append(reached / steps[-1])
    return {
        "steps_to_final": statistics.median(shares) if shares else None,
        "reached": len(shares) / count if count else None,
    }


def _contender(found: Found, contender: Contender, row: Sequence[Tuned]) -> dict[str, Any]:
    return {
        "text": contender.rule.text,
        "cells": {found.protocol.label(k): _cell(each) for k, each in enumerate(row)},
    }


def _tuned(found: Found, contender: Contender, row: Sequence[Tuned]) -> dict[str, dict[str, float]]:
    """Returns the settings of a contender's constants that tuning chose on each task."""
    points = {found.protocol.cells[k].task: each.point for k, each in enumerate(row)}
    return {found.protocol.tasks[task].name: contender.space.settings(point) for task, point in points.items()}


def _cell(tuned: Tuned) -> dict[str, Any]:
    tests = [each.test or 0.0 for each in tuned.outcomes]
    losses = [each.curve["val_loss"][-1] for each in tuned.outcomes if each.status == "done"]
    return {
        "lr": None if tuned.rate is None else rate_of(tuned.rate),
        "validation_when_tuned": tuned.validation,
        "tests": tests,
        "test": statistics.fmean(tests),
        "loss": statistics.fmean(losses) if losses else None,
        "diverged": sum(each.status == "diverged" for each in tuned.outcomes),
    }


def _protocol(
    found: Found,
    baselines: Sequence[str],
    versions: Mapping[str, str],
    times: Mapping[str, Any],
    searched: Collection[str],
) -> dict[str, Any]:
    protocol = found.protocol
    return {
        "against": list(baselines),
        "tasks": {
            task.name: {
                "family": family_of(task.name),
                "searched": task.name in searched,
                "score": task.score,
                "train_steps": task.budget.train_steps,
                "augment": task.augment,
            }
            for task in protocol.tasks
        },
        "nets": {protocol.label(k): str(task.spec) for k, task in enumerate(protocol.scorer.tasks)},
        "sizes": list(protocol.sizes),
        "horizons": list(protocol.horizons),
        "decay": protocol.decay,
        "engine": protocol.engine,
        "seed": protocol.seed,
        "tuning_seed": protocol.plan.seed,
        "seeds": list(protocol.plan.seeds),
        "points": protocol.tuning,
        "spaces": describe(found.contenders),
        "tuned": {each.name: _tuned(found, each, row) for each, row in zip(found.contenders, found.tuned, strict=True)},
        "factors": {"near_one": NEAR_ONE, "others": FACTOR},
        "statistics": {"alpha": ALPHA, "smallest_deviation": SMALLEST, "largest_difference": LARGEST},
        "versions": dict(versions),
        "times": dict(times),
    }
