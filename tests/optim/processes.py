"""Runs a program in several processes that find each other through torch.distributed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.fresh import FORKS, Process, home
from tests.waiting import wait_until

IMPORTS = (
    "import torch.distributed.checkpoint.state_dict, torch.distributed.fsdp, torch.distributed.tensor, nos_ext.optim"
)
# A program that is done has left by itself.
CODE = "import faulthandler, runpy, sys; faulthandler.enable(); runpy.run_path({!r}, run_name='__main__'); sys.exit('it went on')"


def run_together(program: Path, arguments: Sequence[str], number: int, folder: Path) -> None:
    """Runs the program with `arguments` in `number` processes, which have to print "fine" at their end. Each finds its
    rank, and how many they are, in its environment, as torchrun would set it. When one of them fails the others are ended,
    which may wait for it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    together = {"WORLD_SIZE": str(number), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    environment = {**os.environ, **together, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    texts = [folder / f"{rank}.txt" for rank in range(number)]
    running = [
        start(CODE.format(str(program)), arguments, {**environment, "RANK": str(rank)}, text)
        for rank, text in enumerate(texts)
    ]

    def over() -> bool:
        codes = [process.poll() for process in running]
        return None not in codes or any(codes)

    try:
        wait_until(over)
    finally:
        for process in running:
            process.kill()
        codes = [process.wait() for process in running]
    said = [text.read_text() for text in texts]
    assert codes == [0] * number, "\n".join(said)
    assert all(text.rstrip().endswith("fine") for text in said)


def start(
    code: str, arguments: Sequence[str], environment: Mapping[str, str], text: Path
) -> Process | subprocess.Popen[bytes]:
    """A process that writes all it says into the file."""
    with text.open("w") as out, open(os.devnull) as nothing:
        if not FORKS:
            return subprocess.Popen([sys.executable, "-c", code, *arguments], env=environment, stdout=out, stderr=out)
        streams = [nothing.fileno(), out.fileno(), out.fileno()]
        return home(IMPORTS, environment).start(code, arguments, environment, streams=streams, session=True)
