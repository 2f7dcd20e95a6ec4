"""The space of straight-line programs: every string is a rule, what is dead leaves no trace, known rules are exact."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch

import nos_ext
from nos_ext.optim import library
from nos_ext.rule.expr import TENSOR
from nos_search.errors import UsageError
from nos_search.gate import engine
from nos_search.gate.probe import effect_stimulus
from nos_search.rules import compile_rule
from nos_search.space import LionSpace, ProgramSpace, Space, make_space
from nos_search.strategy import Result
from nos_search.strategy.evolution import EvolutionStrategy


def spaces(lines: int) -> list[ProgramSpace]:
    """One for each vocabulary."""
    return [ProgramSpace(lines=lines, vocabulary="elementwise"), ProgramSpace(lines=lines), LionSpace(lines=lines)]


@pytest.mark.parametrize("space", [*spaces(2), *spaces(5), *spaces(7)], ids=lambda s: f"{s.words.name}-{s.lines}")
def test_every_string_and_every_change_is_a_rule(space: ProgramSpace) -> None:
    generator = torch.Generator().manual_seed(space.lines)
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


@pytest.mark.parametrize("space", spaces(2), ids=["elementwise", "reductions", "lion"])
def test_masked_size_is_what_enumeration_counts(space: ProgramSpace) -> None:
    """Line by line, where lines after which the masks are equal are counted once."""

    def lines(prefix: tuple[int, ...], end: int) -> list[tuple[int, ...]]:
        if len(prefix) == end:
            return [prefix]
        return [whole for k, ok in enumerate(space.mask(prefix)) if ok for whole in lines((*prefix, k), end)]

    def what_may_follow(line: tuple[int, ...]) -> tuple[object, ...]:
        names = [(k, j) for k, op in enumerate(space.words.ops) if op.name in ("mul", "norm", "abs") for j in (0, 3)]
        return tuple(tuple(space.mask((*line, k))) + tuple(space.mask((*line, k, j))) for k, j in names)

    kinds: dict[object, list[tuple[int, ...]]] = {}
    for line in lines((), 4):
        kinds.setdefault(what_may_follow(line), []).append(line)
    assert len(kinds) == (3 if space.words.reduces else 1)
    assert space.size(masked=True) == sum(len(kind) * len(lines(kind[0], 8)) for kind in kinds.values())
    ops, inputs, numbers = {"elementwise": (21, 3, 13), "reductions": (27, 3, 13), "lion": (43, 4, 16)}[
        space.words.name
    ]
    assert space.size() == (ops * inputs**2 * numbers) * (ops * (inputs + 1) ** 2 * numbers)


@pytest.mark.parametrize("space", spaces(4)[1:], ids=["reductions", "lion"])
def test_levels_are_those_of_the_engine(space: ProgramSpace) -> None:
    """A mask refuses an operand of a reduction where the engine refuses the rule, and a last line where the engine says
    that the update is one number per tensor."""
    generator = torch.Generator().manual_seed(3)
    ops = {token.name: k for k, token in enumerate(space.words.ops)}
    inputs, refused, last = len(space.words.inputs), 0, 0
    for _ in range(150):
        head = space.sample(generator)[:8]
        for operand in range(inputs + 2):
            whole = (*head, ops["norm"], operand, 0, 0, ops["mul"], 0, inputs + 2, 0)
            allowed = space.mask(whole[:9])[operand]
            if allowed:
                nos_ext.compile_rule(space.text(whole))
            else:
                refused += 1
                with pytest.raises(nos_ext.RuleError, match="norm takes a tensor"):
                    nos_ext.compile_rule(space.text(whole))
            whole = (*head, ops["abs"], 0, 0, 0, ops["abs"], operand, 0, 0)
            if operand < inputs and space.words.inputs[operand].name == "1":
                continue
            step = nos_ext.compile_rule(space.text(whole)).rule.outputs[0].args[1]
            assert space.mask(whole[:13])[operand] == (step.level != TENSOR)
            last += step.level == TENSOR
    assert refused > 20 < last


def test_the_update_is_never_one_number_per_tensor() -> None:
    space, generator = ProgramSpace(lines=2), torch.Generator().manual_seed(1)
    for _ in range(1500):
        step = nos_ext.compile_rule(space.text(space.sample(generator))).rule.outputs[0].args[1]
        assert step.level != TENSOR
    with pytest.raises(UsageError, match=r"'norm' is masked at op\.2"):
        space.assemble([("norm", "g")])
    with pytest.raises(UsageError, match=r"'x1' is masked at b\.2"):
        space.assemble([("norm", "g"), ("mul", "x1", "x1")])
    assert space.text(space.assemble([("norm", "g"), ("mul", "x1", "g")])).endswith("x2 = x1 * g; return p - lr * x2")


def test_averages_of_numbers_are_numbers() -> None:
    text = ProgramSpace(lines=3).text(
        ProgramSpace(lines=3).assemble([("rms", "g"), ("ema_hat", "x1", "0.9"), ("div", "g", "x2")])
    )
    assert nos_ext.compile_rule(text).per_tensor_states == ("m2",)


def test_runs_from_before_reductions_keep_their_vocabulary() -> None:
    """Their configuration names none. The digests are those of the release that wrote them: what is drawn and changed,
    the rules, sizes and names of tokens, and how evolution begins and goes on."""

    def digest(value: object) -> str:
        return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]

    space = make_space({"kind": "program", "lines": 7})
    generator = torch.Generator().manual_seed(1)
    drawn = [space.sample(generator) for _ in range(20)]
    changed = [space.mutate(tokens, generator) for tokens in drawn]
    mixed = [space.crossover(a, b, generator) for a, b in zip(drawn, changed, strict=True)]
    texts = [space.text(tokens) for tokens in drawn + changed + mixed]
    names = [position.names for position in space.positions]
    known = list(space.known().items())
    assert drawn[0][:8] == (1, 0, 0, 1, 11, 0, 0, 9)
    assert digest([drawn, changed, mixed, known, texts, space.size(), space.size(masked=True), names]) == (
        "1baa671bb10ee5e2"
    )
    for lines, wanted in ((5, "6783b8e0f9cd4757"), (6, "00d431cde170d0a5")):
        space = make_space({"kind": "program", "lines": lines})
        strategy, asked = EvolutionStrategy(space, seed=1, population=10, tournament=3), []
        for _ in range(40):
            (candidate,) = strategy.ask(1)
            asked.append(list(candidate.tokens))
            strategy.tell([Result(candidate.tokens, sum(space.live(candidate.tokens)) / space.length, candidate.id)])
        assert digest(asked) == wanted
    assert make_space(space.config()).positions == space.positions != ProgramSpace(lines=6).positions


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


@pytest.mark.parametrize(
    ("name", "truth"),
    [
        ("lion", library.get("lion")),
        ("adamw", "m_hat / (sqrt(v_hat) + 1e-8) + 0.01 * w"),
        ("momentum", "m"),
        ("nsgd", "g / (norm(g) + 1e-8)"),
    ],
)
def test_the_space_of_lion_writes_what_it_began_with_and_found(name: str, truth: str) -> None:
    space = LionSpace()
    tokens = space.known()[name]
    named = [position.names.index(token) for position, token in zip(space.positions, space.names(tokens), strict=True)]
    assert tuple(named) == space.check(tokens)
    rules = [nos_ext.compile_rule(text).rule for text in (space.text(tuple(named)), truth)]
    a, b = engine.updates(rules, effect_stimulus(), seed=1)
    assert np.allclose(a, b, rtol=1e-3, atol=1e-12, equal_nan=True)


def test_functions_of_lion_are_what_their_names_say() -> None:
    """Against NumPy, as published: log and sqrt of magnitudes, and reductions of all tensors as one vector."""
    space = LionSpace(lines=2)
    x = [np.array([0.3, -1.7, 2.5, 1e-6]), np.array([-0.2, 0.9])]
    w = [np.array([1.0, 2.0, -0.5, 0.7]), np.array([-1.5, 0.4])]
    flat, other = np.concatenate(x), np.concatenate(w)
    norm, dot = np.linalg.norm(flat), flat @ other
    cases = {
        ("cube", "g"): flat**3,
        ("cbrt", "g"): np.cbrt(flat),
        ("reciprocal", "g"): 1 / flat,
        ("exp2", "g"): np.exp2(flat),
        ("exp10", "g"): 10**flat,
        ("expm1", "g"): np.expm1(flat),
        ("log2", "g"): np.log2(abs(flat)),
        ("log10", "g"): np.log10(abs(flat)),
        ("log1p", "g"): np.log(abs(1 + flat)),
        ("sinh", "g"): np.sinh(flat),
        ("cosh", "g"): np.cosh(flat),
        ("power", "g", "1"): flat,
        ("clip_by_global_norm", "g", "0.5"): flat * 0.5 / norm,
        ("clip_by_global_norm", "g", "10"): flat,
        ("global_norm", "g"): norm * flat,
        ("global_dot", "g", "w"): dot * flat,
        ("cosine_sim", "g", "w"): dot / norm / np.linalg.norm(other) * flat,
    }
    for line, wanted in cases.items():
        lines = [line, ("mul", "g", "x1")] if line[0] in ("global_norm", "global_dot", "cosine_sim") else [line]
        program = nos_ext.compile_rule(space.text(space.assemble(lines)))
        moved, _ = program.rule.reference(w, x, {}, lr=1.0, step=1)
        assert np.allclose(other - np.concatenate(moved), wanted, rtol=1e-6, atol=1e-15), line


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
    for space in (*spaces(3), Space(groups=3)):
        again = make_space(space.config())
        assert type(again) is type(space)
        assert again.config() == space.config()
    old = {key: value for key, value in Space(groups=1).config().items() if key != "kind"}
    assert isinstance(make_space(old), Space)
    with pytest.raises(UsageError, match="--space 'trees' is not known; choose one of: nos, program, lion"):
        make_space({"kind": "trees"})
    with pytest.raises(UsageError, match="needs its number of lines"):
        make_space({"kind": "program"})
    with pytest.raises(UsageError, match="vocabulary 'lion' is not known; choose one of: reductions, elementwise"):
        make_space({"kind": "program", "lines": 3, "vocabulary": "lion"})


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
