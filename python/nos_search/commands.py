"""Owns what each command of nos-search does. Results go to stdout, progress and notes to stderr."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from nos_ext.optim import library

from . import report as report_page
from .config import RunConfig, versions
from .errors import SearchError, UsageError
from .executor import InProcess
from .live import Display
from .loop import Search
from .results import leaderboard, summary
from .rules import parse_rule_argument
from .space import Options, Space
from .store import FILE, Store
from .task import load
from .train.child import Protocol, derive_seed
from .train.evaluate import compare

_DEFAULT_TRIALS = 200
_SHOWN = 10
_REASONS = {
    "trials": "all trials done",
    "seconds": "time is up",
    "target": "target reached",
    "interrupted": "interrupted, the trial in flight was given up",
}
_MORE = {"trials": " --trials N", "seconds": "", "target": " --target R", "interrupted": ""}


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Plain text in columns; the last column is not padded, numbers are set right."""
    wide = [max(len(row[k]) for row in (header, *rows)) for k in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell if k == len(cells) - 1 else cell.rjust(wide[k]) if _numeric(rows, k) else cell.ljust(wide[k])
            for k, cell in enumerate(cells)
        ]
        return "  ".join(padded).rstrip()

    return "\n".join(line(row) for row in (header, *rows))


def _numeric(rows: Sequence[Sequence[str]], column: int) -> bool:
    return all(row[column][:1].isdigit() or row[column][:1] in "-." for row in rows)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _json(data: Any) -> None:
    print(json.dumps(data, indent=2, allow_nan=False))


# --- run, resume -----------------------------------------------------------------------------------------------------


def run(args: argparse.Namespace) -> int:
    trials = args.trials
    if trials is None and args.seconds is None and args.target is None:
        trials = _DEFAULT_TRIALS
    config = RunConfig(
        task=args.task,
        strategy=args.strategy,
        strategy_options=_options(args.strategy_option),
        space=_space(args).config(),
        sweep=args.sweep,
        width=args.width,
        sweep_steps=args.sweep_steps,
        train_steps=args.train_steps,
        data_dir=args.data_dir,
        seed=args.seed,
        workers=args.workers,
        threads=args.threads,
        trials=trials,
        seconds=args.seconds,
        target=args.target,
    )
    config.make_strategy()  # so that a bad option is found before the folder is made
    task = config.make_task()
    with Store.create(Path(args.out), config.to_json(), versions()) as store:
        return _search(
            store,
            config,
            InProcess(task, config.make_protocol(), threads=config.threads, clock=time.perf_counter),
            args,
        )


def resume(args: argparse.Namespace) -> int:
    with Store.open(Path(args.folder), write=True) as store:
        config = RunConfig.from_json(store.config)
        if args.trials is not None:
            config = replace(config, trials=args.trials)
        if args.seconds is not None:
            config = replace(config, seconds=args.seconds)
        if args.target is not None:
            config = replace(config, target=args.target)
        done = len([trial for trial in store.trials() if trial.status != "running"])
        if args.trials is not None and args.trials < done:
            raise UsageError(f"--trials {args.trials}: {store.folder} has {done} trials already; name a higher number")
        changed = [f"{k} {store.versions.get(k)} -> {v}" for k, v in versions().items() if store.versions.get(k) != v]
        if changed:
            note(f"note: this run began with other versions ({', '.join(changed)}); it may not repeat bit for bit")
        task = config.make_task()
        store.set_config(config.to_json())
        return _search(
            store,
            config,
            InProcess(task, config.make_protocol(), threads=config.threads, clock=time.perf_counter),
            args,
        )


def _search(store: Store, config: RunConfig, executor: InProcess, args: argparse.Namespace) -> int:
    # A shell that starts us in the background may have told us to ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    search = Search(store, config, executor)
    earlier = [trial for trial in store.trials() if trial.status != "running"]
    note(
        f"{'resuming' if earlier else 'searching'}: task {config.task}, {config.strategy}, seed {config.seed}, "
        f"{store.folder}"
    )
    status = 0
    with Display(sys.stderr, trials=config.trials, earlier=earlier, clock=time.perf_counter) as display:
        search.listener = display
        try:
            reason = search.run()
        except KeyboardInterrupt:
            reason, status = "interrupted", 130
    note(f"stopped: {_REASONS[reason]}; continue with: nos-search resume {store.folder}{_MORE[reason]}")
    _print_summary(summary(store), top=_SHOWN, as_json=args.json)
    return status


