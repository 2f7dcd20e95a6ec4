"""Owns the command report, which writes a page about a run."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import StoreError
from ..known import REPORTED
from ..run import RunConfig, baselines
from ..show import report
from ..show.figure import check_matplotlib
from ..store import Store, files
from ..task import is_code
from .output import emit, note


def call(args: argparse.Namespace) -> int:
    folder = Path(args.folder)
    with Store.open(folder) as store:  # a fault of the run is reported before one of --out
        going_on = store.being_written()
    out = args.out or files.inside(folder, "report.html", remedy="remove it, or name another file with --out")
    files.check_place("--out", out)  # before anything is trained for the page
    check_matplotlib()
    if going_on and not args.no_baselines:
        note("note: the run goes on; known optimizers that were not trained yet are left out")
    if not going_on and not args.no_baselines:
        _train_baselines(folder)
    with Store.open(folder) as store:
        page = report.render(store, diagnoses=True)
    files.write("--out", out, page)
    emit(out)
    return 0


def _train_baselines(folder: Path) -> None:
    """Trains the known optimizers that the store lacks. They are written to it, so the next report has them."""
    with Store.open(folder) as store:
        if len(baselines.stored(store)) == len(REPORTED):
            return
        config = RunConfig.from_json(store.config)
    if config.given is not None or is_code(config.task):  # a folder may be anyone's, and is not asked for code to run
        note(f"note: known optimizers are left out, as the run's {config.given or 'task'} is not of this package")
        return
    try:
        store = Store.open(folder, write=True)
    except (StoreError, OSError) as error:  # read-only, or taken up by a resume at this moment
        note(f"note: known optimizers that were not trained yet are left out: {error}")
        return
    with store:
        baselines.train_missing(store, note=note)
