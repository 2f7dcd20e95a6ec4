"""The gates: each against an oracle of its own (the engine, the full canonical key, the space), then as one funnel."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import nos_ext
from nos_ext.rule.canonical import canonical_key
from nos_search.errors import UsageError
from nos_search.gate import Funnel, GateCount, Gates, engine, gate_counts
from nos_search.gate.canonical import TokenCanon
from nos_search.gate.judge import RuleJudge
from nos_search.gate.probe import (
    TokenProbe,
    descent_cosines,
    descent_stimulus,
    effect_stimulus,
    fingerprints,
    halves,
    has_effect,
    is_finite,
)
from nos_search.gate.static import TokenStatic
from nos_search.rules import compile_rule
from nos_search.space import LionSpace, Options, ProgramSpace, Space, encode
from nos_search.store import Trial

from .conftest import repeatable


def sample(space, n: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return [space.sample(generator) for _ in range(n)]


def draws(space: Space, tokens) -> bool:
    return any(word in space.text(tokens) for word in ("drop", "noise", "normal"))


@pytest.mark.parametrize(
    "space",
    [
        Space(groups=2),
        Space(vocabulary="arxiv-decay", groups=3),
        Space(vocabulary="icml", groups=1, options=Options(bias_correction=False)),
    ],
    ids=["arxiv-2", "decay-3", "icml-plain-1"],
)
def test_token_probe_is_what_the_engine_computes(space: Space) -> None:
    """The uncompiled evaluation of tokens against the compiled rule in the fused interpreter, in float32 both."""
    strings = [tokens for tokens in sample(space, 400) if not draws(space, tokens)]
    assert len(strings) > 80
    rules = [nos_ext.compile_rule(space.text(tokens)).rule for tokens in strings]
    for stimulus in (effect_stimulus(), descent_stimulus()):
        mine = TokenProbe(space, stimulus, seed=1)(np.array(strings))
        truth = engine.updates(rules, stimulus, seed=1)
        same = (mine == truth) | (np.isnan(mine) & np.isnan(truth))
        close = same | np.isclose(mine, truth, rtol=1e-4, atol=1e-30)
        # What is left is cancellation, log near 1 and overflow at its edge: other last bits of exp and pow decide there.
        assert close.mean() > 0.99
        assert (np.isnan(mine) == np.isnan(truth)).mean() > 0.999
        assert close.all(axis=1).mean() > 0.9


def test_drops_of_the_probe_are_zeros_at_their_rate() -> None:
    space = Space(groups=1)
    text = {0.1: "drop(g, 0.1)", 0.5: "drop(g, 0.5)"}
    plain = TokenProbe(space, descent_stimulus(), seed=3)
    whole = plain(np.array([encode(space, "g")]))[0]
    for rate, rule in text.items():
        dropped = plain(np.array([encode(space, rule)]))[0]
        assert ((dropped == whole) | (dropped == 0)).all()
        assert abs((dropped == 0).mean() - rate) < 0.1


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_static_is_what_the_space_says(groups: int) -> None:
    space = Space(groups=groups, options=Options(use_earlier=False))
    strings = sample(space, 300, seed=groups)
    gradient, shared = TokenStatic(space)(np.array(strings))
    assert gradient.tolist() == [space.uses_gradient(tokens) for tokens in strings]
    assert not gradient.all()
    for tokens, twice in zip(strings, shared, strict=True):
        if twice:
            assert space.text(tokens).count("drop") > 1
    assert groups < 4 or shared.any()


def test_shared_output_that_drops_is_found() -> None:
    space = Space(groups=3)
    names = space.positions[2].names
    drop, x, plus = names.index("drop0.3"), names.index("x"), 0
    first = (0, 3, drop, x, plus)
    out1, out2 = 17, 18
    once = (*first, out1, 0, x, x, 2, out2, 0, x, x, 2)
    twice = (*first, out1, 0, x, x, 2, out2, out1, x, x, 2)
    assert TokenStatic(space)(np.array([once, twice]))[1].tolist() == [False, True]
    assert space.text(twice).count("drop") == 2


@pytest.mark.parametrize(("vocabulary", "groups"), [("icml", 1), ("arxiv", 2)])
def test_token_canon_parts_strings_as_the_full_key_does(vocabulary: str, groups: int) -> None:
    space = Space(vocabulary=vocabulary, groups=groups)
    generator = torch.Generator().manual_seed(1)
    strings = sample(space, 250)
    strings += [space.mutate(tokens, generator) for tokens in strings]  # neighbours are equal more often
    canon = TokenCanon(space)
    mine = [canon.key(tokens) for tokens in strings]
    full = [canonical_key(nos_ext.compile_rule(space.text(tokens))) for tokens in strings]
    assert len(set(zip(mine, full, strict=True))) == len(set(mine)) == len(set(full)) < len(strings)
    again = TokenCanon(space)
    assert [again.key(tokens) for tokens in reversed(strings)] == mine[::-1]  # whatever was seen before


def test_fingerprints() -> None:
    space = Space(groups=2)
    probe = TokenProbe(space, effect_stimulus(), seed=1)

    def print_of(text: str) -> int:
        return int(fingerprints(probe(np.array([encode(space, text)])))[0])

    assert print_of("g * m_hat") == print_of("m_hat * g")
    assert print_of("g * exp(sign(g) * sign(m_hat))") == print_of("exp(sign(m_hat) * sign(g)) * g")
    assert print_of("sign(g ** 3)") == print_of("sign(g)")
    different = ["g", "m_hat", "clip(g, 1e-05)", "clip(g, 0.0001)", "clip(g, 0.001)", "g - 0.001 * w", "drop(g, 0.1)"]
    different += ["drop(g, 0.3)", "exp(g)", "exp(g) ** m_hat", "log(abs(g))", "log(abs(g)) ** m_hat", "g * exp(g ** 2)"]
    assert len({print_of(text) for text in different}) == len(different)
    rows = np.ones((4, 96), np.float32)
    rows[1, 5], rows[2, 5], rows[3, 0] = np.nan, np.inf, 1 + 1e-7
    made = fingerprints(rows)
    assert made[0] == made[3]
    assert len(set(made.tolist())) == 3
    zero = np.zeros((3, 96), np.float32)
    zero[1], zero[2] = -0.0, 1e-38
    assert len(set(fingerprints(zero).tolist())) == 1


def test_effect_and_finite_of_compiled_rules() -> None:
    def judged(text: str) -> str:
        updates = engine.updates([compile_rule(text).program.rule], effect_stimulus(), seed=1)
        first, second = halves(updates)
        return "no effect" if not has_effect(first, second)[0] else "finite" if is_finite(first)[0] else "not finite"

    for text in ("g", "clip(g, 1e-5) * clip(m, 1e-5)", "1e-20 * g", "w * g", "lion", "adam", "powersign"):
        assert judged(text) == "finite", text
    for text in ("g - g", "sign(exp(g))", "noise", "w", "1", "drop(w, 0.5)", "g * 0", "sign(g * g + 1)"):
        assert judged(text) == "no effect", text
    for text in ("log(-1 - g * g) * g", "exp(99 + g * g) * g", "g ** 0.5", "1 / (g - g + 0 * m)"):
        assert judged(text) in ("not finite", "no effect"), text
    assert judged("exp(99 + g * g) * g") == "not finite"


def test_update_of_a_rule_that_is_no_plain_subtraction() -> None:
    """The probe of an arbitrary rule: u = (p - p') / lr whatever the form."""
    decoupled = nos_ext.compile_rule("def r(p, g, *, lr, wd=0.5): return p * (1 - lr * wd) - lr * g").rule
    plain = nos_ext.compile_rule("g + 0.5 * w").rule
    a, b = engine.updates([decoupled, plain], effect_stimulus(), seed=0)
    assert np.allclose(a, b, rtol=1e-4, atol=1e-6)


def test_descent_knows_up_from_down() -> None:
    space = Space(groups=2)
    probe = TokenProbe(space, descent_stimulus(), seed=1)
    assert (descent_cosines(probe(np.array(list(space.known().values())))) > 0.5).all()
    for text in ("-g", "g ** 2", "0.1 * w", "-adam"):
        tokens = next((k for k in sample(space, 1) if False), None) or encode(space, text)
        assert descent_cosines(probe(np.array([tokens])))[0] < 0.2, text


# --- the funnel ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "space", [Space(groups=2), ProgramSpace(lines=4), LionSpace(lines=4)], ids=["nos", "program", "lion"]
)
def test_batches_and_singles_agree(space) -> None:
    """Apart from what is equal within a batch."""
    strings = sample(space, 60)
    strings += strings[:20]
    whole = Funnel(space).admit(strings)
    for tokens, verdict in zip(strings, whole, strict=True):
        (single,) = Funnel(space).admit([tokens])
        if verdict.status != "duplicate":
            assert (single.status, single.gate, single.reason) == (verdict.status, verdict.gate, verdict.reason)
            assert (single.key, single.fingerprint) == (verdict.key, verdict.fingerprint)
            assert single.score == pytest.approx(verdict.score, abs=1e-6)
            if verdict.rule is not None:
                assert verdict.rule.text == space.text(tokens)
                assert verdict.rule.key == verdict.key
    assert {verdict.status for verdict in whole} == {"passed", "rejected", "duplicate"}


