"""Owns the screening of rules on the analytic surfaces: thousands of rules are tried at every learning rate, in one
population.

A slice of the population is one rule; its tensor holds all learning rates and all surfaces. So that one program can
move at many learning rates, `lr` of the rule becomes a state tensor that every step leaves as it is. Rules with
reductions would mix what is in one tensor, so they have a slice for each learning rate and a tensor for each surface.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

import nos_ext
from nos_ext import Expr, Program, Rule, RuleError
from nos_ext.rule.definition import MAX_STATES
from nos_ext.rule.expr import PARAM, hyper, postorder, rebuilt, state
from nos_ext.rule.levels import LevelError
from nos_ext.rule.shorthand import HYPERS, OPERANDS, operand

from ..errors import UsageError
from ..space import Space
from ..space.group import Array, Meaning
from . import surface
from .crowds import crowds, reduces
from .formula import functions, update_of

LEARNING_RATES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1e0, 1e1)  # the sweep of the child training
STEPS = 200
_RATE = "learning_rate"
_SHOWN = 200  # characters of a rule in a message
_CHUNK = 256  # rules at once; their tensors, about 120 KB each, stay in cache
_LR = hyper("lr")
_STATE = state(_RATE)


def with_rate_tensor(rule: Rule, label: str | None = None) -> Program:
    """Returns the program of a rule whose lr is its first state. Raises UsageError where it has no state to spare,
    needs lr as a number, or is too long. `label` is what the message calls it; without one it is its name."""
    if len(rule.state_names) == MAX_STATES:
        raise UsageError(
            f"rule '{rule.name}' has {MAX_STATES} states; to run at many learning rates at once it may have "
            f"{MAX_STATES - 1}"
        )
    rate = state(fresh(_RATE, rule))
    try:
        outputs = replaced(rule.outputs, {_LR: rate})
        return _compile(rate, rule.state_names, rule.hyperparameters, outputs[0], outputs[1:])
    except LevelError as error:
        why, remedy = f"lr is a tensor then, and {error}", "put a number there that does not depend on lr"
    except RuleError as error:
        why, remedy = f"with lr as a state, {error}", "make it shorter"
    shown = (label or rule.name)[:_SHOWN]
    raise UsageError(f"rule {shown!r} cannot run at many learning rates at once: {why}; {remedy}")


def fresh(name: str, rule: Rule) -> str:
    """Returns the name for one more state of a rule, which may have any names itself."""
    while name in rule.state_names or name in rule.hyperparameters:
        name += "_"
    return name


def update_with_rate_tensor(update: Expr) -> Program:
    """Returns the same for the rule p <- p - lr * update over the paper's operands."""
    found = {(node.op, node.value) for node in postorder([update]) if not node.args}
    states = [name for name, spec in OPERANDS.items() if spec.is_state and ("state", name) in found]
    hypers = {"lr": None, **HYPERS}
    return _compile(_STATE, states, hypers, PARAM - _STATE * update, [operand(name) for name in states])


def _compile(
    rate: Expr, states: Sequence[str], hypers: Mapping[str, float | None], param: Expr, updates: Sequence[Expr]
) -> Program:
    return Rule("rule", [str(rate.value), *states], hypers, [param, rate, *updates]).compile()


def replaced(outputs: Sequence[Expr], by: Mapping[Expr, Expr]) -> list[Expr]:
    """Returns the graphs with leaves replaced. Leaves are known by their kind and value."""
    swap = {(old.op, old.value): new for old, new in by.items()}
    new: dict[Expr, Expr] = {}
    for node in postorder(outputs):
        if not node.args:
            new[node] = swap.get((node.op, node.value), node)
        elif any(new[x] is not x for x in node.args):
            new[node] = rebuilt(node.op, tuple([new[x] for x in node.args]))
        else:
            new[node] = node
    return [new[x] for x in outputs]


class TokenGraphs(Meaning[Expr]):
    """This makes the update graphs of strings of a space, without the way through text."""

    def __init__(self, space: Space) -> None:
        self._shape = space.shape
        self._operands = [update_of(space.token_text(token)) for token in space.operands]
        self._unary, self._binary = functions(space)

    def update(self, tokens: Sequence[int]) -> Expr:
        """Returns the update u of a string."""
        return self._shape.fold(tokens, self)

    def operand(self, token: int) -> Expr:
        return self._operands[token]

    def unary(self, token: int, x: Expr, place: int) -> Expr:
        return self._unary[token].graph(x)

    def binary(self, token: int, left: Expr, right: Expr) -> Expr:
        return self._binary[token].graph(left, right)


