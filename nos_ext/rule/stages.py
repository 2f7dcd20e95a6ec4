"""Owns the cut of a rule into stages, which are ordinary rules, where something stands that one call of the engine
cannot finish: a matrix product, or a reduction of a tensor of which other processes hold parts.

Each stage but the last computes what has to be finished next, and leaves p and the states as they are. It writes that
to temporaries, which are states of the stage. After each of them has been finished in its place, by whoever runs the
stages, the next stage reads them. Whatever else a stage needs of an earlier one it computes again, with the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Final

from .definition import MAX_STATES, Definition
from .errors import RuleError
from .expr import ELEMENT, PARAM, TENSOR, Expr, Level, carry, postorder, rebuilt
from .matrix import NewtonSchulz
from .table import GLOBAL, MATRIX, RANDOM, REDUCTIONS


@dataclass(frozen=True)
class Stage:
    """A Stage is one part of a rule. Its states are those of the rule that it reads, then temporaries.

    `results` names the temporaries that have to be finished before the next stage. With each of them comes the node of
    the rule that it has to become.
    """

    definition: Definition
    results: tuple[tuple[str, Expr], ...]


@dataclass(frozen=True)
class _Cut:
    """A _Cut says at which ops a rule is cut, and how.

    Fields:
        ops: their names.
        what: what messages call them.
        name: how the names of temporaries begin.
        level: of the temporaries, a tensor or one number per tensor.
        begun: makes what a temporary is before it has been finished, of an op and its operands.
    """

    ops: Collection[str]
    what: str
    name: str
    level: Level
    begun: Callable[[str, tuple[Expr, ...]], Expr]


def options(node: Expr) -> NewtonSchulz:
    """Returns those of an orthogonalize."""
    assert isinstance(node.value, NewtonSchulz)
    return node.value


def uses_matrices(rule: Definition) -> bool:
    """Tells whether a rule has an orthogonalize."""
    return any(node.op in MATRIX for node in postorder(rule.simplified))


def cut_at_matrices(rule: Definition) -> list[Stage]:
    """Cuts a rule at every orthogonalize. The last stage computes the new p and the new states.

    The temporaries are tensors, which have to be orthogonalized.

    Raises:
        RuleError: something in the rule cannot stand beside orthogonalize, or there are too many tensors.
    """
    for node in postorder(rule.simplified):
        if node.op in GLOBAL:
            raise RuleError(
                f"{node.op} cannot stand in a rule with orthogonalize; use a reduction of one tensor, as norm, or "
                "clip_norm of the optimizer"
            )
    for name in MATRIX:
        if name in rule.state_names or name in rule.hyperparameters:
            raise RuleError(f"the rule calls {name}, so nothing else in it can have this name; rename it")
    return _cut(rule, _MATRICES)


def cut_at_reductions(rule: Definition) -> list[Stage]:
    """Cuts a rule at every reduction, for tensors that are in several places. The last stage has no reductions.

    The temporaries are one number per tensor: the sum of the elements, or of products, or the largest magnitude, of
    the part of the tensor that the stage runs on. They have to become the reductions of the whole: they are joined
    with those of the other parts, and where that is the reduction divided by the number of elements, and the root
    taken. They should be float64, whatever the parameters are, as the engine's own numbers are.

    Raises:
        RuleError: the rule draws random numbers, or has too many states and reductions.
    """
    return _cut(rule, _REDUCTIONS)


def _part(op: str, operands: tuple[Expr, ...]) -> Expr:
    """Makes what a part of a tensor adds to a reduction of it."""
    if op == "max_abs":
        return rebuilt(op, operands)
    if op in ("sum", "mean", "global_sum"):
        return rebuilt("sum", operands)
    return rebuilt("dot", (operands[0], operands[-1]))  # of norm and rms the sum of squares


_MATRICES: Final = _Cut(MATRIX, "orthogonalize", "orthogonal", ELEMENT, lambda _, operands: operands[0])
_REDUCTIONS: Final = _Cut(REDUCTIONS, "reductions on shards", "reduction", TENSOR, _part)


def _cut(rule: Definition, how: _Cut) -> list[Stage]:
    order = postorder(rule.simplified)
    for node in order:
        if node.op in RANDOM:
            raise RuleError(f"random draws cannot stand in a rule with {how.what}; leave out {node.op}")
    depth: dict[Expr, int] = {}
    for node in order:
        depth[node] = max([depth[x] for x in node.args], default=0) + (node.op in how.ops)
    found = [node for node in order if node.op in how.ops]
    names = _names(rule, how.name, len(found))
    if len(rule.state_names) + len(found) > MAX_STATES:
        raise RuleError(
            f"the rule has {len(rule.state_names)} states and {len(found)} {how.what}; together they can be "
            f"{MAX_STATES} at most"
        )
    temporary = {node: Expr("state", (), name, how.level) for node, name in zip(found, names, strict=True)}
    new = dict(temporary)
    carry(order, new)
    numbers = [*rule.per_tensor_states, *(names if how.level == TENSOR else ())]
    stages = []
    for level in range(1, max(depth.values()) + 1):
        now = [node for node in found if depth[node] == level]
        written = {str(temporary[node].value): how.begun(node.op, tuple([new[x] for x in node.args])) for node in now}
        results = tuple([(str(temporary[node].value), node) for node in now])
        stages.append(Stage(_preparing(rule, written, numbers), results))
    outputs = [*[new[x] for x in rule.simplified], *temporary.values()]
    last = _stage(rule, [*rule.state_names, *names], outputs, numbers)
    return [*stages, Stage(last, ())]


def _names(rule: Definition, begin: str, count: int) -> list[str]:
    """Makes up names for the temporaries."""
    taken = {*rule.state_names, *rule.hyperparameters}
    free = [f"{begin}{k}" for k in range(1, count + len(taken) + 1)]
    return [name for name in free if name not in taken][:count]


def _preparing(rule: Definition, written: dict[str, Expr], numbers: Collection[str]) -> Definition:
    """Makes the stage that writes these temporaries."""
    order = postorder(written.values())
    read = {str(node.value): node for node in order if node.op == "state"}
    names = [*[x for x in rule.state_names if x in read], *[x for x in read if x not in rule.state_names]]
    return _stage(rule, [*names, *written], [PARAM, *[read[x] for x in names], *written.values()], numbers)


def _stage(rule: Definition, states: list[str], outputs: Iterable[Expr], numbers: Collection[str]) -> Definition:
    return Definition(rule.name, states, rule.hyperparameters, [*outputs], sites={}, per_tensor=numbers)
