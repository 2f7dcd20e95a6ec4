"""The space of straight-line programs: every string is a rule, what is dead leaves no trace, known rules are exact."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import nos_ext
from nos_ext.optim import library
from nos_search.errors import UsageError
from nos_search.gate import engine
from nos_search.gate.probe import effect_stimulus
from nos_search.rules import compile_rule
from nos_search.space import ProgramSpace, Space, make_space


@pytest.mark.parametrize("lines", [2, 5, 7])
def test_every_string_and_every_change_is_a_rule(lines: int) -> None:
    space = ProgramSpace(lines=lines)
    generator = torch.Generator().manual_seed(lines)
    tokens, seen = space.sample(generator), set()
    for _ in range(150):
        fresh = space.check(space.sample(generator))
        tokens = space.check(space.mutate(tokens, generator))
        child = space.check(space.crossover(fresh, tokens, generator))
        for string in (fresh, tokens, child):
            assert "\n" not in space.text(string)
            nos_ext.compile_rule(space.text(string))
        seen.add(tokens)
    assert len(seen) > 75


def test_dead_tokens_leave_no_trace_and_live_ones_do() -> None:
    space = ProgramSpace(lines=4)
    generator = torch.Generator().manual_seed(1)
    for _ in range(150):
        tokens = space.sample(generator)
        live, text = space.live(tokens), space.text(tokens)
        for where in range(space.length):
            options = [k for k, ok in enumerate(space.mask(tokens[:where])) if ok and k != tokens[where]]
            if not options:
                continue
            changed = space.repair((*tokens[:where], options[0], *tokens[where + 1 :]))
            if not live[where]:
                assert space.text(changed) == text
            else:
                assert space.text(changed) != text
        assert space.uses_gradient(tokens) == any(
            live[k] and space.positions[k].tokens[tokens[k]].gradient for k in range(space.length)
        )


def test_masked_size_is_what_enumeration_counts() -> None:
    space = ProgramSpace(lines=2)

    def count(prefix: tuple[int, ...], end: int) -> int:
        if len(prefix) == end:
            return 1
        return sum(count((*prefix, k), end) for k, ok in enumerate(space.mask(prefix)) if ok)

    first = count((), 4)
    start = next(
        (*head, b, c)
        for head in itertools.product(range(3), range(3))
        for b in range(3)
        for c in range(13)
        if all(space.mask((*head, b, c)[:k])[(*head, b, c)[k]] for k in range(4))
    )
    assert space.size(masked=True) == first * count(start, 8)
    assert space.size() == (21 * 3**2 * 13) * (21 * 4**2 * 13)


@pytest.mark.parametrize(
    ("name", "scale"),
    [("momentum", 1.0), ("signum", 1.0), ("lion", 1.0), ("adam", 1.0), ("sgd", 2.0), ("addsign", 1.0)],
)
def test_known_rules_are_those_of_the_library(name: str, scale: float) -> None:
    """By their updates on the probe; momentum of the library has no factor 1 - beta, adam has its eps inside, and the
    update of addsign, which has weight decay, drowns in the roundings of the parameter."""
    space = ProgramSpace(lines=5)
    mine = nos_ext.compile_rule(space.text(space.known()[name])).rule
    text = {
        "momentum": "m",
        "adam": "m_hat / (sqrt(v_hat) + 1e-8)",
        "signum": "sign(m)",
        "addsign": "g * (1 + sign(g) * sign(m))",
    }.get(name)
    truth = nos_ext.compile_rule(text or library.get(name)).rule
    a, b = engine.updates([mine, truth], effect_stimulus(), seed=1)
    assert np.allclose(a, scale * b, rtol=1e-3, atol=1e-12, equal_nan=True)


def test_lion_reads_its_momentum_before_the_update() -> None:
    space = ProgramSpace(lines=3)
    assert space.text(space.known()["lion"]) == (
        "def rule(p, g, m1, *, lr): x2 = 0.9 * m1 + 0.1 * g; x3 = sign(x2); return p - lr * x3, 0.99 * m1 + 0.01 * g"
    )
    assert "adam" not in space.known()  # five lines
    assert "adam" in ProgramSpace(lines=5).known()


def test_programs_are_shown_and_exported_as_rules() -> None:
    text = ProgramSpace(lines=3).text(ProgramSpace(lines=3).known()["lion"])
    rule = compile_rule(text)
    assert rule.label == text
    assert not rule.is_update
    assert "class" in rule.program.to_pytorch()


def test_wrong_programs_are_refused() -> None:
    with pytest.raises(UsageError, match=r"lines 9 is outside 2\.\.7"):
        ProgramSpace(lines=9)
    space = ProgramSpace(lines=2)
    with pytest.raises(UsageError, match="3 lines given, this space has 2"):
        space.assemble([("sign", "g")] * 3)
    with pytest.raises(UsageError, match="line 1: there is no op 'median'"):
        space.assemble([("median", "g")])


def test_spaces_by_configuration() -> None:
    for space in (ProgramSpace(lines=3), Space(groups=3)):
        again = make_space(space.config())
        assert type(again) is type(space)
        assert again.config() == space.config()
    old = {key: value for key, value in Space(groups=1).config().items() if key != "kind"}
    assert isinstance(make_space(old), Space)
    with pytest.raises(UsageError, match="--space 'trees' is not known; choose one of: nos, program"):
        make_space({"kind": "trees"})
    with pytest.raises(UsageError, match="needs its number of lines"):
        make_space({"kind": "program"})


@pytest.mark.parametrize("space", [Space(groups=2), Space(vocabulary="icml", groups=4)], ids=["2", "4"])
def test_changes_of_the_paper_s_strings(space: Space) -> None:
    generator = torch.Generator().manual_seed(1)
    tokens = space.sample(generator)
    for _ in range(200):
        other = space.check(space.mutate(tokens, generator))
        assert other != tokens
        mixed = space.check(space.crossover(tokens, other, generator))
        assert mixed[0] in (tokens[0], other[0])
        tokens = other
