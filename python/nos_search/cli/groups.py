"""Owns the options that several commands share."""

from __future__ import annotations

import argparse

from .names import (
    DECAYS,
    DEVICES,
    ENGINES,
    EXECUTORS,
    LOGGERS,
    NETS,
    PLOTS,
    PROTOCOLS,
    SCORES,
    SPACES,
    SWEEPS,
    VOCABULARIES,
)

_ENDINGS = f"{', '.join(f'.{each}' for each in PLOTS[:-1])} or .{PLOTS[-1]}"


def child(parser: argparse.ArgumentParser, *, sweep: str = "the task's") -> None:
    """Adds how children are scored: by a sweep of the learning rate, whose steps are by default what `sweep` says, and
    a training."""
    group = parser.add_argument_group("training of children")
    group.add_argument(
        "--protocol",
        default="default",
        metavar="|".join(PROTOCOLS),
        help="paper: its ConvNet, an epoch at every rate, then five epochs, on digits, fashion or cifar10",
    )
    group.add_argument(
        "--sweep",
        metavar="|".join(SWEEPS),
        help="learning-rate sweep: halving stops bad rates early, fine also tries factors of 2 around the best, full "
        "is the paper's (default fine; full with --protocol paper)",
    )
    group.add_argument("--sweep-steps", type=int, metavar="N", help=f"steps per learning rate (default: {sweep})")
    trained(group)
    group.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="of torch, part of what makes its results repeat (default 1); own kernels train N children side by side "
        "(default: all cores, divided by the workers)",
    )


def trained(group: argparse._ActionsContainer) -> None:
    """Adds what decides a training whose learning rate is known."""
    group.add_argument(
        "--engine",
        default="auto",
        metavar="|".join(ENGINES),
        help="what trains: own kernels (convnet, mlp, and gru on texts, on the CPU) or torch; auto: own where they can "
        "(default auto)",
    )
    group.add_argument(
        "--net",
        metavar="NAME[-DEPTH[-WIDTH]]",
        help=f"child network: {', '.join(NETS)}; for example wrn-16-2 (default: the task's)",
    )
    group.add_argument("--width", type=int, metavar="N", help="filters or units of the network (default: the task's)")
    group.add_argument(
        "--train-steps", type=int, metavar="N", help="steps of the longer training (default: the task's)"
    )
    group.add_argument(
        "--score",
        metavar="|".join(SCORES),
        help="what a child is scored by: its share of right guesses, or of a blind guess's bits that it saves "
        "(default: the task's)",
    )
    group.add_argument(
        "--data-dir",
        metavar="DIR",
        help="folder with the task's data, or with one folder for each task (docs/tasks.md)",
    )
    group.add_argument("--download", action="store_true", help="fetch the data into --data-dir first (cifar10)")
    group.add_argument("--download-url", metavar="URL", help="from there, instead of where the task says")


def augment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--augment",
        action="store_true",
        help="in each step move the images that train by a few pixels, and mirror them where that keeps their class; "
        "the same for every rule",
    )


def decay(
    parser: argparse.ArgumentParser, default: str = "none", rest: str = "; those of the sweep stay as they are"
) -> None:
    parser.add_argument(
        "--decay",
        default=default,
        metavar="|".join(DECAYS),
        help=f"how the learning rate of the longer training falls{rest} (default {default})",
    )


def space_words(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("search space")
    group.add_argument(
        "--space",
        metavar="|".join(SPACES),
        help="nos: the paper's; program: lines that choose their own averages and norms; lion: the same with the "
        "functions of the search that found Lion; text: any rule, from --strategy external (default nos)",
    )
    group.add_argument("--lines", type=int, metavar="N", help="of a program, 2 to 7 (default 5; with --space lion 7)")
    group.add_argument("--vocabulary", metavar="|".join(VOCABULARIES), help="of nos (default arxiv)")
    group.add_argument("--groups", type=int, metavar="N", help="of five predictions each in nos, 1 to 4 (default 2)")
    group.add_argument(
        "--no-bias-correction", action="store_true", help="m, v, y as plain averages, as in TensorFlow's release"
    )
    group.add_argument("--drop-rescale", action="store_true", help="drop(x, p) divides what it keeps by 1 - p")
    group.add_argument("--noise-variance", action="store_true", help="the noise operand's 0.01 is a variance")
    group.add_argument("--no-masks", action="store_true", help="allow strings that the paper is said to exclude")


def workers(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("who trains, what is written")
    group.add_argument("--workers", type=int, metavar="W", help="processes that train (default 1)")
    group.add_argument(
        "--executor",
        metavar="|".join(EXECUTORS),
        help="what runs them: this process, processes of this machine, or a Ray cluster "
        "(default inprocess for one worker, fork or loky for more)",
    )
    group.add_argument("--device", metavar="|".join(DEVICES), help="where children train (default cpu)")
    group.add_argument(
        "--trial-timeout",
        type=float,
        metavar="S",
        help="seconds after which a worker is taken for hung and replaced (default 3600; not in-process)",
    )
    group.add_argument(
        "--log",
        action="append",
        default=[],
        metavar="|".join(LOGGERS),
        help="write the run's numbers for it to DIR/tensorboard, DIR/wandb or DIR/mlflow as well; may be repeated",
    )
    group.add_argument(
        "--tensorboard", action="append_const", dest="log", const="tensorboard", help="--log tensorboard"
    )
    group.add_argument("--ray-address", metavar="A", help="of a cluster, or auto (default: Ray on this machine)")
    group.add_argument(
        "--gpus-per-trial", type=float, metavar="F", help="share of a GPU per Ray worker, for --device cuda"
    )


def seed(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--seed", type=int, default=1, metavar="N", help=f"{what} (default 1)")


def plot(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--plot", metavar="FILE", help=f"{what} into FILE, which ends in {_ENDINGS} (needs matplotlib)")


def drawn(parser: argparse.ArgumentParser) -> None:
    seed(parser, "all other seeds are derived from it")
    parser.add_argument("--device", default="cpu", metavar="|".join(DEVICES), help="where children train (default cpu)")
    plot(parser, "draw the result")
    parser.add_argument("--json", action="store_true", help="print JSON")
