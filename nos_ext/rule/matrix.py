"""Owns orthogonalize as the rule language knows it: a function of a tensor, with options that are fixed in the rule.

It is no row of the op table, as it is no op of the engine: a rule with it is cut into stages (stages.py), between which
nos_ext/matrix.py computes it.
"""

from __future__ import annotations

import difflib
import math
import numbers
from dataclasses import dataclass, fields
from typing import Any, Final

from .errors import RuleError
from .expr import Expr, Number, as_expr, level_of
from .table import MATRIX

_NAME: Final = "orthogonalize"
_DTYPES: Final = ("bfloat16", "float32", "float64")
_ADJUSTMENTS: Final = (None, "original", "match_rms_adamw")
_MOST_STEPS: Final = 99  # torch's


@dataclass(frozen=True, slots=True)
class NewtonSchulz:
    """NewtonSchulz has the options of an orthogonalize: how the iteration is computed. The defaults are Muon's.

    Fields:
        coefficients: a, b and c of a step x -> a x + (b A + c A^2) x, where A = x x^T.
        steps: the number of steps.
        eps: the least norm that the matrix is divided by at the start.
        dtype: what the products are computed in, whatever the dtype of the tensor.
        adjust: what the result is multiplied by: None stands for 1, "original" for sqrt(max(1, rows / columns)), and
            "match_rms_adamw" for 0.2 sqrt(max(rows, columns)), as in torch.optim.Muon's adjust_lr_fn.
    """

    coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315)
    steps: int = 5
    eps: float = 1e-7
    dtype: str = "bfloat16"
    adjust: str | None = None

    def __post_init__(self) -> None:
        values = self.coefficients
        if not isinstance(values, tuple | list) or len(values) != 3 or not all(map(_is_finite, values)):
            raise _wrong("coefficients", values, "three numbers, as (3.4445, -4.7750, 2.0315)")
        object.__setattr__(self, "coefficients", tuple([float(x) for x in values]))
        if not isinstance(self.steps, int) or isinstance(self.steps, bool) or not 1 <= self.steps <= _MOST_STEPS:
            raise _wrong("steps", self.steps, f"a whole number from 1 to {_MOST_STEPS}")
        if not _is_finite(self.eps) or not self.eps > 0:
            raise _wrong("eps", self.eps, "a number above 0")
        object.__setattr__(self, "eps", float(self.eps))
        for name, known in (("dtype", _DTYPES), ("adjust", _ADJUSTMENTS)):
            value = getattr(self, name)
            if value not in known:
                raise _wrong(name, value, f"one of {', '.join(map(repr, known))}")

    def arguments(self) -> str:
        """Writes the options that are not the defaults, as they stand in a call after its operand."""
        values = [(field.name, getattr(self, field.name), field.default) for field in fields(self)]
        return "".join([f", {name}={value!r}" for name, value, default in values if value != default])

    def scale(self, rows: int, columns: int) -> float:
        """Returns the number that `adjust` stands for."""
        if self.adjust == "original":
            return math.sqrt(max(1.0, rows / columns))
        return 0.2 * math.sqrt(max(rows, columns)) if self.adjust else 1.0


OPTIONS: Final = tuple([field.name for field in fields(NewtonSchulz)])


def orthogonalize(*operands: Expr | Number, **options: Any) -> Expr:
    """Makes the node orthogonalize(x): the matrix with orthonormal rows or columns that is nearest to x, nearly.

    Where x = U S V^T, that is U V^T. A few Newton-Schulz steps give a matrix whose singular values are about 1. A
    tensor of more than two dimensions is taken for the matrix (first dimension, all others).

    Args:
        operands: the one tensor, x.
        options: the fields of `NewtonSchulz`, as plain numbers and texts.

    Raises:
        RuleError: x is no tensor, or an option is unknown or has no meaning.
    """
    if len(operands) != 1:
        raise RuleError(f"{_NAME} takes 1 argument, {len(operands)} given; options have names: {_NAME}(x, steps=5)")
    for name in options:
        if name not in OPTIONS:
            close = difflib.get_close_matches(name[:64], OPTIONS, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"it has {', '.join(OPTIONS)}"
            raise RuleError(f"{_NAME} has no option '{name[:64]}'; {hint}")
    x = as_expr(operands[0])
    return Expr(_NAME, (x,), NewtonSchulz(**options), level_of(MATRIX[_NAME], [x.level]))


def _is_finite(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def _wrong(name: str, value: object, wanted: str) -> RuleError:
    text = repr(value)
    shown = text if len(text) <= 80 else f"{text[:77]}..."
    return RuleError(f"{_NAME}: {name} is {shown}; pass {wanted}, which is fixed in the rule")