def _options(pairs: Sequence[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        try:
            options[name] = json.loads(value)
        except ValueError:
            equals = ""
        if not equals or not isinstance(options[name], (int, float)):
            raise UsageError(f"--strategy-option {pair!r} is not NAME=NUMBER, for example lr=0.01")
    return options


def _space(args: argparse.Namespace) -> Space:
    options = Options(
        bias_correction=not args.no_bias_correction,
        drop_rescale=args.drop_rescale,
        noise_variance=args.noise_variance,
        distinct_operands=not args.no_masks,
        last_not_add=not args.no_masks,
        use_earlier=not args.no_masks,
    )
    return Space(vocabulary=args.vocabulary, groups=args.groups, options=options)


# --- show, report, export --------------------------------------------------------------------------------------------


def show(args: argparse.Namespace) -> int:
    if args.top < 1:
        raise UsageError(f"--top {args.top} is below 1")
    with Store.open(Path(args.folder)) as store:
        _print_summary(summary(store), top=args.top, as_json=args.json)
    return 0


def _print_summary(data: dict[str, Any], *, top: int, as_json: bool) -> None:
    if as_json:
        return _json(data)
    print(
        f"{data['folder']}: task {data['task']}, {data['strategy']}, seed {data['seed']}\n"
        f"trials {data['trials']}: trained {data['trained']} (diverged {data['diverged']}), "
        f"duplicates {data['duplicates']}, rejected {data['rejected']}, failed {data['failed']}"
        + (f", in flight {data['running']}" if data["running"] else "")
    )
    rows = [
        [
            str(row["rank"]),
            f"{row['reward']:.4f}",
            _number(row["lr"]),
            str(row["trials"]),
            str(row["duplicates"]),
            row["rule"],
        ]
        for row in data["leaderboard"][:top]
    ]
    if rows:
        print(table(["rank", "reward", "lr", "trials", "duplicates", "rule"], rows))
    else:
        print("no rule has been trained to the end yet")
    return None


def report(args: argparse.Namespace) -> int:
    path = Path(args.out) if args.out else Path(args.folder) / "report.html"
    with Store.open(Path(args.folder)) as store:
        try:
            report_page.write(store, path)
        except OSError as error:
            raise UsageError(f"--out {path} cannot be written: {error.strerror}; choose another file") from None
    print(path)
    return 0


def export(args: argparse.Namespace) -> int:
    if args.rank < 1:
        raise UsageError(f"--rank {args.rank} is below 1; 1 is the best rule")
    text, comment = args.source, ""
    if (Path(args.source) / FILE).is_file():
        with Store.open(Path(args.source)) as store:
            rows = leaderboard(store.trials())
            if len(rows) < args.rank:
                raise SearchError(f"{args.source} has {len(rows)} rules trained to the end, none of rank {args.rank}")
            row = rows[args.rank - 1]
            text = row.rule
            comment = (
                f"# reward {row.reward:.4f} on {store.config['task']} at lr {row.lr:g}, seed {store.config['seed']}\n"
            )
    elif Path(args.source).is_dir():
        raise UsageError(f"export {args.source}: the folder holds no run; name a run folder or a rule")
    rule = parse_rule_argument(text)
    source = f"# update u = {' '.join(text.split())}, p <- p - lr * u\n" if "\n" not in text else ""
    source += comment + rule.program.to_pytorch()
    if args.out is None:
        print(source, end="" if source.endswith("\n") else "\n")
    else:
        try:
            Path(args.out).write_text(source, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"--out {args.out} cannot be written: {error.strerror}; choose another file") from None
        print(args.out)
    return 0


# --- evaluate, space -------------------------------------------------------------------------------------------------


def evaluate(args: argparse.Namespace) -> int:
    if args.seeds < 1:
        raise UsageError(f"--seeds {args.seeds} is below 1; 3 or more show the spread")
    if args.threads < 1:
        raise UsageError(f"--threads {args.threads} is below 1")
    rules = [parse_rule_argument(text) for text in args.rules]
    folder = Path(args.data_dir) if args.data_dir else None
    tasks = [
        load(name, data_dir=folder).with_options(
            width=args.width, sweep_steps=args.sweep_steps, train_steps=args.train_steps
        )
        for name in args.tasks.split(",")
    ]
    protocol = Protocol(sweep=args.sweep)
    torch.set_num_threads(args.threads)
    seeds = [derive_seed(args.seed, "evaluate", k) for k in range(args.seeds)]
    results = []
    for task in tasks:
        for rule in rules:
            note(f"evaluating {rule.text} on {task.name}, {len(seeds)} seed(s)")
            results.append(compare(rule, task, protocol, seeds=seeds))
    if args.json:
        _json({"format": 1, "seed": args.seed, "sweep": args.sweep, "results": [asdict(result) for result in results]})
        return 0
    print(
        table(
            ["task", "validation", "test", "lr", "diverged", "rule"],
            [
                [
                    r.task,
                    f"{r.val_mean:.4f} ± {r.val_std:.4f}",
                    f"{r.test_mean:.4f} ± {r.test_std:.4f}",
                    ",".join(dict.fromkeys(_number(lr) for lr in r.lrs)),
                    f"{r.diverged}/{r.seeds}",
                    r.rule,
                ]
                for r in results
            ],
        )
    )
    return 0


def space(args: argparse.Namespace) -> int:
    chosen = _space(args)
    generator = torch.Generator().manual_seed(args.seed)
    samples = [chosen.sample(generator) for _ in range(max(0, args.samples))]
    if args.json:
        _json(
            {
                "format": 1,
                **chosen.config(),
                "size": chosen.size(),
                "size_masked": chosen.size(masked=True),
                "positions": [{"name": p.name, "kind": p.kind, "tokens": list(p.names)} for p in chosen.positions],
                "samples": [{"tokens": list(tokens), "rule": chosen.text(tokens)} for tokens in samples],
            }
        )
        return 0
    print(f"vocabulary {chosen.vocabulary}, {chosen.groups} group(s) of op1 op2 u1 u2 b, meaning b(u1(op1), u2(op2))")
    print(f"strings    {chosen.size():,} ({chosen.size():.3g}), {chosen.size(masked=True):.3g} within the masks")
    for title, position in (("operand", 0), ("unary", 2), ("binary", 4)):
        tokens = chosen.positions[position].tokens
        rows = [[str(k), t.name, chosen.token_text(t).format("x", "y"), t.doc] for k, t in enumerate(tokens)]
        print(f"\n{title}\n" + table(["index", "token", "text", "meaning"], rows))
    print("\noptions and masks")
    for name, value in asdict(chosen.options).items():
        print(f"  {name} {'on' if value else 'off'}")
    if samples:
        print("\nsamples")
        for sample in samples:
            print(f"  {' '.join(map(str, sample))}  {chosen.text(sample)}")
    print(f"\nlibrary rules that evaluate and export know by name: {', '.join(library.names())}")
    return 0
