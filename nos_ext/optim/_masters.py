"""Owns master weights: float32 copies of parameters that have fewer bits. They are a state of the rule, `master`, which
starts with the values of the parameter, and which no state_dtype makes smaller.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import torch

from .._state_dtypes import stored_as
from ..rule import MatrixProgram, Program
from ..rule.expr import postorder
from ..rule.master import MASTER
from ..rule.table import GLOBAL

KEY: Final = "master_weights"
_NARROW: Final = (torch.bfloat16, torch.float16)


def keeps_masters(group: Mapping[str, Any]) -> bool:
    """Tells whether the parameters of a group get master weights. Those of 16 bits need some. Where a group has one of
    these, all of its parameters get some, since they have one rule."""
    return bool(group[KEY]) and any(p.dtype in _NARROW for p in group["params"])


def stored(program: Program | MatrixProgram, state_dtype: str | None) -> dict[str, str | None]:
    """Returns what `stored_as` does, but leaves the dtype of master weights to the parameter."""
    out = stored_as(program, state_dtype)
    return {**out, MASTER: None} if MASTER in out else out


def check_joint(forms: Iterable[Program | MatrixProgram]) -> None:
    """Raises ValueError where a reduction over all parameters is one of p or of states, and only some of those whose
    rules have it get master weights: it would be over two kinds of tensors. `forms` has what is run for each group."""
    joint = {form for form in forms if isinstance(form, Program) and _joins(form)}
    with_masters = [form for form in joint if MASTER in form.state_names]
    if with_masters and len(joint) > 1:
        raise ValueError(
            f"{KEY} is True and rule '{with_masters[0].name}' has a reduction over the parameters of all groups, of "
            "which some have another rule or no master weights; give all of them the same rule and dtype"
        )


def _joins(program: Program) -> bool:
    return any(
        node.op in GLOBAL and any(x.op != "grad" for x in node.args) for node in postorder(program.rule.simplified)
    )
