"""The supervision of workers, with workers that are this test's own: no process, no waiting, no clock but the test's."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

import pytest

from nos_search.executor.base import Job
from nos_search.executor.pool import Handle, WorkerPool
from nos_search.executor.worker import Payload, Reply
from nos_search.rules import compile_rule
from nos_search.testing.executor import RULE, TIMEOUT, Clock, trained

START_TIMEOUT = 5 * TIMEOUT


class Hand(Handle):
    """A worker that does what the test tells it to."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ready: Future[str] = Future()
        self.given: list[tuple[Payload, Future[Reply]]] = []
        self.killed = False
        self.on_job: Callable[[], None] = lambda: None

    def submit(self, payload: Payload) -> Future[Reply]:
        self.on_job()
        self.given.append((payload, Future()))
        return self.given[-1][1]

    def kill(self) -> None:
        self.killed = True

    def answer(self) -> None:
        payload, future = self.given[-1]
        future.set_result(Reply(trained(compile_rule(RULE), payload.seed), "", 0.5))


class Crew:
    """A pool of one such worker, and all workers that it has had. hang: those that replace the first hang at once."""

    def __init__(self, retries: int, *, hang: bool = False) -> None:
        self.hang = hang
        self.clock, self.hands = Clock(), list[Hand]()
        self.pool = WorkerPool(
            self._make, workers=1, timeout=TIMEOUT, start_timeout=START_TIMEOUT, retries=retries, clock=self.clock
        )
        self.pool.submit(Job(1, compile_rule(RULE), 7))

    def _make(self) -> Hand:
        hand = Hand(f"hand {len(self.hands)}")
        if self.hang and self.hands:
            hand.ready.set_result(hand.name)
            hand.on_job = self.clock.pass_timeout
        self.hands.append(hand)
        return hand


def test_a_worker_that_starts_has_more_time_than_a_trial() -> None:
    c = Crew(0)
    for _ in range(4):
        c.clock.pass_timeout()
    assert not c.pool._overdue()
    c.clock.pass_timeout()
    (answer,) = c.pool.wait()
    assert answer.reason == f"no worker could be started within {START_TIMEOUT:g} s"
    assert c.hands[0].killed
    assert len(c.hands) == 2


def test_a_trial_has_its_time_from_when_its_worker_had_started() -> None:
    c = Crew(0)
    c.clock.pass_timeout()
    c.hands[0].ready.set_result("hand 0")
    assert not c.pool._overdue()
    c.hands[0].answer()
    (answer,) = c.pool.wait()
    assert (answer.attempts, answer.worker, answer.seconds) == (1, "hand 0", 0.5)


def test_hung_twice() -> None:
    c = Crew(1, hang=True)
    c.hands[0].ready.set_result("hand 0")
    c.clock.pass_timeout()
    (answer,) = c.pool.wait()
    assert answer.reason == f"worker hung: no answer within {TIMEOUT:g} s (--trial-timeout) (2 times)"
    assert answer.attempts == 2
    assert all(hand.killed for hand in c.hands[:2])


def test_the_late_answer_of_a_replaced_worker_is_not_counted() -> None:
    c = Crew(1)
    c.hands[0].ready.set_result("hand 0")
    c.clock.pass_timeout()
    for event in c.pool._overdue():
        assert not c.pool._settle(event)
    first, second = c.hands
    first.given[-1][1].set_exception(RuntimeError("killed"))
    second.ready.set_result("hand 1")
    second.answer()
    (answer,) = c.pool.wait()
    assert (answer.attempts, answer.worker) == (2, "hand 1")
    with pytest.raises(RuntimeError, match="no job is held"):
        c.pool.wait()


def test_an_answer_that_comes_while_its_job_is_given_up_counts() -> None:
    """By then the worker has the next job, which it goes on with."""
    c = Crew(1)
    c.pool.submit(Job(2, compile_rule(RULE), 8))
    (hand,) = c.hands
    hand.ready.set_result(hand.name)
    c.clock.pass_timeout()
    (overdue,) = c.pool._overdue()
    hand.answer()
    assert c.pool._settle(overdue) == []
    assert not hand.killed
    (first,) = c.pool.wait()
    hand.answer()
    (second,) = c.pool.wait()
    assert [(each.number, each.attempts, each.worker) for each in (first, second)] == [
        (1, 1, "hand 0"),
        (2, 1, "hand 0"),
    ]


def test_an_answer_of_a_worker_that_was_replaced_is_not_counted_twice() -> None:
    c = Crew(1)
    c.hands[0].ready.set_result("hand 0")
    c.clock.pass_timeout()
    for event in c.pool._overdue():
        c.pool._settle(event)
    c.hands[0].answer()  # too late: the job was given to another
    c.hands[1].ready.set_result("hand 1")
    c.hands[1].answer()
    (answer,) = c.pool.wait()
    assert (answer.attempts, answer.worker) == (2, "hand 1")
    with pytest.raises(RuntimeError, match="no job is held"):
        c.pool.wait()
