"""Who goes up a ladder: ranks over tasks, and one rule in eta, whatever the order in which rules come."""

from __future__ import annotations

import random

import numpy as np
import pytest
from scipy.stats import rankdata

from nos_search.prove.defaults import FULL, SHORT
from nos_search.prove.families import SEARCHED
from nos_search.run.climbing import Reached, climbs, order
from nos_search.store import Score
from nos_search.task import TASKS
from nos_search.train.default_ladder import TRANSFER, default_ladder
from nos_search.train.ladder import Ladder, mean_ranks


def ranked(scores: list[list[float]]) -> list[float]:
    """Mean ranks by SciPy, of scores that all have the same tasks."""
    return list(np.mean([rankdata([-row[k] for row in scores]) for k in range(len(scores[0]))], axis=0))


def drawn(count: int, tasks: int, seed: int) -> list[list[float]]:
    """Scores with ties, and some that are 0."""
    rng = random.Random(seed)
    return [[max(0, rng.randrange(-3, 12)) / 16 for _ in range(tasks)] for _ in range(count)]


@pytest.mark.parametrize("tasks", [1, 2, 5])
def test_mean_ranks(tasks: int) -> None:
    for seed in range(20):
        scores = drawn(1 + seed, tasks, seed)
        assert mean_ranks(scores) == pytest.approx(ranked(scores))
    assert mean_ranks([]) == []
    assert mean_ranks([[0.9, 0.1], [0.5, 0.5], [0.1]]) == [1.5, 1.5, 3.0]  # what is missing is 0
    assert mean_ranks([[], []]) == [1.5, 1.5]


def test_ranks_are_not_decided_by_the_task_with_the_largest_spread() -> None:
    """By the sum of scores the first rule would win, for one task of three."""
    scores = [[0.90, 0.300, 0.200], [0.50, 0.310, 0.210], [0.40, 0.305, 0.205]]
    assert min(range(3), key=lambda k: mean_ranks(scores)[k]) == 1


def replayed(arrivals: list[tuple[int, list[float]]], eta: int) -> list[int]:
    """Who goes up from a rung, by the sentence of the module: each time that eta more were scored the best that has not
    gone goes up, of equals the one with the larger sum and then the first."""
    gone: list[int] = []
    for n in range(eta, len(arrivals) + 1, eta):
        here = arrivals[:n]
        ranks = ranked([scores for _, scores in here])
        left = [
            (ranks[k], -sum(scores), k) for k, (key, scores) in enumerate(here) if key not in gone and sum(scores) > 0
        ]
        if left:
            gone.append(here[min(left)[2]][0])
    return gone


@pytest.mark.parametrize("tasks", [1, 3])
@pytest.mark.parametrize("eta", [2, 5])
def test_one_in_eta_goes_up(tasks: int, eta: int) -> None:
    for seed in range(10):
        arrivals = [(key, scores) for key, scores in enumerate(drawn(60, tasks, seed))]
        ladder: Ladder[int] = Ladder(2, eta)
        for key, scores in arrivals:
            ladder.score(key, 0, scores)
        want = replayed(arrivals, eta)
        assert list(ladder.due()) == [(key, 1) for key in want]
        assert len(want) == 60 // eta or eta == 2  # half of them, but a third scores 0
        for key in want[:3]:
            ladder.score(key, 1, [0.5])
        assert list(ladder.due()) == [(key, 1) for key in want[3:]]


def test_the_highest_rung_comes_first_and_who_has_waited_longest() -> None:
    ladder: Ladder[str] = Ladder(3, 2)
    for key, score in (("a", 0.5), ("b", 0.6), ("c", 0.9), ("d", 0.1)):
        ladder.score(key, 0, [score])
    assert list(ladder.due()) == [("b", 1), ("c", 1)]
    ladder.score("c", 1, [0.25, 0.5])
    assert list(ladder.due()) == [("b", 1)]  # the best half of one is nobody
    ladder.score("b", 1, [0.5, 0.25])
    for key, score in (("e", 0.7), ("f", 0.0)):
        ladder.score(key, 0, [score])
    assert list(ladder.due()) == [("c", 2), ("e", 1)]  # equal ranks and sums, and c came first
    ladder.score("c", 2, [0.1])
    assert list(ladder.due()) == [("e", 1)]  # nothing lies above the top


