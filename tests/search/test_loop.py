"""The loop with a stub executor: gates, duplicates, limits, failures, and going on after a crash."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from nos_search.errors import SearchError, UsageError
from nos_search.executor import Answer, Job
from nos_search.gate import GATES, Gates, gate_counts
from nos_search.run.climbing import Reached, climbed, order
from nos_search.run.config import RunConfig, versions
from nos_search.run.search import Search
from nos_search.show.leaderboard import counts, leaderboard, shown_rungs, summary
from nos_search.space import ProgramSpace, Space
from nos_search.store import Score, Store, Trial, schema
from nos_search.strategy import Result, create
from nos_search.strategy.evolution import EvolutionStrategy
from nos_search.task import load
from nos_search.train import promotion as promotion_module

from .conftest import Clock, StubExecutor, repeatable, stub_outcome, stub_search, table

ONE_GROUP = Space(groups=1).config()
OPEN = {"descent": None, "screen": None}
SMALL_CONTROLLER = {"hidden": 8, "embedding": 4, "population": 64}


def config(**changes: object) -> RunConfig:
    """Without the two gates that judge by numbers, so that most candidates reach the executor."""
    defaults = {"trials": 120, "batch": 8, "strategy_options": SMALL_CONTROLLER, "space": ONE_GROUP, "gates": OPEN}
    return RunConfig(**{**defaults, **changes})  # type: ignore[arg-type]


def test_nothing_is_trained_twice(tmp_path: Path) -> None:
    executor = StubExecutor()
    assert stub_search(tmp_path / "run", config(trials=400), executor) == "trials"
    with Store.open(tmp_path / "run") as store:
        trials = store.trials()
        total = counts(trials)
    assert total["trials"] == 400 == sum(total[k] for k in ("done", "diverged", "rejected", "duplicates", "failed"))
    assert total["duplicates"] > 5
    assert total["rejected"] > 20
    keys = [job.rule.key for job in executor.jobs]
    assert len(keys) == len(set(keys)) == total["trained"]
    by_id = {trial.id: trial for trial in trials}
    for trial in trials:
        if trial.status == "duplicate":
            first = by_id[trial.duplicate_of]
            assert first.id < trial.id
            assert first.key == trial.key or first.fingerprint == trial.fingerprint != ""
            assert (trial.reward, trial.lr) == (first.reward, first.lr)
            assert first.status in ("done", "diverged")
        elif trial.status in ("done", "diverged"):
            assert trial.reward == stub_outcome(trial.key).reward
        else:
            assert trial.status == "rejected"
            assert trial.reward == 0.0
            (gate,) = [name for name, entry in trial.gates.items() if not entry["passed"]]
            assert gate == list(trial.gates)[-1]
            assert gate in GATES
            assert trial.reason


def test_every_gate_of_a_run_is_counted_and_kept(tmp_path: Path) -> None:
    """With all gates on: the counts of the stored trials add up, and a run taken up again judges as the whole one."""
    chosen = config(gates=Gates(family=0.002).to_json(), space=Space(groups=2).config(), trials=200)
    stub_search(tmp_path / "whole", chosen, StubExecutor())
    stub_search(tmp_path / "parts", replace(chosen, trials=90), StubExecutor())
    stub_search(tmp_path / "parts", chosen, StubExecutor())
    assert table(tmp_path / "parts") == table(tmp_path / "whole")
    with Store.open(tmp_path / "whole") as store:
        trials = store.trials()
    rows = {row.gate: row for row in gate_counts(trials)}
    assert rows["static"].entered == 200
    assert sum(row.stopped for row in rows.values()) + counts(trials)["trained"] == 200
    assert min(rows[gate].stopped for gate in ("static", "effect", "descent", "screen", "family")) > 0
    assert all(row.seconds > 0 for row in rows.values())
    trained = [trial for trial in trials if trial.status == "done"]
    assert all(t.gates["screen"]["value"] >= 0.05 and t.gates["descent"]["value"] >= 0 for t in trained)


def test_programs_are_searched(tmp_path: Path) -> None:
    for strategy in ("controller", "evolution", "random"):
        options = SMALL_CONTROLLER if strategy == "controller" else {}
        chosen = config(space=ProgramSpace(lines=4).config(), strategy=strategy, strategy_options=options, trials=60)
        stub_search(tmp_path / strategy, chosen, StubExecutor())
        with Store.open(tmp_path / strategy) as store:
            assert counts(store.trials())["done"] > 5


def test_a_run_from_before_reductions_resumes_with_its_own_words(tmp_path: Path) -> None:
    """As its configuration names no vocabulary, and after it was resumed still names none."""
    old = {"kind": "program", "lines": 4}
    chosen = config(space=old, strategy="random", strategy_options={}, trials=80)
    stub_search(tmp_path / "whole", chosen, StubExecutor())
    stub_search(tmp_path / "parts", replace(chosen, trials=30), StubExecutor())
    stub_search(tmp_path / "parts", chosen, StubExecutor())
    assert table(tmp_path / "parts") == table(tmp_path / "whole")
    with Store.open(tmp_path / "parts") as store:
        assert store.config["space"] == old
        ops = {op for trial in store.trials() for op in trial.tokens[::4]}
    assert ops == set(range(21))


def test_leaderboard_and_summary(tmp_path: Path) -> None:
    stub_search(tmp_path / "run", config(trials=300), StubExecutor())
    with Store.open(tmp_path / "run") as store:
        rows = leaderboard(store.trials())
        data = summary(store, top=5)
    assert [row.rank for row in rows] == list(range(1, len(rows) + 1))
    assert [row.reward for row in rows] == sorted((row.reward for row in rows), reverse=True)
    assert all(row.trials == row.duplicates + 1 for row in rows)
    # duplicates of rules that diverged are on no row
    assert 0 < sum(row.duplicates for row in rows) <= data["duplicates"]
    assert data["best"] == data["leaderboard"][0]
    assert len(data["leaderboard"]) == 5


def test_equal_seeds_equal_runs(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        stub_search(tmp_path / name, config(seed=seed), StubExecutor())
    assert table(tmp_path / "a") == table(tmp_path / "b")
    assert table(tmp_path / "a") != table(tmp_path / "c")


@pytest.mark.parametrize("strategy", ["controller", "evolution", "random"])
def test_a_crash_at_any_trial_changes_nothing(tmp_path: Path, strategy: str) -> None:
    """The executor dies again and again; the run is taken up again each time and ends as the unbroken one."""
    options = SMALL_CONTROLLER if strategy == "controller" else {}
    chosen = config(strategy=strategy, strategy_options=options, trials=120)
    stub_search(tmp_path / "whole", chosen, StubExecutor())

    class CrashError(Exception):
        pass

    crashed: set[int] = set()

    def fault(job: Job) -> None:
        if len(executor.jobs) % 6 == 3 and job.number not in crashed:
            crashed.add(job.number)
            raise CrashError

    for _ in range(200):
        try:
            executor = StubExecutor(fault)
            assert stub_search(tmp_path / "broken", chosen, executor) == "trials"
            break
        except CrashError:
            pass
    assert len(crashed) > 5
    assert table(tmp_path / "broken") == table(tmp_path / "whole")


class Quick(StubExecutor):
    """Answers as fast as the kernels train, so that answers are committed in groups."""

    def wait(self, seconds: float = math.inf) -> list[Answer]:
        return [replace(answer, seconds=1e-4) for answer in super().wait()]


def test_answers_are_committed_in_groups_and_nobody_hears_of_them_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[int] = []
    heard: list[int] = []

    class Reader:
        def on_start(self, trial: Trial, rung: int) -> None: ...
        def on_promotion(self, trial: Trial, rung: int, score: Score) -> None: ...
        def on_trial(self, trial: Trial) -> None:
            if trial.id not in heard:  # the first of its group: all of it must be there for another reader
                with Store.open(tmp_path / "run") as store:
                    heard.extend(t.id for t in store.trials() if t.told is not None and t.id not in heard)
            assert trial.id in heard

    commit = Store.commit

    def counted(store: Store) -> None:
        groups.append(sum(row[columns.index("told")] is not None for row in store._waiting.values()))
        commit(store)

    columns = list(schema.TRIAL)
    monkeypatch.setattr(Store, "commit", counted)
    chosen = config(trials=400, batch=32)
    with Store.create(tmp_path / "run", chosen.to_json(), versions()) as store:
        clock = Clock(tick=1e-4)
        assert Search(store, chosen, Quick(), listeners=[Reader()], clock=clock, wall=clock).run() == "trials"
    assert len(heard) == 400
    assert max(groups) <= 64 + 1
    assert sum(n > 1 for n in groups) > 5
    assert len(groups) < 100
    stub_search(tmp_path / "one by one", chosen, StubExecutor())
    assert [replace(t, seconds=0.0) for t in repeatables(tmp_path / "run")] == [
        replace(t, seconds=0.0) for t in repeatables(tmp_path / "one by one")
    ]


def repeatables(folder: Path) -> list[Trial]:
    with Store.open(folder) as store:
        return [repeatable(trial) for trial in store.trials()]


def test_a_crash_between_two_commits_changes_nothing(tmp_path: Path) -> None:
    """What was answered and not committed is asked for and answered again."""
    chosen = config(trials=200)
    stub_search(tmp_path / "whole", chosen, StubExecutor())

    class CrashError(Exception):
        pass

    def crash(job: Job) -> None:
        if len(executor.jobs) == 23:
            raise CrashError

    lost = 0
    for attempt in range(20):
        executor = Quick(crash)
        clock = Clock(tick=5e-4)
        folder = tmp_path / "broken"
        with Store.open(folder, write=True) if attempt else Store.create(folder, chosen.to_json(), versions()) as store:
            search = Search(store, chosen, executor, clock=clock, wall=clock)
            try:
                assert search.run() == "trials"
                break
            except CrashError:
                lost += len(search._unsaid)
    assert lost > 5
    assert [replace(t, seconds=0.0) for t in repeatables(tmp_path / "broken")] == [
        replace(t, seconds=0.0) for t in repeatables(tmp_path / "whole")
    ]


def test_candidates_that_were_open_are_taken_up_again(tmp_path: Path) -> None:
    """With several slots, a crash leaves candidates that the stored state has asked for and nobody answered."""

    def fault(job: Job) -> None:
        if job.number >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stub_search(tmp_path / "run", config(), StubExecutor(fault, slots=4))
    assert stub_search(tmp_path / "run", config(), StubExecutor(slots=4)) == "trials"
    with Store.open(tmp_path / "run") as store:
        assert [trial.id for trial in store.trials()] == list(range(120))


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    def fault(job: Job) -> None:
        if job.number > 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stub_search(tmp_path / "run", config(), StubExecutor(fault))
    with Store.open(tmp_path / "run") as store:
        assert not store.being_written()
        assert not summary(store)["going_on"]
        assert all((trial.told is None) == (trial.status == "running") for trial in store.trials())
    stub_search(tmp_path / "run", config(), StubExecutor())
    stub_search(tmp_path / "whole", config(), StubExecutor())
    assert table(tmp_path / "run") == table(tmp_path / "whole")


def test_more_trials_later(tmp_path: Path) -> None:
    stub_search(tmp_path / "parts", config(trials=30), StubExecutor())
    stub_search(tmp_path / "parts", config(trials=120), StubExecutor())
    stub_search(tmp_path / "whole", config(trials=120), StubExecutor())
    assert table(tmp_path / "parts") == table(tmp_path / "whole")
    assert stub_search(tmp_path / "parts", config(trials=120), StubExecutor()) == "trials"


def test_limits(tmp_path: Path) -> None:
    assert stub_search(tmp_path / "time", config(trials=None, seconds=30.0), StubExecutor()) == "seconds"
    assert stub_search(tmp_path / "reward", config(target=0.9), StubExecutor()) == "target"
    with Store.open(tmp_path / "reward") as store:
        trials = [trial for trial in store.trials() if trial.told is not None]
        trials.sort(key=lambda trial: trial.told)
    assert trials[-1].reward >= 0.9
    assert all((trial.reward or 0) < 0.9 for trial in trials[:-1])


def test_what_waits_when_the_time_is_up_is_left_for_resume(tmp_path: Path) -> None:
    class Timed(StubExecutor):
        """Its third answer does not come before the time is up."""

        def __init__(self) -> None:
            super().__init__(slots=4)
            self.answered, self.dropped = list[int](), list[int]()

        def wait(self, seconds: float = math.inf) -> list[Answer]:
            if len(self.answered) == 2 and seconds < math.inf:
                clock.now += seconds
                return []
            answers = super().wait()
            self.answered += [answer.number for answer in answers]
            return answers

        def drop(self) -> list[int]:
            new = super().drop()
            self.dropped += new
            return new

    clock, executor, chosen = Clock(1e-3), Timed(), config(seconds=1000.0)
    with Store.create(tmp_path / "run", chosen.to_json(), versions()) as store:
        assert Search(store, chosen, executor, clock=clock, wall=clock).run() == "seconds"
        told = {trial.id for trial in store.trials() if trial.status == "done"}
        waiting = {trial.id for trial in store.trials() if trial.told is None}
    assert len(executor.dropped) == 3
    assert len(executor.answered) == 3  # the one that trained is finished
    assert told == set(executor.answered)
    assert waiting >= set(executor.dropped)
    later = StubExecutor(slots=4)
    assert stub_search(tmp_path / "run", config(), later) == "trials"
    assert {job.number for job in later.jobs} >= set(executor.dropped)
    assert not told & {job.number for job in later.jobs}
    with Store.open(tmp_path / "run") as store:
        assert all(trial.told is not None for trial in store.trials() if trial.id in waiting)


def test_failures_are_recorded_and_too_many_end_the_run(tmp_path: Path) -> None:
    stub_search(tmp_path / "one", config(), StubExecutor(lambda job: "out of memory" if job.number % 9 == 0 else None))
    with Store.open(tmp_path / "one") as store:
        failed = [trial for trial in store.trials() if trial.status == "failed"]
    assert failed
    assert all(trial.reward is None and trial.reason == "out of memory" for trial in failed)
    with pytest.raises(SearchError, match="5 trainings in a row could not be run; the last said: no disk"):
        stub_search(tmp_path / "all", config(), StubExecutor(lambda job: "no disk"))


def test_what_was_trained_is_kept_when_the_strategy_fails_to_hear_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a resume tells it."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    settings = config(strategy="evolution", strategy_options={})
    stub_search(whole, settings, StubExecutor())
    heard = 0

    def deaf(self: EvolutionStrategy, results: Sequence[Result]) -> None:
        nonlocal heard
        heard += 1
        if heard > 70:
            raise SearchError("the program does not read")
        learn(self, results)

    learn, executor = EvolutionStrategy.learn, StubExecutor()
    with monkeypatch.context() as patch:
        patch.setattr(EvolutionStrategy, "learn", deaf)
        with pytest.raises(SearchError, match="does not read"):
            stub_search(parts, settings, executor)
    assert heard == 71  # it is told nothing more
    with Store.open(parts) as store:
        answered = [trial for trial in store.trials() if trial.told is not None]
        assert store.state == "failed"
    assert len(answered) > 70
    assert sum(trial.trained for trial in answered) == len(executor.jobs)
    stub_search(parts, settings, StubExecutor())
    (trials, *others), (wanted, *same) = table(parts), table(whole)
    assert [replace(trial, metrics={}) for trial in trials] == [replace(trial, metrics={}) for trial in wanted]
    assert others == same


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategy": "luck"}, "--strategy 'luck' is not known; choose one of: controller, evolution, random"),
        ({"workers": 0}, "--workers 0 is below 1"),
        ({"workers": 4, "executor": "inprocess"}, "--workers 4 with --executor inprocess: it has one"),
        ({"executor": "slurm"}, "--executor 'slurm' is not known; choose one of: inprocess, fork, loky, ray"),
        ({"ray_address": "auto"}, "--ray-address and --gpus-per-trial need --executor ray"),
        ({"executor": "ray", "gpus_per_trial": -1.0}, "--gpus-per-trial -1 is below 0"),
        ({"trial_timeout": 0.0}, "--trial-timeout 0 is not above 0"),
        ({"batch": 0}, "--batch 0 is below 1"),
        ({"children": 0}, "--children 0 is below 1"),
        ({"trials": 0}, "--trials 0 is below 1"),
        ({"seconds": -1.0}, "--seconds -1 is not above 0"),
        ({"target": 2.0}, "--target 2 is outside"),
        ({"threads": 0}, "--threads 0 is below 1"),
        ({"seed": -1}, "--seed -1 is outside"),
        ({"executor": "fork", "device": "cuda"}, "--executor fork with --device cuda: a GPU does not survive a fork"),
        ({"sweep": "grid"}, "--sweep 'grid' is not known; choose one of: fine, halving, full"),
    ],
)
def test_wrong_configurations(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        config(**changes)


def test_the_task_is_looked_for_when_it_is_loaded() -> None:
    """A run on a task that this machine does not have can be shown, and is refused by whoever trains."""
    chosen = config(task="mnist")
    assert RunConfig.from_json(chosen.to_json()) == chosen
    with pytest.raises(UsageError, match="--task 'mnist' is not known; choose one of: charmlp, teacher, mnist1d, dig"):
        chosen.make_task()


def test_config_round_trip() -> None:
    chosen = config(seconds=3.0, width=5)
    assert RunConfig.from_json(chosen.to_json()) == chosen
    assert RunConfig.from_json({**chosen.to_json(), "added by a later release": 1}) == chosen


# --- promotion --------------------------------------------------------------------------------------------------------

LADDER = {"promote": "digits*2, digits*4 + fashion", "promote_eta": 3}


def test_promotions_change_nothing_but_what_is_known_of_the_best(tmp_path: Path) -> None:
    executor = StubExecutor()
    assert stub_search(tmp_path / "with", config(**LADDER), executor) == "trials"
    stub_search(tmp_path / "without", config(), StubExecutor())
    (with_trials, scores, with_state), (trials, none, state) = table(tmp_path / "with"), table(tmp_path / "without")
    assert (with_trials, with_state, none) == (trials, state, [])

    trained = {t.id: t for t in trials if t.status in ("done", "diverged")}
    rewards = {number: [trial.reward] for number, trial in trained.items()}
    for score in scores:
        number, rung = score.budget["trial"], score.budget["rung"]
        key = trained[number].key
        assert (score.name, score.key, score.task) == (
            trained[number].rule,
            key,
            ["digits*2", "digits*4 + fashion"][rung - 1],
        )
        assert score.reward == stub_outcome(key + "'" * rung).reward
        assert score.seed != trained[number].seed  # luck does not climb
        assert len(rewards[number]) == rung
        assert min(rewards[number]) > 0
        rewards[number].append(score.reward)
    assert len({score.seed for score in scores}) == 2  # one for each rung: rules of a rung are compared on equal terms
    # all that was earned was done, one in three, and each of them was the best left when it was earned
    came = [t.id for t in sorted(trained.values(), key=lambda t: t.told or 0)]
    for rung in (0, 1):
        up: list[int] = []
        for n in range(3, len(came) + 1, 3):
            up.append(max((number for number in came[:n] if number not in up), key=lambda k: rewards[k][rung]))
        assert len(up) == len(came) // 3 > 2
        assert up == [score.budget["trial"] for score in scores if score.budget["rung"] == rung + 1]
        came = up
    assert [(job.number, job.rung) for job in executor.jobs if job.rung] == [
        (score.budget["trial"], score.budget["rung"]) for score in scores
    ]


@pytest.mark.parametrize("slots", [1, 3])
def test_a_crash_at_any_promotion_changes_nothing(tmp_path: Path, slots: int) -> None:
    class CrashError(Exception):
        pass

    crashed: set[tuple[int, int]] = set()

    def fault(job: Job) -> None:
        if job.rung and (job.number, job.rung) not in crashed:
            crashed.add((job.number, job.rung))
            raise CrashError

    chosen = config(**LADDER)
    while True:
        try:
            stub_search(tmp_path / "broken", chosen, StubExecutor(fault, slots=slots))
            break
        except CrashError:
            pass
    assert len(crashed) > 10
    with Store.open(tmp_path / "broken") as store:
        scores = store.scores("promotion")
    done = {(score.budget["trial"], score.budget["rung"]) for score in scores}
    assert len(scores) == len(done) > 10
    assert done <= crashed  # with more slots answers come in another order after a crash, as they do with real workers
    if slots == 1:
        assert done == crashed
        stub_search(tmp_path / "whole", chosen, StubExecutor())
        assert table(tmp_path / "broken") == table(tmp_path / "whole")


def test_a_search_leaves_the_cores_to_the_children(tmp_path: Path) -> None:
    """A thread of BLAS spins after each product, on a core on which a worker could train."""
    seen = set()

    def look(job: Job) -> None:
        seen.update(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")

    with threadpool_limits(2, user_api="blas"):
        stub_search(tmp_path / "run", config(trials=16), StubExecutor(look))
        after = {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}
    assert seen == {1}
    assert after == {2}


def test_a_promotion_that_cannot_be_run_counts_zero(tmp_path: Path) -> None:
    def one(job: Job) -> str | None:
        failed.append(job.number) if job.rung and not failed else None
        return "no data there" if job.rung and job.number == failed[0] else None

    failed: list[int] = []
    assert stub_search(tmp_path / "one", config(**LADDER), StubExecutor(one)) == "trials"
    with Store.open(tmp_path / "one") as store:
        (score,) = [score for score in store.scores("promotion") if score.status == "failed"]
        data = summary(store, every=True)
    assert (score.reward, score.curve) == (0.0, {"reason": "no data there"})
    assert [reached.reward for reached in climbed_rewards(tmp_path / "one")[failed[0]]] == [0.0]
    found_out = [row["trial"] for row in data["leaderboard"] if 0.0 in row["promoted"]]
    assert failed[0] in found_out
    assert found_out == [row["trial"] for row in data["leaderboard"][-len(found_out) :]]
    rungs: list[int] = []

    def all_from_the_first_on(job: Job) -> str | None:
        rungs.append(job.rung)
        return "disk full" if any(rungs) else None

    with pytest.raises(SearchError, match="5 trainings in a row could not be run; the last said: disk full"):
        stub_search(tmp_path / "all", config(**LADDER), StubExecutor(all_from_the_first_on, 6))


def climbed_rewards(folder: Path) -> dict[int, list[Reached]]:
    with Store.open(folder) as store:
        return climbed(store)


def test_the_leaderboard_goes_by_rungs(tmp_path: Path) -> None:
    rewards = [(0.9, []), (0.5, [0.7]), (0.95, [0.8]), (0.97, [0.0]), (0.4, [0.6, 0.1]), (0.9, [0.9, 0.0])]
    reached = [(first, [Reached(reward, 2.0 - reward) for reward in higher]) for first, higher in rewards]
    best = sorted(reached, key=lambda entry: order(*entry))
    assert [reached.index(entry) for entry in best] == [4, 2, 1, 0, 3, 5]
    assert order(0.5, [Reached(0.3, 1.5)]) < order(0.9, [Reached(0.8, 2.0)])  # ranks before rewards
    stub_search(tmp_path / "run", config(**LADDER), StubExecutor())
    with Store.open(tmp_path / "run") as store:
        data = summary(store)
    rows = data["leaderboard"]
    assert data["rungs"] == ["digits*2", "digits*4 + fashion"]
    assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
    reached = [len(row["promoted"]) if 0.0 not in row["promoted"] else -1 for row in rows]
    assert reached == sorted(reached, reverse=True)
    assert {2, 1, 0} <= set(reached)
    top = [row["promoted"][1] for row in rows if len(row["promoted"]) == 2]
    assert top == sorted(top, reverse=True)
    assert all(len(row["ranks"]) == len(row["promoted"]) for row in rows)
    assert shown_rungs((0.5, 0.25), (1.0, 1.5), ["a", "b+c", "d"]) == ["0.5000", "0.2500 (1.5)", ""]


class Slow(StubExecutor):
    """Trains in a second, and on a rung in a hundred."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def wait(self, seconds: float = math.inf) -> list[Answer]:
        took = 100.0 if self._held[0].rung else 1.0
        self.clock.now += took
        return [replace(answer, seconds=took) for answer in super().wait()]


