"""Owns algebra over the real numbers: the operations on values in normal form (atoms.py). Only canonical.py and
normal_forms.py use it.

A rewrite must be an identity of real functions almost everywhere, that is, except on a set of measure zero, and NaN
counts as a value. So sqrt(x) * sqrt(x) is not x, log(x) - log(x) is not 0, and (x > 0) / (x > 0) is not 1; but x / x
is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from .atoms import ONE, ZERO, Atom, Atoms, Monomial, Opaque, Value, constant, finite

_TINY: Final = 1e-12  # a sum of coefficients that is smaller than this, relative to them, has cancelled
_MERGED: Final = frozenset(("exp", "abs", "sign"))  # kinds of atoms whose powers in one product can become one


class Algebra(Atoms):
    """An Algebra offers the operations on values, and knows the atoms of all values that it has made."""

    # --- sums ------------------------------------------------------------------------------------------------------

    def add(self, a: Value, b: Value) -> Value:
        terms = dict(a.terms)
        for mono, c in b.terms:
            old = terms.get(mono, 0.0)
            new = finite(old + c)
            if abs(new) <= _TINY * (abs(old) + abs(c)):
                new = 0.0
                self.discard(Value({mono: 1.0}))
            terms[mono] = new
        out = Value(terms)
        return self.product(out.terms[0][1], out.terms[0][0]) if len(out.terms) == 1 else out

    def sub(self, a: Value, b: Value) -> Value:
        return self.add(a, self.scale(b, -1.0))

    # --- products --------------------------------------------------------------------------------------------------

    def mul(self, a: Value, b: Value) -> Value:
        (c, left), (d, right) = self.factor(a), self.factor(b)
        if c == 0 or d == 0:
            self.discard(a)
            self.discard(b)
            return ZERO
        return self._collect(c * d, [*left, *right])

    def power(self, a: Value, n: float) -> Value:
        """Returns a ** n for a number n."""
        if n == 0:
            return ONE
        if n == 1:
            return a
        c, mono = self.factor(a)
        if c == 0:
            if n < 0:
                raise Opaque
            return ZERO
        if n.is_integer():
            return self._collect(_power(c, n), [(key, x * n) for key, x in mono])
        # Factors that are known not to be negative can leave the root. The sign of c stays with the rest.
        out: list[tuple[str, float]] = []
        rest: list[tuple[str, float]] = []
        for key, x in mono:
            if self.atoms[key].nonneg:
                out.append((key, x * n))
            elif x % 2 == 0:
                out.append((self._absolute_of(key), x * n))
            else:
                rest.append((key, x))
        sign = math.copysign(1.0, c)
        outside = self._collect(_power(abs(c), n), out)
        if not rest:
            if sign < 0:
                raise Opaque
            return outside
        inner = self._collect(sign, rest)
        root = self.atom("power", (inner, constant(abs(n))), nonneg=True, maybe_nan=True)
        return self.mul(outside, self.power(root, math.copysign(1.0, n)))

    def div(self, a: Value, b: Value) -> Value:
        return self.mul(a, self.power(b, -1.0))

    def _collect(self, c: float, factors: Iterable[tuple[str, float]]) -> Value:
        """Returns c times the product of powers of atoms, in normal form."""
        if c == 0:
            raise Opaque  # no factor is 0, so the product has underflowed
        exponents: dict[str, float] = {}
        for key, x in factors:
            old = exponents.get(key, 0.0)
            exponents[key] = old + x
            if old * x < 0 and (self.atoms[key].maybe_nan or not self.atoms[key].nonzero):
                raise Opaque
        exponents = {key: x for key, x in exponents.items() if abs(x) > _TINY}
        if not _MERGED.isdisjoint([self.atoms[key].kind for key in exponents]):
            c = self._merge_exponentials(c, exponents)
            self._merge_signs(exponents)
        return self.product(finite(c), tuple(sorted(exponents.items())))

    def _merge_exponentials(self, c: float, exponents: dict[str, float]) -> float:
        """Applies exp(x) ** a * exp(y) ** b = exp(a x + b y)."""
        found = [key for key in exponents if self.atoms[key].kind == "exp"]
        if not found or (len(found) == 1 and exponents[found[0]] == 1):
            return c
        total = ZERO
        for key in found:
            total = self.add(total, self.scale(self.atoms[key].args[0], exponents.pop(key)))
        merged_c, merged = self.factor(self.exp(total))
        for key, x in merged:
            exponents[key] = exponents.get(key, 0.0) + x
        return c * merged_c

    def _merge_signs(self, exponents: dict[str, float]) -> None:
        """Applies |x| ** 2 = x ** 2, sign(x) ** 3 = sign(x), sign(x) * x = |x| and sign(x) * |x| = x."""
        for key in list(exponents):
            atom = self.atoms[key]
            if atom.kind == "abs" and exponents[key] % 2 == 0:
                inner = self._inner(atom)
                exponents[inner] = exponents.get(inner, 0.0) + exponents.pop(key)
        for key in list(exponents):
            atom, x = self.atoms[key], exponents.get(key, 0.0)
            if atom.kind != "sign" or x <= 0 or not x.is_integer():
                continue
            inner = self._inner(atom)
            absolute = self._absolute_of(inner)
            n = exponents.get(inner, 0.0)
            if x % 2 == 0:
                exponents[key] = 2.0
                if n > 0 or exponents.get(absolute, 0.0) > 0:  # sign(x) ** 2 is 1 wherever the other factor is not 0
                    del exponents[key]
                continue
            exponents[key] = 1.0
            if n > 0 and n % 2 == 1:
                del exponents[key], exponents[inner]
                exponents[absolute] = exponents.get(absolute, 0.0) + n
            elif exponents.get(absolute, 0.0) % 2 == 1 and exponents[absolute] > 0:
                del exponents[key]
                exponents[inner] = exponents.get(inner, 0.0) + exponents.pop(absolute)
        for key in [key for key, x in exponents.items() if x == 0]:
            del exponents[key]

    def _inner(self, atom: Atom) -> str:
        """Returns the key of the operand of an abs or sign atom."""
        return self.factor(atom.args[0])[1][0][0]

    # --- functions -------------------------------------------------------------------------------------------------

    def _absolute_of(self, key: str) -> str:
        if self.atoms[key].nonneg:
            return key
        inside = Value({((key, 1.0),): 1.0})
        return self.atom("abs", (inside,), nonneg=True).terms[0][0][0][0]

    def abs(self, a: Value) -> Value:
        c, mono = self.factor(a)
        if c == 0:
            return ZERO
        factors = [(key, 2.0) if self._is_sign(key, x) else (self._absolute_of(key), x) for key, x in mono]
        return self._collect(abs(c), factors)

    def _is_sign(self, key: str, exponent: float) -> bool:
        return self.atoms[key].kind == "sign" and exponent > 0

    def sign(self, a: Value) -> Value:
        c, mono = self.factor(a)
        if c == 0:
            return ZERO
        factors: list[tuple[str, float]] = []
        for key, x in mono:
            atom = self.atoms[key]
            if atom.kind == "exp":
                self.discard(atom.args[0])
                continue
            if atom.kind == "sign":
                factors.append((key, x))
                continue
            if not x.is_integer() or (atom.nonneg and atom.kind != "abs"):
                # The factor is not negative, so its sign is 1, or 0 where the atom is 0.
                inside = Value({((key, 1.0),): 1.0})
                factors.append((self.atom("sign", (inside,), nonneg=True).terms[0][0][0][0], 1.0))
                continue
            if atom.kind == "abs":
                key, x = self._inner(atom), 2.0
            inside = Value({((key, 1.0),): 1.0})
            sign_key = self.atom("sign", (inside,), nonneg=atom.nonneg).terms[0][0][0][0]
            factors.append((sign_key, 2.0 if x % 2 == 0 else 1.0))
        return self._collect(math.copysign(1.0, c), factors)

    def exp(self, a: Value) -> Value:
        shift = dict(a.terms).get((), 0.0)
        c = finite(math.exp(shift)) if shift < 700 else finite(math.inf)
        rest = self.add(a, constant(-shift)) if shift else a
        if not rest.terms:
            return constant(c)
        if len(rest.terms) == 1:
            mono, k = rest.terms[0]
            atom = self.atoms[mono[0][0]]
            if len(mono) == 1 and mono[0][1] == 1 and atom.kind == "log" and self._nonneg(atom.args[0]):
                return self.scale(self.power(atom.args[0], k), c)
        return self.scale(self.atom("exp", (rest,), nonneg=True), c)

    def log(self, a: Value) -> Value:
        c, mono = self.factor(a)
        if c == 0:
            raise Opaque
        out = constant(math.log(abs(c)))
        rest: list[tuple[str, float]] = []
        for key, x in mono:
            atom = self.atoms[key]
            if atom.kind == "exp":
                out = self.add(out, self.scale(atom.args[0], x))
            elif atom.nonneg:
                out = self.add(out, self.scale(self._log_atom(self.single(key)), x))
            elif x % 2 == 0:
                out = self.add(out, self.scale(self._log_atom(self.single(self._absolute_of(key))), x))
            else:
                rest.append((key, x))
        if rest:
            out = self.add(out, self._log_atom(self._collect(math.copysign(1.0, c), rest)))
        elif c < 0:
            raise Opaque
        return out

    def _log_atom(self, a: Value) -> Value:
        return self.atom("log", (a,), maybe_nan=not self._nonneg(a))

    def _nonneg(self, a: Value) -> bool:
        c, mono = self.factor(a)
        return c > 0 and all(self.atoms[key].nonneg or x % 2 == 0 for key, x in mono)

    # --- reductions ------------------------------------------------------------------------------------------------

    def total(self, a: Value, over_all: bool) -> Value:
        """Returns the sum of a value over the elements of a tensor, or of all tensors. It is linear."""
        level = 0 if over_all else 1
        out = ZERO
        for mono, c in a.terms:
            outside, inside = self._apart(mono, level)
            if len(inside.terms) > 1:
                part = self.total(inside, over_all)
            else:
                kind = "total of all" if over_all else "total"
                part = self.atom(kind, (inside,), nonneg=self._nonneg(inside), level=level)
            out = self.add(out, self.scale(self.mul(outside, part), c))
        return out

    def max_abs(self, a: Value) -> Value:
        """Returns the largest absolute value of the elements of a tensor."""
        c, mono = self.factor(a)
        if c == 0:
            return ZERO
        outside, inside = self._apart(mono, 1)
        return self.scale(self.mul(self.abs(outside), self.atom("max_abs", (inside,), nonneg=True, level=1)), abs(c))

    def _apart(self, mono: Monomial, level: int) -> tuple[Value, Value]:
        """Takes a product apart: the factors up to a level, and those above it."""
        outside = tuple([x for x in mono if self.atoms[x[0]].level <= level])
        inside = tuple([x for x in mono if self.atoms[x[0]].level > level])
        return self.product(1.0, outside), self.product(1.0, inside)

    def only_signs(self, a: Value) -> bool:
        """Tells whether the value is a number c times 1, 0 or -1."""
        mono = self.factor(a)[1]
        return bool(mono) and all(self._is_sign(key, x) for key, x in mono)


def _power(c: float, n: float) -> float:
    try:
        out = c**n
    except (OverflowError, ZeroDivisionError):
        raise Opaque from None
    if isinstance(out, complex) or out == 0:
        raise Opaque
    return finite(out)
