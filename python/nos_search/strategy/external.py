"""Owns the strategy that leaves the proposals to a program of the user's, such as one that asks a language model.

What the program does is its own affair: it may read the clock and never propose the same again. So a run that is
resumed does not ask it again for what it has proposed, and tells a fresh one all that was answered
(docs/howto/external_proposals.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import nos_ext

from ..errors import UsageError
from ..space import SearchSpace, TextSpace, Tokens
from .base import Result, Strategy
from .proposer import Proposer, check_command

PROTOCOL = 1


class ExternalStrategy(Strategy):
    """This asks a program for rules as text, and tells it what became of them. The program is started when it is first
    asked. One that is silent for `timeout` seconds has failed. What it had proposed of a batch before it failed is
    trained."""

    name: ClassVar[str] = "external"
    repeats: ClassVar[bool] = False
    free_options: ClassVar[tuple[str, ...]] = ("timeout",)

    def __init__(self, space: SearchSpace, *, seed: int, timeout: float = 60.0) -> None:
        super().__init__(space, seed=seed)
        if not isinstance(space, TextSpace):
            raise UsageError(f"strategy {self.name!r} proposes text, and space {space.kind!r} has none; use 'text'")
        if not 0 < timeout < math.inf:
            raise UsageError(f"external option timeout {timeout} is not a number of seconds above 0")
        self._texts, self._timeout = space, timeout
        self._command, self._run = "", dict[str, Any]()
        self._proposer: Proposer | None = None
        self._to_tell: list[Result] = []  # until the program is started
        self._faults: dict[int, str] = {}  # of the form of open proposals, by number
        self._bad = 0

    def attach(self, command: str, run: Mapping[str, Any]) -> None:
        """Says what to start, and what to tell it of the run. Raises UsageError for a command that names no program."""
        check_command(command)
        self._command, self._run = command, dict(run)

    def options(self) -> dict[str, Any]:
        return {"timeout": self._timeout}

    def propose(self, n: int) -> Iterable[Tokens]:
        proposer = self._proposer or self._start()
        strings = []
        for number, proposal in enumerate(proposer.ask(n), self.asked):
            if proposal.fault:
                self._faults[number] = proposal.fault
            strings.append(self._texts.spell(proposal.text))
        return strings

    def learn(self, results: Sequence[Result]) -> None:
        for result in results:
            self._bad += result.verdict.get("gate") == "static"  # which lets every rule through
            if self._proposer is None:
                self._to_tell.append(result)
            else:
                self._tell(self._proposer, result)

    def metrics(self) -> dict[str, float]:
        """Returns how many proposals were no rules, as "bad_lines"."""
        return {"bad_lines": float(self._bad)}

    def close(self) -> None:
        if self._proposer is not None:
            self._proposer.close()
            self._proposer = None

    def _start(self) -> Proposer:
        proposer = self._proposer = Proposer(self._command, timeout=self._timeout)
        hello = {
            "protocol": PROTOCOL,
            "nos_ext": nos_ext.__version__,
            "seed": self.seed,
            "next": self.asked,
            "answered": len(self._to_tell),
            **self._run,
            "space": {**self._texts.config(), **self._texts.words()},
        }
        proposer.tell({"hello": hello})
        for result in self._to_tell:
            self._tell(proposer, result)
        self._to_tell = []
        return proposer

    def _tell(self, proposer: Proposer, result: Result) -> None:
        told = {"id": result.id, "rule": self._texts.text(result.tokens), **result.verdict, "reward": result.reward}
        if result.id is not None and (fault := self._faults.pop(result.id, "")):
            told["line"] = fault
        proposer.tell({"told": told})
