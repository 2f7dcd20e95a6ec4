"""Owns the search loop: ask, gates, child, tell, each step through the store.

Gates before training, cheapest first, each counted: the string has no live gradient operand; its canonical form was
answered before (that reward is reused, nothing is trained); the gradient has no effect on a probe, or the probe is
not finite.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import nos_ext

from .config import RunConfig
from .errors import SearchError
from .executor import Answer, Executor, Job
from .rules import compile_rule, probe_fault
from .store import Store, Trial
from .strategy import Candidate, Result, Strategy

_MAX_FAILURES = 5  # in a row: then the fault is not the rule's


class Listener(Protocol):
    """Is told what happens; must not change anything."""

    def on_trial(self, trial: Trial) -> None:
        """A trial was answered and written."""


class Search:
    """A run in progress. Continues what the store holds.

    clock: seconds from any start, for limits and durations. wall: seconds since 1970, for the record.
    """

    def __init__(
        self,
        store: Store,
        config: RunConfig,
        executor: Executor,
        *,
        listener: Listener | None = None,
        clock: Callable[[], float] = time.perf_counter,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.store, self.config, self.executor = store, config, executor
        self.listener, self.clock, self.wall = listener, clock, wall
        self.space = config.make_space()
        self.strategy: Strategy = config.make_strategy()
        state = store.checkpoint()
        if state is not None:
            self.strategy.load_state_dict(state)
        store.drop_running()
        self._again = self.strategy.open  # asked before the checkpoint, never answered
        self._flying: dict[int, Trial] = {}
        trials = store.trials()
        self._answered = len(trials)
        # Canonical form -> the first trial that was trained (or failed to be) with it.
        self._seen = {trial.key: trial for trial in reversed(trials) if trial.status in ("done", "diverged")}
        self._best = max((trial.reward or 0.0 for trial in trials), default=0.0)
        self._failures = 0

    def run(self) -> str:
        """Searches until a limit of the configuration; returns which: "trials", "seconds" or "target".

        KeyboardInterrupt gives up the trials in flight, leaves the store ready for resume, and goes on to the caller.
        SearchError when five trials in a row could not be run.
        """
        start = self.clock()
        try:
            while (reason := self._limit(self.clock() - start)) is None:
                while len(self._flying) < self.executor.slots and self._wanted():
                    self._launch(self._again.pop(0) if self._again else self.strategy.ask(1)[0])
                    if self._limit(self.clock() - start):
                        break
                if self._flying:
                    for answer in self.executor.wait():
                        self._land(answer)
            return reason
        finally:
            self.executor.close()
            self.store.drop_running()

    def _limit(self, seconds: float) -> str | None:
        config = self.config
        if config.trials is not None and self._answered >= config.trials:
            return "trials"
        if config.seconds is not None and seconds >= config.seconds:
            return "seconds"
        if config.target is not None and self._best >= config.target:
            return "target"
        return None

    def _wanted(self) -> bool:
        return self.config.trials is None or self._answered + len(self._flying) < self.config.trials

    def _launch(self, candidate: Candidate) -> None:
        """Takes a candidate through the gates; trains it, or answers it at once."""
        text = self.space.text(candidate.tokens)
        trial = Trial(candidate.id, candidate.tokens, text, key="", seed=self.config.child_seed, started=self.wall())
        try:
            rule = compile_rule(text)
        except nos_ext.RuleError as error:
            return self._answer(replace(trial, status="rejected", reward=0.0, reason=f"not a rule: {error}"))
        trial = replace(trial, key=rule.key)
        if not self.space.uses_gradient(candidate.tokens):
            return self._answer(replace(trial, status="rejected", reward=0.0, reason="no gradient"))
        first = self._seen.get(rule.key)
        if first is not None:
            return self._answer(
                replace(trial, status="duplicate", reward=first.reward, lr=first.lr, duplicate_of=first.id)
            )
        fault = probe_fault(rule, seed=0)
        if fault is not None:
            return self._answer(replace(trial, status="rejected", reward=0.0, reason=fault))
        self.store.begin(trial)
        self._flying[trial.id] = trial
        self.executor.submit(Job(trial.id, rule, trial.seed))
        return None

    def _land(self, answer: Answer) -> None:
        trial = replace(self._flying.pop(answer.number), seconds=answer.seconds)
        outcome = answer.outcome
        if outcome is None:
            self._answer(replace(trial, status="failed", reason=answer.reason))
            self._failures += 1
            if self._failures >= _MAX_FAILURES:
                raise SearchError(f"{_MAX_FAILURES} trials in a row could not be run; the last said: {answer.reason}")
            return
        self._failures = 0
        trial = replace(trial, status=outcome.status, reward=outcome.reward, lr=outcome.lr, curve=outcome.curve)
        self._answer(trial)
        self._seen[trial.key] = trial

    def _answer(self, trial: Trial) -> None:
        self.strategy.tell([Result(trial.tokens, trial.reward, trial.id, duplicate=trial.status == "duplicate")])
        trial = replace(trial, metrics=self.strategy.metrics())
        self.store.finish(trial, self.strategy.state_dict())
        self._answered += 1
        self._best = max(self._best, trial.reward or 0.0)
        if self.listener is not None:
            self.listener.on_trial(trial)
