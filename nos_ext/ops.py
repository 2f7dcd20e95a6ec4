"""Has the vocabulary of rules as Python names: `from nos_ext.ops import exp, sign, where, e, pi`.

Every op of the table csrc/ops/ops.def is a function here. On plain numbers an op whose result IEEE 754 fixes gives a
number; everything else gives an `Expr`. `orthogonalize(x)` is here, too, which is no op of the engine: matrix products
stand behind it. `clip(x, l)` is short for `clip(x, -l, l)`, `t` is the step (from 1), `T` the total number of steps.
Inside a function decorated with `nos_ext.rule` these names are there without an import, and they win over globals of
the same name.
"""

from __future__ import annotations

import difflib
import math
from typing import Final

from .rule.expr import STEP, TOTAL
from .rule.table import OPS, OpSpec
from .rule.vocabulary import CONSTANTS, FUNCTIONS, VOCABULARY, OpFunction

__all__ = ["CONSTANTS", "FUNCTIONS", "OPS", "VOCABULARY", "OpSpec", "T", "e", "inf", "pi", "t"]
__all__.extend(FUNCTIONS)

t: Final = STEP
T: Final = TOTAL
e: Final = math.e
pi: Final = math.pi
inf: Final = math.inf

globals().update(FUNCTIONS)


def __getattr__(name: str) -> OpFunction:  # for type checkers, and for a helpful message
    close = difflib.get_close_matches(name, VOCABULARY, n=1)
    raise AttributeError(f"nos_ext.ops has no op '{name}'" + (f"; did you mean '{close[0]}'?" if close else ""))
