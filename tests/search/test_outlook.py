"""How long a search goes on, and the display's leaderboard: promotions count in both."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from nos_search.cli.output import table
from nos_search.rules import parse_rule_argument
from nos_search.run.climbing import climbs
from nos_search.run.config import RunConfig
from nos_search.run.families import families_of
from nos_search.show.leaderboard import best_rows, leaderboard
from nos_search.show.live import Display, Tally
from nos_search.show.outlook import Limits, Work, children, promotions, seconds_left
from nos_search.store import PROMOTION, Score, Store, Trial

from .conftest import Clock, StubExecutor, stub_search

ROOM = 80  # columns of a terminal


def test_time_left_without_promotions() -> None:
    work = Work(answered=40, trained=10, seconds=20.0)
    assert children(work, Limits(trials=100)) == 25
    assert seconds_left(work, Limits(trials=100), elapsed=20.0, pace=1.0) == pytest.approx(15 * 2.0)
    assert seconds_left(work, Limits(trials=100), elapsed=20.0, pace=2.0) == pytest.approx(15.0)  # two workers
    assert seconds_left(work, Limits(children=12), elapsed=20.0, pace=1.0) == pytest.approx(4.0)
    assert seconds_left(work, Limits(trials=100, seconds=30.0), elapsed=20.0, pace=1.0) == pytest.approx(10.0)
    assert seconds_left(work, Limits(), elapsed=20.0, pace=1.0) is None
    assert seconds_left(Work(), Limits(trials=5), elapsed=0.0, pace=0.0) is None


def test_time_left_counts_promotions() -> None:
    """Of 64 children 16 go up, and 4 of these again; what is done is not left."""
    limits = Limits(children=64, rungs=2, eta=4)
    work = Work(answered=64, trained=32, seconds=32.0)
    assert promotions(work, limits) == [16, 4]
    # nothing promoted yet: a promotion is taken to last as long as a training
    assert seconds_left(work, limits, elapsed=1.0, pace=1.0) == pytest.approx(32 + 16 + 4)
    for _ in range(8):
        work.promote(1, 3.0)
    assert promotions(work, limits) == [16, 4]
    assert seconds_left(work, limits, elapsed=1.0, pace=1.0) == pytest.approx(32 + 8 * 3 + 4 * 3)
    for _ in range(10):  # of an older release, which let more than one in four up
        work.promote(1, 3.0)
    assert promotions(work, limits) == [18, 4]
    done = Work(answered=64, trained=64, seconds=64.0, promoted={1: 16, 2: 4}, promoted_seconds={1: 48.0, 2: 40.0})
    assert seconds_left(done, limits, elapsed=1.0, pace=1.0) == 0


@pytest.fixture
def climbed_run(tmp_path: Path) -> Path:
    config = RunConfig(
        trials=120,
        strategy="random",
        promote="digits*2, fashion",
        promote_eta=3,
        gates={"descent": None, "screen": None},
    )
    stub_search(tmp_path / "run", config, StubExecutor())
    return tmp_path / "run"


def top(tally: Tally) -> list[tuple[int, int | None]]:
    return [(trial.id, members) for trial, members in tally.ranking.top(8)]


def test_the_display_ranks_as_show_does(climbed_run: Path) -> None:
    """In a run from its start and in one that is resumed; not by the first reward."""
    with Store.open(climbed_run) as store:
        rows = best_rows(store)
        want = [(row.trial, row.members) for row in rows][:8]
        trials = sorted((t for t in store.trials() if t.told is not None), key=lambda t: t.told or 0)
        scores = store.scores(PROMOTION)
        families = families_of(store, trials)
    assert 8 < len(rows) < len([trial for trial in trials if trial.status == "done"])  # some are kin
    by_id = {trial.id: trial for trial in trials}
    known: dict[int, int] = {}  # grows as in a search, which knows a family just before it tells of the trial
    tally = Tally(known)
    for trial in trials:
        known |= {trial.id: families[trial.id]} if trial.id in families else {}
        tally.add(trial)
    assert top(tally) != want
    for score in scores:
        tally.promote(by_id[score.budget["trial"]], score.budget["rung"], score)
    assert top(tally) == want
    limits = Limits(trials=120, rungs=2, eta=3)
    resumed = Display(io.StringIO(), limits=limits, clock=Clock(), earlier=trials, promotions=scores, families=families)
    assert top(resumed.tally) == want
    assert resumed.left() is None or resumed.left() == 0


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_display_breaks_no_word(climbed_run: Path) -> None:
    """At 80 columns with two rungs every word of every rule at the top stands whole in a line."""
    with Store.open(climbed_run) as store:
        rows = best_rows(store)[:8]
        trials = sorted((t for t in store.trials() if t.told is not None), key=lambda t: t.told or 0)
        scores, families = store.scores(PROMOTION), families_of(store, trials)
    limits = Limits(trials=200, rungs=2, eta=3)
    display = Display(Terminal(), limits=limits, clock=Clock(), earlier=trials, promotions=scores, families=families)
    stream = io.StringIO()
    Console(file=stream, width=ROOM).print(display._picture())
    text = stream.getvalue()
    assert all(len(line) <= ROOM for line in text.splitlines())
    shown = set(text.split())
    for name in ("proposals", "promotions", "reward", "rung", "times", "members", "rule", "children/h"):
        assert name in shown
    for row in rows:
        assert set(row.rule.split()) <= shown
        assert f"{row.reward:.4f}" in shown


def test_tables_are_broken_between_words() -> None:
    rule = "drop(adam, 0.3) - clip(clip(0.01 * w, 1e-05) * drop(1, 0.3), 0.0001)"
    header = ["rank", "reward", "digits*3", "digits*6", "lr", "trials", "duplicates", "rule"]
    rows = [["1", "0.9327", "0.9731", "0.9798", "0.1", "1", "0", rule], ["2", "0.9", "", "", "1", "1", "0", "g"]]
    assert table(header, rows).splitlines()[1].endswith(f"  0  {rule}")  # of a file the lines are whole
    for room in (40, 60, 80, 100):
        lines = table(header, rows, most=room).splitlines()
        assert all(len(line) <= room for line in lines), room
        assert " ".join(lines).split() == " ".join([*header, *(" ".join(row) for row in rows)]).split()
    assert (
        table(["a", "rule"], [["1", "x" * 50]], most=40).splitlines()[-1].endswith("x" * 50)
    )  # one word is left whole
    assert table(["a"], []) == "a"


def test_a_trial_that_was_not_trained_is_not_ranked() -> None:
    tally = Tally({})
    assert tally.add(Trial(0, (), "g", "g", 1, "done", 0.5, 0.1)) is True
    assert tally.add(Trial(1, (), "-g", "-g", 1, "diverged", 0.0)) is False
    assert tally.add(Trial(2, (), "w", "w", 1, "done", 0.4, 0.1)) is False
    assert top(tally) == [(0, None), (2, None)]
    assert tally.best == 0.5


def test_a_rule_of_one_operand_is_shown_as_the_command_line_takes_it() -> None:
    """Alone, `rmsprop` would name the library's rule, which is another one."""
    rows = leaderboard([Trial(0, (), "rmsprop", "k", 1, "done", 0.5, 0.1), Trial(1, (), "g", "g", 1, "done", 0.4, 0.1)])
    assert [row.rule for row in rows] == ["(rmsprop)", "g"]
    shown, library = parse_rule_argument(rows[0].rule), parse_rule_argument("rmsprop")
    assert shown.key == parse_rule_argument("1 * rmsprop").key != library.key


