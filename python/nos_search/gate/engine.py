"""Owns the numerical probe of compiled rules, whatever they were written in; it runs many at once through
apply_population.

The stimulus is the same as for token strings (probe.py). Each rule is compiled once more so that it leaves p alone and
writes its update u to a state of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import nos_ext
from nos_ext import Expr, Program, Rule
from nos_ext.rule.expr import PARAM, TENSOR, constant, hyper

from ..space.group import Array
from .crowds import crowds
from .probe import Stimulus
from .screen import replaced

_UPDATE = "update"


def with_update_state(rule: Rule) -> Program:
    """Returns the program that keeps p and whose first state is the update u of `p - lr * u`."""
    update = _update_of(rule.outputs[0])
    if update.level == TENSOR:  # such a state would be one number, and the probe compares elements
        update = update + 0 * PARAM
    return Rule(
        "probe", [_UPDATE, *rule.state_names], rule.hyperparameters, [PARAM, update, *rule.outputs[1:]]
    ).compile()


def _update_of(param: Expr) -> Expr:
    """Returns u = (p - p') / lr at lr 1. Of the usual form `p - lr * u` it takes u itself, because the difference would
    lose digits."""
    at_one = replaced([param], {hyper("lr"): constant(1.0)})[0]
    plain = at_one.op == "sub" and at_one.args[0].op == "param"
    return at_one.args[1] if plain else PARAM - at_one


def updates(rules: Sequence[Rule], stimulus: Stimulus, *, seed: int) -> Array:
    """Returns the (n, size) float32 updates of the rules on the stimulus."""
    programs = [with_update_state(rule) for rule in rules]
    found = np.empty((len(rules), stimulus.size), np.float32)
    for rows in crowds(programs):
        found[rows] = _updates([programs[row] for row in rows], stimulus, seed)
    return found


def _updates(programs: Sequence[Program], stimulus: Stimulus, seed: int) -> Array:
    shown = []
    for grads, params in stimulus.split():
        x = np.empty((len(programs), grads.shape[1]), np.float32)
        g = np.empty_like(x)
        states = nos_ext.init_population_state(programs, [x])
        values = []
        for step, (p_now, g_now) in enumerate(zip(params, grads, strict=True), 1):
            x[...], g[...] = p_now, g_now
            nos_ext.apply_population(
                programs, [x], [g], states, lr=1.0, step=step, total_steps=stimulus.total_steps, seed=seed
            )
            values.append(states[0][0].copy())
        shown.append(np.stack(values[-stimulus.shown :], axis=1))
    return np.concatenate(shown, axis=2).reshape(len(programs), -1)
