"""Families of rules: the distance against its formula, which rules are alike, and the archive against a plain loop."""

from __future__ import annotations

import itertools
import sqlite3
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nos_ext
from nos_search.errors import UsageError
from nos_search.gate import Funnel, engine
from nos_search.gate.families import THRESHOLD, Families, behaviours, check_distance, distance
from nos_search.gate.judge import SEED, RuleJudge, TokenJudge
from nos_search.gate.probe import behaviour_stimulus
from nos_search.rules import compile_rule
from nos_search.run import RunConfig
from nos_search.run.families import enter_trained, families_of
from nos_search.show.leaderboard import summary
from nos_search.space import LionSpace, ProgramSpace, Space, Tokens, encode
from nos_search.space.group import Array
from nos_search.store import Store
from nos_search.store.seal import seal, signed
from nos_search.store.tables import COLUMNS

from .conftest import StubExecutor, stub_search

ADAM = """def adam(p, g, m, v, *, lr, beta={}):
    m = beta * m + (1 - beta) * g
    v = 0.999 * v + 0.001 * g * g
    return p - lr * (m / (1 - beta ** t)) / (sqrt(v / (1 - 0.999 ** t)) + 1e-8), m, v
"""


def points(*texts: str) -> Array:
    """The behaviours of rules, as the engine computes their updates."""
    rules = [compile_rule(text).program.rule for text in texts]
    return behaviours(engine.updates(rules, behaviour_stimulus(), seed=SEED))


def of_tokens(space: Space, strings: Sequence[Tokens]) -> Array:
    """The behaviours of token strings, without compiling them."""
    judge = TokenJudge(space)
    judge.start(strings)
    return behaviours(judge.behaviour(range(len(strings))))


def apart(first: str, second: str) -> float:
    a, b = points(first, second)
    return float(distance(a, b))


def test_the_distance_is_that_of_its_formula() -> None:
    rng = np.random.default_rng(1)
    updates = rng.normal(size=(2, 12, 4, 16)) * 10.0 ** rng.uniform(-3, 3, (2, 1, 4, 1))
    regimes = updates.transpose(0, 2, 1, 3).reshape(2, 4, -1)
    norms = np.linalg.norm(regimes, axis=2)
    cosines = (regimes[0] * regimes[1]).sum(axis=1) / norms.prod(axis=0)
    ratios = np.log10(norms[0] / norms[1])
    wanted = np.mean(1 - cosines) + 0.1 * np.var(ratios)
    assert distance(*behaviours(updates.reshape(2, -1))) == pytest.approx(wanted, rel=1e-5)


def test_a_constant_makes_no_other_rule_and_the_size_of_gradients_does() -> None:
    assert apart("(adam)", "0.001 * (adam)") < 1e-9
    assert apart("g", "-g") == pytest.approx(2)
    # Within a regime these are the same direction, and they differ in how they grow with the gradient.
    space = ProgramSpace(lines=2)
    normal = space.text(space.assemble([("norm", "g"), ("div", "g", "x1")]))
    assert apart("g", normal) == pytest.approx(0.1 * np.var([-4, -3, -2, -1]), rel=0.2)


def test_obvious_families() -> None:
    assert apart("(rmsprop)", "rmsprop - clip(g, 1e-05)") < THRESHOLD / 10
    assert apart(ADAM.format(0.9), ADAM.format(0.901)) < THRESHOLD / 10
    assert apart(ADAM.format(0.9), ADAM.format(0.5)) > THRESHOLD
    names = ("sgd", "momentum", "adam", "rmsprop", "lion", "powersign", "addsign")
    found = dict(zip(names, points(*names), strict=True))
    for a, b in itertools.combinations(names, 2):
        assert distance(found[a], found[b]) > THRESHOLD, (a, b)
    known = Space().known()
    found = dict(zip(known, of_tokens(Space(), list(known.values())), strict=True))
    for a, b in itertools.combinations(known, 2):
        assert distance(found[a], found[b]) > THRESHOLD, (a, b)


