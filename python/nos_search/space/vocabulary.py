"""Owns the paper's vocabularies, which have one row per operand, unary function and binary function.

A row gives the name that stored runs use, the text in the rule language, and the vocabularies that hold it. Everything
that knows a token (spaces, masks, listings, the encoder) reads these rows. Append new rows at the end of a table and
never rename one: token names and their order are part of stored runs.

The sources are Bello, Zoph, Vasudevan, Le, ICML 2017 and its longer version arXiv 1709.07417, by way of public replicas
where the papers leave a point open. Such a point is an option of the space; `option` names it and `alt` is the text
that it puts in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

TokenKind = Literal["operand", "unary", "binary", "op", "constant"]
ICML = "icml"
ARXIV = "arxiv"
DECAY = "arxiv-decay"


@dataclass(frozen=True)
class Token:
    """A Token is one entry of a vocabulary, and `sets` names all vocabularies that hold it.

    `text` is rule text in which `{0}` and `{1}` stand for the arguments of a function; in programs (words.py) they have
    other names. When the space option that
    `option` names is switched from its default, `alt` replaces it. With `gradient` the operand carries information
    about the loss; a rule without any such operand cannot learn.
    """

    name: str
    text: str
    sets: tuple[str, ...]
    doc: str
    option: str = ""
    alt: str = ""
    gradient: bool = False


_ALL = (ICML, ARXIV, DECAY)
_NEW = (ARXIV, DECAY)

OPERANDS: tuple[Token, ...] = (
    Token("g", "g", _ALL, "gradient", gradient=True),
    Token("g^2", "g**2", _ALL, "gradient squared", gradient=True),
    Token("g^3", "g**3", _ALL, "gradient cubed", gradient=True),
    Token("m_hat", "m_hat", _ALL, "EMA of g, decay 0.9", "bias_correction", "m", gradient=True),
    Token("v_hat", "v_hat", _ALL, "EMA of g^2, decay 0.999", "bias_correction", "v", gradient=True),
    Token("y_hat", "y_hat", _ALL, "EMA of g^3, decay 0.999", "bias_correction", "y", gradient=True),
    Token("sign(g)", "sign(g)", _ALL, "sign of the gradient", gradient=True),
    Token("sign(m_hat)", "sign(m_hat)", _ALL, "sign of the EMA of g", "bias_correction", "sign(m)", gradient=True),
    Token("1", "1", _ALL, "constant"),
    Token("2", "2", _NEW, "constant (arXiv version only)"),
    Token("noise", "noise", _ALL, "Gaussian, mean 0, standard deviation 0.01", "noise_variance", "normal(0.1)"),
    Token("1e-4w", "0.0001 * w", _ALL, "weight times 1e-4"),
    Token("1e-3w", "0.001 * w", _ALL, "weight times 1e-3"),
    Token("1e-2w", "0.01 * w", _ALL, "weight times 1e-2"),
    Token("1e-1w", "0.1 * w", _ALL, "weight times 1e-1"),
    Token("adam", "adam", _ALL, "direction of Adam", gradient=True),
    Token("rmsprop", "rmsprop", _ALL, "direction of RMSProp", gradient=True),
    Token("ld", "ld", (DECAY,), "linear decay, 1 to 0 over the run"),
    Token("cd", "cd", (DECAY,), "cosine decay"),
    Token("rd", "0.5 * (1 + cos(pi * (20 * (t - 1) % T) / T))", (DECAY,), "cosine decay with 20 restarts over the run"),
    Token("annealed", "annealed_noise", (DECAY,), "Gaussian of variance (1 + t)^-0.55 at step t"),
)

UNARY: tuple[Token, ...] = (
    Token("x", "{0}", _ALL, "identity"),
    Token("-x", "-{0}", _ALL, "negation"),
    Token("exp", "exp({0})", _ALL, "e to the power x"),
    Token("log", "log(abs({0}))", _ALL, "log|x|"),
    Token("sqrt", "sqrt(abs({0}))", _NEW, "square root of |x| (arXiv version only)"),
    Token("clip1e-5", "clip({0}, 1e-05)", _ALL, "clip to [-1e-5, 1e-5]"),
    Token("clip1e-4", "clip({0}, 0.0001)", _ALL, "clip to [-1e-4, 1e-4]"),
    Token("clip1e-3", "clip({0}, 0.001)", _ALL, "clip to [-1e-3, 1e-3]"),
    Token("drop0.1", "drop({0}, 0.1)", _ALL, "zero with probability 0.1", "drop_rescale", "drop({0}, 0.1) / 0.9"),
    Token("drop0.3", "drop({0}, 0.3)", _ALL, "zero with probability 0.3", "drop_rescale", "drop({0}, 0.3) / 0.7"),
    Token("drop0.5", "drop({0}, 0.5)", _ALL, "zero with probability 0.5", "drop_rescale", "drop({0}, 0.5) / 0.5"),
    Token("sign", "sign({0})", _ALL, "sign of x"),
)

BINARY: tuple[Token, ...] = (
    Token("+", "{0} + {1}", _ALL, "sum"),
    Token("-", "{0} - {1}", _ALL, "difference"),
    Token("*", "{0} * {1}", _ALL, "product"),
    Token("/", "{0} / ({1} + 1e-08)", _ALL, "quotient, x / (y + 1e-8)"),
    Token("^", "{0} ** {1}", _NEW, "power (arXiv version only)"),
    Token("left", "{0}", _ALL, "keeps x, ignores y"),
)

TABLES: dict[TokenKind, tuple[Token, ...]] = {"operand": OPERANDS, "unary": UNARY, "binary": BINARY}
VOCABULARIES: dict[str, str] = {
    ICML: "ICML 2017: 16 operands, 11 unary, 5 binary functions",
    ARXIV: "arXiv 1709.07417: 17 operands, 12 unary, 6 binary functions",
    DECAY: "arXiv with its decays and annealed noise as operands: 21 operands, 12 unary, 6 binary functions",
}


def held(table: tuple[Token, ...], vocabulary: str) -> tuple[Token, ...]:
    """Returns the tokens of a table that a vocabulary holds, in table order."""
    return tuple(token for token in table if vocabulary in token.sets)


def rows(vocabulary: str, kind: TokenKind) -> tuple[Token, ...]:
    """Returns the tokens of one kind that one of the paper's vocabularies holds."""
    return held(TABLES[kind], vocabulary)
