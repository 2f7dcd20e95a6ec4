"""Owns the search loop: ask, gates, child, tell, each step through the store.

What the gates (gate/) stop is answered at once: with the reward of the equal rule that was trained, or with 0.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from .config import RunConfig
from .errors import SearchError
from .executor import Answer, Executor, Job
from .gate import Funnel
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
        self._trained = {trial.id: trial for trial in trials if trial.status in ("done", "diverged")}
        self.funnel = Funnel(self.space, config.make_gates())
        self.funnel.restore([(trial.id, trial.tokens) for trial in self._trained.values()])
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
        started = self.wall()
        (verdict,) = self.funnel.admit([candidate.tokens], [candidate.id])
        rule = verdict.rule
        text = rule.text if rule is not None else self.space.text(candidate.tokens)
        trial = Trial(
            candidate.id, candidate.tokens, text, key=verdict.key, seed=self.config.child_seed, started=started
        )
        trial = replace(trial, reason=verdict.reason, metrics=verdict.metrics())
        if verdict.status == "duplicate":
            first = self._trained[verdict.duplicate_of or 0]
            return self._answer(
                replace(
                    trial, key=first.key, status="duplicate", reward=first.reward, lr=first.lr, duplicate_of=first.id
                )
            )
        if rule is None:
            return self._answer(replace(trial, status="rejected", reward=0.0))
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
        self._trained[trial.id] = trial
        self.funnel.record(trial.id, trial.tokens)

    def _answer(self, trial: Trial) -> None:
        self.strategy.tell([Result(trial.tokens, trial.reward, trial.id, duplicate=trial.status == "duplicate")])
        trial = replace(trial, metrics={**trial.metrics, **self.strategy.metrics()})
        self.store.finish(trial, self.strategy.state_dict())
        self._answered += 1
        self._best = max(self._best, trial.reward or 0.0)
        if self.listener is not None:
            self.listener.on_trial(trial)
