"""Owns the command line of nos-search: arguments, exit status, and how errors are shown.

Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted. Nothing here or below it uses the network.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from .errors import SearchError

Command = Callable[[argparse.Namespace], int]
_RUN_EXAMPLE = "example: nos-search run --task digits --strategy controller --trials 200 --seed 1 --out runs/first"


def _parser() -> argparse.ArgumentParser:
    from . import commands, commands_export, commands_rules, commands_train
    from .config import versions
    from .device import DEVICES
    from .executor import EXECUTORS
    from .space import SPACES, VOCABULARIES
    from .strategy import STRATEGIES
    from .task import TASKS
    from .train.child import SWEEPS
    from .train.net import NETS

    parser = argparse.ArgumentParser(
        prog="nos-search",
        description="Search for optimizer update rules (Bello et al., ICML 2017), look at runs, compare rules.",
        epilog=_RUN_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    stamp = "".join(f"\n  {name} {value}" for name, value in versions().items() if value)
    parser.add_argument("--version", action="version", version=f"nos-search {versions()['nos_ext']}{stamp}")
    sub = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    child = argparse.ArgumentParser(add_help=False)
    group = child.add_argument_group("training of children")
    group.add_argument(
        "--sweep",
        default="halving",
        metavar="|".join(SWEEPS),
        help="learning-rate sweep: halving stops bad rates early, full is the paper's (default halving)",
    )
    group.add_argument(
        "--net",
        metavar="NAME[-DEPTH[-WIDTH]]",
        help=f"child network: {', '.join(NETS)}; for example wrn-16-2 (default: the task's)",
    )
    group.add_argument("--width", type=int, metavar="N", help="filters or units of the network (default: the task's)")
    group.add_argument("--sweep-steps", type=int, metavar="N", help="steps per learning rate (default: one epoch)")
    group.add_argument(
        "--train-steps", type=int, metavar="N", help="steps of the longer training (default: the task's)"
    )
    group.add_argument(
        "--data-dir",
        metavar="DIR",
        help="folder with the task's data, or with one folder for each task (docs/tasks.md)",
    )
    group.add_argument("--download", action="store_true", help="fetch the data into --data-dir first (cifar10)")
    group.add_argument("--download-url", metavar="URL", help="from there, instead of where the task says")
    group.add_argument(
        "--threads", type=int, default=1, metavar="N", help="torch threads; part of what makes runs repeat (default 1)"
    )

    words = argparse.ArgumentParser(add_help=False)
    group = words.add_argument_group("search space")
    group.add_argument("--space", default="nos", metavar="|".join(SPACES), help="nos: the paper's (default nos)")
    group.add_argument("--lines", type=int, default=5, metavar="N", help="of a program, 2 to 7 (default 5)")
    group.add_argument("--vocabulary", default="arxiv", metavar="|".join(VOCABULARIES), help="default arxiv")
    group.add_argument(
        "--groups", type=int, default=2, metavar="N", help="groups of five predictions, 1 to 4 (default 2)"
    )
    group.add_argument(
        "--no-bias-correction", action="store_true", help="m, v, y as plain averages, as in TensorFlow's release"
    )
    group.add_argument("--drop-rescale", action="store_true", help="drop(x, p) divides what it keeps by 1 - p")
    group.add_argument("--noise-variance", action="store_true", help="the noise operand's 0.01 is a variance")
    group.add_argument("--no-masks", action="store_true", help="allow strings that the paper is said to exclude")

    def command(call: Command, text: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        made = sub.add_parser(call.__name__, help=text, description=text, parents=list(parents))
        made.set_defaults(call=call)
        return made

    workers = argparse.ArgumentParser(add_help=False)
    group = workers.add_argument_group("who trains, what is written")
    group.add_argument("--workers", type=int, metavar="W", help="processes that train (default 1)")
    group.add_argument(
        "--executor",
        metavar="|".join(EXECUTORS),
        help="what runs them: this process, processes of this machine, or a Ray cluster "
        "(default inprocess for one worker, loky for more)",
    )
    group.add_argument("--device", metavar="|".join(DEVICES), help="where children train (default cpu)")
    group.add_argument(
        "--trial-timeout",
        type=float,
        metavar="S",
        help="seconds after which a worker is taken for hung and replaced (default 3600; not in-process)",
    )
    group.add_argument("--tensorboard", action="store_true", help="write DIR/tensorboard as well (needs tensorboard)")
    group.add_argument("--ray-address", metavar="A", help="of a cluster, or auto (default: Ray on this machine)")
    group.add_argument(
        "--gpus-per-trial", type=float, metavar="F", help="share of a GPU per Ray worker, for --device cuda"
    )

    p = command(commands.run, "search for rules; writes everything to a new folder", child, words, workers)
    p.add_argument("--task", default="digits", metavar="|".join(TASKS), help="what children train on (default digits)")
    p.add_argument(
        "--strategy",
        default="controller",
        metavar="|".join(STRATEGIES),
        help="what proposes rules (default controller)",
    )
    p.add_argument(
        "--strategy-option", action="append", default=[], metavar="NAME=VALUE", help="such as lr=0.01; may be repeated"
    )
    p.add_argument(
        "--gate",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="threshold of a gate before training: descent=0 screen=0.05 steps=200, or NAME=off; may be repeated",
    )
    p.add_argument(
        "--trials", type=int, metavar="N", help="rules to propose, duplicates included (default 200 if no other limit)"
    )
    p.add_argument("--seconds", type=float, metavar="S", help="stop after S seconds, the trial in flight finished")
    p.add_argument("--target", type=float, metavar="R", help="stop at reward R")
    p.add_argument("--children", type=int, metavar="N", help="stop after N trained children")
    p.add_argument(
        "--promote",
        metavar="RUNG,...",
        help="score the best again on TASK[:NET][*TIMES][@PART][+TASK...]: longer, with more data, on other tasks",
    )
    p.add_argument("--promote-eta", type=int, default=4, metavar="N", help="one rule in N goes up a rung (default 4)")
    p.add_argument("--batch", type=int, default=8, metavar="N", help="rules asked for at a time (default 8)")
    p.add_argument("--seed", type=int, default=1, metavar="N", help="decides the whole run (default 1)")
    p.add_argument("--out", required=True, metavar="DIR", help="new or empty folder for the run")
    p.add_argument("--json", action="store_true", help="print the result as JSON")

    p = command(commands.resume, "continue a run that was stopped, interrupted or killed", workers)
    p.add_argument("folder", metavar="DIR")
    p.add_argument("--trials", type=int, metavar="N", help="new total number of trials")
    p.add_argument("--children", type=int, metavar="N", help="new total number of trained children")
    p.add_argument(
        "--seconds", type=float, metavar="S", help="stop after S more seconds (default: as the run was given)"
    )
    p.add_argument("--target", type=float, metavar="R", help="new target reward")
    p.add_argument("--json", action="store_true", help="print the result as JSON")

    p = command(commands.show, "print the leaderboard of a run")
    p.add_argument("folder", metavar="DIR")
    p.add_argument("--top", type=int, default=10, metavar="N", help="rows of the table (default 10; --json has all)")
    p.add_argument("--json", action="store_true", help="print JSON")

    p = command(commands.report, "write one self-contained HTML page about a run")
    p.add_argument("folder", metavar="DIR")
    p.add_argument("--out", metavar="FILE", help="default DIR/report.html")
    p.add_argument(
        "--no-baselines",
        action="store_true",
        help="do not train Adam, RMSProp, SGD, Momentum, AdamW, Lion to compare",
    )

    drawn = argparse.ArgumentParser(add_help=False)
    drawn.add_argument(
        "--seed", type=int, default=1, metavar="N", help="all other seeds are derived from it (default 1)"
    )
    drawn.add_argument("--device", default="cpu", metavar="|".join(DEVICES), help="where children train (default cpu)")
    drawn.add_argument("--plot", metavar="FILE", help="write a drawing to FILE, an SVG")
    drawn.add_argument("--json", action="store_true", help="print JSON")

    p = command(
        commands_train.evaluate,
        "compare rules, each with its own learning-rate sweep, over several seeds by validation and test accuracy",
        child,
        drawn,
    )
    p.add_argument(
        "rules",
        nargs="*",
        metavar="RULE|DIR",
        help="rule text, a library name such as sgd momentum adam powersign, or a run folder: its best rules",
    )
    p.add_argument("--top", type=int, default=5, metavar="N", help="of each run folder (default 5)")
    p.add_argument("--known", action="store_true", help=f"add {' '.join(commands_train.KNOWN)}")
    p.add_argument("--tasks", default="digits", metavar="A,B", help=f"of {', '.join(TASKS)} (default digits)")
    p.add_argument("--seeds", type=int, default=3, metavar="N", help="runs per rule and task (default 3)")
    p.add_argument("--baseline", metavar="RULE", help="add the difference to this rule, seed by seed")
    p.add_argument("--workers", type=int, default=1, metavar="W", help="processes that train (default 1)")

    p = command(commands_train.train, "train a child with one rule and print its learning curve", child, drawn)
    p.add_argument("rule", metavar="RULE", help="rule text, or a library name")
    p.add_argument("--task", default="digits", metavar="|".join(TASKS), help="default digits")
    p.add_argument("--lr", type=float, metavar="LR", help="learning rate (default: the best of a sweep)")

    p = command(
        commands_export.export,
        "a rule as the source of a stand-alone torch optimizer, or a whole run as a table or an optuna journal",
    )
    p.add_argument("source", metavar="DIR|RULE", help="a run folder (its best rule), rule text, or a library name")
    p.add_argument("--rank", type=int, default=1, metavar="N", help="rank in the run's leaderboard (default 1)")
    p.add_argument(
        "--format",
        default="torch",
        metavar="|".join(commands_export.FORMATS),
        help="torch: one rule; csv: the trials; curves: their learning curves; optuna: a journal (default torch)",
    )
    p.add_argument("--out", metavar="FILE", help="write to FILE instead of stdout")

    p = command(commands_rules.surfaces, "train rules on analytic surfaces, as a table and a figure")
    p.add_argument("rules", nargs="+", metavar="RULE", help="rule text, or a library name such as sgd adam powersign")
    p.add_argument("--plot", metavar="FILE", help="write the paths and losses as SVG")
    p.add_argument("--steps", type=int, default=200, metavar="N", help="default 200")
    p.add_argument("--seed", type=int, default=1, metavar="N", help="of the gradient noise and of drops (default 1)")
    p.add_argument("--json", action="store_true", help="print JSON")

    p = command(commands_rules.space, "print the vocabulary, masks and size of a search space, with samples", words)
    p.add_argument("--samples", type=int, default=5, metavar="N", help="random rules to print (default 5)")
    p.add_argument("--seed", type=int, default=1, metavar="N", help="of the samples (default 1)")
    p.add_argument("--json", action="store_true", help="print JSON")

    p = command(commands.bench, "measure the search itself on this machine")
    p.add_argument("name", nargs="?", metavar="NAME", help="of a bench; leave it out for the list")
    p.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="its options; --help lists them")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status. argparse's own errors leave by SystemExit(2)."""
    args = _parser().parse_args(argv)
    try:
        status: int = args.call(args)
        sys.stdout.flush()
        return status
    except SearchError as error:
        print(f"nos-search {args.command}: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print(f"nos-search {args.command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of stdout went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