@dataclass(frozen=True)
class Screening:
    """What a screening of n rules has found. Each rule is shown at its best learning rate on each surface: `rates` has
    the index of that rate, (n, surfaces), and `best` the score at it, (n, surfaces) in [0, 1]. `score` is the mean of
    `best` over the surfaces, (n,)."""

    score: Array
    best: Array
    rates: Array


def screen(programs: Sequence[Program], *, steps: int = STEPS, seed: int = 0) -> Screening:
    """Trains every program (of `with_rate_tensor`) on every surface at every learning rate."""
    parts = [
        final_positions(programs[k : k + _CHUNK], learning_rates=LEARNING_RATES, steps=steps, seed=seed)
        for k in range(0, len(programs), _CHUNK)
    ]
    reached = (
        surface.scores(np.concatenate(parts)) if parts else np.zeros((0, len(LEARNING_RATES), len(surface.SURFACES)))
    )
    best = reached.max(axis=1)
    return Screening(best.mean(axis=1), best, reached.argmax(axis=1))


def final_positions(
    programs: Sequence[Program],
    *,
    learning_rates: Sequence[float],
    steps: int,
    seed: int,
    path: list[Array] | None = None,
) -> Array:
    """Returns (n, rates, DIMENSION): where the rules are after `steps`. `path` gets a copy of the start and of every
    step."""
    n = len(programs)
    final = np.empty((n, len(learning_rates), surface.DIMENSION), np.float32)
    steps_of: list[tuple[list[int], list[Array]]] = []
    for rows in crowds(programs):
        crowd = [programs[row] for row in rows]
        train = _apart if reduces(crowd[0]) else _together
        seen: list[Array] | None = None if path is None else []
        final[rows] = train(crowd, learning_rates, steps, seed, seen)
        steps_of.append((rows, seen or []))
    if path is not None:
        for step in range(steps + 1):
            path.append(np.empty_like(final))
            for rows, positions in steps_of:
                path[-1][rows] = positions[step]
    return final


def _together(
    programs: Sequence[Program], learning_rates: Sequence[float], steps: int, seed: int, path: list[Array] | None
) -> Array:
    """Trains rules whose elements do not meet: a slice is a rule, at all learning rates on all surfaces."""
    x = np.tile(surface.start_vector(), (len(programs), len(learning_rates), 1))
    g = np.empty_like(x)
    noise = surface.noise_vectors(steps, seed=seed)
    states = nos_ext.init_population_state(programs, [x])
    states[0][0][...] = np.array(learning_rates, np.float32)[:, None]
    if path is not None:
        path.append(x.copy())
    with np.errstate(all="ignore"):
        for step in range(1, steps + 1):
            surface.gradients(x, g, noise[step - 1])
            nos_ext.apply_population(programs, [x], [g], states, lr=0.0, step=step, total_steps=steps, seed=seed)
            if path is not None:
                path.append(x.copy())
    return x


def _apart(
    programs: Sequence[Program], learning_rates: Sequence[float], steps: int, seed: int, path: list[Array] | None
) -> Array:
    """Trains rules with reductions: a slice is a rule at one learning rate, and every surface is a call of its own,
    since sums over all tensors are those of a call."""
    n, rates = len(programs), len(learning_rates)
    slices = [program for program in programs for _ in learning_rates]
    x = np.tile(surface.start_vector(), (n, rates, 1))
    g = np.empty_like(x)
    noise = surface.noise_vectors(steps, seed=seed)
    parts = []
    for _, where in surface.blocks():
        own = np.ascontiguousarray(x[..., where]).reshape(n * rates, -1)
        states = nos_ext.init_population_state(slices, [own])
        states[0][0].reshape(n, rates, -1)[...] = np.array(learning_rates, np.float32)[:, None]
        parts.append((where, own, states))
    if path is not None:
        path.append(x.copy())
    with np.errstate(all="ignore"):
        for step in range(1, steps + 1):
            surface.gradients(x, g, noise[step - 1])
            for where, own, states in parts:
                grads = np.ascontiguousarray(g[..., where]).reshape(own.shape)
                nos_ext.apply_population(
                    slices, [own], [grads], states, lr=0.0, step=step, total_steps=steps, seed=seed
                )
                x[..., where] = own.reshape(n, rates, -1)
            if path is not None:
                path.append(x.copy())
    return x
