"""Owns the listener that writes a run's numbers for MLflow.

They go to an SQLite file in the run's folder, unless MLFLOW_TRACKING_URI names a server or another place. The package
mlflow-skinny, with sqlalchemy and alembic for the file, does for both; the whole of mlflow is needed to look at them.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from ..errors import SearchError
from ..store.place import check_plain
from .scalars import Axis, Scalars

EXPERIMENT: Final = "nos-search"
FILE: Final = "mlflow.db"
_HOW: Final = "install it with: pip install 'nos-ext[mlflow]'"
_MOST: Final = 400  # numbers that wait to be written: a call takes a twentieth of a second, and 1000 of them at most
_SECONDS: Final = 5.0  # that they may wait
_LONGEST: Final = 500  # characters of a parameter, which every release takes
_ODD: Final = re.compile(r"[^\w./ -]")  # what a name may not have in it


def package() -> Any:
    """Returns the module mlflow, with its client loaded. Raises SearchError when a package is missing."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing is sent that was not asked for
    try:
        import alembic  # noqa: F401 - for the file, which the client makes
        import mlflow.entities
        import mlflow.tracking
        import sqlalchemy  # noqa: F401
    except ImportError as error:
        raise SearchError(f"--log mlflow needs the package ({error}); {_HOW}") from None
    logging.getLogger("mlflow").setLevel(logging.WARNING)  # it says on stderr how it makes tables
    return mlflow


class MLflow(Scalars):
    """This writes the numbers of a run, and its configuration, to DIR/mlflow/mlflow.db: one run of the experiment
    "nos-search" each time that the search goes on. Raises SearchError when a package is missing, and when MLflow cannot
    begin or go on; the search is in its folder all the same."""

    def __init__(self, folder: Path, config: Mapping[str, Any], *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._mlflow, self._clock = package(), clock
        self._waiting: list[Any] = []
        self._written = clock()
        uri = os.environ.get("MLFLOW_TRACKING_URI") or _file(folder)
        name = folder.resolve().parent.name
        params = [self._mlflow.entities.Param(_name(each), str(value)[:_LONGEST]) for each, value in config.items()]
        try:
            self._client = self._mlflow.tracking.MlflowClient(tracking_uri=uri)
            found = self._client.get_experiment_by_name(EXPERIMENT)
            number = self._client.create_experiment(EXPERIMENT) if found is None else found.experiment_id
            self._run = self._client.create_run(number, run_name=name).info.run_id
            self._client.log_batch(self._run, params=params)
        except Exception as error:  # of MLflow, of SQLAlchemy, of a connection
            raise _failed("begin", error) from error

    def write(self, values: dict[str, float], axis: Axis, step: int) -> None:
        now = int(time.time() * 1000)
        self._waiting += [
            self._mlflow.entities.Metric(_name(name), float(value), now, step) for name, value in values.items()
        ]
        if len(self._waiting) >= _MOST or self._clock() - self._written > _SECONDS:
            self._flush()

    def close(self) -> None:
        self._flush()
        try:
            self._client.set_terminated(self._run)
        except Exception as error:
            raise _failed("end", error) from error

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._written = self._clock()
        try:
            if waiting:
                self._client.log_batch(self._run, metrics=waiting)
        except Exception as error:
            raise _failed("go on", error) from error


def _file(folder: Path) -> str:
    """Returns the address of the file in a run's folder. Raises StoreError where a link or the like has its name."""
    folder.mkdir(exist_ok=True)
    path = folder.resolve() / FILE
    if "?" in str(path):  # options follow it in an address
        raise SearchError(f"--log mlflow cannot write to {path}: its name has a question mark; set MLFLOW_TRACKING_URI")
    if os.path.lexists(path):
        check_plain(path, os.lstat(path))
    if os.path.lexists(f"{path}-journal"):  # SQLite would obey it, and a run folder may be anyone's
        raise SearchError(f"{path}-journal would be obeyed; remove it, or search without --log mlflow")
    return f"sqlite:///{path}"


def _name(text: str) -> str:
    return _ODD.sub("_", text)


def _failed(what: str, error: Exception) -> SearchError:
    said = (str(error) or type(error).__name__).strip().splitlines()[0]
    return SearchError(f"--log mlflow cannot {what}: {said}; see MLFLOW_TRACKING_URI, or leave it out")
