"""Owns the supervision of workers in other processes, whatever makes them: it keeps a backlog, tries jobs again, ends
workers that hang, and replaces those that are lost.

Each worker has one process of its own, so that a death or a hang is the fault of one job and costs nothing to the
others. A free worker takes the next job of the backlog in the thread that brought its last answer: it does not wait for
the search loop, which may be busy with the controller or the gates.
"""

from __future__ import annotations

import concurrent.futures
import math
import queue
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from .base import Answer, Executor, Job
from .worker import Payload, Reply

_LOOK = 1.0  # seconds between looks at the clock, which need not go as fast as the queue's waits


class Handle(ABC):
    """A handle is a worker as the search sees it. `ready` gives its name once it has started and loaded its data."""

    ready: Future[str]

    @abstractmethod
    def submit(self, payload: Payload) -> Future[Reply]:
        """Hands a job over. An exception, here or in the future, means that the worker is lost."""

    @abstractmethod
    def kill(self) -> None:
        """Ends the worker at once, whatever it does. It may be called on a dead one."""


@dataclass
class _HeldJob:
    """A job that was submitted and is not answered yet. It was begun `attempts` times."""

    job: Job
    attempts: int = 0


@dataclass
class _Seat:
    """A seat holds a worker, which was made at the time `made`, and the job that it has. `since` is when the job began,
    or None while the worker still starts."""

    handle: Handle
    made: float
    held: _HeldJob | None = None
    since: float | None = None


@dataclass(frozen=True)
class _Event:
    """A worker answered a job by `reply`, or `fault` says how it was lost. `handle` is the worker that sat on the seat
    then."""

    seat: _Seat
    handle: Handle
    held: _HeldJob
    reply: Future[Reply] | None
    fault: str = ""


