"""Owns the cut of a rule with orthogonalize into stages, which are ordinary rules.

Each stage but the last computes the tensors that are orthogonalized next, and leaves p and the states as they are. It
writes them to temporaries, which are states of the stage. After they have been orthogonalized in their place, the next
stage reads them. Whatever else a stage needs of an earlier one it computes again, with the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass

from .definition import MAX_STATES, Definition
from .errors import RuleError
from .expr import ELEMENT, GRAD, PARAM, Expr, constant, postorder, rebuilt
from .matrix import NewtonSchulz
from .table import GLOBAL, MATRIX, RANDOM, REDUCTIONS


@dataclass(frozen=True)
class Stage:
    """A Stage is one part of a rule. Its states are those of the rule that it reads, then temporaries.

    `results` names the temporaries that have to be orthogonalized before the next stage, with their options.
    """

    definition: Definition
    results: tuple[tuple[str, NewtonSchulz], ...]


def uses_matrices(rule: Definition) -> bool:
    """Tells whether a rule has an orthogonalize."""
    return any(node.op in MATRIX for node in postorder(rule.simplified))


def cut(rule: Definition) -> list[Stage]:
    """Cuts a rule into stages; the last one computes the new p and the new states.

    Raises:
        RuleError: something in the rule cannot stand beside orthogonalize, or there are too many tensors.
    """
    order = postorder(rule.simplified)
    _check(rule, order)
    depth: dict[Expr, int] = {}
    for node in order:
        depth[node] = max([depth[x] for x in node.args], default=0) + (node.op in MATRIX)
    found = [node for node in order if node.op in MATRIX]
    names = _names(rule, len(found))
    if len(rule.state_names) + len(found) > MAX_STATES:
        raise RuleError(
            f"the rule has {len(rule.state_names)} states and {len(found)} orthogonalize; together they can be "
            f"{MAX_STATES} at most"
        )
    temporary = {node: Expr("state", (), name, ELEMENT) for node, name in zip(found, names, strict=True)}
    new: dict[Expr, Expr] = {}
    for node in order:
        if node in temporary:
            new[node] = temporary[node]
        else:
            new[node] = rebuilt(node.op, tuple([new[x] for x in node.args])) if node.args else node
    stages = []
    for level in range(1, max(depth.values()) + 1):
        now = [node for node in found if depth[node] == level]
        written = {str(temporary[node].value): new[node.args[0]] for node in now}
        results = tuple([(str(temporary[node].value), _options(node)) for node in now])
        stages.append(Stage(_preparing(rule, written), results))
    outputs = [*[new[x] for x in rule.simplified], *temporary.values()]
    last = Definition(
        rule.name,
        [*rule.state_names, *names],
        rule.hyperparameters,
        outputs,
        sites={},
        per_tensor=rule.per_tensor_states,
    )
    return [*stages, Stage(last, ())]


def _check(rule: Definition, order: list[Expr]) -> None:
    for node in order:
        if node.op in RANDOM:
            raise RuleError(f"random draws cannot stand in a rule with orthogonalize; leave out {node.op}")
        if node.op in GLOBAL:
            raise RuleError(
                f"{node.op} cannot stand in a rule with orthogonalize; use a reduction of one tensor, as norm, or "
                "clip_norm of the optimizer"
            )
    for name in MATRIX:
        if name in rule.state_names or name in rule.hyperparameters:
            raise RuleError(f"the rule calls {name}, so nothing else in it can have this name; rename it")


def _names(rule: Definition, count: int) -> list[str]:
    """Makes up names for the temporaries."""
    taken = {*rule.state_names, *rule.hyperparameters}
    free = [f"orthogonal{k}" for k in range(1, count + len(taken) + 1)]
    return [name for name in free if name not in taken][:count]


def _options(node: Expr) -> NewtonSchulz:
    assert isinstance(node.value, NewtonSchulz)
    return node.value


def _preparing(rule: Definition, written: dict[str, Expr]) -> Definition:
    """Makes the stage that writes these temporaries."""
    order = postorder(written.values())
    read = {str(node.value): node for node in order if node.op == "state"}
    names = [*[x for x in rule.state_names if x in read], *[x for x in read if x not in rule.state_names]]
    per_tensor = [x for x in rule.per_tensor_states if x in read]
    p = PARAM
    if per_tensor and REDUCTIONS.isdisjoint([node.op for node in order]):
        # Only programs with a reduction have states that are numbers. A norm is never negative.
        never = rebuilt("lt", (rebuilt("max_abs", (GRAD,)), constant(0.0)))
        p = rebuilt("where", (never, GRAD, PARAM))
    return Definition(
        rule.name,
        [*names, *written],
        rule.hyperparameters,
        [p, *[read[x] for x in names], *written.values()],
        sites={},
        per_tensor=per_tensor,
    )
