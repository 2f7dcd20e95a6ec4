"""Owns the list of what `--log` can write a run's numbers for. A logger is one file and one row here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import mlflow, tensorboard, wandb
from .scalars import Scalars


@dataclass(frozen=True)
class Logger:
    """This is a row. `check` raises SearchError where the package is missing. `make` begins a listener for a folder of
    its name within the run's, with the run's configuration."""

    check: Callable[[], Any]
    make: Callable[[Path, Mapping[str, Any]], Scalars]


LOGGERS: dict[str, Logger] = {
    "tensorboard": Logger(lambda: tensorboard.summary_writer(), lambda folder, _: tensorboard.TensorBoard(folder)),
    "wandb": Logger(lambda: wandb.package(), lambda folder, config: wandb.WeightsAndBiases(folder, config)),
    "mlflow": Logger(lambda: mlflow.package(), lambda folder, config: mlflow.MLflow(folder, config)),
}
