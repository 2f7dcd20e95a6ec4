"""Names the rules of the library that are one program each. Those with orthogonalize are several, without bytecode."""

from __future__ import annotations

from nos_ext import Program
from nos_ext.optim import library

ONE_PROGRAM = tuple([rule.name for rule in library.rules() if isinstance(rule.compile(), Program)])
