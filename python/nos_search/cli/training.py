"""Owns what the commands that train outside of a search have in common: their rules and tasks, the checks before
anything is trained, and the file in which they keep finished trainings."""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..bounds import check_count
from ..errors import SearchError, UsageError
from ..escape import line
from ..executor import Executor
from ..rules import CompiledRule, parse_rule_argument, parse_stored_rule
from ..run import versions
from ..run.trainings import TaskRecipe, Wanted, run_all
from ..show.leaderboard import best_rows
from ..simplify.loss import Difference
from ..store import Store, files
from ..store.record import Record
from ..task import TASKS, Task
from ..task.download import download
from ..task.score import ACCURACY, bits
from ..train.child import Outcome, ScoringProtocol, Sweep
from ..train.device import check_device
from ..train.engine import check_trains, kind_of
from ..train.native import NativeTraining
from ..train.protocols import check_protocol
from ..train.seeds import check_seed
from ..train.side import side_by_side
from .output import emit, note
from .plots import check_plot

_FEWEST = 3  # seeds; fewer give no interval to speak of
_NO_PICTURES = "only images with one class each can be moved by a few pixels"
_LIKE_A_FOLDER = re.compile(r"[\w.~][\w./~-]*")
_DECIDED = ("sweep", "net", "width", "sweep-steps", "train-steps", "score")  # by --protocol paper


def fetch(args: argparse.Namespace, names: Sequence[str]) -> None:
    """Fetches the data of those tasks if the command line says so."""
    if not args.download:
        if args.download_url:
            raise UsageError("--download-url does nothing without --download")
        return
    if not args.data_dir:
        raise UsageError("--download needs --data-dir, the folder to put the data in")
    for name in names:
        if name in TASKS:
            download(name, Path(args.data_dir), args.download_url)


def check_common(args: argparse.Namespace) -> None:
    """Raises UsageError for what is wrong with the options of groups.child and groups.drawn."""
    check_seed(args.seed)
    if args.threads is not None:
        check_count("--threads", args.threads)
    check_plot(args.plot)