def test_tokens_and_the_engine_agree() -> None:
    space, generator = Space(vocabulary="arxiv-decay", groups=2), torch.Generator().manual_seed(2)
    strings = [space.sample(generator) for _ in range(300)]
    strings = [s for s in strings if not any(word in space.text(s) for word in ("drop", "noise"))]
    compiled = [nos_ext.compile_rule(space.text(tokens)).rule for tokens in strings]
    mine = of_tokens(space, strings)
    truth = behaviours(engine.updates(compiled, behaviour_stimulus(), seed=SEED))
    far = distance(mine, truth)
    # Where a difference of nearly equal numbers is all of an update, other last bits of exp and pow are all of it.
    assert len(far) > 60
    assert (far < 1e-6).mean() > 0.97
    assert np.isfinite(mine).all()


def test_it_does_not_matter_where_a_drop_stands() -> None:
    space = Space(groups=1)
    texts = ("drop(g, 0.3) * m_hat", "m_hat * drop(g, 0.3)")
    first, second = of_tokens(space, [encode(space, text) for text in texts])
    assert distance(first, second) == 0


def test_the_norms_of_one_tensor_and_of_all_are_told_apart() -> None:
    space = LionSpace(lines=2)
    judge = RuleJudge(space)
    judge.start([space.assemble([(norm, "g"), ("div", "g", "x1")]) for norm in ("norm", "global_norm")])
    first, second = behaviours(judge.behaviour([0, 1]))
    assert distance(first, second) > 0.05


def test_what_is_not_finite_has_a_place() -> None:
    updates = np.ones((4, behaviour_stimulus().size), np.float32)
    updates[1, 3], updates[2, 5], updates[3] = np.nan, np.inf, 0
    found = behaviours(updates)
    assert np.isfinite(found).all()
    assert distance(found[0], found[1]) < 0.01  # one number of 768
    assert distance(found[0], found[2]) > 0.1
    assert distance(found[3], found[3]) == 0


def plain(vectors: Array, threshold: float) -> list[int]:
    """The families by the definition, one rule after the other."""
    founders: list[int] = []
    found = []
    for k, vector in enumerate(vectors):
        far = [0.5 * float(((vector.astype(float) - vectors[j].astype(float)) ** 2).sum()) for j in founders]
        near = [(d, j) for d, j in zip(far, founders, strict=True) if d <= threshold]
        if not near:
            founders.append(k)
        found.append(min(near)[1] if near else k)
    return found


def test_the_archive_is_a_plain_loop_however_it_is_cut() -> None:
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(12, 40))
    vectors = (centres[rng.integers(12, size=150)] + 0.16 * rng.normal(size=(150, 40))).astype(np.float32)
    wanted = plain(vectors, 1.0)
    assert 12 < len(set(wanted)) < 120
    whole = Families(1.0)
    assert whole.add_many(vectors, range(150)) == wanted
    for cut in (1, 7, 64):
        parts = Families(1.0)
        found = []
        for start in range(0, 150, cut):
            rows = range(start, min(150, start + cut))
            found += parts.add_many(vectors[rows], rows)
        assert found == wanted
        assert len(parts) == len(whole) == len(set(wanted))
    single = Families(1.0)
    assert [single.add(vector, k) for k, vector in enumerate(vectors[:20])] == wanted[:20]
    assert whole.find(vectors) == [whole.find(vectors[k : k + 1])[0] for k in range(150)]
    assert [whole.find(vectors[k : k + 1])[0] for k in set(wanted)] == list(set(wanted))
    assert Families(1.0).find(vectors[:2]) == [None, None]


def test_thresholds_are_distances() -> None:
    for wrong in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(UsageError, match=r"is outside \(0, 1\)"):
            check_distance("gate family", wrong)


