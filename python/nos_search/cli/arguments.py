"""Owns what each command of nos-search takes: its options, their help, and the table of commands."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from ..known import EVALUATED, REPORTED, RULES
from ..machine import cores
from ..prove.defaults import BASELINES, FULL, SHORT
from ..train.default_ladder import DEFAULT, ETA, TRANSFER, default_ladder
from .groups import augment, child, decay, drawn, plot, seed, space_words, trained, workers
from .names import DECAYS, DEVICES, EXECUTORS, FORMATS, STRATEGIES, TASKS
from .parser import Parser, Version

_RULE = "rule text, @FILE that has it, - for standard input, or a library name such as sgd adam powersign"


def _run(p: argparse.ArgumentParser) -> None:
    child(p)
    space_words(p)
    workers(p)
    p.add_argument(
        "--task", default="charmlp", metavar="|".join(TASKS), help="what children train on (default charmlp)"
    )
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
        "--command",
        metavar="COMMAND",
        help="what --strategy external starts: it proposes rules as lines of JSON (docs/howto/external_proposals.md)",
    )
    p.add_argument(
        "--gate",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="threshold of a gate before training: descent=0 screen=0.05 steps=200 family=off, or NAME=off; may be "
        "repeated",
    )
    p.add_argument(
        "--trials", type=int, metavar="N", help="rules to propose, duplicates included (default 200 if no other limit)"
    )
    p.add_argument("--seconds", type=float, metavar="S", help="stop after S seconds; children that train are finished")
    p.add_argument("--target", type=float, metavar="R", help="stop at reward R")
    p.add_argument("--children", type=int, metavar="N", help="stop after N trained children")
    p.add_argument(
        "--promote",
        default=DEFAULT,
        metavar="RUNG,...|none",
        help="score the best again on TASK[:NET][*TIMES][@PART][#SEEDS][+TASK...], where the task own is that of the "
        f"run: longer, with more seeds, on other tasks (default: {default_ladder('own', transfer=False)}, then one "
        f"rung {'+'.join(TRANSFER)} without the task of the run; none for --protocol paper)",
    )
    p.add_argument(
        "--promote-eta", type=int, default=ETA, metavar="N", help=f"one rule in N goes up a rung (default {ETA})"
    )
    p.add_argument(
        "--promote-decay",
        default="linear_cosine",
        metavar="|".join(DECAYS),
        help="how the learning rate of a rung's longer training falls (default linear_cosine)",
    )
    p.add_argument("--batch", type=int, default=32, metavar="N", help="rules asked for at a time (default 32)")
    seed(p, "decides the whole run")
    p.add_argument("--out", required=True, metavar="DIR", help="new or empty folder for the run")
    p.add_argument("--json", action="store_true", help="print the result as JSON")


def _resume(p: argparse.ArgumentParser) -> None:
    workers(p)
    p.add_argument("folder", metavar="DIR")
    p.add_argument("--trials", type=int, metavar="N", help="new total number of trials")
    p.add_argument("--children", type=int, metavar="N", help="new total number of trained children")
    p.add_argument(
        "--seconds",
        type=float,
        metavar="S",
        help="stop after S more seconds; inf for no limit (default: as last given)",
    )
    p.add_argument("--target", type=float, metavar="R", help="new target reward")
    p.add_argument("--command", metavar="COMMAND", help="what --strategy external starts, once more")
    p.add_argument(
        "--strategy-option", action="append", default=[], metavar="NAME=VALUE", help="timeout=SECONDS of that command"
    )
    p.add_argument("--task", metavar="MODULE:FUNCTION", help="the run's task once more, where it is code of your own")
    p.add_argument("--json", action="store_true", help="print the result as JSON")


def _show(p: argparse.ArgumentParser) -> None:
    p.add_argument("folder", metavar="DIR")
    p.add_argument("--top", type=int, default=10, metavar="N", help="rows of the table (default 10; --json has all)")
    p.add_argument("--all", action="store_true", help="a row for each rule, and not only for the best of each family")
    p.add_argument("--json", action="store_true", help="print JSON")


def _report(p: argparse.ArgumentParser) -> None:
    p.add_argument("folder", metavar="DIR")
    p.add_argument("--out", metavar="FILE", help="default DIR/report.html")
    p.add_argument(
        "--no-baselines",
        action="store_true",
        help=f"do not train {', '.join(RULES[name].label for name in REPORTED)} to compare",
    )


def _evaluate(p: argparse.ArgumentParser) -> None:
    child(p)
    augment(p)
    decay(p)
    drawn(p)
    p.add_argument("rules", nargs="*", metavar="RULE|DIR", help=f"{_RULE}, or a run folder: its best rules")
    p.add_argument("--top", type=int, default=5, metavar="N", help="of each run folder (default 5)")
    p.add_argument("--known", action="store_true", help=f"add {' '.join(EVALUATED)}")
    p.add_argument("--tasks", default="digits", metavar="A,B", help=f"of {', '.join(TASKS)} (default digits)")
    p.add_argument("--seeds", type=int, default=3, metavar="N", help="runs per rule and task (default 3)")
    p.add_argument("--baseline", metavar="RULE", help="add the difference to this rule, seed by seed")
    p.add_argument("--workers", type=int, default=1, metavar="W", help="processes that train (default 1)")
    p.add_argument(
        "--out",
        metavar="FILE",
        help="keep every finished training in FILE; what FILE has of an earlier call is not trained again",
    )


def _prove(p: argparse.ArgumentParser) -> None:
    trained(p.add_argument_group("training of children"))
    p.set_defaults(protocol="default", sweep_steps=None)
    augment(p)
    decay(p, "linear_cosine", "")
    drawn(p)
    p.add_argument("rules", nargs="*", metavar="RULE|DIR", help=f"{_RULE}, or a run folder: its best rules")
    p.add_argument("--top", type=int, default=1, metavar="N", help="of each run folder (default 1)")
    p.add_argument(
        "--against",
        default=BASELINES,
        metavar="A,B",
        help=f"baselines, tuned as the rule is (default {BASELINES})",
    )
    p.add_argument("--tasks", metavar="A,B", help=f"default {FULL.tasks}, on which no default search is rewarded")
    p.add_argument(
        "--sizes", metavar="S,...", help=f"of networks: s m l, half, once and twice their width (default {FULL.sizes})"
    )
    p.add_argument(
        "--horizons",
        metavar="N,...",
        help=f"lengths of trainings, times the task's own steps (default {FULL.horizons})",
    )
    p.add_argument("--seeds", type=int, metavar="N", help=f"trainings that count, in each cell (default {FULL.seeds})")
    p.add_argument(
        "--tuning",
        type=int,
        metavar="N",
        help=f"settings of a rule's constants that are tried on each task (default {FULL.tuning})",
    )
    p.add_argument(
        "--quick",
        action="store_true",
        help=f"minutes instead: tasks {SHORT.tasks}, sizes {SHORT.sizes}, horizons {SHORT.horizons}, {SHORT.seeds} "
        f"seeds, {SHORT.tuning} settings",
    )
    p.add_argument("--threads", type=int, metavar="N", help="of torch, in each worker (default 1)")
    p.add_argument(
        "--workers",
        type=int,
        default=cores(),
        metavar="W",
        help="processes that train (default: one for each core that there is)",
    )
    p.add_argument("--executor", metavar="|".join(EXECUTORS), help="what runs them (default fork or loky)")
    p.add_argument("--html", metavar="FILE", help="write one self-contained page about the proof")
    p.add_argument(
        "--out",
        metavar="DIR",
        help="keep every finished training in this folder; the same command goes on from there",
    )


def _one_rule(p: argparse.ArgumentParser, *, seeds: str, kept: str) -> None:
    """Adds what the commands take that train one rule and its changes: how, on which tasks, and where that is kept.
    `seeds` says what they are of, and `kept` what --out keeps besides."""
    child(p, sweep="those of the longer training")
    augment(p)
    decay(p)
    p.add_argument("rule", metavar="RULE", help=_RULE)
    p.add_argument("--tasks", default="charmlp", metavar="A,B", help=f"of {', '.join(TASKS)} (default charmlp)")
    p.add_argument(
        "--seeds", type=int, default=20, metavar="N", help=f"of {seeds}, and as many for the last word (default 20)"
    )
    seed(p, "all other seeds are derived from it")
    p.add_argument("--device", default="cpu", metavar="|".join(DEVICES), help="where children train (default cpu)")
    p.add_argument("--workers", type=int, default=1, metavar="W", help="processes that train (default 1)")
    p.add_argument("--json", action="store_true", help="print JSON")
    p.add_argument(
        "--out",
        metavar="FOLDER",
        help=f"keep {kept}, the rule and every finished training there; the same command goes on from them",
    )


def _simplify(p: argparse.ArgumentParser) -> None:
    _one_rule(p, seeds="each rule", kept="the chain")
    p.add_argument(
        "--margin",
        type=float,
        metavar="X",
        help="loss of score that may be (default: half the standard deviation of the rule's scores between seeds)",
    )


def _constants(p: argparse.ArgumentParser) -> None:
    _one_rule(p, seeds="each set that is left at the end", kept="the result")
    p.add_argument(
        "--population", type=int, default=64, metavar="N", help="sets of constants in a generation (default 64)"
    )
    p.add_argument("--generations", type=int, default=10, metavar="N", help="default 10")
    p.add_argument(
        "--generation-seeds",
        type=int,
        default=2,
        metavar="N",
        help="of each set, others in each generation (default 2)",
    )


def _train(p: argparse.ArgumentParser) -> None:
    child(p)
    augment(p)
    decay(p)
    drawn(p)
    p.add_argument("rule", metavar="RULE", help=_RULE)
    p.add_argument("--task", default="digits", metavar="|".join(TASKS), help="default digits")
    p.add_argument("--lr", type=float, metavar="LR", help="learning rate (default: the best of a sweep)")


def _export(p: argparse.ArgumentParser) -> None:
    p.add_argument("source", metavar="DIR|RULE", help=f"a run folder (its best rule), {_RULE}")
    p.add_argument("--rank", type=int, metavar="N", help="rank in the run's leaderboard (default 1)")
    p.add_argument(
        "--format",
        default="torch",
        metavar="|".join(FORMATS),
        help="torch: one rule; csv: the trials; curves: their learning curves; optuna: a journal (default torch)",
    )
    p.add_argument("--out", metavar="FILE", help="write to FILE instead of stdout")
    p.add_argument("--force", action="store_true", help="replace FILE if it exists")


def _surfaces(p: argparse.ArgumentParser) -> None:
    p.add_argument("rules", nargs="+", metavar="RULE", help=_RULE)
    plot(p, "draw paths and losses")
    p.add_argument("--steps", type=int, default=200, metavar="N", help="default 200")
    seed(p, "of the gradient noise and of drops")
    p.add_argument("--json", action="store_true", help="print JSON")


def _space(p: argparse.ArgumentParser) -> None:
    space_words(p)
    p.add_argument("--samples", type=int, default=5, metavar="N", help="random rules to print (default 5)")
    seed(p, "of the samples")
    p.add_argument("--json", action="store_true", help="print JSON")


def _bench(p: argparse.ArgumentParser) -> None:
    p.add_argument("name", nargs="?", metavar="NAME", help="of a bench; leave it out for the list")
    p.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="its options; --help lists them")


def _diagnose(p: argparse.ArgumentParser) -> None:
    p.add_argument("rules", nargs="+", metavar="RULE", help=_RULE)
    p.add_argument("--trials", type=int, default=100, metavar="N", help="starts of each problem (default 100)")
    p.add_argument("--levels", action="store_true", help="a row for each problem instead of each rule")
    seed(p, "of starts and noise")
    p.add_argument("--json", action="store_true", help="print JSON")


# A new command is one row here and a module of that name beside this one, with a function `call(args)`.
COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "run": ("search for rules; writes everything to a new folder", _run),
    "resume": ("continue a run that was stopped, interrupted or killed", _resume),
    "show": ("print the leaderboard of a run", _show),
    "report": ("write one self-contained HTML page about a run", _report),
    "evaluate": (
        "compare rules, each with its own learning-rate sweep, over several seeds by validation and test score",
        _evaluate,
    ),
    "prove": (
        "say whether a rule is better than tuned optimizers on tasks that no default search is rewarded on",
        _prove,
    ),
    "simplify": ("leave out of a rule, step by step, what trainings do not miss", _simplify),
    "constants": ("tune the numbers of a rule, and say whether that makes it better", _constants),
    "train": ("train a child with one rule and print its learning curve", _train),
    "export": (
        "a rule as the source of a stand-alone torch optimizer, or a whole run as a table or an optuna journal",
        _export,
    ),
    "diagnose": ("run rules over small problems, each hard in one way, and show where they fail", _diagnose),
    "surfaces": ("train rules on analytic surfaces, as a table and a figure", _surfaces),
    "space": ("print the vocabulary, masks and size of a search space, with samples", _space),
    "bench": ("measure the search itself on this machine", _bench),
}


def parse(argv: Sequence[str]) -> tuple[str, argparse.Namespace]:
    """Returns the command's name and its arguments. Raises SystemExit after a message for wrong usage, and after
    --help."""
    before = next((k for k, word in enumerate(argv) if not word.startswith("-")), len(argv))
    command: str = _top().parse_args(argv[: before + 1]).command
    about, add = COMMANDS[command]
    parser = Parser(prog=f"nos-search {command}", description=about)
    add(parser)
    rest = argv[before + 1 :]
    # What follows the name of a bench is the bench's own, in the order in which it stands.
    return command, parser.parse_args(rest) if command == "bench" else parser.parse_mixed(rest)


def _top() -> Parser:
    rows = "\n".join(f"  {name:9} {about}" for name, (about, _) in COMMANDS.items())
    top = Parser(
        prog="nos-search",
        usage="nos-search [--help] [--version] COMMAND ...",
        description="Search for optimizer update rules (Bello et al., ICML 2017), look at runs, compare rules.\n\n"
        f"commands, each with a --help of its own:\n{rows}",
        epilog="example: nos-search run --task charmlp --engine auto --trials 200 --seed 1 --out runs/first",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action=Version, nargs=0, help="print versions and exit")
    top.add_argument("command", choices=tuple(COMMANDS), metavar="COMMAND", help=argparse.SUPPRESS)
    return top
