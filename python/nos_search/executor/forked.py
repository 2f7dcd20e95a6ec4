"""Owns the executor that trains in processes of this machine, which are forked from one that has everything loaded."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from multiprocessing.connection import Connection

import cloudpickle

import nos_ext

from .. import nursery
from ..nursery import Nursery
from .base import Loader
from .pool import Handle, WorkerPool
from .worker import Payload, Reply

_START_TIMEOUT = 300.0  # seconds: imports and data


class WorkerEndedError(Exception):
    """A worker's process has ended."""


class _Process(Handle):
    """A worker is a fork of the nursery, and a thread of this process that talks to it."""

    def __init__(self, hatch: Callable[[], tuple[int, Connection]]) -> None:
        self._hatch = hatch
        self.ready: Future[str] = Future()
        self._jobs: queue.SimpleQueue[tuple[Payload, Future[Reply]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._process: int | None = None  # while it lives
        self._ended = False
        threading.Thread(target=self._talk, name="worker", daemon=True).start()

    def submit(self, payload: Payload) -> Future[Reply]:
        reply: Future[Reply] = Future()
        with self._lock:
            if self._ended:
                raise WorkerEndedError("its process has ended")
            self._jobs.put((payload, reply))
        return reply

    def kill(self) -> None:
        with self._lock:
            self._ended = True
            if self._process is not None:
                nursery.end(self._process)
        self._jobs.put(None)

    def _talk(self) -> None:
        reply: Future[Reply] | None = None
        fault: BaseException = WorkerEndedError("its process has ended")
        try:
            process, connection = self._hatch()
            with self._lock:
                self._process = process
                if self._ended:
                    nursery.end(process)
            with connection:
                self.ready.set_result(connection.recv())
                while (job := self._jobs.get()) is not None:
                    payload, reply = job
                    connection.send(payload)
                    answer, told, reply = connection.recv(), reply, None
                    told.set_result(answer)
        except (EOFError, OSError):
            pass
        except Exception as error:
            fault = error
        with self._lock:
            self._ended, self._process = True, None
        if not self.ready.done():
            self.ready.set_exception(fault)
        if reply is not None:
            reply.set_exception(fault)
        while not self._jobs.empty():
            left = self._jobs.get()
            if left is not None:
                left[1].set_exception(fault)


class Forked(WorkerPool):
    """This executor trains in `workers` processes of this machine, each with `threads` torch threads, which are part of
    what decides the bits. The other arguments are those of WorkerPool."""

    def __init__(
        self,
        loader: Loader,
        *,
        workers: int,
        threads: int,
        timeout: float,
        clock: Callable[[], float],
        retries: int = 1,
    ) -> None:
        self._threads = threads
        self._furniture = cloudpickle.dumps((loader, threads, nos_ext.__version__))
        self._home: Nursery | None = None
        self._moving = threading.Lock()
        super().__init__(
            lambda: _Process(self._hatch),
            workers=workers,
            timeout=timeout,
            start_timeout=_START_TIMEOUT,
            retries=retries,
            clock=clock,
        )

    def _hatch(self) -> tuple[int, Connection]:
        """Returns a new worker, from a new nursery where the old one is lost: that is no job's fault."""
        home, new = self._settled()
        try:
            process, socket = home.hatch()
        except nursery.NurseryLostError:
            with self._moving:
                if self._home is home:
                    home.close()
                    self._home = None
            if new:
                raise
            return self._hatch()
        return process, Connection(socket.detach())

    def _settled(self) -> tuple[Nursery, bool]:
        """Returns the nursery, and whether it has just been made."""
        with self._moving:
            if self._home is not None:
                return self._home, False
            if self._books.closed:
                raise WorkerEndedError("the executor is closed")
            self._home = nursery.take(self._threads)
            self._home.furnish(self._furniture)
            return self._home, True

    def close(self) -> None:
        super().close()
        with self._moving:
            if self._home is not None:
                self._home.close()
            self._home = None
