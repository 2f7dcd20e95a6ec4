"""Owns the listener that writes a run's numbers for Weights & Biases.

It is offline: what it writes stays in the run's folder, until `wandb sync` sends it. Who sets WANDB_MODE=online has it
sent at once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import SearchError
from .scalars import Axis, Scalars

PROJECT = "nos-search"


def package() -> Any:
    """Returns the package wandb. Raises SearchError when it is not installed."""
    try:
        import wandb
    except ImportError:
        raise SearchError("--log wandb needs the package; install it with: pip install 'nos-ext[wandb]'") from None
    return wandb


class WeightsAndBiases(Scalars):
    """This writes the numbers of a run, and its configuration, to a new folder within `folder`, which has the name
    wandb. Raises SearchError when the package wandb is not installed, or will not begin."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        super().__init__()
        wandb = package()
        settings = folder / "settings"
        if os.path.lexists(settings):  # it could name a server, and a run folder may be anyone's
            raise SearchError(f"{settings} would tell wandb what to do; remove it")
        name = folder.resolve().parent.name
        try:
            self._run = wandb.init(
                project=PROJECT,
                group=name,  # a run that is resumed has one part for each time
                name=name,
                dir=str(folder.parent),
                config=dict(config),
                mode=os.environ.get("WANDB_MODE", "offline"),
                settings=wandb.Settings(console="off", silent=True),  # what it prints is not a result
            )
        except wandb.errors.Error as error:
            raise SearchError(f"--log wandb cannot begin: {error}; see WANDB_MODE, or leave it out") from None
        for axis, names in (("evaluation", ("search/*", "gates/*", "strategy/*")), ("trial", ("promotion/*",))):
            self._run.define_metric(axis)
            for each in names:
                self._run.define_metric(each, step_metric=axis)

    def write(self, values: dict[str, float], axis: Axis, step: int) -> None:
        self._run.log({axis: step, **values})

    def close(self) -> None:
        self._run.finish()
