"""Owns algebra over the real numbers: values in a normal form, and the operations on them. Used by canonical.py only.

A Value is a sum of terms coefficient * product(factor ** exponent). Factors are atoms: symbols, and functions of values
that algebra cannot open. Every value and atom has a key, a digest of its normal form, and equal keys mean equal values.
Sums inside of products are atoms with leading coefficient 1: products are not multiplied out.

Rules of the game: a rewrite must be an identity of real functions at almost every point, and NaN counts as a value.
So sqrt(x) * sqrt(x) is not x, log(x) - log(x) is not 0, and (x > 0) / (x > 0) is not 1; but x / x is.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

Monomial = tuple[tuple[str, float], ...]  # (atom key, exponent), sorted; () is 1
_TINY: Final = 1e-12  # what is left of a cancelled coefficient, relative to what went in


def digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def number(x: float) -> str:
    """12 digits: coefficients that differ by rounding are equal."""
    return f"{x:.12g}"


class Opaque(Exception):
    """This operation has no normal form here (overflow, division by zero, NaN); the caller makes an atom of it."""


@dataclass(frozen=True, slots=True)
class Atom:
    """A factor. nonneg: never below 0. partial: NaN on more than a thin set. thin: 0 on a thin set only."""

    key: str
    kind: str
    args: tuple[Value, ...]
    nonneg: bool
    partial: bool
    analytic: bool
    thin: bool


class Value:
    """A sum: terms sorted by monomial, without zero coefficients."""

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
        """The number that this value is, or None."""
        if not self.terms:
            return 0.0
        return self.terms[0][1] if len(self.terms) == 1 and not self.terms[0][0] else None


def _finite(x: float) -> float:
    if not math.isfinite(x):
        raise Opaque
    return x


def constant(x: float) -> Value:
    return Value({(): _finite(x)})


ZERO: Final = constant(0.0)
ONE: Final = constant(1.0)


class Algebra:
    """The operations. One object knows the atoms of one rule."""

    def __init__(self) -> None:
        self.atoms: dict[str, Atom] = {}

    # --- atoms -----------------------------------------------------------------------------------------------------

    def symbol(self, kind: str, *, nonneg: bool = False, thin: bool = True) -> Value:
        """A value of its own; not thin: it may be 0 everywhere."""
        key = digest(kind)
        self.atoms.setdefault(key, Atom(key, kind, (), nonneg, False, True, thin))
        return Value({((key, 1.0),): 1.0})

    def atom(self, kind: str, args: Sequence[Value], *, nonneg: bool = False, partial: bool = False) -> Value:
        """A function that stays closed."""
        key = digest(f"{kind}({','.join([x.key for x in args])})")
        if key not in self.atoms:
            inner = [self.atoms[k] for x in args for mono, _ in x.terms for k, _ in mono]
            analytic = kind in _ANALYTIC and False not in [x.analytic for x in inner]
            # an analytic function of thin symbols is 0 on a thin set; abs, sign and clip are 0 where their operand is;
            # of a sum one term is enough, for the others cannot cancel it everywhere
            groups = [[self.atoms[k].thin for k, _ in mono] for x in args for mono, _ in x.terms]
            enough = any if kind == "sum" else all
            thin = (analytic or kind in ("abs", "sign", "clip")) and enough([False not in x for x in groups if x])
            partial = partial or True in [self.partial(x) for x in args]
            self.atoms[key] = Atom(key, kind, tuple(args), nonneg, partial, analytic, thin)
        return Value({((key, 1.0),): 1.0})

    def partial(self, value: Value) -> bool:
        """Whether the value may be NaN on more than a thin set."""
        for mono, _ in value.terms:
            for key, x in mono:
                atom = self.atoms[key]
                if atom.partial or (x < 0 and not atom.thin):
                    return True
        return False

    def drop(self, value: Value) -> None:
        """Opaque if a result that does not depend on `value` any more loses a NaN by that."""
        if self.partial(value):
            raise Opaque

    def factor(self, value: Value) -> tuple[float, Monomial]:
        """(c, m) with value = c * m: a sum becomes one atom with leading coefficient 1."""
        if not value.terms:
            return 0.0, ()
        if len(value.terms) == 1:
            mono, c = value.terms[0]
            return c, mono
        c = value.terms[0][1]
        inner = self.scale(value, 1 / c)
        return c, self.atom("sum", (inner,)).terms[0][0]

    def product(self, c: float, mono: Monomial) -> Value:
        """c * m as a value; opens a lone sum."""
        if c != 0 and len(mono) == 1 and mono[0][1] == 1:
            atom = self.atoms[mono[0][0]]
            if atom.kind == "sum":
                return self.scale(atom.args[0], c)
        return Value({mono: _finite(c)})

    def single(self, key: str, exponent: float = 1.0) -> Value:
        return self.product(1.0, ((key, exponent),))

    # --- sums ------------------------------------------------------------------------------------------------------

    def scale(self, value: Value, c: float) -> Value:
        terms = {mono: _finite(x * c) for mono, x in value.terms}
        if c != 0 and any(x == 0 for x in terms.values()):
            raise Opaque
        return Value(terms)

    def add(self, a: Value, b: Value) -> Value:
        terms = dict(a.terms)
        for mono, c in b.terms:
            old = terms.get(mono, 0.0)
            new = _finite(old + c)
            if abs(new) <= _TINY * (abs(old) + abs(c)):
                new = 0.0
                self.drop(Value({mono: 1.0}))
            terms[mono] = new
        out = Value(terms)
        return self.product(out.terms[0][1], out.terms[0][0]) if len(out.terms) == 1 else out

    def sub(self, a: Value, b: Value) -> Value:
        return self.add(a, self.scale(b, -1.0))

    # --- products --------------------------------------------------------------------------------------------------

    def mul(self, a: Value, b: Value) -> Value:
        (c, left), (d, right) = self.factor(a), self.factor(b)
        if c == 0 or d == 0:
            self.drop(a)
            self.drop(b)
            return ZERO
        return self._collect(c * d, [*left, *right])

    def power(self, a: Value, n: float) -> Value:
        """a ** n for a number n."""
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
        # what is known not to be negative can leave the root; the sign stays with the rest
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
        root = self.atom("power", (inner, constant(abs(n))), nonneg=True, partial=True)
        return self.mul(outside, self.power(root, math.copysign(1.0, n)))

    def div(self, a: Value, b: Value) -> Value:
        return self.mul(a, self.power(b, -1.0))

    def _collect(self, c: float, factors: Iterable[tuple[str, float]]) -> Value:
        """c * product of powers of atoms, brought to normal form."""
        if c == 0:
            raise Opaque  # an underflow: no factor is 0
        exponents: dict[str, float] = {}
        for key, x in factors:
            old = exponents.get(key, 0.0)
            exponents[key] = old + x
            if old * x < 0 and (self.atoms[key].partial or not self.atoms[key].thin):
                raise Opaque
        exponents = {key: x for key, x in exponents.items() if abs(x) > _TINY}
        if not _SPECIAL.isdisjoint([self.atoms[key].kind for key in exponents]):
            c = self._merge_exponentials(c, exponents)
            self._merge_signs(exponents)
        return self.product(_finite(c), tuple(sorted(exponents.items())))

    def _merge_exponentials(self, c: float, exponents: dict[str, float]) -> float:
        """exp(x) ** a * exp(y) ** b = exp(a x + b y)."""
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
        """|x| ** 2 = x ** 2, sign(x) ** 3 = sign(x), sign(x) * x = |x|, sign(x) * |x| = x."""
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
                if n > 0 or exponents.get(absolute, 0.0) > 0:  # 1 wherever the other factor is not 0
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
        """The atom under an abs or sign atom."""
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
                self.drop(atom.args[0])
                continue
            if atom.kind == "sign":
                factors.append((key, x))
                continue
            if not x.is_integer() or (atom.nonneg and atom.kind != "abs"):
                # not negative: the sign is 1, or 0 where the atom is 0
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
        c = _finite(math.exp(shift)) if shift < 700 else _finite(math.inf)
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
        return self.atom("log", (a,), partial=not self._nonneg(a))

    def _nonneg(self, a: Value) -> bool:
        c, mono = self.factor(a)
        return c > 0 and all(self.atoms[key].nonneg or x % 2 == 0 for key, x in mono)

    def only_signs(self, a: Value) -> bool:
        """Whether the value is c * (1, 0 or -1)."""
        mono = self.factor(a)[1]
        return bool(mono) and all(self._is_sign(key, x) for key, x in mono)


_SPECIAL: Final = frozenset(("exp", "abs", "sign"))
_ANALYTIC: Final = frozenset(("sum", "exp", "log", "power", "tanh", "sin", "cos"))


def _power(c: float, n: float) -> float:
    try:
        out = c**n
    except (OverflowError, ZeroDivisionError):
        raise Opaque from None
    if isinstance(out, complex) or out == 0:
        raise Opaque
    return _finite(out)
