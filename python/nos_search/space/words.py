"""Owns the vocabularies of programs, which have one row per op, input and number.

A row gives the name that stored runs use, the text in the rule language, and the vocabularies that hold it. Append new
rows at the end of a table and never rename one. Token names and their order are part of stored runs, so a vocabulary
that a run may have been written with never changes: new words come in with a new vocabulary.

The functions of `lion` are those that Chen et al. (2023) published for their search (google/automl, hero/fn_lib.py), as
far as the rule language can write them on tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..errors import choose
from ..known import OF_ELEMENTWISE, OF_PROGRAMS
from .vocabulary import Token, held

ELEMENTWISE = "elementwise"
REDUCTIONS = "reductions"
LION = "lion"

_ALL = (ELEMENTWISE, REDUCTIONS, LION)
_NEW = (REDUCTIONS, LION)
_LION = (LION,)

# {a} and {b} stand for operands, {c} for the number, {d} for 1 - c, {s} for the state of an average.
OPS: tuple[Token, ...] = (
    Token("ema", "{c} * {s} + {d} * {a}", _ALL, "moving average of a with decay c, after its update"),
    Token("ema_old", "{s}", _ALL, "the same before its update, as Lion reads its momentum"),
    Token("ema_hat", "({c} * {s} + {d} * {a}) / (1 - {c} ** t)", _ALL, "moving average with Adam's bias correction"),
    Token("lerp", "{c} * {a} + {d} * {b}", _ALL, "c a + (1 - c) b"),
    Token("add", "{a} + {b}", _ALL, "sum"),
    Token("sub", "{a} - {b}", _ALL, "difference"),
    Token("mul", "{a} * {b}", _ALL, "product"),
    Token("div", "{a} / ({b} + 1e-08)", _ALL, "quotient a / (b + 1e-8)"),
    Token("min", "min({a}, {b})", _ALL, "the lesser"),
    Token("max", "max({a}, {b})", _ALL, "the greater"),
    Token("axpy", "{a} + {c} * {b}", _ALL, "a + c b"),
    Token("scale", "{c} * {a}", _ALL, "c a"),
    Token("clip", "clip({a}, {c})", _ALL, "clip to [-c, c]"),
    Token("neg", "-{a}", _ALL, "negation"),
    Token("abs", "abs({a})", _ALL, "|a|"),
    Token("sign", "sign({a})", _ALL, "sign"),
    Token("square", "{a} ** 2", _ALL, "a^2"),
    Token("sqrt", "sqrt(abs({a}))", _ALL, "square root of |a|"),
    Token("exp", "exp({a})", _ALL, "e to the power a"),
    Token("log", "log(abs({a}))", _ALL, "log|a|"),
    Token("tanh", "tanh({a})", _ALL, "hyperbolic tangent"),
    Token("sum", "sum({a})", _NEW, "of a tensor's elements"),
    Token("mean", "mean({a})", _NEW, "of a tensor's elements"),
    Token("norm", "norm({a})", _NEW, "root of the sum of squares"),
    Token("rms", "rms({a})", _NEW, "root of the mean of squares"),
    Token("max_abs", "max_abs({a})", _NEW, "largest magnitude"),
    Token("dot", "dot({a}, {b})", _NEW, "sum of products"),
    Token("cube", "{a} ** 3", _LION, "a^3"),
    Token("cbrt", "sign({a}) * abs({a}) ** (1 / 3)", _LION, "cube root"),
    Token("reciprocal", "1 / {a}", _LION, "1 / a, infinite at 0"),
    Token("power", "{a} ** {b}", _LION, "a to the power b; NaN for a < 0 and b no integer"),
    Token("exp2", "2 ** {a}", _LION, "2 to the power a"),
    Token("exp10", "10 ** {a}", _LION, "10 to the power a"),
    Token("expm1", "tanh({a} / 2) * (exp({a}) + 1)", _LION, "e to the power a, less 1"),
    Token("log2", "log(abs({a})) / log(2)", _LION, "log|a| to the base 2"),
    Token("log10", "log(abs({a})) / log(10)", _LION, "log|a| to the base 10"),
    Token("log1p", "log(abs(1 + {a}))", _LION, "log|1 + a|"),
    Token("sinh", "tanh({a}) * (exp({a}) + exp(-{a})) / 2", _LION, "hyperbolic sine"),
    Token("cosh", "(exp({a}) + exp(-{a})) / 2", _LION, "hyperbolic cosine"),
    Token("global_norm", "global_norm({a})", _LION, "norm of all tensors as one vector"),
    Token("global_dot", "global_dot({a}, {b})", _LION, "sum of products over all tensors; published as dot"),
    Token(
        "cosine_sim",
        "global_dot({a}, {b}) / (global_norm({a}) * global_norm({b}) + 1e-08)",
        _LION,
        "cosine of all tensors as one vector",
    ),
    Token("clip_by_global_norm", "{a} * min(1, {c} / global_norm({a}))", _LION, "a, made shorter where longer than c"),
)
CONSTANTS: tuple[Token, ...] = (
    *(
        Token(text, text, _ALL, "number")
        for text in ("0.5", "0.8", "0.9", "0.95", "0.98", "0.99", "0.999", "0.0001", "0.001", "0.01", "0.1", "2", "10")
    ),
    Token("pi", "pi", _LION, "3.14159..."),
    Token("e", "e", _LION, "2.71828..."),
    Token("eps", "1e-08", _LION, "number"),
)
DECAYS = 7  # an average may take one of the first so many CONSTANTS
INPUTS: tuple[Token, ...] = (
    Token("g", "g", _ALL, "gradient", gradient=True),
    Token("w", "p", _ALL, "parameter"),
    Token("1", "1", _ALL, "constant"),
    Token("lr", "lr", _LION, "learning rate, which multiplies the update in any case"),
)
SCALARS = frozenset(("1", "lr"))  # inputs that are one number per step; the others are tensors
AVERAGES = frozenset(("ema", "ema_old", "ema_hat"))
MIXES = AVERAGES | {"lerp"}  # their number is a decay
TAKES_B = frozenset(token.name for token in OPS if "{b}" in token.text)
TAKES_C = frozenset(token.name for token in OPS if "{c}" in token.text) | {"ema_old"}
EQUAL_DEAD = frozenset(("sub", "div", "min", "max", "lerp"))  # for these, op(a, a) is a or a number
REDUCE = frozenset(  # these take tensors, and give one number for each
    ("sum", "mean", "norm", "rms", "max_abs", "dot", "global_norm", "global_dot", "cosine_sim")
)
TENSORS_ONLY = REDUCE | {"clip_by_global_norm"}


@dataclass(frozen=True)
class Words:
    """The words of one vocabulary, and the names of the known rules that can be written in it."""

    name: str
    known: tuple[str, ...]

    @cached_property
    def ops(self) -> tuple[Token, ...]:
        return held(OPS, self.name)

    @cached_property
    def constants(self) -> tuple[Token, ...]:
        return held(CONSTANTS, self.name)

    @cached_property
    def inputs(self) -> tuple[Token, ...]:
        return held(INPUTS, self.name)

    @cached_property
    def reduces(self) -> bool:
        """Tells whether a value may be one number per tensor."""
        return any(token.name in REDUCE for token in self.ops)


# `elementwise` is that of the first programs. A run whose configuration names no vocabulary was written with it, and
# goes on with it. Evolution begins with the known rules, so their order is part of what a seed gives.
_WORDS = {
    words.name: words
    for words in (Words(ELEMENTWISE, OF_ELEMENTWISE), Words(REDUCTIONS, OF_PROGRAMS), Words(LION, OF_PROGRAMS))
}


def words_of(vocabulary: str) -> Words:
    """Returns the words of a vocabulary. Raises UsageError for a name that is none."""
    if vocabulary not in _WORDS:
        raise choose("vocabulary", vocabulary, tuple(_WORDS))
    return _WORDS[vocabulary]