def test_a_promotion_that_would_take_longer_than_what_is_left_waits(tmp_path: Path) -> None:
    """How long it takes is known from the first one on. What waits is the first thing that a resumed run does."""
    chosen = config(promote="digits*2", promote_eta=5, trials=100_000, seconds=380.0)
    clock = Clock(tick=0.0)
    with Store.create(tmp_path / "run", chosen.to_json(), versions()) as store:
        executor = Slow(clock)
        assert Search(store, chosen, executor, clock=clock, wall=clock).run() == "seconds"
    rungs = [job.rung for job in executor.jobs]
    assert sum(rungs) == 3
    assert clock.now == 380.0
    assert rungs[-65:] == [0] * 65
    with Store.open(tmp_path / "run", write=True) as store:
        executor = Slow(clock)
        Search(store, replace(chosen, seconds=1000.0), executor, clock=clock, wall=clock).run()
    assert [job.rung for job in executor.jobs[:8]] == [1] * 8


def test_a_run_of_before_there_was_a_default_ladder_goes_on_with_what_it_had() -> None:
    """Each setting stands in the configuration of a run, but the decay of rates on a rung: there was none."""
    old = config(**LADDER).to_json()
    del old["promote_decay"]
    task = load("digits")
    for promote in (None, "digits*2, digits*4 + fashion"):
        stored = RunConfig.from_json({**old, "promote": promote})
        assert (stored.promote, stored.promote_eta, stored.promote_decay) == (promote, 3, "none")
    ladder = stored.make_ladder(task)
    assert ladder is not None
    assert ladder.protocol.decay == "none"
    assert RunConfig.from_json({**old, "promote": None}).make_ladder(task) is None


