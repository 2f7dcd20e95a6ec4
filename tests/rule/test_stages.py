"""Rules that are cut at their reductions: the stages, run on the parts of a tensor and joined by hand, give what the
whole rule gives on the whole tensor."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import nos_ext
from nos_ext import RuleError
from nos_ext.optim import library
from nos_ext.rule.program import SplitProgram, split
from nos_ext.rule.table import REDUCTIONS

# Every reduction, in two depths, with a state that is one number per tensor.
EACH = """
def each(p, g, m, k, *, lr, decay=0.5):
    m = decay * m + g / (mean(g ** 2) + max_abs(p))
    k = decay * k + sum(abs(g)) * (2 - t / T) + rms(m)
    return p - lr * m * sqrt(k) / (1 + norm(m + p)), m, k
"""
ALL = """
def every(p, g, m, *, lr):
    m = m + g / (1 + global_norm(g) + dot(p, p))
    return p - lr * m / (1 + global_sum(abs(m)) + global_dot(m, p + m) ** 2), m
"""
KEPT = """
def kept(p, g, k, *, lr):
    return p - lr * g / (1 + k), norm(g)
"""
RULES = {
    name: getattr(library, name).compile()
    for name in ("lamb", "lars", "stable_adamw", "adamh", "normalized_sgd", "adafactor", "cautious_adamw")
} | {"each": nos_ext.compile_rule(EACH), "every": nos_ext.compile_rule(ALL), "kept": nos_ext.compile_rule(KEPT)}
SHAPES, CUTS = ((6, 5), (9,), (4, 3)), (2, 5, 3)
STEPS, LR, U = 5, 0.01, 2.0**-53


def finished(op: str, parts: list[float], numel: int) -> float:
    total = max(parts) if op == "max_abs" else math.fsum(parts)
    total = total / numel if op in ("mean", "rms") else total
    return math.sqrt(total) if op in ("norm", "rms", "global_norm") else total


def step_of_parts(
    program: SplitProgram, parts: list[Any], grads: list[Any], state: dict[str, list[Any]], t: int
) -> None:
    """One step, in which the last part of every tensor is apart from the others."""
    whole: dict[str, list[Any]] = {}
    pairs = len(SHAPES)
    for stage, results in zip(program.stages, program.results, strict=True):
        for name, _ in results:
            whole[name] = [np.zeros(()) for _ in parts]
        lists = {name: {**state, **whole}[name] for name in stage.state_names}
        before = [x.tobytes() for x in [*parts, *[x for name in state for x in state[name]]]]
        for side in (slice(None, pairs), slice(pairs, None)):  # as two processes do
            here = {name: tensors[side] for name, tensors in lists.items()}
            nos_ext.apply_rule(stage, parts[side], grads[side], here, lr=LR, step=t, total_steps=STEPS)
        if results:
            assert before == [x.tobytes() for x in [*parts, *[x for name in state for x in state[name]]]]
        for name, node in results:
            ours = [x.item() for x in whole[name]]
            for i in range(pairs):
                of = ours if node.op.startswith("global") else [ours[i], ours[i + pairs]]
                number = finished(node.op, of, parts[i].size + parts[i + pairs].size)
                whole[name][i][...] = whole[name][i + pairs][...] = number


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", RULES)
def test_halves_give_what_the_whole_gives(name: str, dtype: type) -> None:
    """A sum of positive terms is added up in another order: each order has at most 8 additions and a rounded product,
    so the two differ by 2 * 9 + 1 roundings, and numbers made of a few of them by less than 100. A step of these rules
    is shorter than a hundredth of what it moves, so in five of them 100 u grow to less than 5 * 100 u, of numbers
    below 8. In fp32 the numbers are rounded before they meet an element; that mostly hides the difference, or else
    each step is off by a few roundings."""
    program, make = RULES[name], np.random.default_rng(7)
    whole = [make.normal(size=shape).astype(dtype) for shape in SHAPES]
    pieces = [x[:k].copy() for x, k in zip(whole, CUTS, strict=True)]
    pieces += [x[k:].copy() for x, k in zip(whole, CUTS, strict=True)]
    state, states = nos_ext.init_state(program, whole), nos_ext.init_state(program, pieces)
    for t in range(1, STEPS + 1):
        grads = [make.normal(size=shape).astype(dtype) for shape in SHAPES]
        halves = [g[:k].copy() for g, k in zip(grads, CUTS, strict=True)]
        halves += [g[k:].copy() for g, k in zip(grads, CUTS, strict=True)]
        nos_ext.apply_rule(program, whole, grads, state, lr=LR, step=t, total_steps=STEPS)
        step_of_parts(split(program), pieces, halves, states, t)
    bound = 8 * STEPS * (100 * U if dtype is np.float64 else 4 * 2.0**-24)
    for i, x in enumerate(whole):
        np.testing.assert_allclose(np.concatenate([pieces[i], pieces[i + len(SHAPES)]]), x, rtol=0, atol=bound)
        for key in program.state_names:
            first, second = states[key][i], states[key][i + len(SHAPES)]
            if key in program.per_tensor_states:
                assert first == second
                np.testing.assert_allclose(first, state[key][i], rtol=bound)
            else:
                np.testing.assert_allclose(np.concatenate([first, second]), state[key][i], rtol=bound, atol=bound)


def test_reductions_of_one_depth_are_in_one_stage_and_the_last_has_none() -> None:
    for name, stages in (("lamb", 2), ("stable_adamw", 2), ("adamh", 3), ("each", 3), ("every", 3)):
        program = split(RULES[name])
        assert len(program.stages) == stages
        assert not REDUCTIONS.intersection([op for op, *_ in program.stages[-1].code])
        assert program.results[-1] == ()
        assert program.state_names == RULES[name].state_names
        assert program.stages[-1].state_names[: len(program.state_names)] == program.state_names
    assert sorted(node.op for _, node in split(RULES["every"]).results[0]) == ["dot", "global_norm"]
    assert split(RULES["lamb"]) is split(library.lamb.compile())


def test_parts_are_double_whatever_the_elements_are() -> None:
    program = split(nos_ext.compile_rule("g / (sum(g) + norm(p))"))
    make = np.random.default_rng(2)
    p, g = (make.normal(size=1000).astype(np.float32) for _ in range(2))
    (total, _), (squares, _) = program.results[0]
    state = {total: [np.zeros(())], squares: [np.zeros(())]}
    nos_ext.apply_rule(program.stages[0], [p], [g], state, lr=0.1)
    exact = math.fsum(float(x) for x in g), math.fsum(float(x) ** 2 for x in p)
    size = math.fsum(abs(float(x)) for x in g)
    assert abs(state[total][0] - exact[0]) <= 17 * U * size  # two levels of 8 additions
    assert abs(state[squares][0] - exact[1]) <= 17 * U * exact[1]


def test_fused_multiply_adds_stay() -> None:
    text = "g * norm(g) + p * max_abs(p)"
    fused = split(nos_ext.compile_rule(text, contract=True)).stages[-1]
    assert "fma" in [op for op, *_ in fused.code]
    assert "fma" not in [op for op, *_ in split(nos_ext.compile_rule(text)).stages[-1].code]


def test_names_of_the_rule_stay_free() -> None:
    text = (
        "def f(p, g, reduction1, *, lr, reduction2=1.0):\n    return p - lr * g / norm(g) * reduction2, reduction1 + g"
    )
    program = split(nos_ext.compile_rule(text))
    assert program.stages[-1].state_names == ("reduction1", "reduction3")
    assert [*program.hyperparameters] == ["lr", "reduction2"]


def test_what_cannot_be_cut_is_refused() -> None:
    many = "+".join(f"g * norm({k} * p)" for k in range(1, 10))
    with pytest.raises(RuleError, match="0 states and 9 reductions on shards; together they can be 8"):
        split(nos_ext.compile_rule(many))
    with pytest.raises(
        RuleError, match="random draws cannot stand in a rule with reductions on shards; leave out drop"
    ):
        split(nos_ext.compile_rule("drop(g, 0.5) / norm(g)"))


def test_a_rule_without_reductions_is_one_stage() -> None:
    program = RULES["lamb"], nos_ext.compile_rule("g * exp(sign(g) * sign(m))")
    assert len(split(program[1]).stages) == 1
    assert split(program[1]).stages[0].fingerprint == program[1].fingerprint
