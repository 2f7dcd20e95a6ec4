"""Both strategies pass the conformance suite that ships with the package, and the controller learns."""

from __future__ import annotations

import itertools
from weakref import WeakSet

import pytest
import torch

from nos_search.errors import UsageError
from nos_search.run.config import RunConfig
from nos_search.space import LionSpace, ProgramSpace, SearchSpace, Space, Tokens
from nos_search.store.codec import pack
from nos_search.strategy import (
    STRATEGIES,
    ControllerStrategy,
    EvolutionStrategy,
    OptunaStrategy,
    RandomStrategy,
    Result,
    Strategy,
    controller,
    create,
)
from nos_search.strategy.lately import Lately
from nos_search.strategy.policy import Policy
from nos_search.strategy.population import Member, Population
from nos_search.strategy.queue import ALONE, Entry, Queue
from nos_search.strategy.unrolled import Unrolled
from nos_search.testing.strategy import StrategyCase

from .conftest import evaluated


class TestRandom(StrategyCase):
    def make(self, space: SearchSpace, seed: int) -> Strategy:
        return RandomStrategy(space, seed=seed)


POLICY = {"algorithm": "ppo", "mutants": 0.0, "warm_start": 0}  # the policy alone


class TestController(StrategyCase):
    def make(self, space: SearchSpace, seed: int) -> Strategy:
        return ControllerStrategy(space, seed=seed, hidden=16, embedding=8, batch=8, population=12, tournament=3)


class TestControllerPolicy(StrategyCase):
    def make(self, space: SearchSpace, seed: int) -> Strategy:
        return ControllerStrategy(space, seed=seed, hidden=16, embedding=8, batch=8, **POLICY)


class TestControllerTrpo(StrategyCase):
    def make(self, space: SearchSpace, seed: int) -> Strategy:
        return ControllerStrategy(space, seed=seed, hidden=8, embedding=4, batch=8, **{**POLICY, "algorithm": "trpo"})


class TestControllerReinforce(StrategyCase):
    def make(self, space: SearchSpace, seed: int) -> Strategy:
        return ControllerStrategy(
            space, seed=seed, hidden=8, embedding=4, batch=5, **{**POLICY, "algorithm": "reinforce"}
        )


class TestControllerRisk(StrategyCase):
    def make(self, space: SearchSpace, seed: int) -> Strategy:
        return ControllerStrategy(space, seed=seed, hidden=8, embedding=4, batch=5, **{**POLICY, "algorithm": "risk"})


class TestControllerQueue(StrategyCase):
    def make(self, space: SearchSpace, seed: int) -> Strategy:
        options = {**POLICY, "algorithm": "pqt", "queue": 4}
        return ControllerStrategy(space, seed=seed, hidden=8, embedding=4, batch=5, **options)


class TestEvolution(StrategyCase):
    def make(self, space: SearchSpace, seed: int) -> Strategy:
        return EvolutionStrategy(space, seed=seed, population=12, tournament=3, crossover=0.3)


class TestOptuna(StrategyCase):
    def make(self, space: SearchSpace, seed: int) -> Strategy:
        pytest.importorskip("optuna")
        return OptunaStrategy(space, seed=seed, startup=6, window=24)


def test_every_registered_strategy_has_a_case() -> None:
    """The suite is for those that repeat; tests/search/test_external.py has what the other owes."""
    assert {name for name, kind in STRATEGIES.items() if kind.repeats} == {
        "random",
        "controller",
        "evolution",
        "optuna",
    }


def run(strategy: Strategy, reward, trials: int) -> list[float]:
    rewards = []
    for _ in range(trials):
        (candidate,) = strategy.ask(1)
        rewards.append(reward(candidate.tokens))
        strategy.tell([Result(candidate.tokens, rewards[-1], candidate.id)])
    return rewards


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_controller_finds_a_hidden_string(seed: int) -> None:
    space = Space(groups=2)
    hidden = space.sample(torch.Generator().manual_seed(1000 + seed))

    def reward(tokens: Tokens) -> float:
        return sum(a == b for a, b in zip(tokens, hidden, strict=True)) / len(hidden)

    learned = run(ControllerStrategy(space, seed=seed, **POLICY), reward, 640)[-80:]
    random = run(RandomStrategy(space, seed=seed), reward, 480)[-80:]
    assert sum(learned) / 80 > 0.7
    assert sum(random) / 80 < 0.3