def test_equal_candidates_are_found_in_the_batch_and_among_the_trained() -> None:
    space = Space(groups=2)
    texts = ["g * m_hat", "adam", "m_hat * g", "g"]
    strings = [encode(space, text) for text in texts]
    funnel = Funnel(space)
    found = funnel.admit(strings, [10, 11, 12, 13])
    assert [v.status for v in found] == ["rejected", "passed", "duplicate", "passed"]  # g * m_hat climbs
    assert found[2].duplicate_of == 10
    assert [v.status for v in funnel.admit(strings[1:2])] == ["passed"]  # nothing was recorded
    funnel.record(11, strings[1])
    (again,) = funnel.admit([strings[1]], [20])
    assert (again.status, again.gate, again.duplicate_of, again.rule) == ("duplicate", "fingerprint", 11, None)


def test_restored_funnel_is_the_recorded_one() -> None:
    for space in (Space(groups=2), ProgramSpace(lines=3), LionSpace(lines=3)):
        strings = sample(space, 100)
        one, two = Funnel(space), Funnel(space)
        trained = [
            (number, v.tokens) for number, v in enumerate(Funnel(space).admit(strings[:50])) if v.status == "passed"
        ]
        for number, tokens in trained:
            one.record(number, tokens)
        two.restore(trained)
        for tokens in strings:
            (a,), (b,) = one.admit([tokens]), two.admit([tokens])
            assert (a.status, a.gate, a.duplicate_of, a.key) == (b.status, b.gate, b.duplicate_of, b.key)


