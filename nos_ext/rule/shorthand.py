"""Owns OPERANDS, the paper's operands as formulas, and the rules that are given by their update u alone.

The update u means the rule p <- p - lr * u.

The operands are those of Bello et al. 2017, section 4. Where the paper leaves a choice: moments start at zero and the
hats have Adam's bias correction; `noise` has standard deviation 0.01; the decays count steps from 0 as the paper's
TensorFlow release does, so the first step sees 1.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from .definition import RESERVED, Definition
from .errors import RuleError
from .expr import GRAD, PARAM, Expr, as_expr, hyper, postorder, state
from .levels import LevelError
from .source import Source
from .syntax import Evaluator, Value
from .vocabulary import CONSTANTS


@dataclass(frozen=True, slots=True)
class OperandSpec:
    """An OperandSpec is a named operand of an update.

    Its `formula` is rule text. In the formula of a state the state's own name means the old value.
    """

    name: str
    formula: str
    doc: str
    is_state: bool = False


HYPERS: Final[Mapping[str, float]] = MappingProxyType({"beta1": 0.9, "beta2": 0.999, "beta3": 0.999, "eps": 1e-8})

OPERANDS: Final[Mapping[str, OperandSpec]] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            OperandSpec("g", "g", "the gradient"),
            OperandSpec("w", "p", "the parameter; p means the same"),
            OperandSpec("m", "beta1 * m + (1 - beta1) * g", "moving average of g", is_state=True),
            OperandSpec("v", "beta2 * v + (1 - beta2) * g ** 2", "moving average of g^2", is_state=True),
            OperandSpec("y", "beta3 * y + (1 - beta3) * (g ** 2 * g)", "moving average of g^3", is_state=True),
            OperandSpec("m_hat", "m / (1 - beta1 ** t)", "m with Adam's bias correction"),
            OperandSpec("v_hat", "v / (1 - beta2 ** t)", "v with bias correction"),
            OperandSpec("y_hat", "y / (1 - beta3 ** t)", "y with bias correction"),
            OperandSpec("adam", "m_hat / (sqrt(v_hat) + eps)", "the step of Adam"),
            OperandSpec("rmsprop", "g / (sqrt(v_hat) + eps)", "the step of RMSProp, with bias correction"),
            OperandSpec("ld", "(T - min(t - 1, T)) / T", "linear decay from 1 at the first step to 0 after T steps"),
            OperandSpec("cd", "0.5 * (1 + cos(pi * (t - 1) / T))", "half a cosine from 1 to 0 over T steps"),
            OperandSpec(
                "rd",
                "0.5 * (1 + cos(pi * ((t - 1) % T) / T))",
                "cd that starts again every T steps: within a run of T steps the same as cd",
            ),
            OperandSpec("noise", "normal(0.01)", "Gaussian noise, one draw per element and step"),
            OperandSpec("annealed_noise", "normal(sqrt((1 + t) ** -0.55))", "Gaussian noise of variance (1 + t)^-0.55"),
        )
    }
)


class _Names(dict[str, Value]):
    """_Names says what names mean in an update. Operands and hyperparameters come into being when they are read."""

    def __missing__(self, name: str) -> Value:
        if name in OPERANDS:
            return self.operand(name)
        if name in HYPERS:
            return hyper(name)
        raise KeyError(name)

    def __iter__(self):  # type: ignore[no-untyped-def]  # for suggestions
        return iter([*super().__iter__(), *OPERANDS, *HYPERS])

    def operand(self, name: str) -> Expr:
        return operand(name)


class _Leaves(_Names):
    """_Leaves says the same for printers: here an operand is a leaf that has its name."""

    def operand(self, name: str) -> Expr:
        return Expr("operand", (), name, operand(name).level)


@functools.cache
def operand(name: str) -> Expr:
    """Returns the operand of that name as an expression: the same object every time, so that a draw stays one draw."""
    if name not in OPERANDS:
        raise RuleError(f"there is no operand '{name}'; the operands are {', '.join(OPERANDS)}")
    spec = OPERANDS[name]
    names = _Names(_BASE)
    if spec.is_state:
        names[name] = state(name)
    source = Source(spec.formula)
    (statement,) = source.statements
    assert isinstance(statement, ast.Expr)
    return as_expr(Evaluator(source, names).value(statement.value))


_SCALARS: Final[dict[str, Value]] = {"lr": hyper("lr"), **CONSTANTS}
_BASE: Final[dict[str, Value]] = {"p": PARAM, "g": GRAD, **_SCALARS}
# The states and hyperparameters that an update may read.
_LEAVES: Final = frozenset(
    [("state", spec.name) for spec in OPERANDS.values() if spec.is_state]
    + [("hyper", name) for name in ("lr", *HYPERS)]
)


def parse_update(source: Source, node: ast.expr, name: str | None) -> Definition:
    """Reads the rule whose update is this expression."""
    evaluator = Evaluator(source, _Names(_BASE))
    update = evaluator.value(node)
    try:
        return define_update(update, name=name)
    except LevelError as error:
        raise source.located(error, evaluator.places.get(error.node, node)) from None


def update_as_written(source: Source, node: ast.expr) -> Expr:
    """Reads the update that this expression is, for a printer: operands and p are leaves of the kind "operand"."""
    names = _Leaves({"p": Expr("operand", (), "p", PARAM.level), **_SCALARS})
    return as_expr(Evaluator(source, names).value(node))


def define_update(update: Expr | float, *, name: str | None = None) -> Definition:
    """Defines the rule p <- p - lr * update.

    Args:
        update: an expression over p, g, t, T, the operands (`operand`) and the hyperparameters lr and `HYPERS`.
        name: the name of the rule; "rule" by default.

    Returns:
        The rule, with those of the states m, v, y (in this order) and of the hyperparameters that the update uses.
    """
    update = as_expr(update)
    found = {(node.op, node.value) for node in postorder([update]) if node.op in ("state", "hyper")}
    unknown = sorted(str(name) for _, name in found - _LEAVES)
    if unknown:
        raise RuleError(
            f"an update has no {', '.join(unknown)}; it may use the operands {', '.join(OPERANDS)}, lr, "
            f"{', '.join(HYPERS)}. For states and hyperparameters of your own build a nos_ext.Rule"
        )
    states = [s for s in OPERANDS if ("state", s) in found]
    outputs = [PARAM - hyper("lr") * update, *map(operand, states)]
    read = {node.value for node in postorder(outputs) if node.op == "hyper"}
    hypers = {"lr": None, **{h: default for h, default in HYPERS.items() if h in read}}
    return Definition(name or "rule", states, hypers, outputs)


assert not RESERVED & {spec.name for spec in OPERANDS.values() if spec.is_state}
