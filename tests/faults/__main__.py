"""`make faults`: what the tests of the search do to a run a few times, done many times. About a quarter of an hour.

Kills runs of the real command at random moments, with one worker and with two, and fills a small disk under one; flips
a thousand bits of a run's file, and as many of a killed run's log. Prints one line for each; any other outcome than the
unbroken run's table, or one line that says what to do, is an error. --seed repeats the same moments and bits.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from . import kill
from .readonly import NotPossibleError, small_disk
from .store import flip_bits


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=30, help="with one worker, and with two (default 30; 0: none)")
    parser.add_argument(
        "--flips", type=int, default=1000, help="of a run's file, and of a killed run's log (default 1000; 0: none)"
    )
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nos-faults-") as name:
        scratch = Path(name)
        whole = scratch / "whole"
        kill.finished(kill.RUN, whole)
        log = kill.with_a_log(scratch / "log")
        for file, folder in (("search.db", whole), ("search.db-wal", log)) if options.flips else ():
            said = flip_bits(folder, scratch, options.flips, seed=options.seed, file=file)
            print(f"{options.flips} bits of {file} flipped: {dict(said)}", flush=True)
        try:
            (scratch / "disk").mkdir()
            with small_disk(scratch / "disk", "800k"):
                print(f"full disk: {kill.full_disk(scratch / 'disk', whole, scratch)}", flush=True)
        except NotPossibleError as error:
            print(f"full disk: left out, {error}", flush=True)
        for workers in (1, 2) if options.kills else ():
            killed = kill.at_random(scratch / f"killed{workers}", whole, options.kills, workers, seed=options.seed)
            print(f"{workers} worker(s): {killed}", flush=True)


if __name__ == "__main__":
    main()