def test_program_and_paper_rules_meet_in_the_fingerprint() -> None:
    program, paper = ProgramSpace(lines=5), Space(groups=2)
    judge = RuleJudge(program)
    judge.start([program.known()["adam"]])
    compiled = engine.updates([nos_ext.compile_rule("adam").rule], effect_stimulus(), seed=20_170_904)
    assert np.allclose(judge.effect([0]), compiled, rtol=1e-5)
    tokens = TokenProbe(paper, effect_stimulus(), seed=1)(np.array([paper.known()["adam"]]))
    assert np.allclose(tokens, compiled, rtol=1e-4, atol=1e-7)


REDUCED = {
    "norm": [("norm", "g"), ("div", "g", "x1")],
    "max_abs": [("max_abs", "g"), ("div", "g", "x1")],
    "rms": [("rms", "g"), ("div", "g", "x1")],
    "average": [("norm", "g"), ("ema", "x1", "0.9"), ("mul", "g", "x2")],
    "weights": [("norm", "w"), ("mul", "g", "x1")],
    "global": [("global_norm", "g"), ("div", "g", "x1")],
    "centred": [("mean", "g"), ("sub", "g", "x1")],
}


def test_reductions_are_told_apart_and_pass() -> None:
    space = LionSpace(lines=3)
    funnel = Funnel(space)
    found = funnel.admit([space.assemble(lines) for lines in REDUCED.values()])
    assert [verdict.status for verdict in found] == ["passed"] * len(REDUCED)
    assert len({verdict.fingerprint for verdict in found}) == len({verdict.key for verdict in found}) == len(REDUCED)
    again = [("norm", "g"), ("reciprocal", "x1"), ("mul", "x2", "g")]
    (verdict,) = funnel.admit([space.assemble(again)])
    assert (verdict.status, verdict.gate) == ("passed", "")  # nothing was recorded
    funnel.record(7, space.assemble(REDUCED["norm"]))
    (verdict,) = funnel.admit([space.assemble(again)])
    assert (verdict.gate, verdict.duplicate_of) == ("fingerprint", 7)