def test_controller_learns_that_sign_products_pay() -> None:
    """A sparse reward: the update multiplies something by sign(g) or sign(m_hat), as PowerSign's exponent does."""
    space = Space(groups=1)

    def reward(tokens: Tokens) -> float:
        op1, op2, _, _, b = space.names(tokens)
        return float(b == "*" and {"sign(g)", "sign(m_hat)"} <= {op1, op2}) * 0.5 + 0.25 * (b == "*")

    learned = run(ControllerStrategy(space, seed=1, **POLICY), reward, 1200)[-100:]
    random = run(RandomStrategy(space, seed=1), reward, 1200)
    assert sum(random) / 1200 < 0.1
    assert sum(learned) / 100 > 0.2


def test_a_discounted_duplicate_teaches_less() -> None:
    space = Space(groups=1)

    def probability(discount: float) -> float:
        strategy = ControllerStrategy(space, seed=1, duplicate_discount=discount, **POLICY)
        favourite = strategy.ask(1)[0]
        strategy.tell([Result(favourite.tokens, 1.0, favourite.id)])
        for candidate in strategy.ask(39):
            strategy.tell([Result(candidate.tokens, 0.2, candidate.id)])
        for _ in range(10):
            strategy.tell([Result(favourite.tokens, 1.0, duplicate=True)] * 4)
            strategy.tell([Result(c.tokens, 0.2, c.id) for c in strategy.ask(8)])
        with torch.no_grad():
            return float(evaluated(strategy.policy, [favourite.tokens])[0])

    assert probability(0.0) > probability(1.0)


def test_the_policy_gets_a_rule_s_whole_reward_for_the_first_of_a_family_only() -> None:
    """The queue takes each rule for what it earned, and a foreign rule may be the first of its family."""
    space = Space(groups=1)

    def played(families: int, family: int, foreign: bool = False) -> float:
        strategy = ControllerStrategy(space, seed=1, batch=4, families=families, **POLICY)
        asked = strategy.ask(4)
        tokens = asked[3].tokens
        told = [Result(c.tokens, 0.5, c.id, family=c.id) for c in asked]
        if foreign:
            strategy.tell([Result(tokens, 1.0, family=family)])
        else:
            told[3] = Result(tokens, 1.0, 3, family=family)
        strategy.tell(told)
        assert strategy.queue.entries[0] == Entry(1.0, family, tokens)
        with torch.no_grad():
            return float(evaluated(strategy.policy, [tokens])[0])

    assert played(1, family=0) < played(1, family=3)
    assert played(0, family=0) == played(0, family=3) == played(1, family=3)
    assert played(1, family=9, foreign=True) == played(0, family=9, foreign=True)


def test_updates_of_many_sizes_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """How many strings an update has differs, as some earn nothing and some are told by others. Networks for a few
    numbers are kept, and a network that is made anew gives the same bits."""
    alive: WeakSet[Unrolled] = WeakSet()
    made: list[int] = []

    class Watched(Unrolled):
        def __init__(self, policy: Policy, n: int) -> None:
            super().__init__(policy, n)
            alive.add(self)
            made.append(n)

    def state(most: int | None) -> bytes:
        monkeypatch.setattr(controller, "_NETWORKS", most)
        made.clear()
        sizes = {"hidden": 8, "embedding": 4, "batch": 12}
        strategy = ControllerStrategy(Space(groups=1), seed=1, **{**POLICY, "algorithm": "pqt"}, **sizes)
        for update in range(36):
            told = 2 + 5 * update % 11
            asked = strategy.ask(12)
            strategy.tell([Result(c.tokens, (c.id % 7) / 7 if c.id % 12 < told else None, c.id) for c in asked])
            assert most is None or len(alive) <= most + 1
        alive.clear()
        return pack(strategy.state_dict())

    monkeypatch.setattr(controller, "Unrolled", Watched)
    whole, numbers = state(None), len(made)
    assert numbers == len(set(made)) > 8
    assert state(4) == whole
    assert len(made) > numbers  # some were made again


def test_entropy_counts_live_choices_only() -> None:
    space = Space(groups=1)
    strategy = ControllerStrategy(space, seed=1)
    names = space.positions[4].names
    both = (0, 3, 0, 0, names.index("*"))
    left = (0, 3, 0, 0, names.index("left"))
    with torch.no_grad():
        _, entropy = evaluated(strategy.policy, [both, left])
    assert entropy[1] < entropy[0] - 4  # op2 and u2 are dead: log 17 + log 12, about 5.3 nats


