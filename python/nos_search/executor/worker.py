"""Owns what happens in a process that trains: data are loaded once, jobs are scored, and errors become reasons."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import torch

import nos_ext

from ..rules import CompiledRule, compile_rule
from ..train.child import Outcome
from .base import Job, Loader, Scorer

_ORPHAN_CHECK = 1.0  # seconds


class Payload(NamedTuple):
    """This is a job as it travels. The verified program goes as bytes, not as source, so that nothing is compiled
    again. Only a rule with orthogonalize, which has no bytes, is compiled from its text."""

    text: str
    key: str
    program: bytes
    seed: int
    rung: int

    @classmethod
    def of(cls, job: Job) -> Payload:
        matrices = isinstance(job.rule.program, nos_ext.MatrixProgram)
        return cls(job.rule.text, job.rule.key, b"" if matrices else job.rule.program.bytecode, job.seed, job.rung)

    def rule(self) -> CompiledRule:
        if not self.program:
            return compile_rule(self.text, matrices=True)
        return CompiledRule(self.text, nos_ext.Program.from_bytes(self.program), self.key)


class Reply(NamedTuple):
    """A reply has an outcome, or None and the reason, and the seconds that it took."""

    outcome: Outcome | None
    reason: str
    seconds: float


def attempt(scorer: Scorer, rule: CompiledRule, seed: int, rung: int, clock: Callable[[], float]) -> Reply:
    """Scores a rule. Any error of the scorer becomes a reason, because one bad rule must not end a long search."""
    start = clock()
    try:
        return Reply(scorer(rule, seed, rung), "", clock() - start)
    except Exception as error:
        return Reply(None, f"{type(error).__name__}: {error}", clock() - start)


class Worker:
    """This is the part of a worker that lives in its process. `version` is that of nos_ext in the searching process."""

    def __init__(self, loader: Loader, threads: int, version: str) -> None:
        torch.set_num_threads(threads)
        self._scorer: Scorer | None = None
        self._fault = ""
        if version != nos_ext.__version__:
            self._fault = f"worker {self.name()} has nos_ext {nos_ext.__version__}, the search has {version}"
            return
        try:
            self._scorer = loader()
        except Exception as error:
            self._fault = f"worker {self.name()} cannot load its data: {type(error).__name__}: {error}"

    def name(self) -> str:
        return f"{socket.gethostname()}:{os.getpid()}"

    def run(self, payload: Payload) -> Reply:
        if self._scorer is None:
            return Reply(None, self._fault, 0.0)
        return attempt(self._scorer, payload.rule(), payload.seed, payload.rung, time.perf_counter)


# --- the functions that a local process runs --------------------------------------------------------------------------

_worker: Worker | None = None


def start(loader: Loader, threads: int, version: str, parent: int) -> None:
    """Makes this process a worker of the process `parent`."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the search decides what to do
    threading.Thread(target=leave_with, args=(parent,), daemon=True).start()
    _worker = Worker(loader, threads, version)


def leave_with(parent: int) -> None:
    """Ends this process when its parent is gone: a search that was killed outright cannot stop its workers."""
    while os.getppid() == parent:
        time.sleep(_ORPHAN_CHECK)
    os._exit(1)


def name() -> str:
    assert _worker is not None
    return _worker.name()


def run(payload: Payload) -> Reply:
    assert _worker is not None
    return _worker.run(payload)