def test_zero_earns_nothing() -> None:
    ladder: Ladder[int] = Ladder(2, 2)
    for key in range(6):
        ladder.score(key, 0, [0.0])
    assert list(ladder.due()) == []
    ladder.score(6, 0, [0.4])
    ladder.score(7, 0, [0.0])
    assert list(ladder.due()) == [(6, 1)]


def test_when_a_rung_is_scored_does_not_matter() -> None:
    """Who goes up follows from the scores of the rung alone: a run that is resumed hears of those of all rungs one
    after the other, and not as they came."""
    rng = random.Random(3)
    scores = [rng.random() for _ in range(300)]
    live: Ladder[int] = Ladder(3, 4)
    landed: list[tuple[int, int, list[float]]] = []
    waiting: list[tuple[int, int]] = []
    for key, score in enumerate(scores):
        live.score(key, 0, [score])
        waiting = list(live.due())
        if waiting and rng.random() < 0.4:
            number, rung = rng.choice(waiting)
            landed.append((number, rung, [rng.random(), rng.random()]))
            live.score(*landed[-1])
    resumed: Ladder[int] = Ladder(3, 4)
    for key, score in enumerate(scores):
        resumed.score(key, 0, [score])
    for entry in landed:
        resumed.score(*entry)
    assert list(resumed.due()) == list(live.due())
    assert {rung for _, rung, _ in landed} == {1, 2}


def test_what_an_older_release_promoted_does_not_go_up_again() -> None:
    """It let everything up that was among the best of the moment, so more than one in eta."""
    ladder: Ladder[str] = Ladder(2, 2)
    for key, score in (("a", 0.5), ("b", 0.6), ("c", 0.9)):
        ladder.score(key, 0, [score])
    ladder.score("b", 1, [0.5])
    ladder.score("c", 1, [0.5])
    ladder.score("d", 0, [0.1])
    assert list(ladder.due()) == [("a", 1)]


def promotion(trial: int, rung: int, scores: list[float]) -> Score:
    rows = [{"task": f"t{k}", "part": k, "reward": score} for k, score in enumerate(scores)]
    budget = {"trial": trial, "rung": rung}
    return Score("promotion", "g", "g", "x", 1, budget, "done", float(np.mean(scores)), 0.1, None, {"tasks": rows}, 1.0)


def test_where_rules_stand_does_not_depend_on_who_came_first() -> None:
    """The rung that was reached, then the mean rank there; one that was found out is last."""
    reached = {0: [[0.5]], 1: [[0.4], [0.9, 0.3, 0.2]], 2: [[0.6], [0.5, 0.4, 0.3]], 3: [[0.7], [0.0, 0.0, 0.0]], 4: []}
    entries = [
        promotion(trial, rung, scores) for trial, rungs in reached.items() for rung, scores in enumerate(rungs, start=1)
    ]
    want = None
    for seed in range(5):
        mixed = sorted(
            entries, key=lambda entry: (entry.budget["rung"], random.Random(seed + entry.budget["trial"]).random())
        )
        found = climbs(mixed)
        place = sorted(reached, key=lambda trial: order(0.9, found.get(trial, [])))
        want = want or found
        assert {trial: found[trial] for trial in sorted(found)} == {trial: want[trial] for trial in sorted(want)}
        assert place == [2, 1, 0, 4, 3]
    assert found[2] == [Reached(0.6, 2.0), Reached(pytest.approx(0.4), pytest.approx(4 / 3))]


def test_the_default_ladder() -> None:
    """First the task itself, longer and with several seeds; then others, and none that a proof is made on."""
    assert default_ladder("charmlp") == "own*10#3, teacher+mnist1d+charlm"
    assert default_ladder("teacher") == "own*10#3, charmlp+mnist1d+charlm"
    assert default_ladder("digits") == "own*10#3, charmlp+teacher+mnist1d+charlm"
    assert default_ladder("mine", transfer=False) == "own*10#3"
    assert set(TRANSFER) <= set(TASKS)
    assert set(TRANSFER) <= set(SEARCHED)
    assert not set(TRANSFER) & {*FULL.tasks.split(","), *SHORT.tasks.split(",")}