@pytest.mark.parametrize("space", [Space(), ProgramSpace(), LionSpace()], ids=lambda space: space.kind)
def test_families_alone_are_those_of_a_whole_funnel(space: Space | ProgramSpace) -> None:
    """Who looks at a run folder leaves out fingerprints and canonical forms, and finds the same families."""
    generator = torch.Generator().manual_seed(5)
    strings = [(number, space.sample(generator)) for number in range(60)]
    whole, alone = Funnel(space), Funnel(space)
    assert whole.restore(strings) == alone.restore(strings, equals=False)
    assert len(whole.families) == len(alone.families) > 10


def as_format_3(folder: Path) -> None:
    """Makes a stored run one of the release before there were families in it."""
    db = sqlite3.connect(folder / "search.db")
    db.execute("ALTER TABLE trial DROP COLUMN family")
    names = [name for name in COLUMNS["trial"] if name != "family"]
    total = 0
    for number, *row in db.execute(f"SELECT rowid, {', '.join(names)} FROM trial").fetchall():
        db.execute("UPDATE trial SET seal = ? WHERE rowid = ?", (seal("trial", row), number))
        total += seal("trial", row)
    db.execute("UPDATE seal SET total = ? WHERE part = 'trial'", (signed(total),))
    db.execute("PRAGMA user_version = 3")
    db.commit()
    db.close()


def test_a_run_keeps_its_families(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who looks at a folder reads them. In a run of an older release they are found anew until a resume keeps them."""
    space = Space(groups=1).config()
    config = RunConfig(trials=150, batch=8, strategy="random", space=space, gates={"descent": None, "screen": None})
    stub_search(tmp_path, config, StubExecutor())

    def shown() -> tuple[dict[int, int], dict[str, Any]]:
        with Store.open(tmp_path) as store:
            return families_of(store, store.trials()), summary(store)

    found, board = shown()
    with Store.open(tmp_path) as store:
        trials = store.trials()
        funnel = Funnel(config.make_space(), alike=config.alike)
        assert enter_trained(funnel, trials, equals=False) == found
    assert {trial.id: trial.family for trial in trials if trial.trained} == found
    assert all(trial.family is None for trial in trials if not trial.trained)
    assert 10 < len({*found.values()}) < len(found)

    as_format_3(tmp_path)
    with Store.open(tmp_path) as store:
        assert all(trial.family is None for trial in store.trials())
    assert shown() == (found, board)
    stub_search(tmp_path, replace(config, trials=170), StubExecutor())
    with Store.open(tmp_path) as store:
        assert store.trials()[:150] == trials[:150]

    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("found anew")

    monkeypatch.setattr("nos_search.run.families.Funnel", refuse)
    assert shown()[0].items() > found.items()


def test_families_of_another_machine_are_replaced_by_those_of_a_resume(tmp_path: Path) -> None:
    """Last digits of a distance may differ there, and no trial may be left in a family that has no first."""
    space = Space(groups=1).config()
    config = RunConfig(trials=60, batch=8, strategy="random", space=space, gates={"descent": None, "screen": None})
    stub_search(tmp_path, config, StubExecutor())
    with Store.open(tmp_path, write=True) as store:
        before = store.trials()[:60]
        for trial in before:
            if trial.trained:
                store.put(replace(trial, family=trial.id))  # nothing is alike there
        store.commit()
    stub_search(tmp_path, replace(config, trials=61), StubExecutor())
    with Store.open(tmp_path) as store:
        assert store.trials()[:60] == before


def test_a_rule_beside_ten_thousand_families_costs_one_pass_over_them() -> None:
    """Adding one must not copy them all, nor measure them anew: it takes a pass, as a product with a vector does."""
    random = np.random.default_rng(1)
    points = random.normal(size=(4096, 64)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    families = Families()
    families.add_many(points, range(len(points)))
    before = families._points
    tracemalloc.start()
    assert families.add(points[0], -1) == 0
    assert families.find(points[1:2]) == [1]
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert families._points is before
    assert most < before.nbytes / 8
