"""Owns the protocols that have a name: what --protocol asks of task and sweep."""

from __future__ import annotations

from typing import Literal

from ..errors import UsageError, choose
from ..task.base import Task
from ..task.score import ACCURACY

Protocol = Literal["default", "paper"]
PROTOCOLS: tuple[Protocol, ...] = ("default", "paper")
PAPER_TASKS = ("digits", "fashion", "cifar10")
_PAPER_NET, _PAPER_EPOCHS = "convnet-2-32", 5  # two layers of 32 filters; epochs at the best rate


def check_protocol(name: str, task: str, argument: str, given: dict[str, object]) -> None:
    """Raises UsageError for a protocol that is not known or does not fit the task. `given` has the options that the
    user gave and that the paper's protocol decides itself; None means not given."""
    if name not in PROTOCOLS:
        raise choose("--protocol", name, PROTOCOLS)
    if name != "paper":
        return
    if task not in PAPER_TASKS:
        raise UsageError(
            f"--protocol paper with {argument} {task}: the paper's child classifies images; choose one of: "
            f"{', '.join(PAPER_TASKS)}, or leave --protocol out"
        )
    for option, value in given.items():
        if value is not None:
            raise UsageError(f"--protocol paper decides {option} itself; leave one of the two out")


def paper(task: Task) -> Task:
    """Returns the task as the paper trains it: its ConvNet, an epoch at each learning rate, then five epochs. The
    reward is the accuracy on the validation split."""
    epoch = task.epoch
    return task.with_options(net=_PAPER_NET, sweep_steps=epoch, train_steps=_PAPER_EPOCHS * epoch, score=ACCURACY)