def test_a_long_run_is_ranked_as_it_goes_on() -> None:
    """Rules in any order, of families that grow, with promotions that lift a rule or find it out: at any time the rows
    are those that sorting all of them gives. (This is a list of thousands; a refresh reads eight of them.)"""
    random = np.random.RandomState(1)
    count = 3000
    families = {k: int(random.randint(k + 1)) // 7 for k in range(count) if k % 11}
    tally, trials = Tally(families), []
    scores: list[Score] = []
    for k in range(count):
        status = "diverged" if k % 13 == 5 else "done"
        trials.append(
            Trial(k, (), f"g{k}", f"g{k}", 1, status, 0.0 if k % 13 == 5 else random.randint(1, 500) / 500, 0.1)
        )
        tally.add(trials[-1])
        if k % 9 == 0 and status == "done":
            reward = float(random.randint(4)) / 4  # one in four is found out
            scores.append(Score(PROMOTION, "g", "g", "digits", 1, {"trial": k, "rung": 1}, "done", reward))
            tally.promote(trials[k], 1, scores[-1])
        if k in (1, 50, 700, count - 1):
            known = {trial.id: families[trial.id] for trial in trials if trial.id in families}
            want = [(row.trial, row.members) for row in leaderboard(trials, climbs(scores), known)]
            assert [(trial.id, members) for trial, members in tally.ranking.top(count)] == want
