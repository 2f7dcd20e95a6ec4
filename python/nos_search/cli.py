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
    from . import commands, commands_rules
    from .config import versions
    from .space import SPACES, VOCABULARIES
    from .strategy import STRATEGIES
    from .task import TASKS
    from .train.child import SWEEPS

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
    group.add_argument("--width", type=int, metavar="N", help="filters per convolution (default: the task's)")
    group.add_argument("--sweep-steps", type=int, metavar="N", help="steps per learning rate (default: one epoch)")
    group.add_argument(
        "--train-steps", type=int, metavar="N", help="steps of the longer training (default: the task's)"
    )
    group.add_argument(
        "--data-dir", metavar="DIR", help="folder with the task's full data (fashion: the four idx files)"
    )
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

    p = command(commands.run, "search for rules; writes everything to a new folder", child, words)
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
    p.add_argument("--workers", type=int, default=1, metavar="W", help="processes that train; only 1 in this version")
    p.add_argument("--seed", type=int, default=1, metavar="N", help="decides the whole run (default 1)")
    p.add_argument("--out", required=True, metavar="DIR", help="new or empty folder for the run")
    p.add_argument("--json", action="store_true", help="print the result as JSON")

    p = command(commands.resume, "continue a run that was stopped, interrupted or killed")
    p.add_argument("folder", metavar="DIR")
    p.add_argument("--trials", type=int, metavar="N", help="new total number of trials")
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

    p = command(commands_rules.evaluate, "compare rules over several seeds by validation and test accuracy", child)
    p.add_argument(
        "rules", nargs="+", metavar="RULE", help="rule text, or a library name such as sgd momentum adam powersign"
    )
    p.add_argument("--tasks", default="digits", metavar="A,B", help="default digits")
    p.add_argument("--seeds", type=int, default=3, metavar="N", help="runs per rule and task (default 3)")
    p.add_argument("--seed", type=int, default=1, metavar="N", help="the seeds are derived from it (default 1)")
    p.add_argument("--json", action="store_true", help="print JSON")

    p = command(commands_rules.export, "print a rule as the source of a stand-alone torch optimizer")
    p.add_argument("source", metavar="DIR|RULE", help="a run folder (its best rule), rule text, or a library name")
    p.add_argument("--rank", type=int, default=1, metavar="N", help="rank in the run's leaderboard (default 1)")
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
