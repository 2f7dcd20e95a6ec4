"""Owns the numerical probe of compiled rules, whatever they were written in; it runs many at once through
apply_population.

The stimulus is the same as for token strings (probe.py), which shows new parameters at every step. So each rule is
compiled once more with its update u in the place of the new p, and needs no state for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import nos_ext
from nos_ext import Expr, Program, Rule
from nos_ext.rule.expr import PARAM, TENSOR, constant, hyper

from ..space.group import Array
from .crowds import crowds, reduces
from .probe import Stimulus
from .screen import replaced

_RATE = 0.37


def with_update_as_param(rule: Rule) -> Program:
    """Returns the program whose new p is the update u of `p - lr * u`. Raises RuleError where it would be too long."""
    update, *states = _update_and_states(rule)
    if update.level == TENSOR:  # p has one number for each element
        update = update + 0 * PARAM
    return Rule("probe", rule.state_names, rule.hyperparameters, [update, *states]).compile()


def _update_and_states(rule: Rule) -> list[Expr]:
    """Returns u = (p - p') / lr at lr 1, and the new states. Of the usual form `p - lr * u` it takes u itself, because
    the difference would lose digits, and with lr at a rate that is no factor of 1 where u itself reads it."""
    param, *states = rule.outputs
    if param.op == "sub" and param.args[0].op == "param":
        step = param.args[1]
        if step.op == "mul" and step.args[0].op == "hyper" and step.args[0].value == "lr":
            return replaced([step.args[1], *states], {hyper("lr"): constant(_RATE)})
    at_one = replaced([param], {hyper("lr"): constant(1.0)})[0]
    plain = at_one.op == "sub" and at_one.args[0].op == "param"
    return [at_one.args[1] if plain else PARAM - at_one, *states]


def updates(rules: Sequence[Rule], stimulus: Stimulus, *, seed: int) -> Array:
    """Returns the (n, size) float32 updates of the rules on the stimulus."""
    programs = [with_update_as_param(rule) for rule in rules]
    found = np.empty((len(rules), stimulus.size), np.float32)
    for rows in crowds(programs):
        found[rows] = _updates([programs[row] for row in rows], stimulus, seed)
    return found


def _updates(programs: Sequence[Program], stimulus: Stimulus, seed: int) -> Array:
    shown = []
    cuts = stimulus.cuts if reduces(programs[0]) else ()
    for grads, params in stimulus.split():
        x = [np.empty((len(programs), part.size), np.float32) for part in np.split(grads[0], cuts)]
        g = [np.empty_like(part) for part in x]
        states = nos_ext.init_population_state(programs, x)
        values = []
        for step, now in enumerate(zip(params, grads, strict=True), 1):
            for tensors, numbers in zip((x, g), now, strict=True):
                for tensor, part in zip(tensors, np.split(numbers, cuts), strict=True):
                    tensor[...] = part
            nos_ext.apply_population(
                programs, x, g, states, lr=1.0, step=step, total_steps=stimulus.total_steps, seed=seed
            )
            values.append(np.concatenate(x, axis=1))
        shown.append(np.stack(values[-stimulus.shown :], axis=1))
    return np.concatenate(shown, axis=2).reshape(len(programs), -1)
