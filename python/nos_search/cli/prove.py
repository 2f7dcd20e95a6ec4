"""Owns the command prove: is a rule better than tuned optimizers, on tasks that no search has seen?"""

from __future__ import annotations

import argparse
import json
import os
import re
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..bounds import check_count
from ..errors import SearchError, UsageError
from ..escape import line
from ..prove.cells import read_horizons, read_sizes
from ..prove.defaults import FULL, SHORT
from ..prove.document import document
from ..prove.protocol import Contender, Found, Protocol, cost, prove
from ..prove.trials import PROOF
from ..prove.verdict import BETTER, WORSE
from ..rules import distinct, parse_rule_argument
from ..run import RunConfig, versions
from ..run.climbing import rungs
from ..run.trainings import check_executor, make_executor
from ..show import proof
from ..show.figure import check_matplotlib
from ..store import Store, files
from ..train.decay import check_decay
from ..train.engine import check_engine, check_trains
from .kept import earlier, say_replaced
from .output import as_json, note, table
from .plots import draw
from .training import check_common, emit_and_write, kept_settings, load_all, make_folder, recipes, rules_of, where_kept

_SAY, _SHARE = 20.0, 0.1  # seconds, and share of the time so far, between two lines about how far it is


def call(args: argparse.Namespace) -> int:
    _settle(args)
    sizes, horizons = read_sizes(args.sizes), read_horizons(args.horizons)
    contenders, rules, baselines = _contenders(args)
    searched = _searched(args.rules)
    chosen = recipes(args, args.tasks, "--tasks")
    tasks = load_all(chosen)
    check_trains(args.engine, tasks)
    protocol = Protocol(
        tuple(chosen), tuple(tasks), tuple(sizes), tuple(horizons), args.seeds, args.tuning, args.decay, args.engine,
        args.seed,
    )  # fmt: skip
    if args.out is not None:
        make_folder(args.out, (PROOF,))
    with nullcontext() if args.out is None else files.alone("--out", args.out):
        before = None if args.out is None else earlier(args.out, PROOF, "prove")
        found, times = _trained(args, contenders, protocol)
        told = document(found, rules, baselines, versions=versions(), times=times, searched=searched)
        _show(args, told, before)
    return 0


def _trained(
    args: argparse.Namespace, contenders: Sequence[Contender], protocol: Protocol
) -> tuple[Found, dict[str, Any]]:
    """Trains what is not finished yet. Returns what is found, and what it took."""
    books = protocol.books(args.out, kept_settings(args), versions())
    if books.finished:
        note(f"{args.out} has {books.finished} finished training(s); those of this command are not repeated")
    if books.changed:
        note(f"note: {args.out} began with other versions ({', '.join(books.changed)})")
    torch.set_num_threads(args.threads or 1)
    rules = {contender.space.point(k).text for contender in contenders for k in range(protocol.tuning)}
    expected = cost(contenders, protocol).without(books.count(rules))
    note(
        f"{_many(len(contenders), 'contender')} in {_many(len(protocol.cells), 'cell')}: about {expected.trainings} "
        f"trainings, {_duration(expected.seconds / args.workers)} with {_many(args.workers, 'worker')}"
    )
    start = time.perf_counter()
    progress = _Progress(expected.trainings)
    try:
        with make_executor(
            protocol.loader, lambda: protocol.scorer, name=args.executor, device=args.device, workers=args.workers,
            threads=args.threads or 1, clock=time.perf_counter,
        ) as executor:  # fmt: skip
            found = prove(contenders, protocol, books, executor, progress=progress)
    except (KeyboardInterrupt, SearchError):
        note(f"{progress.done} trainings were finished by this call, and are {where_kept(args.out)}")
        raise
    return found, {"seconds": time.perf_counter() - start, "workers": args.workers, "trainings": progress.done}


# --- before anything is trained --------------------------------------------------------------------------------------


def _settle(args: argparse.Namespace) -> None:
    """Puts in what is not given, and checks what needs no data."""
    for name, value in asdict(SHORT if args.quick else FULL).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    check_count("--seeds", args.seeds, "choose 3 or more, of which a deviation can be known")
    check_count("--tuning", args.tuning, "1 tunes the learning rate alone")
    check_count("--workers", args.workers)
    if args.top < 1:
        raise UsageError(f"--top {args.top} is below 1; say how many of a run's best rules")
    check_engine(args.engine)
    check_decay(args.decay)
    check_common(args)
    if args.html is not None:
        files.check_place("--html", args.html)
        check_matplotlib()
    files.check_apart({"--html": args.html, "--plot": args.plot})
    for option, path in (("--html", args.html), ("--plot", args.plot)):
        beside = args.out and path and os.path.realpath(os.path.dirname(path) or ".") == os.path.realpath(args.out)
        if beside and path.endswith(".json"):
            raise UsageError(
                f"{option} {path} is among the trainings of --out; choose a name that does not end in .json"
            )
    check_executor(args.executor, device=args.device, workers=args.workers)


