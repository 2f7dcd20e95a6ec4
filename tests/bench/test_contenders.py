"""Every contender of the benches makes the step that the engine makes: else their times would not compare."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

import nos_ext
from bench import population
from bench.case import Arena, Case, Contender, NotApplicable, Unavailable
from bench.peers import CONTENDERS, ENGINE, LIMIT, eager, foreach, native, numexpr_, optim, packages
from bench.rules import RULES, BenchRule
from bench.sizes import SIZES, Size

STEPS = 3
UNIT = 2.0**-24  # rounding unit of float32
SMALL = Size("small", "", ((37, 5), (1001,), (3,)))
EXACT = {*native.LABELS, ENGINE}
COMPILED = ("adamw", "powersign", "random40")  # a second or two each


def grads(size: Size, step: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(step)
    return [torch.empty(shape).uniform_(-0.1, 0.1, generator=generator) for shape in size.shapes]


def prepare(case: Case) -> None:
    """Zero states, and parameters of the size of an update, so that an error in the update shows."""
    with torch.no_grad():
        for p in case.params:
            p.mul_(1e-3)
        for tensors in case.state.values():
            for x in tensors:
                x.zero_()


def contents(case: Case) -> list[Tensor]:
    return [x.detach() for tensors in (case.params, *case.state.values()) for x in tensors]


def trajectory(rule: BenchRule, build: Callable[[Case], Contender], *, keep: bool = False) -> Iterator[list[Tensor]]:
    """p and the states after each step. The contender is built anew for each, unless it keeps state of its own."""
    case = Arena(SMALL).case(rule, step=1)
    prepare(case)
    contender: Contender | None = None
    for case.step in range(1, STEPS + 1):
        for g, new in zip(case.grads, grads(SMALL, case.step), strict=True):
            g.copy_(new)
        if contender is None or not keep:
            before = [x.clone() for x in contents(case)]
            contender = build(case)  # may run a step or more
            for x, old in zip(contents(case), before, strict=True):
                x.copy_(old)
        contender.run(1)
        yield [x.clone() for x in contents(case)]


def check(rule: BenchRule, name: str) -> None:
    """Same bits, or as far apart as roundings explain.

    Each instruction of the rule rounds once, or errs by less than two units (functions), on numbers of the size of the
    change that the step makes; the result is rounded once more; and the two sides may err in opposite directions.
    """
    instructions = len(nos_ext.compile_rule(rule.text))
    build = CONTENDERS[name]
    ours = list(trajectory(rule, CONTENDERS[ENGINE]))
    theirs = list(trajectory(rule, build, keep=name == "RuleOptimizer"))
    before = [torch.zeros_like(x) for x in ours[0]]
    allowed = [0.0] * len(before)
    for wanted, got in zip(ours, theirs, strict=True):
        for i, (x, y, old) in enumerate(zip(wanted, got, before, strict=True)):
            change = float((x - old).abs().max())
            allowed[i] += 2 * UNIT * (float(x.abs().max()) + 2 * instructions * change)
            if name == "RuleOptimizer" and i >= SMALL.tensors:
                continue  # its states are its own
            assert torch.isfinite(x).all()
            error = float((x - y).abs().max())
            assert error <= (0.0 if name in EXACT else allowed[i]), (rule.name, name, i, error, allowed[i])
        before = wanted


@pytest.mark.parametrize("name", [n for n in CONTENDERS if n not in (ENGINE, LIMIT, "torch.compile")])
def test_same_steps_as_the_engine(name: str) -> None:
    checked = 0
    for rule in RULES.values():
        try:
            CONTENDERS[name](Arena(SMALL).case(rule))
        except NotApplicable:
            continue
        except Unavailable as why:
            pytest.skip(str(why))
        check(rule, name)
        checked += 1
    assert checked


@pytest.mark.slow
@pytest.mark.parametrize("rule", COMPILED)
def test_compiled_step_is_the_engines(rule: str) -> None:
    check(RULES[rule], "torch.compile")


def test_the_check_notices_a_wrong_step() -> None:
    rule = RULES["adamw"]
    wrong = BenchRule("adamw", rule.text, rule.states, {**rule.hyper, "beta2": 0.9991}, rule.scalars, rule.native)
    with pytest.raises(AssertionError):
        check(wrong, "eager")


def test_the_limit_leaves_values_alone() -> None:
    for rule in RULES.values():
        case = Arena(SMALL).case(rule)
        before = [x.clone() for x in contents(case)]
        try:
            CONTENDERS[LIMIT](case).run(2)
        except Unavailable as why:
            pytest.skip(str(why))
        assert all(torch.equal(x, y) for x, y in zip(contents(case), before, strict=True))


@pytest.mark.parametrize(
    "table", [eager.UPDATES, foreach.UPDATES, numexpr_.EXPRESSIONS], ids=["eager", "foreach", "numexpr"]
)
def test_a_table_has_every_rule(table: dict[str, object]) -> None:
    assert set(table) == set(RULES)


def test_other_tables_name_rules_that_exist() -> None:
    assert set(optim.SPECS) <= set(RULES)
    assert {rule for rows in packages.SPECS.values() for rule in rows} <= set(RULES)


@pytest.mark.parametrize("rule", RULES.values(), ids=list(RULES))
def test_what_is_said_of_a_rule_is_what_its_text_says(rule: BenchRule) -> None:
    program = nos_ext.compile_rule(rule.text)
    assert program.name == rule.name
    assert program.state_names == rule.states
    assert program.hyperparameters == {"lr": None, **rule.hyper}
    assert set(rule.native) <= set(native.LABELS)


def test_operations_of_the_random_rules() -> None:
    average = 3  # instructions of an EMA of g; one more for g ** 2; two for p - lr * u
    assert len(nos_ext.compile_rule(RULES["random15"].text)) == 15 + average + 2
    assert len(nos_ext.compile_rule(RULES["random40"].text)) == 40 + average + average + 1 + 2


@pytest.mark.parametrize(
    ("name", "tensors", "elements"),
    [
        ("1e8", 1, 100_000_000),
        ("convnet", 10, 48_690),
        ("many", 1000, 256_000),
        ("resnet50", 161, 25_557_032),  # torchvision's resnet50
        ("gpt2", 148, 124_439_808),  # transformers' gpt2
    ],
)
def test_sizes(name: str, tensors: int, elements: int) -> None:
    assert (SIZES[name].tensors, SIZES[name].elements) == (tensors, elements)


@pytest.mark.parametrize("rules", [population.MIXED, population.SAME], ids=["mixed", "same"])
def test_population_contenders_agree(rules: tuple[str, ...]) -> None:
    def make() -> population.Stack:
        return population.stack(((50,), (3, 4)), rules, k=8)

    first = make()
    population.contenders(first, True)[0].run(2)
    for i in range(1, len(population.contenders(make(), True))):
        other = make()
        contender = population.contenders(other, True)[i]
        contender.run(2)
        for a, b in zip([first.params, *first.slots], [other.params, *other.slots], strict=True):
            for x, y in zip(a, b, strict=True):
                exact = contender.name.startswith("apply_rule")
                torch.testing.assert_close(x, y, rtol=0, atol=0 if exact else 16 * UNIT)
