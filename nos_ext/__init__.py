"""Applies update rules of neural optimizers: formulas, compiled to bytecode, that run in one fused pass.

    >>> import nos_ext
    >>> program = nos_ext.compile_rule("g * exp(sign(g) * sign(m))")
    >>> state = nos_ext.init_state(program, params)
    >>> nos_ext.apply_rule(program, params, grads, state, lr=0.1)

Works without torch; `nos_ext.optim` needs it. That and `nos_ext.schedules` are imported when they are first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

try:
    from . import _C
except ImportError as error:
    raise ImportError(
        f"the compiled core of nos_ext is missing or cannot be loaded ({error}); "
        "build it with `pip install .` in the source folder"
    ) from error

from .captured import CapturedStep
from .engine import apply_population, apply_rule, build_info, init_population_state, init_state, set_jit
from .rule import Expr, MatrixProgram, Program, Rule, RuleError, compile_rule, rule

if TYPE_CHECKING:
    from . import optim as optim
    from . import schedules as schedules

__version__: str = _C.__version__
op_table = _C.op_table

__all__ = [
    "CapturedStep",
    "Expr",
    "MatrixProgram",
    "Program",
    "Rule",
    "RuleError",
    "__version__",
    "apply_population",
    "apply_rule",
    "build_info",
    "compile_rule",
    "init_population_state",
    "init_state",
    "op_table",
    "rule",
    "set_jit",
]


if not TYPE_CHECKING:  # to which every name would be one of this module

    def __getattr__(name: str) -> object:
        if name not in ("optim", "schedules"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return import_module(f".{name}", __name__)
