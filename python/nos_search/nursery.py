"""Owns the search's end of the nursery: a process that has imported and loaded what a worker needs, and is forked for
each worker (executor/hatchery.py is its other end).

A process that begins from nothing imports for seconds before it trains. The nursery does so once, for all workers and
for those that replace them, and a command starts it before its own imports. This module imports nothing heavy.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from contextlib import suppress

from .errors import SearchError

AVAILABLE = sys.platform == "linux"  # where a process that has imported torch can be forked
LENGTH, PROCESS = struct.Struct("!Q"), struct.Struct("!q")  # of a message; a worker's number
_BEFOREHAND = ("nos_search.run.children",)  # modules that loaders come from, to import before there is one
_GOOD_BYE = 5.0  # seconds that the nursery has for ending its workers


class NurseryLostError(SearchError):
    """The process is gone."""


class Nursery:
    """This is a process that is forked for each worker. `threads` are those of OpenMP in the workers."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._control, theirs = socket.socketpair()
        counts = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        # A loader may be from anywhere. And `-m` would look in the working directory first, whatever lies there.
        paths = [path or os.getcwd() for path in sys.path]
        begin = f"import sys; sys.path[:] = {paths!a}; from nos_search.executor.hatchery import begin; begin()"
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", begin, str(theirs.fileno()), *_BEFOREHAND],
                pass_fds=[theirs.fileno()],
                env={**os.environ, **counts},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is the search's, which decides what to do
            )
        self._lock = threading.Lock()
        self._hatched = False

    def furnish(self, furniture: bytes) -> None:
        """Sends what the workers start with. It must come before the first of them."""
        with suppress(OSError):  # the first worker will tell
            self._control.sendall(LENGTH.pack(len(furniture)) + furniture)

    def hatch(self) -> tuple[int, socket.socket]:
        """Returns a new worker's process number, and the socket that leads to it. It waits until the nursery is ready.
        Raises NurseryLostError when that is gone."""
        mine, theirs = socket.socketpair()
        with theirs, self._lock:
            try:
                socket.send_fds(self._control, [b"w"], [theirs.fileno()])
                answer = self._control.recv(PROCESS.size, socket.MSG_WAITALL)
            except OSError:
                answer = b""
        if len(answer) < PROCESS.size:
            mine.close()
            raise NurseryLostError("the process that workers are forked from has ended; its words are above")
        self._hatched = True
        return int(PROCESS.unpack(answer)[0]), mine

    def close(self) -> None:
        """Ends the nursery and all of its workers. It may be called again."""
        if not self._hatched:
            self._process.kill()
        with suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        self._control.close()
        try:
            self._process.wait(_GOOD_BYE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def end(process: int) -> None:
    """Kills a worker."""
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


_prepared: list[Nursery] = []


def prepare(threads: int) -> None:
    """Starts a nursery for whoever takes one later. To be called before heavy imports, which it then goes on beside."""
    if AVAILABLE and not _prepared:
        _prepared.append(Nursery(threads))


def take(threads: int) -> Nursery:
    """Returns a nursery: that which was prepared, if it is of so many threads. If not, that one ends."""
    if _prepared and _prepared[0].threads == threads:
        return _prepared.pop()
    discard()
    return Nursery(threads)


def discard() -> None:
    """Ends what was prepared and not taken."""
    while _prepared:
        _prepared.pop().close()
