"""Owns with_master, which moves the parameter of a rule into a state, so that p itself can be a copy in fewer bits."""

from __future__ import annotations

from typing import Final

from .definition import MAX_STATES, Definition
from .errors import RuleError
from .expr import ELEMENT, Expr, carry, postorder

MASTER: Final = "master"


def with_master(rule: Definition) -> Definition:
    """Returns the rule with one state more, `master`, which stands wherever p did.

    Its new value is that of p, which is not read any more: p is what `master` is when rounded to the dtype of p. The
    rule must have no state of that name.

    Raises:
        RuleError: there is no room for the state.
    """
    if len(rule.state_names) == MAX_STATES:
        raise RuleError(
            f"rule '{rule.name}' has {MAX_STATES} states, which is all that there can be, so master weights have no "
            "room; leave master_weights False"
        )
    order = postorder(rule.simplified)
    master = Expr("state", (), MASTER, ELEMENT)
    new = {node: master for node in order if node.op == "param"}
    carry(order, new)
    outputs = [new[node] for node in rule.simplified]
    return Definition(
        rule.name,
        [*rule.state_names, MASTER],
        rule.hyperparameters,
        [*outputs, outputs[0]],
        sites={new[draw]: site for draw, site in rule.sites.items() if draw in new},
        per_tensor=rule.per_tensor_states,
    )