def test_unknown_names_and_options_say_what_there_is() -> None:
    with pytest.raises(
        UsageError, match="--strategy 'annealing' is not known; choose one of: controller, evolution, random, optuna"
    ):
        create("annealing", Space(), seed=1)
    with pytest.raises(UsageError, match="has no option 'speed'; it has: algorithm, hidden, embedding, batch, lr"):
        create("controller", Space(), seed=1, options={"speed": 3})
    with pytest.raises(UsageError, match="has no option 'lr'; it has: none"):
        create("random", Space(), seed=1, options={"lr": 3})
    with pytest.raises(UsageError, match=r"option batch is 2\.5; it must be a whole number"):
        create("controller", Space(), seed=1, options={"batch": 2.5})
    with pytest.raises(UsageError, match="option lr is True; it must be a number"):
        create("controller", Space(), seed=1, options={"lr": True})
    with pytest.raises(UsageError, match="batch 0 is below 1"):
        create("controller", Space(), seed=1, options={"batch": 0})
    with pytest.raises(
        UsageError, match="algorithm 'a2c' is not known; choose one of: ppo, trpo, reinforce, risk, pqt"
    ):
        create("controller", Space(), seed=1, options={"algorithm": "a2c"})
    with pytest.raises(UsageError, match="option algorithm is 3; it must be a word"):
        create("controller", Space(), seed=1, options={"algorithm": 3})
    with pytest.raises(UsageError, match=r"population 4, tournament 9 must be >= 2 and in 1\.\.population"):
        create("evolution", Space(), seed=1, options={"population": 4, "tournament": 9})


@pytest.mark.parametrize("algorithm", ["trpo", "pqt"])
def test_equal_with_several_threads(algorithm: str) -> None:
    def state() -> bytes:
        strategy = ControllerStrategy(Space(groups=2), seed=1, **{**POLICY, "algorithm": algorithm})
        run(strategy, lambda tokens: sum(token % 2 == 0 for token in tokens) / len(tokens), 192)
        return pack(strategy.state_dict())

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert len({state() for _ in range(4)}) == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("algorithm", ["trpo", "reinforce", "risk", "pqt"])
def test_other_algorithms_learn_too(algorithm: str) -> None:
    space = Space(groups=1)
    hidden = space.sample(torch.Generator().manual_seed(7))

    def reward(tokens: Tokens) -> float:
        return sum(a == b for a, b in zip(tokens, hidden, strict=True)) / len(hidden)

    strategy = ControllerStrategy(
        space, seed=1, hidden=16, embedding=8, batch=8, kl=0.3, **{**POLICY, "algorithm": algorithm}
    )
    learned = run(strategy, reward, 400)
    assert sum(learned[-80:]) / 80 > sum(learned[:80]) / 80 + 0.25


def test_the_queue_has_the_best_of_each_family() -> None:
    queue = Queue(3)
    for reward, family, tokens in [
        (0.0, 0, (0,)),
        (0.5, 1, (1,)),
        (0.4, 1, (2,)),
        (0.6, 1, (3,)),
        (0.6, 2, (4,)),
        (0.2, ALONE, (5,)),
        (0.3, ALONE, (6,)),
        (0.3, ALONE, (6,)),
        (0.1, 7, (7,)),
    ]:
        queue.offer(Entry(reward, family, tokens))
    assert queue.strings == [(3,), (4,), (6,)]
    again = Queue(3)
    again.load(queue.state())
    assert again.entries == queue.entries


def test_mutants_are_children_of_the_population_and_their_share() -> None:
    """With a competition of all, each child's parent is the best member."""
    space = Space(groups=2)
    strategy = ControllerStrategy(space, seed=1, mutants=0.5, batch=4, tournament=64, warm_start=0)
    first = strategy.ask(4)
    strategy.tell([Result(c.tokens, 1.0 if c.id == 2 else 0.1, c.id) for c in first])
    parent = first[2].tokens
    near = [sum(a != b for a, b in zip(c.tokens, parent, strict=True)) <= 3 for c in strategy.ask(200)]
    assert 60 < sum(near) < 130