def test_dead_reductions_are_stopped() -> None:
    """Those that say nothing about the gradient, and those without which the rule is the same."""
    space = ProgramSpace(lines=3)
    cases = [
        ([("scale", "g", "10")], "passed", ""),
        ([("norm", "w"), ("mul", "w", "x1")], "rejected", "static"),
        ([("norm", "g"), ("sign", "x1"), ("mul", "w", "x2")], "rejected", "effect"),
        ([("norm", "g"), ("sign", "x1"), ("mul", "g", "x2")], "passed", ""),  # the first that is g
        ([("norm", "g"), ("min", "g", "x1")], "duplicate", "fingerprint"),  # the second
        ([("sign", "g")], "passed", ""),
        ([("max_abs", "g"), ("div", "g", "x1"), ("sign", "x2")], "duplicate", "fingerprint"),
        ([("norm", "g"), ("max", "g", "x1")], "rejected", "descent"),  # it is norm(g) at every element
        ([("norm", "g"), ("max", "g", "x1"), ("neg", "x2")], "rejected", "screen"),
    ]
    found = Funnel(space).admit([space.assemble(lines) for lines, *_ in cases])
    assert [(verdict.status, verdict.gate) for verdict in found] == [tuple(case[1:]) for case in cases]
    assert (found[2].reason, found[4].duplicate_of) == ("gradient has no effect", -4)


def test_ordinary_gradients_are_a_tensor_of_their_own() -> None:
    """What is infinite for the sizes of another tensor only, is no fault."""
    space = ProgramSpace(lines=4)
    fine = [("dot", "g", "g"), ("exp", "x1"), ("mul", "g", "x2")]
    never = [("dot", "g", "g"), ("scale", "x1", "10"), ("exp", "x2"), ("mul", "g", "x3")]
    updates = engine.updates(
        [compile_rule(space.text(space.assemble(lines))).program.rule for lines in (fine, never)],
        effect_stimulus(),
        seed=1,
    )
    assert not np.isfinite(updates[0]).all()
    assert [v.reason for v in Funnel(space).admit([space.assemble(fine)])] == [""]


def test_a_learning_rate_inside_the_update_is_no_factor_of_one() -> None:
    space = LionSpace(lines=3)
    plain, inside = [("add", "g", "w")], [("mul", "lr", "w"), ("add", "g", "x1")]
    average = [("mul", "lr", "g"), ("ema", "x1", "0.9"), ("add", "x2", "g")]
    outside = [("ema", "g", "0.9"), ("add", "x1", "g")]
    funnel = Funnel(space, Gates(descent=None, screen=None))
    found = funnel.admit([space.assemble(lines) for lines in (plain, inside, average, outside)])
    assert [verdict.status for verdict in found] == ["passed"] * 4


def test_thresholds() -> None:
    space = Space(groups=1)
    down, cube = space.known()["sgd"], encode(space, "-g")
    assert [v.gate for v in Funnel(space).admit([down, cube])] == ["", "descent"]
    assert [v.gate for v in Funnel(space, Gates(descent=None)).admit([down, cube])] == ["", "screen"]
    assert [v.gate for v in Funnel(space, Gates(descent=None, screen=None)).admit([down, cube])] == ["", ""]
    (verdict,) = Funnel(space, Gates(screen=0.99)).admit([down])
    assert verdict.gate == "screen"
    assert 0.5 < (verdict.score or 0) < 0.99
    with pytest.raises(UsageError, match=r"gate descent 3\.0 is outside"):
        Gates(descent=3.0)
    with pytest.raises(UsageError, match=r"gate screen -1\.0 is outside"):
        Gates(screen=-1.0)
    with pytest.raises(UsageError, match="gate steps 0 is below 1"):
        Gates(steps=0)
    assert Gates.from_json(Gates(descent=None, steps=5).to_json()) == Gates(descent=None, steps=5)
    with pytest.raises(UsageError, match="2 strings and 1 numbers"):
        Funnel(space).admit([down, cube], [1])


def test_counts_are_those_of_the_verdicts() -> None:
    space = Space(groups=2)
    ticks = iter(range(10**6))
    verdicts = Funnel(space, clock=lambda: float(next(ticks))).admit(sample(space, 400))
    trials = [
        Trial(k, v.tokens, "", "", 0, status="done" if v.status == "passed" else v.status, gates=v.gates())
        for k, v in enumerate(verdicts)
    ]
    rows = gate_counts(trials)
    assert [row.gate for row in rows] == ["static", "effect", "fingerprint", "canonical", "descent", "screen", "family"]
    assert rows[-1] == GateCount("family", 0, 0, 0.0)  # it is off
    del rows[-1]
    assert rows[0].entered == 400
    for row, after in itertools.pairwise(rows):
        assert after.entered == row.entered - row.stopped
        assert row.stopped == sum(v.gate == row.gate for v in verdicts)
        assert row.seconds == pytest.approx(1.0)
    assert rows[-1].entered - rows[-1].stopped == sum(v.status == "passed" for v in verdicts)
    assert gate_counts([]) != []
    assert all(not name.startswith("seconds") for trial in trials for name in repeatable(trial).metrics)
