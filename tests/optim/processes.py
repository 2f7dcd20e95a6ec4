"""Runs a program in several processes that find each other through torch.distributed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from tests.waiting import HUNG


def run_together(arguments: list[str], number: int, folder: Path) -> None:
    """Runs Python with `arguments` in `number` processes, which have to print "fine" at their end. Each finds its rank,
    and how many they are, in its environment, as torchrun would set it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    running = []
    for rank in range(number):
        own = {"RANK": str(rank), "WORLD_SIZE": str(number), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        out = (folder / f"{rank}.txt").open("w+")
        process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", *arguments],
            env={**os.environ, **own},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        running.append((process, out))
    try:
        codes = [process.wait(timeout=HUNG) for process, _ in running]
    finally:
        for process, _ in running:
            process.kill()
            process.wait()
    texts = []
    for _, out in running:
        out.seek(0)
        texts.append(out.read())
        out.close()
    assert codes == [0] * number, "\n".join(texts)
    assert all(text.rstrip().endswith("fine") for text in texts)
