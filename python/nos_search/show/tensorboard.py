"""Owns the listener that writes a run's numbers for TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import SearchError
from .scalars import Axis, Scalars


def summary_writer() -> Any:
    """Returns torch's class. Raises SearchError when the package tensorboard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise SearchError(
            "--log tensorboard needs the package; install it with: pip install 'nos-ext[tensorboard]'"
        ) from None
    return SummaryWriter


class TensorBoard(Scalars):
    """This writes the numbers of a run to a folder for TensorBoard. Raises SearchError when the package tensorboard is
    not installed."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._writer: Any = summary_writer()(str(folder))

    def write(self, values: dict[str, float], axis: Axis, step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()