def _contenders(args: argparse.Namespace) -> tuple[list[Contender], list[int], list[int]]:
    """Returns all that are trained, each once, and the numbers of the rules and of the baselines among them."""
    words = dict.fromkeys(args.rules)
    rules = [rule for word in words for rule in rules_of(word, args.top, matrices=True)]
    named = list(dict.fromkeys(rule.text for rule in rules))
    against = list(dict.fromkeys(split(args.against)))
    if not named:
        raise UsageError("no RULE: name rule text, a library rule such as powersign, or a run folder")
    if not all(against):
        raise UsageError(
            f"--against {args.against!r} names no rule between two commas; for example --against adamw,adam"
        )
    baselines = [parse_rule_argument(text, matrices=True) for text in against]
    each = distinct([*rules, *baselines])
    texts = [rule.text for rule in each]
    contenders = [Contender.of(rule) for rule in each]
    return contenders, [texts.index(text) for text in named], [texts.index(rule.text) for rule in baselines]


def _searched(words: Sequence[str]) -> set[str]:
    """Returns the tasks that the runs among these words were on: the search's own, and those of its promotions."""
    found: set[str] = set()
    for word in filter(os.path.isdir, words):
        with Store.open(Path(word)) as store:
            config = RunConfig.from_json(store.config)
        parts = [part for rung in rungs(config) for part in rung.split("+")]
        found |= {config.task, *(re.split("[:*@#]", part)[0].strip() for part in parts)}
    return found


def split(text: str) -> list[str]:
    """Splits a list of rules at the commas that stand in no brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


class _Progress:
    """Says how far it is, now and then."""

    def __init__(self, expected: int) -> None:
        self.done = 0
        self._expected, self._said, self._start = expected, time.perf_counter(), time.perf_counter()

    def __call__(self, done: int, left: int) -> None:
        self.done = done
        now = time.perf_counter()
        if now - self._said >= max(_SAY, _SHARE * (now - self._start)):
            self._said = now
            note(f"{done} of about {max(self._expected, done + left)} trainings in {_duration(now - self._start)}")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


# --- what is shown ---------------------------------------------------------------------------------------------------


def _show(args: argparse.Namespace, found: dict[str, Any], before: dict[str, Any] | None) -> None:
    text = as_json(found)
    written = {}
    if args.out is not None:
        path = Path(args.out) / PROOF
        say_replaced(path, _timeless(before), _timeless(json.loads(text)) or {})
        written = {path: text + "\n"}
    emit_and_write(text if args.json else summary(json.loads(text)), "--out", written)
    if args.plot is not None:
        draw(args.plot, proof.forest(found))
    if args.html is not None:
        files.write("--html", args.html, proof.page(found))
        note(f"wrote {args.html}")


def _timeless(found: dict[str, Any] | None) -> dict[str, Any] | None:
    """Returns the document without what it took, which is never the same."""
    protocol = None if found is None else found.get("protocol")
    if found is None or not isinstance(protocol, dict):
        return found
    return {**found, "protocol": {name: value for name, value in protocol.items() if name != "times"}}


def summary(found: dict[str, Any]) -> str:
    """Returns the document for people: a table for each family, and a sentence for each rule."""
    baselines = found["protocol"]["against"]
    tasks = found["protocol"]["tasks"]
    parts = []
    for family in dict.fromkeys(task["family"] for task in tasks.values()):
        rows = [
            [name, *(_gap(judged["against"][base]) for base in baselines), judged["verdict"], rule["rule"]]
            for name, task in tasks.items()
            if task["family"] == family
            for rule in found["rules"]
            for judged in [rule["tasks"][name]]
        ]
        header = ["task", *(f"- {base}" for base in baselines), "verdict", "rule"]
        parts.append(f"{line(family)}\n{table(header, rows)}\n")
    parts.append("differences in test score at the end, in deviations of a seed; ± half a 95 % interval")
    moved = [line(name) for name, task in tasks.items() if task["augment"]]
    if moved:
        parts.append(f"the images that trained were augmented on {', '.join(moved)}")
    searched = [line(name) for name, task in tasks.items() if task["searched"]]
    if searched:
        parts.append(f"note: searches use {', '.join(searched)} as a reward, so a rule may have been found for that")
    return "\n".join([*parts, *(sentence(rule, found["protocol"]) for rule in found["rules"])])


def sentence(rule: dict[str, Any], protocol: dict[str, Any]) -> str:
    """Returns the verdict on a rule as one plain sentence."""
    against = {line(base): each for base, each in rule["against"].items()}
    gaps = ", ".join(f"{base} {_gap(each)}" for base, each in against.items())
    said = f"no difference shown: neither better than each of {', '.join(against)}, nor worse than one"
    if rule["verdict"] == BETTER:
        said = f"better than {', '.join(against)}"
    elif rule["verdict"] == WORSE:
        said = f"worse than {', '.join(base for base, each in against.items() if each['verdict'] == WORSE)}"
    extent = f"{_many(len(protocol['tasks']), 'task')} and {_many(len(protocol['seeds']), 'seed')}"
    diverged = f"; {rule['diverged']} of its {rule['trainings']} trainings diverged" if rule["diverged"] else ""
    return f"{line(rule['rule'])}: {said}, over {extent} (difference in deviations of a seed: {gaps}){diverged}"


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _gap(each: dict[str, Any]) -> str:
    return f"{each['mean']:+.2f}" + ("" if each["half"] is None else f" ± {each['half']:.2f}")
