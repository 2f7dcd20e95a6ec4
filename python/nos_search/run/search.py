"""Owns the search loop: it asks for rules, takes them through the gates, has children trained and tells the rewards.
Each step goes through the store.

Rules are asked for in batches, so that the gates (gate/) work on many at once and workers never wait for the
controller. What the gates stop is answered at once: with the reward of the equal rule that was trained, or with 0. A
rule equal to one that is being trained waits for its reward. What is asked and told, and in which order, does not
depend on whether the run was stopped, killed or resumed in between; with one worker the same holds for every bit.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from threadpoolctl import threadpool_limits

from ..errors import SearchError, StoreError
from ..executor import Answer, Executor, Job
from ..gate import Funnel, Verdict
from ..rules import CompiledRule, parse_stored_rule, plain
from ..store import Score, Store, Trial, answered, clean, record_fault
from ..strategy import Strategy
from .climbing import Climb
from .config import RunConfig
from .families import enter_trained, with_families
from .resume import restore, result_of

_MAX_FAILURES = 5  # in a row: then the fault is not the rule's
_CHECKPOINT_EVERY = 64  # answers; to repeat so many at a resume takes a moment
# Answers are committed in groups: a commit costs as much as the rest of the loop.
_GROUP = 64  # answers at most
_GROUP_SECONDS = 0.05  # and so long at most, save while a child trains that takes longer than the one before it


class Listener(Protocol):
    """A listener is told what happens, and must not change anything."""

    def on_start(self, trial: Trial, rung: int) -> None:
        """A trial's child was handed to the executor, or its rule for a higher rung."""

    def on_trial(self, trial: Trial) -> None:
        """A trial was answered and written, and a kill does not lose it any more."""

    def on_promotion(self, trial: Trial, rung: int, score: Score) -> None:
        """A trial's rule was scored on a rung above 0, and that was written."""


