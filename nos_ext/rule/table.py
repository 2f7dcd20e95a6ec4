"""Owns OPS: the rows of csrc/ops/ops.def as Python sees them. No other module states an op's arity, symbol or cost."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from .. import _C


@dataclass(frozen=True, slots=True)
class OpSpec:
    """An OpSpec is one row of the op table. csrc/ops/ops.def explains its columns, which are the fields here."""

    code: int
    name: str
    arity: int
    domain: str  # "any", "scalar", "random", "reduce" or "global"
    symbol: str
    commutes: bool
    cost: int
    numpy: str
    torch: str
    latex: str
    doc: str


OPS: Final[Mapping[str, OpSpec]] = MappingProxyType({row["name"]: OpSpec(**row) for row in _C.op_table()})
RANDOM: Final = frozenset(op.name for op in OPS.values() if op.domain == "random")
GLOBAL: Final = frozenset(op.name for op in OPS.values() if op.domain == "global")
# what makes one number of a tensor, or of all tensors
REDUCTIONS: Final = GLOBAL.union([op.name for op in OPS.values() if op.domain == "reduce"])
# What the engine has no op for: matrix products between the stages of a rule, which nos_ext/matrix.py computes.
MATRIX: Final[Mapping[str, OpSpec]] = MappingProxyType(
    {
        "orthogonalize": OpSpec(
            code=-1,
            name="orthogonalize",
            arity=1,
            domain="matrix",
            symbol="",
            commutes=False,
            cost=0,
            numpy="",
            torch="",
            latex=r"\mathrm{orthogonalize}\left(#0\right)",
            doc="the matrix with orthonormal rows or columns that is nearest to a, by Newton-Schulz steps",
        )
    }
)
# random op -> the draw that it takes, as its `numpy` column says: "uniform" in [0, 1) or "normal"
DRAWS: Final[Mapping[str, str]] = MappingProxyType(
    {name: "normal" if "_normal" in OPS[name].numpy else "uniform" for name in sorted(RANDOM)}
)

TemplateFunction = Callable[..., Any]
_ARGUMENTS = "a=None, b=None, c=None, _uniform=None, _normal=None"


@functools.cache
def numpy_function(name: str) -> TemplateFunction:
    """Makes the `numpy` column of an op a function f(a, b, c, _uniform, _normal)."""
    import numpy as np

    # the template is a constant of this package, never text of a user
    function: TemplateFunction = eval(f"lambda {_ARGUMENTS}: {OPS[name].numpy}", {"np": np})
    return function


@functools.cache
def torch_function(name: str) -> TemplateFunction:
    """Makes the `torch` column of an op a function f(a, b, c, _uniform, _normal, _F=dtype of comparison results)."""
    import torch

    function: TemplateFunction = eval(f"lambda {_ARGUMENTS}, _F=None: {OPS[name].torch}", {"torch": torch})
    return function
