"""Owns the process that workers are forked from (nursery.py): it imports and loads once what all of them need.

It has one thread and runs no parallel code, so that a fork of it is as good as a new process. It ends, with its
workers, when the search is gone: then its socket is at its end.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection

import torch

from ..nursery import LENGTH, PROCESS
from . import worker
from .base import Loader, Scorer

_REAP = 0.5  # seconds between looks for workers that have ended


def loaded(loader: Loader) -> Callable[[], Scorer]:
    """Returns a loader that is done at once: it gives what this one gave, or raises what it raised."""
    try:
        scorer = loader()
    except Exception as error:
        fault = error

        def fails() -> Scorer:
            raise fault

        return fails
    return lambda: scorer


def main(control: socket.socket) -> None:
    """Forks a worker whenever the search asks for one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)  # threads of this process would be missing in its forks
    (length,) = LENGTH.unpack(_read(control, LENGTH.size))
    loader, threads, version = pickle.loads(_read(control, length))  # the search's own bytes
    ready = loaded(loader)
    children: set[int] = set()
    while True:
        asked, _, _ = select.select([control], [], [], _REAP)
        children -= _ended()
        if not asked:
            continue
        word, handles = b"", list[int]()
        with suppress(OSError):  # the search was killed with an answer unread
            word, handles, _, _ = socket.recv_fds(control, 1, 1)
        if not word:
            break
        this = os.getpid()
        child = os.fork()
        if child == 0:
            control.close()
            _work(Connection(handles[0]), ready, threads, version, this)
        children.add(child)
        os.close(handles[0])
        with suppress(OSError):  # the search is gone, as the next word tells
            control.sendall(PROCESS.pack(child))
    for child in children:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    for child in children:
        with suppress(ChildProcessError):
            os.waitpid(child, 0)
    os._exit(0)  # to take torch down in order would take a while


def _ended() -> set[int]:
    """Returns the workers that have ended since the last look."""
    found: set[int] = set()
    with suppress(ChildProcessError):
        while (child := os.waitpid(-1, os.WNOHANG)[0]) != 0:
            found.add(child)
    return found


def _read(control: socket.socket, length: int) -> bytearray:
    """Reads so many bytes. The process ends where there are none to come: the search has given up."""
    data = bytearray(length)
    left = memoryview(data)
    while left:  # Linux gives at most 2 GiB at once
        received = control.recv_into(left)
        if not received:
            os._exit(0)
        left = left[received:]
    return data


def _work(connection: Connection, ready: Loader, threads: int, version: str, parent: int) -> None:
    """Is the life of a worker: it says its name, and answers one job after the other until nobody is there."""
    status = 1
    try:
        threading.Thread(target=worker.leave_with, args=(parent,), daemon=True).start()
        mine = worker.Worker(ready, threads, version)
        connection.send(mine.name())
        while True:
            connection.send(mine.run(connection.recv()))
    except (EOFError, OSError):
        status = 0
    finally:
        sys.stderr.flush()
        os._exit(status)


def begin() -> None:
    """Is the life of this process. Its arguments are the socket's number, and modules to import beforehand."""
    for module in sys.argv[2:]:
        import_module(module)
    main(socket.socket(fileno=int(sys.argv[1])))