def test_the_policy_s_gradient_is_about_what_it_drew() -> None:
    """A founder or a child that failed moves no weight, a string of the policy's own does."""
    for warm, moves in ((1, False), (0, True)):
        strategy = ControllerStrategy(Space(groups=2), seed=1, batch=4, warm_start=warm)
        before = strategy.policy.flat.clone()
        strategy.tell([Result(c.tokens, 0.0 if c.id else 0.5, c.id) for c in strategy.ask(4)])
        assert strategy.updates == 1
        assert torch.equal(strategy.policy.flat, before) != moves


def test_what_was_proposed_lately_is_known_by_its_live_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nos_search.strategy.lately._KEPT", 3)
    space = Space(groups=2)
    generator = torch.Generator().manual_seed(1)
    strings = [space.sample(generator) for _ in range(40)]
    partly = next(tokens for tokens in strings if not all(space.live(tokens)))
    where = space.live(partly).index(False)
    twin = next(
        other
        for token in range(100)
        if token != partly[where]
        and space.live(other := (*partly[:where], token, *partly[where + 1 :])) == space.live(partly)
    )
    memory = Lately(space)
    memory.add(partly)
    assert twin in memory
    others = [tokens for tokens in strings if tokens not in memory][:3]
    for tokens in (*others[:2], twin):  # the last is there already, so the first stays
        memory.add(tokens)
    again = Lately(space)
    again.load(memory.state())
    for each in (memory, again):
        each.add(others[2])
        assert [tokens in each for tokens in (partly, *others)] == [False, True, True, True]


@pytest.mark.parametrize("mutants", [0.0, 0.5])
def test_strings_are_drawn_again_rather_than_proposed_again(mutants: float) -> None:
    """Where there are more strings than draws; and where all have been proposed, it goes on all the same."""
    repeats = {}
    for redraws in (0, 20):
        strategy = ControllerStrategy(Space(groups=1), seed=1, mutants=mutants, batch=8, redraws=redraws)
        seen: set[Tokens] = set()
        repeats[redraws] = 0
        for _ in range(60):
            asked = strategy.ask(8)
            for candidate in asked[int(not seen) :]:
                repeats[redraws] += candidate.tokens in seen
            seen.update(candidate.tokens for candidate in asked)
            strategy.tell([Result(c.tokens, 1.0 if c.tokens[0] == 2 else 0.1, c.id) for c in asked])
    assert repeats[20] < 0.3 * repeats[0]


def test_a_run_of_before_there_were_founders_goes_on_without() -> None:
    today = RunConfig().make_strategy().options()
    assert today["mutants"] == 0.5
    assert today["warm_start"] == 1
    older = {name: value for name, value in today.items() if name not in ControllerStrategy.older}
    for stored, mutants in ((older, 0.0), (today, 0.5), ({"lr": 0.02}, 0.5), ({}, 0.5)):
        written = {**RunConfig().to_json(), "strategy_options": stored}
        options = RunConfig.from_json(written).make_strategy().options()
        assert (options["mutants"], options["warm_start"]) == (mutants, int(mutants > 0))
        assert options["redraws"] == (8 if mutants else 0)
        assert options["families"] == int(mutants > 0)
        assert options.items() >= stored.items()


def test_a_state_of_before_there_were_families_is_taken() -> None:
    one, two = (ControllerStrategy(Space(groups=1), seed=1, batch=4, **POLICY) for _ in range(2))
    candidates = one.ask(6)
    one.tell([Result(c.tokens, 0.5, c.id) for c in candidates[1:]])
    state = one.state_dict()
    old = {name: value for name, value in state.items() if name not in ("queue", "population")}
    old["waiting"] = [row[:4] for row in state["waiting"]]
    two.load_state_dict(old)
    (left,) = two.open
    for strategy in (one, two):
        strategy.tell([Result(left.tokens, 0.7, left.id)])
    assert one.updates == two.updates == 1
    assert one.ask(8) == two.ask(8)


# --- evolution -------------------------------------------------------------------------------------------------------


def test_evolution_begins_with_known_rules_and_then_changes_good_ones() -> None:
    space = Space(groups=2)
    strategy = EvolutionStrategy(space, seed=1, population=16, tournament=16)
    known = list(space.known().values())
    first = strategy.ask(16)
    assert [candidate.tokens for candidate in first[: len(known)]] == known
    cold = EvolutionStrategy(space, seed=1, population=16, tournament=16, warm_start=0)
    assert cold.ask(1)[0].tokens not in known
    strategy.tell([Result(c.tokens, 1.0 if c.id == 3 else 0.5, c.id) for c in first])
    children = [candidate.tokens for candidate in strategy.ask(20)]
    near = [sum(a != b for a, b in zip(child, first[3].tokens, strict=True)) for child in children]
    assert sum(distance <= 3 for distance in near) >= 10  # a tournament of 16 of 16 mostly finds the best
    assert all(distance > 0 for distance in near)