@dataclass
class _Books:
    """The threads of the callbacks and the search share these, under one lock."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    backlog: deque[_HeldJob] = field(default_factory=deque)
    closed: bool = False


class WorkerPool(Executor):
    """This executor has `workers` workers, each started by `make`. A worker that has not started within `start_timeout`
    seconds, or not answered within `timeout`, is taken for hung.

    A job whose worker was lost or hung is begun again up to `retries` times. `clock` gives seconds from any start.
    """

    def __init__(
        self,
        make: Callable[[], Handle],
        *,
        workers: int,
        timeout: float,
        start_timeout: float,
        retries: int,
        clock: Callable[[], float],
    ) -> None:
        self.slots = 2 * workers
        self._make, self._timeout, self._start_timeout = make, timeout, start_timeout
        self._retries, self._clock = retries, clock
        self._held = 0
        self._books = _Books()
        self._events: queue.SimpleQueue[_Event | None] = queue.SimpleQueue()
        self._seats = [self._seat() for _ in range(workers)]

    # --- the contract ----------------------------------------------------------------------------------------------

    def submit(self, job: Job) -> None:
        if self._books.closed or self._held >= self.slots:
            raise RuntimeError(f"job {job.number}: the executor is closed, or all {self.slots} slots are taken")
        self._held += 1
        with self._books.lock:
            self._books.backlog.append(_HeldJob(job))
            self._dispatch()

    def wait(self, seconds: float = math.inf) -> list[Answer]:
        if self._held == 0:
            raise RuntimeError("wait: no job is held")
        answers: list[Answer] = []
        now = self._clock()
        end = now + seconds
        while not answers:
            try:
                answers += self._settle(self._events.get(timeout=min(self._patience(), max(0.0, end - now))))
                while not self._events.empty():
                    answers += self._settle(self._events.get())
            except queue.Empty:
                for event in self._overdue():
                    answers += self._settle(event)
            now = self._clock()
            if now >= end:
                break
        self._held -= len(answers)
        return answers

    def drop(self) -> list[int]:
        with self._books.lock:
            dropped = [held.job.number for held in self._books.backlog if held.attempts == 0]
            self._books.backlog = deque(held for held in self._books.backlog if held.attempts > 0)
        self._held -= len(dropped)
        return dropped

    def warm_up(self) -> None:
        concurrent.futures.wait([seat.handle.ready for seat in self._seats], timeout=self._start_timeout)

    def close(self) -> None:
        with self._books.lock:
            self._books.closed = True
            self._books.backlog.clear()
        for seat in self._seats:
            seat.handle.kill()
        self._held = 0

    # --- dispatch, in any thread -----------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        """Gives free workers the next jobs. The caller holds the lock."""
        for seat in self._seats:
            if seat.held is None and self._books.backlog and not self._books.closed:
                self._give(seat, self._books.backlog.popleft())

    def _give(self, seat: _Seat, held: _HeldJob) -> None:
        handle = seat.handle
        seat.held, held.attempts = held, held.attempts + 1
        seat.since = self._clock() if handle.ready.done() else None
        try:
            reply = handle.submit(Payload.of(held.job))
        except Exception as error:  # the worker died while it had nothing to do
            self._events.put(_Event(seat, handle, held, None, f"worker lost: {_said(error)}"))
            return
        reply.add_done_callback(lambda reply: self._done(_Event(seat, handle, held, reply)))

    def _done(self, event: _Event) -> None:
        """Takes an answer, in the thread that brought it."""
        reply = event.reply
        with self._books.lock:
            if self._books.closed:
                return
            self._events.put(event)
            if reply is not None and reply.exception() is None and event.seat.handle is event.handle:
                event.seat.held = None
                self._dispatch()

    # --- lost workers, in the search's thread ----------------------------------------------------------------------

    def _settle(self, event: _Event | None) -> list[Answer]:
        """Returns the answer that an event brings, or none if the job is tried again or was given up before."""
        if event is None:
            return []
        seat, held, reply = event.seat, event.held, event.reply
        with self._books.lock:  # against an answer that comes while its job is given up
            if seat.handle is not event.handle:
                return []  # the worker was replaced, so its job has been settled already
            if reply is not None and reply.exception() is None:
                result = reply.result()
                worker = event.handle.ready.result() if event.handle.ready.done() else ""
                return [Answer(held.job.number, result.outcome, result.reason, result.seconds, held.attempts, worker)]
            if seat.held is not held:
                return []  # it was answered since it was found overdue
            fault = event.fault or f"worker lost: {_said(reply.exception() if reply else None)}"
            began = seat.since
            self._replace(seat)
            answers = []
            if held.attempts <= self._retries:
                self._books.backlog.appendleft(held)
            else:
                seconds = 0.0 if began is None else self._clock() - began
                times = f" ({held.attempts} times)" if held.attempts > 1 else ""
                answers = [Answer(held.job.number, None, fault + times, seconds, held.attempts)]
            self._dispatch()
        event.handle.kill()
        return answers

    def _seat(self) -> _Seat:
        seat = _Seat(self._make(), self._clock())
        self._watch(seat)
        return seat

    def _replace(self, seat: _Seat) -> None:
        seat.handle, seat.made, seat.held, seat.since = self._make(), self._clock(), None, None
        self._watch(seat)

    def _watch(self, seat: _Seat) -> None:
        handle = seat.handle

        def started(_: Future[str]) -> None:
            with self._books.lock:
                if seat.handle is handle and seat.since is None:  # otherwise its time began when it got the job
                    seat.since = self._clock()
                    self._events.put(None)  # wakes the search, whose next deadline may be another one now

        handle.ready.add_done_callback(started)

    def _deadline(self, seat: _Seat) -> float:
        return seat.made + self._start_timeout if seat.since is None else seat.since + self._timeout

    def _patience(self) -> float:
        """Returns the seconds until the first time-out, or until it is time to look at the clock again."""
        with self._books.lock:
            deadlines = [self._deadline(seat) for seat in self._seats if seat.held is not None]
        return min(max(0.0, min(deadlines) - self._clock()), _LOOK) if deadlines else _LOOK

    def _overdue(self) -> list[_Event]:
        now = self._clock()
        with self._books.lock:
            return [
                _Event(seat, seat.handle, seat.held, None, self._complaint(seat))
                for seat in self._seats
                if seat.held is not None and self._deadline(seat) <= now
            ]

    def _complaint(self, seat: _Seat) -> str:
        if seat.since is None:
            return f"no worker could be started within {self._start_timeout:g} s"
        return f"worker hung: no answer within {self._timeout:g} s (--trial-timeout)"


def _said(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}".rstrip(": ")