@pytest.mark.parametrize(
    ("settings", "rungs"),
    [
        ({"task": "charmlp"}, "own*10#3, teacher+mnist1d+charlm"),
        ({"task": "digits"}, "own*10#3, charmlp+teacher+mnist1d+charlm"),
        ({"task": "digits", "protocol": "paper"}, None),
        ({"task": "arrays", "given": "task"}, "own*10#3"),
        ({"task": "my_tasks:products"}, "own*10#3"),
        ({"task": "f", "given": "objective", "score": "objective"}, None),
        ({"task": "digits", "promote": "none"}, None),
        ({"task": "digits", "promote": "digits*2"}, "digits*2"),
    ],
)
def test_the_ladder_of_who_names_none(
    settings: dict[str, Any], rungs: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stored run has the rungs themselves. Nothing of the default ladder is loaded before a rule comes to it."""
    task = load("digits").with_options(train_steps=6)
    chosen = RunConfig(**{"promote": "default", **settings})
    stored = chosen.in_force(None if settings.get("given") == "objective" else task)
    assert stored.promote == rungs
    assert RunConfig.from_json(stored.to_json()) == stored
    if rungs and "own" in rungs:
        monkeypatch.setattr(promotion_module, "load", None)
        ladder = stored.make_ladder(task)
        assert ladder is not None
        assert ladder.protocol.decay == "linear_cosine"
        assert [len(rung.parts) for rung in ladder.rungs][:2] == [1, 1]
        assert (ladder.rungs[1].tasks[0].budget.train_steps, ladder.rungs[1].parts[0].seeds) == (60, 3)


# --- a run that other versions would propose differently ---------------------------------------------------------------


def test_trials_that_would_not_be_proposed_again_are_kept_and_learned_from(tmp_path: Path) -> None:
    class CrashError(Exception):
        pass

    def fault(job: Job) -> None:
        if len(executor.jobs) == 60:
            raise CrashError

    chosen, folder = config(trials=160), tmp_path / "run"
    executor = StubExecutor(fault)
    with pytest.raises(CrashError):
        stub_search(folder, chosen, executor)
    with Store.open(folder, write=True) as store:
        checkpoint = store.checkpoint()
        assert checkpoint is not None
        known = checkpoint[1]
        late = [t for t in store.trials() if t.status == "done" and t.told is not None and t.told >= known]
        assert len(late) > 2
        space = chosen.make_space()
        foreign = create("random", space, seed=99, options={}).ask(2)
        for trial, other in zip(late, foreign, strict=False):  # as if an earlier release had proposed these
            store.put(replace(trial, tokens=other.tokens, rule=space.text(other.tokens), key=f"foreign {other.id}"))
        store.commit()
        search = Search(store, chosen, StubExecutor(), clock=Clock(), wall=Clock())
        assert search.strangers >= 2
        assert search.run() == "trials"
        trials = {trial.id: trial for trial in store.trials()}
    assert sorted(trials) == list(range(max(trials) + 1))
    assert sum(trial.told is not None for trial in trials.values()) == 160
    for trial, other in zip(late, foreign, strict=False):
        assert (trials[trial.id].tokens, trials[trial.id].reward) == (other.tokens, trial.reward)
    assert stub_search(folder, replace(chosen, trials=200), StubExecutor()) == "trials"  # and once more