def test_evolution_in_the_space_of_lion_begins_with_adamw_and_its_neighbours() -> None:
    space = LionSpace()
    adamw = space.known()["adamw"]
    first = [candidate.tokens for candidate in EvolutionStrategy(space, seed=1, population=16).ask(16)]
    assert first[0] == adamw
    for tokens in first[1:]:
        assert sum(a == b for a, b in zip(tokens, adamw, strict=True)) > 8  # a random string has 4 of 28
    cold = EvolutionStrategy(space, seed=1, population=16, warm_start=0).ask(16)
    assert adamw not in [candidate.tokens for candidate in cold]
    assert len(EvolutionStrategy(LionSpace(lines=3), seed=1).ask(3)) == 3  # adamw has more lines


def test_evolution_forgets_the_oldest_not_the_worst() -> None:
    space = Space(groups=1)
    strategy = EvolutionStrategy(space, seed=1, population=4, tournament=2)
    answers = [Result(c.tokens, 1.0 if c.id == 0 else 0.1, c.id) for c in strategy.ask(6)]
    strategy.tell(answers)
    assert [age for age, *_ in strategy.population.members] == [2, 3, 4, 5]
    zero = strategy.ask(1)[0]
    strategy.tell([Result(zero.tokens, 0.0, zero.id)])
    assert [age for age, *_ in strategy.population.members] == [2, 3, 4, 5]  # a rule that was rejected does not get in


def test_the_population_has_the_youngest_of_each_family() -> None:
    space = Space(groups=1)
    given = [
        Member(k, space.sample(torch.Generator().manual_seed(k)), 0.1, family)
        for k, family in enumerate((5, 6, 5, ALONE, 5, ALONE, 7))
    ]
    for size, ages in ((9, [1, 3, 4, 5, 6]), (3, [4, 5, 6])):
        for order in itertools.permutations(given):
            population = Population(space, size, tournament=2, families=1)
            for member in order:
                population.add([member])
            assert [member.age for member in population.members] == ages
    population = Population(space, 9, tournament=2, families=0)
    population.add(given)
    assert population.members == given


def test_a_stored_population_of_before_there_were_families() -> None:
    evolution = EvolutionStrategy(Space(groups=1), seed=1)
    evolution.tell([Result(c.tokens, 0.5, c.id) for c in evolution.ask(4)])
    state = evolution.state_dict()
    again = EvolutionStrategy(Space(groups=1), seed=1)
    again.load_state_dict({**state, "members": [row[:3] for row in state["members"]]})
    assert again.population.members == evolution.population.members


def test_evolution_climbs() -> None:
    space = Space(groups=2)
    hidden = space.sample(torch.Generator().manual_seed(3))

    def reward(tokens: Tokens) -> float:
        return sum(a == b for a, b in zip(tokens, hidden, strict=True)) / len(hidden)

    learned = run(EvolutionStrategy(space, seed=1, population=24, tournament=6, warm_start=0), reward, 500)
    assert sum(learned[-80:]) / 80 > sum(learned[:80]) / 80 + 0.25


def test_evolution_of_programs_fills_their_lines() -> None:
    """The reward is the share of live tokens: random programs leave most of their lines unused."""
    space = ProgramSpace(lines=5)

    def reward(tokens: Tokens) -> float:
        return sum(space.live(tokens)) / space.length

    learned = run(EvolutionStrategy(space, seed=1, population=24, tournament=6, warm_start=0), reward, 500)
    assert sum(learned[-80:]) / 80 > sum(learned[:24]) / 24 + 0.25


def test_optuna_prefers_what_paid() -> None:
    pytest.importorskip("optuna")
    space = Space(groups=1)

    def reward(tokens: Tokens) -> float:
        return float(space.names(tokens)[4] == "*") * 0.5 + float(tokens[0] < 4) * 0.5

    learned = run(OptunaStrategy(space, seed=1, startup=20, window=64), reward, 100)
    assert sum(learned[-40:]) / 40 > sum(learned[:20]) / 20 + 0.2
