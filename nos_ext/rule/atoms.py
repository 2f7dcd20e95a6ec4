"""Owns values in a normal form, for the algebra in algebra.py: sums of products of atoms, and the table of all atoms.

A Value is a sum of terms coefficient * product(factor ** exponent). The factors are atoms: symbols, and functions of
values that algebra cannot take apart. Every value and every atom has a key, which is a digest of its normal form. Equal
keys mean equal values. Products are not multiplied out: a sum inside a product is an atom with leading coefficient 1.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

Monomial = tuple[tuple[str, float], ...]  # (key of an atom, exponent), sorted; () means 1


def digest(text: str) -> str:
    """Returns a key of 20 hex digits. Texts that differ have different ones, as good as always."""
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def number(x: float) -> str:
    """Writes a number with 12 digits, so that coefficients that differ only by rounding are equal."""
    return f"{x:.12g}"


class Opaque(Exception):
    """Raised by an operation whose result has no normal form (overflow, division by zero, NaN). The caller then makes
    an atom of it."""


@dataclass(frozen=True, slots=True)
class Atom:
    """An Atom is a factor of a product: a symbol, or a function `kind` of the values `args`.

    `level` says what it is one number for: a step (0), a tensor (1) or an element (2).
    With `nonneg` it is never below 0. With `maybe_nan` it may be NaN on a set of positive measure. With `analytic` it
    is an analytic function of its symbols. With `nonzero` it is 0 on a set of measure zero at most.
    """

    key: str
    kind: str
    args: tuple[Value, ...]
    nonneg: bool
    maybe_nan: bool
    analytic: bool
    nonzero: bool
    level: int


class Value:
    """A Value is a sum. Its terms are sorted by monomial, and no coefficient is 0."""

    __slots__ = ("_key", "terms")

    def __init__(self, terms: dict[Monomial, float]) -> None:
        found = [x for x in terms.items() if x[1] != 0]
        if len(found) > 1:
            found.sort()
        self.terms: tuple[tuple[Monomial, float], ...] = tuple(found)
        self._key = ""

    @property
    def key(self) -> str:
        if not self._key:
            terms = [f"{number(c)}*{'*'.join([f'{atom}^{number(x)}' for atom, x in m])}" for m, c in self.terms]
            self._key = digest(";".join(terms))
        return self._key

    @property
    def constant(self) -> float | None:
        """This is the number that the value is, or None if it is not constant."""
        if not self.terms:
            return 0.0
        return self.terms[0][1] if len(self.terms) == 1 and not self.terms[0][0] else None


def finite(x: float) -> float:
    """Returns x, a coefficient of a value. Raises Opaque if it is infinite or NaN."""
    if not math.isfinite(x):
        raise Opaque
    return x


def constant(x: float) -> Value:
    return Value({(): finite(x)})


ZERO: Final = constant(0.0)
ONE: Final = constant(1.0)

# Kinds of atoms that are analytic functions of their arguments, wherever they are defined.
_ANALYTIC: Final = frozenset(("sum", "exp", "log", "power", "tanh", "sin", "cos", "total", "total of all"))


class Atoms:
    """Atoms is the table of the atoms of all values that have been made with it. It makes them, and says what is known
    of them."""

    def __init__(self) -> None:
        self.atoms: dict[str, Atom] = {}

    def symbol(self, kind: str, *, nonneg: bool = False, nonzero: bool = True, level: int = 2) -> Value:
        """Returns an independent variable. One that is not `nonzero` may be 0 everywhere."""
        key = digest(kind)
        self.atoms.setdefault(key, Atom(key, kind, (), nonneg, False, True, nonzero, level))
        return Value({((key, 1.0),): 1.0})

    def atom(
        self,
        kind: str,
        args: Sequence[Value],
        *,
        nonneg: bool = False,
        maybe_nan: bool = False,
        level: int | None = None,
    ) -> Value:
        """Returns a function of values that is not taken apart. Its level is the highest in them, if none is given."""
        key = digest(f"{kind}({','.join([x.key for x in args])})")
        if key not in self.atoms:
            inner = [self.atoms[k] for x in args for mono, _ in x.terms for k, _ in mono]
            analytic = kind in _ANALYTIC and False not in [x.analytic for x in inner]
            # An analytic function of nonzero symbols is 0 on a set of measure zero only, abs, sign, clip and max_abs
            # where their operand is. In a sum one nonzero term is enough: the others cannot cancel it everywhere.
            groups = [[self.atoms[k].nonzero for k, _ in mono] for x in args for mono, _ in x.terms]
            enough = any if kind == "sum" else all
            nonzero = (analytic or kind in ("abs", "sign", "clip", "max_abs")) and enough(
                [False not in x for x in groups if x]
            )
            maybe_nan = maybe_nan or True in [self.maybe_nan(x) for x in args]
            if level is None:
                level = max([x.level for x in inner], default=0)
            self.atoms[key] = Atom(key, kind, tuple(args), nonneg, maybe_nan, analytic, nonzero, level)
        return Value({((key, 1.0),): 1.0})

    def maybe_nan(self, value: Value) -> bool:
        """Tells whether the value may be NaN on a set of positive measure."""
        for mono, _ in value.terms:
            for key, x in mono:
                atom = self.atoms[key]
                if atom.maybe_nan or (x < 0 and not atom.nonzero):
                    return True
        return False

    def discard(self, value: Value) -> None:
        """Allows a result to leave `value` out. Raises Opaque if the result could lose a NaN by that."""
        if self.maybe_nan(value):
            raise Opaque

    def factor(self, value: Value) -> tuple[float, Monomial]:
        """Returns (c, m) with value = c * m. A sum becomes one atom with leading coefficient 1."""
        if not value.terms:
            return 0.0, ()
        if len(value.terms) == 1:
            mono, c = value.terms[0]
            return c, mono
        c = value.terms[0][1]
        inner = self.scale(value, 1 / c)
        return c, self.atom("sum", (inner,)).terms[0][0]

    def product(self, c: float, mono: Monomial) -> Value:
        """Returns c * mono as a value. If mono is a sum and nothing else, the result is that sum, scaled."""
        if c != 0 and len(mono) == 1 and mono[0][1] == 1:
            atom = self.atoms[mono[0][0]]
            if atom.kind == "sum":
                return self.scale(atom.args[0], c)
        return Value({mono: finite(c)})

    def single(self, key: str, exponent: float = 1.0) -> Value:
        """Returns a power of one atom."""
        return self.product(1.0, ((key, exponent),))

    def scale(self, value: Value, c: float) -> Value:
        """Returns c * value. Raises Opaque where a coefficient overflows or underflows."""
        terms = {mono: finite(x * c) for mono, x in value.terms}
        if c != 0 and any(x == 0 for x in terms.values()):
            raise Opaque
        return Value(terms)
