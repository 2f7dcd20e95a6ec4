"""Owns the search loop: ask, gates, child, tell, each step through the store.

Rules are asked for in batches, so that the gates work on many at once and workers never wait for the controller. Gates
before training, cheapest first, each counted: the string has no live gradient operand; its canonical form was answered
before (that reward is reused, nothing is trained) or is being trained now (the answer is awaited); the gradient has no
effect on a probe, or the probe is not finite.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import nos_ext

from .config import RunConfig
from .errors import SearchError
from .executor import Answer, Executor, Job
from .resume import restore, result_of
from .rules import Rule, compile_rule, probe_fault
from .store import Store, Trial
from .strategy import Strategy

_MAX_FAILURES = 5  # in a row: then the fault is not the rule's
_CHECKPOINT_EVERY = 64  # answers; to repeat so many at a resume takes about a second


class Listener(Protocol):
    """Is told what happens; must not change anything."""

    def on_start(self, trial: Trial) -> None:
        """A trial's child was handed to the executor."""

    def on_trial(self, trial: Trial) -> None:
        """A trial was answered and written."""


class Search:
    """A run in progress. Continues what the store holds; `strangers` counts trials that could not be repeated exactly.

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
        resumed = restore(store, self.strategy)
        self.strangers = resumed.strangers
        answered = [trial for trial in resumed.trials if trial.told is not None]
        self._open = deque(resumed.waiting)  # asked, not yet through the gates
        self._ready: deque[tuple[Trial, Rule]] = deque()  # through the gates, not yet handed to the executor
        self._flying: dict[int, Trial] = {}
        self._followers: dict[str, list[Trial]] = {}  # by canonical form that is ready or flying
        # Canonical form -> the first trial that was trained with it.
        self._seen = {trial.key: trial for trial in reversed(answered) if trial.status in ("done", "diverged")}
        self._answered = len(answered)
        self._trained = sum(trial.status in ("done", "diverged") for trial in answered)
        self._best = max((trial.reward or 0.0 for trial in answered), default=0.0)
        self._failures = 0
        self._checkpointed = self._answered

    # --- the loop --------------------------------------------------------------------------------------------------

    def run(self) -> str:
        """Searches until a limit of the configuration; returns which: "trials", "children", "seconds" or "target".

        Trials in flight at the end of "seconds" and "target" are finished first. KeyboardInterrupt gives them up,
        leaves the store ready for resume, and goes on to the caller. SearchError when five trials in a row could not
        be run.
        """
        start = self.clock()
        try:
            while True:
                reason = self._limit(self.clock() - start)
                if reason is None:
                    self._fill(start)
                if self._flying:
                    for answer in self.executor.wait():
                        self._land(answer)
                    self._commit()
                elif reason is not None:
                    self._commit(checkpoint=True)
                    return reason
        finally:
            self.executor.close()
            self.store.rollback()

    def _limit(self, seconds: float) -> str | None:
        config = self.config
        if config.trials is not None and self._answered >= config.trials:
            return "trials"
        if config.children is not None and self._trained >= config.children:
            return "children"
        if config.seconds is not None and seconds >= config.seconds:
            return "seconds"
        if config.target is not None and self._best >= config.target:
            return "target"
        return None

    def _fill(self, start: float) -> None:
        """Gates what is open and hands jobs to the executor, until it is full or no more are wanted."""
        while self._wanted() and self._limit(self.clock() - start) is None:
            if self._open:
                self._gate(self._open.popleft())
            elif len(self._flying) >= self.executor.slots:
                break
            elif self._ready:
                self._launch(*self._ready.popleft())
            else:
                self._ask()
        self._commit()

    def _wanted(self) -> bool:
        """Whether the limits leave room for one more answer, should all that are in flight be answered well."""
        trials, children = self.config.trials, self.config.children
        return (trials is None or self._answered + len(self._flying) < trials) and (
            children is None or self._trained + len(self._flying) < children
        )

    def _ask(self) -> None:
        """Asks for a batch. Always a whole one, so that a run with a higher limit is a longer run, not another."""
        candidates = self.strategy.ask(self.config.batch)
        for candidate in candidates:
            trial = Trial(
                candidate.id,
                candidate.tokens,
                rule="",
                key="",
                seed=self.config.child_seed,
                batch=candidates[0].id,
                asked=self._answered,
            )
            self._open.append(trial)
            self.store.put(trial)

    def _launch(self, trial: Trial, rule: Rule) -> None:
        self._flying[trial.id] = trial
        self.store.put(trial)
        self.executor.submit(Job(trial.id, rule, trial.seed))
        if self.listener is not None:
            self.listener.on_start(trial)

    # --- gates -----------------------------------------------------------------------------------------------------

    def _gate(self, trial: Trial) -> None:
        """Makes a trial ready, lets it wait for an equal one that is, or answers it at once."""
        trial, rule = self.judge(replace(trial, started=self.wall()))
        if trial.status != "running" or rule is None:
            self._answer(trial)
        elif rule.key in self._followers:
            self._followers[rule.key].append(trial)
        else:
            self._followers[rule.key] = []
            self._ready.append((trial, rule))

    def judge(self, trial: Trial) -> tuple[Trial, Rule | None]:
        """Takes a trial through the gates; it keeps the status "running" if it passes all of them."""
        trial = replace(trial, rule=self.space.text(trial.tokens))
        try:
            rule = compile_rule(trial.rule)
        except nos_ext.RuleError as error:
            return replace(trial, status="rejected", reward=0.0, reason=f"not a rule: {error}"), None
        trial = replace(trial, key=rule.key)
        if not self.space.uses_gradient(trial.tokens):
            return replace(trial, status="rejected", reward=0.0, reason="no gradient"), rule
        first = self._seen.get(rule.key)
        if first is not None:
            trial = replace(trial, status="duplicate", duplicate_of=first.id)
            return replace(trial, reward=first.reward, lr=first.lr), rule
        fault = None if rule.key in self._followers else probe_fault(rule, seed=0)
        return (trial if fault is None else replace(trial, status="rejected", reward=0.0, reason=fault)), rule

    # --- answers ---------------------------------------------------------------------------------------------------

    def _land(self, answer: Answer) -> None:
        trial = self._flying.pop(answer.number)
        trial = replace(trial, seconds=answer.seconds, attempts=answer.attempts, worker=answer.worker)
        # Those who waited for it go through the gates again: as duplicates, or to be trained in its place.
        self._open.extendleft(reversed(self._followers.pop(trial.key)))
        outcome = answer.outcome
        if outcome is not None:
            self._failures = 0
            self._trained += 1
            trial = replace(trial, status=outcome.status, reward=outcome.reward, lr=outcome.lr, curve=outcome.curve)
            self._seen[trial.key] = trial
            return self._answer(trial)
        self._answer(replace(trial, status="failed", reason=answer.reason))
        self._failures += 1
        if self._failures >= _MAX_FAILURES:
            self._commit()
            raise SearchError(f"{_MAX_FAILURES} trials in a row could not be run; the last said: {answer.reason}")
        return None

    def _answer(self, trial: Trial) -> None:
        self.strategy.tell([result_of(trial)])
        trial = replace(trial, told=self._answered, metrics=self.strategy.metrics())
        self.store.put(trial)
        self._answered += 1
        self._best = max(self._best, trial.reward or 0.0)
        if self.listener is not None:
            self.listener.on_trial(trial)

    def _commit(self, *, checkpoint: bool = False) -> None:
        """Makes the state of the run last. Between two commits there is no wait, so a crash loses little work."""
        if self._answered - self._checkpointed >= (1 if checkpoint else _CHECKPOINT_EVERY):
            self.store.put_checkpoint(self.strategy.state_dict(), told=self._answered)
            self._checkpointed = self._answered
        self.store.commit()
