"""Owns the command constants, which tunes the numbers of a rule and says whether that has made it better."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any, Final

from ..bounds import check_count
from ..constants import Confirmed, Constant, Constants, Generation, Tuned, confirm, tune
from ..errors import SearchError
from ..escape import line, lines
from ..prove.tuning import DECADES, rate_of
from ..rules import CompiledRule, parse_rule_argument
from ..run.trainings import LoadTasks, TaskRecipe, make_tasks_executor
from ..simplify.loss import Difference
from ..store import files
from ..store.record import Record
from ..task import Task
from ..train.child import ScoringProtocol
from ..train.engine import engine_of
from ..train.evaluate import CONFIDENCE
from ..train.seeds import derive_seed
from .kept import KeptResult
from .output import as_json, note, table
from .training import Trainings, as_pairs, check_comparing, comparing, open_record, where_kept

_RESULT: Final = "constants.json"  # in --out, beside the rule and a file of trainings for each stage
# Of the confirmation: all rates of the lattice of `prove`, so that constants which together only shift the best rate
# between two of a coarse sweep are not taken for better ones.
_RATES: Final = tuple(rate_of(number) for number in range(min(DECADES), max(DECADES) + 1))


def call(args: argparse.Namespace) -> int:
    _check(args)
    constants = Constants.of(parse_rule_argument(args.rule))
    protocol, chosen, tasks = comparing(args)
    kept = KeptResult(args.out, "constants", _RESULT, constants.rule)
    kept.make_folder()
    for factor in constants.factors:
        where = f"{factor.value:g} in {line(factor.name)}"
        note(f"{where} multiplies the whole update, as the learning rate does, and is left alone")
    with nullcontext() if args.out is None else files.alone("--out", args.out):
        kept.check()
        tuned, last = _tuned(args, constants, chosen, tasks, protocol)
        result = tuned.best.rule if last.better else constants.rule
        document = as_json(_document(args, engine_of(protocol.engine, tasks), constants, tuned, last, result))
        kept.finish(document, result, document if args.json else _shown(args, constants, tuned, last))
    return 0


def _tuned(
    args: argparse.Namespace, constants: Constants, chosen: Sequence[TaskRecipe], tasks: Sequence[Task],
    protocol: ScoringProtocol,
) -> tuple[Tuned, Confirmed]:  # fmt: skip
    """Trains what is not finished yet, and returns what the search found and the last word on it."""
    last = _last_word(args, protocol)
    records: list[Record] = []
    try:
        with _trained(args, chosen, tasks, protocol, records) as measure:
            tuned = tune(
                constants,
                measure,
                generations=[
                    [derive_seed(args.seed, "constants", k, seed) for seed in range(args.generation_seeds)]
                    for k in range(args.generations)
                ],
                choice=_seeds(args, "constants choice"),
                population=args.population,
                seed=derive_seed(args.seed, "constants draws"),
                note=note,
            )
        rates = "" if last is protocol else f", at the best of {len(_RATES)} rates"
        note(f"the best of these and the given rule, with {args.seeds} fresh seeds each{rates}")
        with _trained(args, chosen, tasks, last, records) as measure:
            return tuned, confirm(constants.rule, tuned.best.rule, measure, _seeds(args, "constants fresh"))
    except (KeyboardInterrupt, SearchError):
        done = sum(record.added for record in records)
        note(f"{done} trainings were finished by this call, and are {where_kept(args.out)}")
        raise


def _check(args: argparse.Namespace) -> None:
    check_count("--population", args.population, "half of a population is chosen from", least=4)
    check_count("--generations", args.generations)
    check_count("--generation-seeds", args.generation_seeds)
    check_comparing(args)


def _seeds(args: argparse.Namespace, purpose: str) -> list[int]:
    return [derive_seed(args.seed, purpose, k) for k in range(args.seeds)]


def _last_word(args: argparse.Namespace, protocol: ScoringProtocol) -> ScoringProtocol:
    """Returns the protocol of the confirmation, which has more rates where the user names no sweep."""
    if args.sweep is not None or args.protocol == "paper":
        return protocol
    return replace(protocol, sweep="halving", learning_rates=_RATES)


class _Stages:
    """This measures: the trainings of each stage have a file of their own in --out, as a file is written whole.
    `records` gets what each file holds."""

    def __init__(
        self, args: argparse.Namespace, executor: Any, tasks: Sequence[Task], protocol: ScoringProtocol,
        records: list[Record],
    ) -> None:  # fmt: skip
        self._args, self._executor, self._tasks, self._protocol = args, executor, tasks, protocol
        self._records = records

    def __call__(self, stage: str, rules: Sequence[CompiledRule], seeds: Sequence[int]) -> list[dict[str, Any]]:
        path = None if self._args.out is None else os.path.join(self._args.out, f"{stage}.json")
        record = open_record(path, self._args, self._protocol, self._tasks)
        self._records.append(record)
        return Trainings(self._executor, self._tasks, record).together(rules, seeds)


@contextmanager
def _trained(
    args: argparse.Namespace, chosen: Sequence[TaskRecipe], tasks: Sequence[Task], protocol: ScoringProtocol,
    records: list[Record],
) -> Iterator[_Stages]:  # fmt: skip
    """Gives what trains by a protocol."""
    with make_tasks_executor(
        LoadTasks(tuple(chosen), protocol), tasks, workers=args.workers, threads=args.threads or 1,
        clock=time.perf_counter,
    ) as executor:  # fmt: skip
        yield _Stages(args, executor, tasks, protocol, records)


# --- what is shown ---------------------------------------------------------------------------------------------------


def _shown(args: argparse.Namespace, constants: Constants, tuned: Tuned, last: Confirmed) -> str:
    best = tuned.best
    rows = [
        [line(each.name), each.kind, f"{each.value:g}", f"{value:.6g}", *_range(each)]
        for each, value in zip(constants.tuned, best.values, strict=True)
    ]
    parts = [
        table(["constant", "varies as", "given", "tuned", "lowest", "highest"], rows),
        "",
        f"best of {len(tuned.finalists)} sets after {args.generations} generations of {args.population}, "
        f"with {args.seeds} seeds, on validation data:",
        _scores(tuned.given, best.scores, best.differences),
        "",
        f"again with {args.seeds} other seeds, on test data:",
        _scores(last.given, last.scores, last.differences),
        "",
    ]
    if not last.better:
        parts.append("no better constants shown: the interval of the difference does not lie above 0")
        return "\n".join(parts)
    parts.append(f"better constants: {best.rule.label}")
    if "\n" in best.rule.text.strip():
        parts.append(lines(best.rule.text).rstrip())
    return "\n".join(parts)


def _range(constant: Constant) -> list[str]:
    ends = sorted(constant.at(x) for x in constant.bounds)
    return [f"{end:.6g}" for end in ends]


def _scores(given: Mapping[str, float], scores: Mapping[str, float], differences: Mapping[str, Difference]) -> str:
    rows = [
        [line(task), f"{given[task]:.4f}", f"{scores[task]:.4f}", f"{found.mean:+.4f} ± {found.half:.4f}"]
        for task, found in differences.items()
    ]
    return table(["task", "given", "tuned", "difference"], rows)


def _document(
    args: argparse.Namespace, engine: str, constants: Constants, tuned: Tuned, last: Confirmed, result: CompiledRule
) -> dict[str, Any]:
    return {
        "format": 1,
        "seed": args.seed,
        "seeds": args.seeds,
        "population": args.population,
        "generation_seeds": args.generation_seeds,
        "engine": engine,
        "decay": args.decay,
        "augment": args.augment,
        "interval": f"Student t, {CONFIDENCE:.0%}, half width",
        "rule": constants.rule.text,
        "constants": [{"name": each.name, "varies_as": each.kind, "value": each.value} for each in constants.tuned],
        "left_alone": [{"name": each.name, "value": each.value} for each in constants.factors],
        "generations": [_generation(each) for each in tuned.generations],
        "given": tuned.given,
        "finalists": [
            {
                "rule": each.rule.text,
                "values": list(each.values),
                "scores": each.scores,
                "differences": as_pairs(each.differences),
            }
            for each in tuned.finalists
        ],
        "confirmed": {"given": last.given, "scores": last.scores, "differences": as_pairs(last.differences)},
        "better": last.better,
        "result": result.text,
    }


def _generation(found: Generation) -> dict[str, Any]:
    return {
        "winner": found.winner.text,
        "values": list(found.values),
        "best": found.best,
        "median": found.median,
        "given": found.given,
    }
