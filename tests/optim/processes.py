"""Runs a program in several processes that find each other through torch.distributed.

Its imports take seconds. Where a process that has imported torch can be forked, one process makes them for all.
"""

from __future__ import annotations

import os
import runpy
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from tests.waiting import HUNG

IMPORTS = (
    "torch.distributed.checkpoint.state_dict",
    "torch.distributed.fsdp",
    "torch.distributed.tensor",
    "nos_ext.optim",
)


def run_together(program: Path, arguments: Sequence[str], number: int, folder: Path) -> None:
    """Runs the program with `arguments` in `number` processes, which have to print "fine" at their end. Each finds its
    rank, and how many they are, in its environment, as torchrun would set it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    together = {"WORLD_SIZE": str(number), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [str(rank) for rank in range(number)]
    starts = [ranks] if sys.platform == "linux" else [[rank] for rank in ranks]
    running = [
        subprocess.Popen(
            [sys.executable, "-X", "faulthandler", __file__, ",".join(start), folder, program, *arguments],
            env={**os.environ, **together, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,
        )
        for start in starts
    ]
    try:
        codes = [process.wait(timeout=HUNG) for process in running]
    finally:
        for process in running:
            with suppress(ProcessLookupError):  # all of its processes have ended
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    texts = [(folder / f"{rank}.txt").read_text() for rank in ranks]
    assert codes == [0] * len(starts), "\n".join(texts)
    assert all(text.rstrip().endswith("fine") for text in texts)


def begin(ranks: Sequence[str], folder: str, program: str, arguments: Sequence[str]) -> int:
    """Runs the program in a process for each rank. When one of them fails the others are ended, which may wait for it."""
    for name in IMPORTS:
        import_module(name)
    left = {fork(rank, folder, program, arguments) for rank in ranks}
    failed = False
    while left:
        process, status = os.wait()
        left.discard(process)
        if status and not failed:
            failed = True
            for other in left:
                os.kill(other, signal.SIGKILL)
    return int(failed)


def fork(rank: str, folder: str, program: str, arguments: Sequence[str]) -> int:
    process = os.fork()
    if process == 0:
        run(rank, folder, program, arguments)
    return process


def run(rank: str, folder: str, program: str, arguments: Sequence[str]) -> NoReturn:
    os.environ["RANK"] = rank
    out = os.open(f"{folder}/{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for stream in (1, 2):
        os.dup2(out, stream)
    sys.argv = [program, *arguments]
    try:
        runpy.run_path(program, run_name="__main__")
    except BaseException:
        traceback.print_exc()
    os._exit(1)  # a program that is done has left by itself


if __name__ == "__main__":
    if sys.platform == "linux":
        sys.exit(begin(sys.argv[1].split(","), *sys.argv[2:4], sys.argv[4:]))
    run(*sys.argv[1:4], sys.argv[4:])