class Search:
    """This is a run in progress, which continues what the store holds. `begun` tells whether that has answers, and
    `strangers` counts trials that could not be repeated exactly.

    `clock` gives seconds from any start, for limits and durations; `wall` gives seconds since 1970, for the record.
    """

    def __init__(
        self,
        store: Store,
        config: RunConfig,
        executor: Executor,
        *,
        listeners: Sequence[Listener] = (),
        clock: Callable[[], float] = time.perf_counter,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.store, self.config, self.executor = store, config, executor
        self.listeners, self.clock, self.wall = listeners, clock, wall
        self.space = config.make_space()
        self.strategy: Strategy = config.make_strategy()
        self.funnel = Funnel(self.space, config.make_gates(), alike=config.alike)
        trials = store.trials()
        self.families = enter_trained(self.funnel, trials)  # the family of each trial that was trained
        trials = with_families(store, trials, self.families)
        resumed = restore(store, trials, self.strategy, self.families)
        self.strangers = resumed.strangers
        known = answered(resumed.trials)
        self.begun = bool(known)
        self._open = deque(resumed.waiting)  # asked, not yet through the gates
        self._judged: deque[tuple[Trial, Verdict]] = deque()  # through the gates, not yet answered or made ready
        self._ready: deque[tuple[Trial, CompiledRule]] = deque()  # not yet handed to the executor
        self._trained_since: set[str] = set()  # names of what was trained since the first of `_judged` was judged
        self._ahead = executor.slots > 1
        self._flying: dict[int, Trial] = {}
        self._followers: dict[int, list[Trial]] = {}  # by the equal trial that is ready or flying
        self._leaders: dict[str, int] = {}  # canonical form or fingerprint -> trial that is ready or flying
        self._trained = {trial.id: trial for trial in known if trial.trained}
        self._climb = Climb(store, config, self._trained.values())
        self._promoted: dict[int, tuple[Trial, int]] = {}  # in flight, with the rung
        self._answered = len(known)
        self._best = max((trial.reward or 0.0 for trial in known), default=0.0)
        self._failures = 0
        self._ended: SearchError | None = None  # why the strategy proposes nothing more
        self._tells = True  # until the strategy fails when it is told
        self._checkpointed = resumed.known
        self._unsaid: list[Trial] = []  # answered since the last commit; listeners do not know of them yet
        self._committed = 0.0  # when, by the clock
        self._pace = math.inf  # seconds that the last child took

    # --- the loop --------------------------------------------------------------------------------------------------

    def run(self) -> str:
        """Searches until a limit of the configuration, and returns which: "trials", "children", "seconds" or "target".
        The store is told how the run ended.

        At the end of "seconds" the children that train are finished first, and what waits for a worker is left for
        resume. At the end of "target" all that is in flight is finished. Promotions that were earned are finished, too,
        save at the end of "seconds". KeyboardInterrupt gives up what is in flight, leaves the store
        ready for resume, and goes on to the caller. Raises SearchError when five trainings in a row could not be run,
        or when the strategy failed and all that it had proposed is answered, and StoreError when the store cannot be
        written: what was committed before is there for resume.
        """
        # The strategy's products are small, and a second thread of BLAS would only spin on a core that trains children.
        with threadpool_limits(1, user_api="blas"):
            return self._run()

    def _run(self) -> str:
        start, state = self.clock(), "failed"
        self.store.set_state("running")
        try:
            while True:
                reason = self._limit(self.clock() - start)
                if reason is None:
                    self._fill(start)
                elif reason == "seconds":
                    self._drop()
                else:
                    self._promote(start)
                if self._flying or self._promoted:
                    self._commit_group(ahead=self._pace)
                    for answer in self.executor.wait(self._left(start) if reason is None else math.inf):
                        self._land(answer)
                        self._pace = answer.seconds
                    self._commit_group()
                elif reason is not None:
                    self._commit(checkpoint=True)
                    state = "finished"
                    return reason
                elif self._ended is not None:
                    self._commit()
                    raise self._ended
        except KeyboardInterrupt:
            state = "interrupted"
            raise
        except StoreError:
            state = ""
            raise
        finally:
            self.executor.close()
            self.strategy.close()
            self.store.rollback()
            if state:
                self.store.set_state(state)
                self.store.commit()

    def _limit(self, seconds: float) -> str | None:
        config = self.config
        if config.trials is not None and self._answered >= config.trials:
            return "trials"
        if config.children is not None and len(self._trained) >= config.children:
            return "children"
        if config.seconds is not None and seconds >= config.seconds:
            return "seconds"
        if config.target is not None and self._best >= config.target:
            return "target"
        return None

    def _left(self, start: float) -> float:
        """Returns the seconds until the time is up."""
        seconds = self.config.seconds
        return math.inf if seconds is None else max(0.0, start + seconds - self.clock())

    def _drop(self) -> None:
        """Leaves for resume what was handed over and has not begun: those trials stay asked for and not answered."""
        for number in self.executor.drop():
            (self._flying if number in self._flying else self._promoted).pop(number)

    def _fill(self, start: float) -> None:
        """Gates what is open and hands jobs to the executor, until it is full or no more are wanted.

        While others train, the next rules are asked for and judged, but not answered: so answers come in about the
        order of proposals, and a limit on trials does not fall on those that are answered quickly.
        """
        self._promote(start)
        while self._wanted() and self._limit(self.clock() - start) is None:
            if self._full and not (self._ahead and (self._open or not (self._judged or self._ready))):
                break
            if self._ready and not self._full:
                self._launch(*self._ready.popleft())
            elif self._judged and not self._full:
                self._admit(*self._judged.popleft())
            elif self._open:
                self._judge()
            elif self._ended is None:
                self._ask()
            else:
                break
            self._commit_group()

    def _wanted(self) -> bool:
        """Tells whether the limits leave room for one more answer, should all that are in flight be answered well."""
        trials, children = self.config.trials, self.config.children
        return (trials is None or self._answered + len(self._flying) < trials) and (
            children is None or len(self._trained) + len(self._flying) < children
        )

    def _ask(self) -> None:
        """Asks for a batch. It is always a whole one, so that a run with a higher limit is a longer run, and not
        another. A strategy that fails ends the search when what it has proposed is answered."""
        try:
            candidates = self.strategy.ask(self.config.batch)
        except SearchError as error:
            self._ended = error
            return
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

    @property
    def _full(self) -> bool:
        return len(self._flying) + len(self._promoted) >= self.executor.slots

    def _promote(self, start: float) -> None:
        """Hands over rules that have earned a higher rung. They go before new ones, but for those that would take
        longer than the time that is left, which wait for a resume."""
        while not self._full and (earned := self._climb.next(self._promoted, self._left(start))) is not None:
            trial, rung = earned
            rule = replace(parse_stored_rule(trial.rule, self.store.folder, trial.id), text=trial.rule, key=trial.key)
            self._promoted[trial.id] = earned
            self.executor.submit(Job(trial.id, rule, self._climb.seed(rung), rung))
            for listener in self.listeners:
                listener.on_start(trial, rung)

    def _launch(self, trial: Trial, rule: CompiledRule) -> None:
        self._flying[trial.id] = trial
        self.executor.submit(Job(trial.id, rule, trial.seed))
        for listener in self.listeners:
            listener.on_start(trial, 0)

    # --- gates -----------------------------------------------------------------------------------------------------

    def _judge(self) -> None:
        """Takes what is open through the gates."""
        if not self._judged:
            self._trained_since.clear()
        self._judged.extend(self._verdicts(list(self._open)))
        self._open.clear()

    def _verdicts(self, batch: list[Trial]) -> list[tuple[Trial, Verdict]]:
        started, judged = self.wall(), []
        verdicts = self.funnel.admit([trial.tokens for trial in batch], [trial.id for trial in batch])
        for trial, verdict in zip(batch, verdicts, strict=True):
            text = plain(self.space.text(trial.tokens)) if verdict.rule is None else verdict.rule.text
            trial = replace(trial, rule=text, key=verdict.key, fingerprint=verdict.fingerprint)
            trial = replace(trial, started=started, gates=verdict.gates(), reason=clean(verdict.reason))
            judged.append((trial, verdict))
        return judged

    def _admit(self, trial: Trial, verdict: Verdict) -> None:
        """Answers a trial that the gates stopped, lets it wait for an equal one, or makes it ready."""
        if verdict.status == "rejected":
            return self._answer(replace(trial, status="rejected", reward=0.0))
        news = self._trained_since.intersection(_names(trial))
        if news:  # an equal one was trained after this one was judged
            self._trained_since -= news
            return self._judged.extendleft(self._verdicts([trial]))
        twin = verdict.duplicate_of
        if twin is None:
            twin = next((self._leaders[name] for name in _names(trial) if name in self._leaders), None)
        if twin is None and verdict.rule is not None:
            self._followers[trial.id] = []
            self._leaders.update(dict.fromkeys(_names(trial), trial.id))
            return self._ready.append((trial, verdict.rule))
        if twin in self._followers:
            return self._followers[twin].append(trial)
        first = self._trained.get(-1 if twin is None else twin)
        if first is None:  # equal to one of the same batch that a later gate stopped: so will this one be
            return self._judged.extendleft(self._verdicts([trial]))
        same = replace(trial, key=trial.key or first.key, status="duplicate", reward=first.reward, lr=first.lr)
        return self._answer(replace(same, duplicate_of=first.id))

    # --- answers ---------------------------------------------------------------------------------------------------

    def _land(self, answer: Answer) -> None:
        if answer.number in self._promoted:
            return self._land_promotion(answer)
        trial = self._flying.pop(answer.number)
        trial = replace(trial, seconds=answer.seconds, attempts=answer.attempts, worker=answer.worker)
        # Those who waited for it go through the gates again: as duplicates, or to be trained in its place.
        self._open.extendleft(reversed(self._followers.pop(trial.id)))
        for name in _names(trial):
            self._leaders.pop(name, None)
        outcome, reason = answer.outcome, clean(answer.reason)
        if outcome is not None:
            done = replace(trial, status=outcome.status, reward=outcome.reward, lr=outcome.lr, curve=outcome.curve)
            fault = record_fault(replace(done, told=self._answered))
            if not fault:
                self._failures = 0
                family = self.funnel.record(trial.id, trial.tokens)
                done = self._trained[trial.id] = replace(done, family=family)
                if family is not None:
                    self.families[trial.id] = family
                self._trained_since.update(_names(trial))
                self._answer(done)
                return self._climb.add(done)
            reason = f"the outcome cannot be stored: {fault}"
        self._answer(replace(trial, status="failed", reason=reason))
        return self._fail(reason)

    def _fail(self, reason: str) -> None:
        self._failures += 1
        if self._failures >= _MAX_FAILURES:
            self._commit()
            raise SearchError(f"{_MAX_FAILURES} trainings in a row could not be run; the last said: {reason}")

    def _land_promotion(self, answer: Answer) -> None:
        trial, rung = self._promoted.pop(answer.number)
        score = self._climb.land(trial.id, rung, answer)
        for listener in self.listeners:
            listener.on_promotion(trial, rung, score)
        if answer.outcome is None:
            return self._fail(answer.reason)
        self._failures = 0
        return None

    def _answer(self, trial: Trial) -> None:
        if self._tells:
            try:
                self.strategy.tell([result_of(trial, self.families)])
            except SearchError as error:  # the answer is kept all the same: a resume tells it again
                self._tells, self._ended = False, error
        trial = replace(trial, told=self._answered, metrics=self.strategy.metrics())
        self.store.put(trial)
        self._answered += 1
        self._best = max(self._best, trial.reward or 0.0)
        self._unsaid.append(trial)

    def _commit_group(self, *, ahead: float = 0.0) -> None:
        """Commits when that is due, or will be in `ahead` seconds, for which nothing else is going to happen."""
        if len(self._unsaid) >= _GROUP or self.clock() + ahead - self._committed >= _GROUP_SECONDS:
            self._commit()

    def _commit(self, *, checkpoint: bool = False) -> None:
        """Commits the state of the run, so that resume finds it, and tells the listeners what has come of it."""
        if self._tells and self._answered - self._checkpointed >= (1 if checkpoint else _CHECKPOINT_EVERY):
            self.store.put_checkpoint(self.strategy.state_dict(), told=self._answered)
            self._checkpointed = self._answered
        self.store.commit()
        self._committed = self.clock()
        unsaid, self._unsaid = self._unsaid, []
        for trial in unsaid:
            for listener in self.listeners:
                listener.on_trial(trial)


def _names(trial: Trial) -> list[str]:
    """Returns the keys by which another trial is known to be equal to this one."""
    return [name for name in (trial.key, trial.fingerprint) if name]
