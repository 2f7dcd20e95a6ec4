"""Owns the reductions of a rule: every way to leave out one thing of its formula.

A function that is applied is left out (a drop, a clip, a sign, a square root), so is a term of a sum or a factor of a
product; an average gives way to what it averages, and a number loses digits. What comes of it is a rule of its own, and
whether it is as good is for trainings to say (chain.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from nos_ext import Expr, Rule, RuleError
from nos_ext.rule.canonical import canonical_key
from nos_ext.rule.expr import constant, postorder, rebuilt
from nos_ext.rule.printers.text import TextFormatter, number_text
from nos_ext.rule.table import REDUCTIONS
from nos_ext.rule.text import parse_as_written

from ..gate.rules import faults
from ..rules import CompiledRule, as_argument, compile_rule
from ..show.simplified import simplified

# For each op, those of its operands that may stand in its place. A comparison, a draw and a reduction go with the term,
# the factor or the `where` that they belong to.
KEPT: Final[Mapping[str, tuple[int, ...]]] = {
    **dict.fromkeys(("add", "mul", "min", "max"), (0, 1)),
    **dict.fromkeys(("sub", "div", "pow", "mod", "clip", "drop"), (0,)),
    **dict.fromkeys(("neg", "abs", "sign", "exp", "log", "sqrt", "rsqrt", "square", "tanh", "floor"), (0,)),
    **dict.fromkeys(("cos", "sin"), (0,)),
    "where": (1, 2),
    "fma": (2,),
    **dict.fromkeys(("lt", "le", "gt", "ge", "eq", "ne", "normal"), ()),
    **dict.fromkeys(sorted(REDUCTIONS), ()),
}
# For each operand of an update, what is left of it without an average or without a factor.
PLAINER: Final[Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys(("g", "w", "ld", "cd", "rd", "noise", "annealed_noise"), ()),
    **dict.fromkeys(("m", "m_hat", "rmsprop"), ("g",)),
    **dict.fromkeys(("v", "v_hat"), ("g ** 2",)),
    **dict.fromkeys(("y", "y_hat"), ("g ** 2 * g",)),
    "adam": ("m_hat", "rmsprop"),
}
_DIGITS: Final = (1, 2)  # that a number is rounded to


@dataclass(frozen=True)
class Reduction:
    """A rule without one of the things that another rule has. `removed` says, as "before -> after", where they
    differ. `key` is that of key_of()."""

    rule: CompiledRule
    removed: str
    key: str


def key_of(rule: CompiledRule) -> str:
    """Returns the canonical key of the rule with its hyperparameters at their defaults, as it is trained here. A weight
    decay of 0 does nothing, though it may do something for a user who sets it."""
    whole = rule.program.rule
    defaults = {name: constant(value) for name, value in whole.hyperparameters.items() if value is not None}
    new: dict[Expr, Expr] = {}
    for node in postorder(whole.outputs):
        leaf = defaults.get(str(node.value), node) if node.op == "hyper" else node
        new[node] = rebuilt(node.op, tuple(new[x] for x in node.args)) if node.args else leaf
    return canonical_key(Rule(whole.name, whole.state_names, {"lr": None}, [new[x] for x in whole.outputs]))


def size(rule: CompiledRule) -> tuple[int, int, int]:
    """Returns how large a rule is: the instructions of its program, its states, and the characters of its formula with
    all operands written out. The first that differs decides which of two rules is the simpler one."""
    return len(rule.program), len(rule.program.state_names), len(rule.program.to_text())


def reductions(rule: CompiledRule) -> list[Reduction]:
    """Returns the rules that are simpler by one thing, the simplest first. Of those that are equal by algebra there is
    one, and all pass the gates that need no training."""
    found: dict[str, Reduction] = {}
    limit = size(rule)
    for text, removed in _texts(rule):
        try:
            made = compile_rule(as_argument(text))
        except RuleError:  # a number for each tensor where one for each element has to be, and the like
            continue
        key = key_of(made)
        known = found.get(key)
        if size(made) < (limit if known is None else size(known.rule)):
            found[key] = Reduction(made, removed, key)
    reasons = faults([each.rule for each in found.values()])
    fit = [each for each, fault in zip(found.values(), reasons, strict=True) if not fault]
    return sorted(fit, key=lambda each: (*size(each.rule), each.rule.text))


def _texts(rule: CompiledRule) -> Iterator[tuple[str, str]]:
    """Yields the texts of the reduced rules, each with what was removed."""
    if rule.is_update:
        update = _update(rule.text)
        yield simplified(rule.text), "what algebra shows to do nothing"
        for (reduced,), removed in _reduced([update], _plainer):
            yield simplified(_written(reduced)), removed
    else:
        whole = rule.program.rule
        averages = _averages(whole)
        for outputs, removed in _reduced(
            whole.outputs, lambda node: averages.get(node, ()), whole.outputs[0], whole.state_names
        ):
            made = _pruned(whole, outputs)
            if made is not None:
                yield made.to_text(), removed


def _reduced(
    outputs: Sequence[Expr],
    others: Callable[[Expr], Sequence[Expr]],
    root: Expr | None = None,
    states: Sequence[str] = (),
) -> Iterator[tuple[list[Expr], str]]:
    """Yields the outputs with one node replaced by something less, for all nodes but `root`. `others` returns what may
    stand for a node besides its operands. All outputs but the first have the names of `states`."""
    order = postorder(outputs)
    names = dict(zip(outputs[1:], states, strict=True))
    for node in order:
        for less in () if node is root else (*_less(node), *others(node)):
            if less.scalar and not node.scalar:  # one number for all parameters: no update, and no factor of one
                continue
            new: dict[Expr, Expr] = {}
            for each in order:
                args = tuple(new[x] for x in each.args)
                same = all(a is b for a, b in zip(args, each.args, strict=True))
                new[each] = less if each is node else each if same else rebuilt(each.op, args)
            yield [new[x] for x in outputs], _change(node, less, names)


def _less(node: Expr) -> Iterator[Expr]:
    """Yields what may stand for a node because of its op."""
    if node.op == "constant":
        number = float(node.value)  # type: ignore[arg-type]
        for digits in _DIGITS:
            rounded = float(f"{number:.{digits - 1}e}")
            if len(number_text(rounded)) < len(number_text(number)):
                yield constant(rounded)
    if not node.args:
        return
    for k in KEPT[node.op]:
        rest = [x for j, x in enumerate(node.args) if j != k]
        # The learning rate is no ornament of a product: the sweep tunes it.
        if node.op not in ("mul", "div") or _has_rate(node.args[k]) or not any(map(_has_rate, rest)):
            yield node.args[k]
    if node.op == "sub" and not node.scalar:
        yield rebuilt("neg", node.args[1:])
    if node.op == "fma":
        yield rebuilt("mul", node.args[:2])


def _has_rate(node: Expr) -> bool:
    return any(x.op == "hyper" and x.value == "lr" for x in postorder([node]))


def _plainer(node: Expr) -> list[Expr]:
    """Returns what may stand for an operand of an update."""
    if node.op != "operand":
        return []
    return [_update(text) for text in PLAINER.get(str(node.value), ())]


def _update(text: str) -> Expr:
    written = parse_as_written(text)
    assert isinstance(written, Expr)
    return written


def _averages(rule: Rule) -> dict[Expr, tuple[Expr, ...]]:
    """Returns, for each new state of the form a * state + b * x with a scalar b, what it averages: x."""
    found: dict[Expr, tuple[Expr, ...]] = {}
    for name, node in zip(rule.state_names, rule.outputs[1:], strict=True):
        for old, fresh in (node.args, node.args[::-1]) if node.op == "add" else ():
            keeps = old.op == "mul" and any(x.op == "state" and x.value == name for x in old.args)
            if keeps and fresh.op == "mul":
                found[node] = tuple(x for x, scale in (fresh.args, fresh.args[::-1]) if scale.scalar)
    return found


def _pruned(rule: Rule, outputs: Sequence[Expr]) -> Rule | None:
    """Returns the rule with these outputs, without the states and hyperparameters that p no longer needs. None says
    that p or the learning rate has no part in the new p."""
    fresh = dict(zip(rule.state_names, outputs[1:], strict=True))
    live: set[str] = set()
    todo = [outputs[0]]
    while todo:
        found = {str(x.value) for x in postorder([todo.pop()]) if x.op == "state"} - live
        live |= found
        todo += [fresh[name] for name in found]
    states = [name for name in rule.state_names if name in live]
    kept = [outputs[0], *(fresh[name] for name in states)]
    leaves = {(x.op, x.value) for x in postorder(kept) if not x.args}
    if not {("param", None), ("hyper", "lr")} <= leaves:
        return None
    hypers = {name: value for name, value in rule.hyperparameters.items() if ("hyper", name) in leaves}
    try:
        return Rule(rule.name, states, hypers, kept)
    except RuleError:
        return None


def _written(node: Expr) -> str:
    texts, _ = TextFormatter().write(postorder([node]), {})
    return texts[node]


def _change(node: Expr, less: Expr, names: Mapping[Expr, str]) -> str:
    """Writes "before -> after". The values of states stand under their names, except for one that is itself what
    changes."""
    texts, behind = TextFormatter().write(postorder([node, less]), names)
    return f"{behind.get(node, texts[node])} -> {texts[less]}"