def kept_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Returns what decides every training of a command that keeps them, besides rule, task and seed."""
    return {
        **({} if args.decay == "none" else {"decay": args.decay}),  # records that are older have none
        "threads": args.threads or 1,  # of torch
        "device": args.device,
        "data_dir": str(Path(args.data_dir).resolve()) if args.data_dir else None,
    }


def rules_of(source: str, top: int, *, matrices: bool = False) -> list[CompiledRule]:
    """Returns the best rules of a run folder; any other word is a rule itself, with `matrices` also one that
    orthogonalizes."""
    if not os.path.isdir(source):
        try:
            return [parse_rule_argument(source, matrices=matrices)]
        except UsageError as error:
            if not _LIKE_A_FOLDER.fullmatch(source):
                raise
            what = "is not valid, and there is no run folder of that name:"
            raise UsageError(str(error).replace("is not valid:", what, 1)) from None
    with Store.open(Path(source)) as store:
        rows = best_rows(store)[:top]
    found = [parse_stored_rule(row.rule, source, row.trial) for row in rows]
    if not found:
        raise UsageError(f"{line(source)}: no rule has been trained to the end yet")
    return found


def sweep_of(args: argparse.Namespace, names: Sequence[str], argument: str) -> Sweep:
    """Returns the learning-rate sweep. Raises UsageError for a --protocol that does not fit the other options or these
    tasks."""
    decided = {f"--{name}": getattr(args, name.replace("-", "_")) for name in _DECIDED}
    for name in names:
        check_protocol(args.protocol, name, argument, decided)
    sweep: Sweep = args.sweep or ("full" if args.protocol == "paper" else "fine")
    return sweep


def scoring(args: argparse.Namespace, names: str, argument: str) -> ScoringProtocol:
    """Returns how rules are scored on the tasks that a command line names."""
    together = side_by_side(args.threads, getattr(args, "workers", 1))
    sweep = sweep_of(args, _names(names), argument)
    return ScoringProtocol(sweep, engine=args.engine, threads=together, decay=args.decay)


def _names(names: str) -> list[str]:
    return list(dict.fromkeys(name.strip() for name in names.split(",")))


def recipes(args: argparse.Namespace, names: str, argument: str) -> list[TaskRecipe]:
    """Returns how to load the tasks that a command line names, with their data fetched if it says so."""
    folder = Path(args.data_dir) if args.data_dir else None
    chosen = _names(names)
    fetch(args, chosen)
    options = {
        "net": args.net,
        "width": args.width,
        "sweep_steps": args.sweep_steps,
        "train_steps": args.train_steps,
        "score": args.score,
    }
    device, by_paper = check_device(args.device), args.protocol == "paper"
    return [
        TaskRecipe(name, folder, tuple(options.items()), device, argument, by_paper, args.augment) for name in chosen
    ]


def load_all(recipes: Sequence[TaskRecipe]) -> list[Task]:
    """Loads the tasks; every wrong name is an error here, before any training. Says which of them --augment does
    nothing for. Raises UsageError where that is all of them."""
    tasks = [recipe.load() for recipe in recipes]
    plain = [task.name for task, recipe in zip(tasks, recipes, strict=True) if recipe.augment and not task.augment]
    if plain and len(plain) == len(tasks):
        raise UsageError(f"--augment does nothing on {', '.join(plain)}: {_NO_PICTURES}; leave it out")
    if plain:
        note(f"note: --augment does nothing on {', '.join(plain)}: {_NO_PICTURES}")
    return tasks


def with_whole_sweep(recipes: Sequence[TaskRecipe], tasks: Sequence[Task]) -> tuple[list[TaskRecipe], list[Task]]:
    """Returns recipes and tasks with a sweep that is as long as the longer training.

    A short sweep takes a rate that is twice the best for some seeds and not for others. That luck is most of the spread
    between seeds, and no two rules share it. On charmlp a long one takes three times the work, and makes the intervals
    of differences two to four times as narrow, for which more seeds would take four to sixteen times the work.
    """
    steps = [task.budget.train_steps for task in tasks]
    long = [
        replace(recipe, options=(*recipe.options, ("sweep_steps", n))) for recipe, n in zip(recipes, steps, strict=True)
    ]
    return long, [task.with_options(sweep_steps=n) for task, n in zip(tasks, steps, strict=True)]


def make_folder(path: str, names: Sequence[str]) -> None:
    """Makes the folder of --out, for files of these names. Raises UsageError where that cannot be."""
    if not path:
        raise UsageError("--out is empty; name a folder")
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {path} cannot be made: {error.strerror}; choose another folder") from None
    for name in names:
        files.check_place("--out", os.path.join(path, name))


def comparing(args: argparse.Namespace) -> tuple[ScoringProtocol, list[TaskRecipe], list[Task]]:
    """Returns how the tasks of --tasks score rules that are compared with each other, how they are loaded, and the
    tasks, all of them checked."""
    protocol = scoring(args, args.tasks, "--tasks")
    chosen = recipes(args, args.tasks, "--tasks")
    tasks = load_all(chosen)
    if args.sweep_steps is None and args.protocol != "paper":
        chosen, tasks = with_whole_sweep(chosen, tasks)
    check_trains(protocol.engine, tasks)
    return protocol, chosen, tasks


def check_comparing(args: argparse.Namespace) -> None:
    """Checks the options that commands which compare rules by seeds have in common."""
    check_count("--seeds", args.seeds, "an interval needs a spread", least=_FEWEST)
    check_count("--workers", args.workers)
    check_seed(args.seed)
    if args.threads is not None:
        check_count("--threads", args.threads)


class Trainings:
    """This trains rules with seeds on all tasks: what the record lacks, and that is added to it."""

    def __init__(self, executor: Executor, tasks: Sequence[Task], record: Record) -> None:
        self._executor, self._tasks, self._record = executor, tasks, record

    def __call__(self, rule: CompiledRule, seeds: Sequence[int]) -> dict[str, list[Outcome]]:
        """Returns the outcomes of a rule by task, in the order of the seeds."""
        return self.together([rule], seeds)[0]

    def together(self, rules: Sequence[CompiledRule], seeds: Sequence[int]) -> list[dict[str, list[Outcome]]]:
        """Does so for each of several rules, as one population. Of equal rules one is trained."""
        places = range(len(self._tasks))
        every = {(rule.text, k, seed): Wanted(rule, k, seed) for k in places for rule in rules for seed in seeds}
        missing = [each for each in every.values() if self._found(each) is None]
        for each, outcome in run_all(self._executor, missing, started=lambda each: None):
            self._record.add(self._tasks[each.task].name, each.rule.text, each.seed, outcome)

        def found(rule: CompiledRule, k: int, seed: int) -> Outcome:
            outcome = self._found(every[rule.text, k, seed])
            assert outcome is not None
            return outcome

        return [{self._tasks[k].name: [found(rule, k, seed) for seed in seeds] for k in places} for rule in rules]

    def _found(self, wanted: Wanted) -> Outcome | None:
        return self._record.get(self._tasks[wanted.task].name, wanted.rule.text, wanted.seed)


def open_record(path: str | None, args: argparse.Namespace, protocol: ScoringProtocol, tasks: Sequence[Task]) -> Record:
    """Returns what is finished already, from the file `path`, under everything that decides a result besides rule,
    task and seed."""
    common = {"sweep": protocol.sweep, **kept_settings(args)}
    each = {
        task.name: {
            "net": str(task.spec),
            "sweep_steps": task.budget.sweep_steps,
            "train_steps": task.budget.train_steps,
            **({} if task.score == ACCURACY else {"score": task.score}),  # records that are older have none
            **({"augment": True} if task.augment else {}),
            "engine": "native" if kind_of(protocol.engine, task) is NativeTraining else None,  # None: torch, as of old
        }
        for task in tasks
    }
    record = Record(path, common, each, versions())
    if record.finished:
        note(f"{path} has {record.finished} finished training(s); those of this command are not repeated")
    if record.changed:
        note(f"note: {path} began with other versions ({', '.join(record.changed)})")
    return record


def where_kept(out: str | None) -> str:
    """Returns the end of a sentence about the trainings that a command which stops early has finished."""
    return "not kept: see --out" if out is None else f"kept in {out}: the same command goes on from there"


def emit_and_write(text: str, option: str, written: Mapping[Path, str]) -> None:
    """Prints a result that took long to get, and writes the files that `option` asked for. Where a file cannot be
    written, those after it are not either, and the result is printed all the same, and the other way round, and then
    that is said."""
    fault: SearchError | None = None
    try:
        for path, content in written.items():
            files.write(option, path, content)
    except SearchError as error:
        fault = error
    emit(text, keep=True)
    if fault is not None:
        raise fault


def as_pairs(differences: Mapping[str, Difference]) -> dict[str, list[float]]:
    """Returns paired differences by task for JSON: the mean and the half width of the interval."""
    return {task: [found.mean, found.half] for task, found in differences.items()}


def shown_loss(name: str, nats: float | None) -> str:
    """Returns a mean loss as text in the unit of its task."""
    if nats is None:
        return "-"
    if name == "bits":
        return f"{bits(nats):.3f} bits"
    if name == "perplexity":
        return f"{math.exp(min(nats, 700.0)):.4g} ppl"
    return f"{nats:.4f} nats"
