"""Owns the named rules as text: a table of well-known optimizers and of the rules that the paper found.

`library.adamw` is a `nos_ext.Rule`; `library.names()` lists them. Where torch.optim has an optimizer of the same name
the rule computes the same numbers (weight decay, dampening, where eps goes). A rule is read when it is first used.
Works without torch.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from ..rule import Rule, as_rule

_PAPER: Final = (
    "Bello, Zoph, Vasudevan, Le: Neural Optimizer Search with Reinforcement Learning. ICML 2017, arXiv:1709.07417"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """An Entry is a named rule: its text, what it is, and where it comes from."""

    name: str
    text: str
    doc: str
    source: str


_NAMED: Final = (
    Entry(
        "sgd",
        """
def sgd(p, g, *, lr, weight_decay=0):
    return p - lr * (g + weight_decay * p)
""",
        "Stochastic gradient descent.",
        "torch.optim.SGD with momentum=0",
    ),
    Entry(
        "momentum",
        """
def momentum(p, g, m, *, lr, momentum=0.9, dampening=0, weight_decay=0):
    g = g + weight_decay * p
    m = where(t == 1, g, momentum * m + (1 - dampening) * g)
    return p - lr * m, m
""",
        "Gradient descent with heavy-ball momentum; the first step takes the gradient undamped.",
        "Polyak: Some methods of speeding up the convergence of iteration methods. 1964; torch.optim.SGD",
    ),
    Entry(
        "nesterov",
        """
def nesterov(p, g, m, *, lr, momentum=0.9, weight_decay=0):
    g = g + weight_decay * p
    m = momentum * m + g
    return p - lr * (g + momentum * m), m
""",
        "Gradient descent with Nesterov's accelerated momentum.",
        "Sutskever et al.: On the importance of initialization and momentum in deep learning. ICML 2013; "
        "torch.optim.SGD with nesterov=True",
    ),
    Entry(
        "adam",
        """
def adam(p, g, m, v, *, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0):
    g = g + weight_decay * p
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g ** 2
    return p - lr / (1 - beta1 ** t) * m / (sqrt(v) / sqrt(1 - beta2 ** t) + eps), m, v
""",
        "Adam, with L2 regularisation as weight decay.",
        "Kingma, Ba: Adam: A method for stochastic optimization. ICLR 2015, arXiv:1412.6980; torch.optim.Adam",
    ),
    Entry(
        "adamw",
        """
def adamw(p, g, m, v, *, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
    p = p * (1 - lr * weight_decay)
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g ** 2
    return p - lr / (1 - beta1 ** t) * m / (sqrt(v) / sqrt(1 - beta2 ** t) + eps), m, v
""",
        "Adam with decoupled weight decay.",
        "Loshchilov, Hutter: Decoupled weight decay regularization. ICLR 2019, arXiv:1711.05101; torch.optim.AdamW",
    ),
    Entry(
        "rmsprop",
        """
def rmsprop(p, g, v, *, lr, alpha=0.99, eps=1e-8, weight_decay=0):
    g = g + weight_decay * p
    v = alpha * v + (1 - alpha) * g ** 2
    return p - lr * g / (sqrt(v) + eps), v
""",
        "RMSProp: the gradient over the root of its mean square.",
        "Tieleman, Hinton: Lecture 6.5 of Neural networks for machine learning. 2012; torch.optim.RMSprop",
    ),
    Entry(
        "adagrad",
        """
def adagrad(p, g, s, *, lr, lr_decay=0, eps=1e-10, weight_decay=0):
    g = g + weight_decay * p
    s = s + g ** 2
    return p - lr / (1 + (t - 1) * lr_decay) * g / (sqrt(s) + eps), s
""",
        "AdaGrad: the gradient over the root of the sum of all its squares.",
        "Duchi, Hazan, Singer: Adaptive subgradient methods. JMLR 2011; torch.optim.Adagrad",
    ),
    Entry(
        "lion",
        """
def lion(p, g, m, *, lr, beta1=0.9, beta2=0.99, weight_decay=0):
    u = sign(beta1 * m + (1 - beta1) * g)
    return p * (1 - lr * weight_decay) - lr * u, beta2 * m + (1 - beta2) * g
""",
        "Lion: the sign of an interpolation of momentum and gradient, with decoupled weight decay.",
        "Chen et al.: Symbolic discovery of optimization algorithms. 2023, arXiv:2302.06675",
    ),
    Entry(
        "signum",
        """
def signum(p, g, m, *, lr, beta=0.9, weight_decay=0):
    m = beta * m + (1 - beta) * g
    return p * (1 - lr * weight_decay) - lr * sign(m), m
""",
        "The sign of momentum, with decoupled weight decay.",
        "Bernstein et al.: signSGD: Compressed optimisation for non-convex problems. ICML 2018, arXiv:1802.04434",
    ),
    Entry(
        "powersign",
        """
def powersign(p, g, m, *, lr, beta=0.9, base=e, sign_decay=1.0, weight_decay=0.0):
    m = beta * m + (1 - beta) * g
    u = exp(log(base) * sign_decay * sign(g) * sign(m)) * g
    return p * (1 - lr * weight_decay) - lr * u, m
""",
        "The gradient times base or 1/base, as gradient and momentum agree in sign or not; sign_decay: the internal "
        "decay. With decoupled weight decay.",
        f"{_PAPER}; TensorFlow contrib PowerSignOptimizer",
    ),
    Entry(
        "addsign",
        """
def addsign(p, g, m, *, lr, beta=0.9, alpha=1.0, sign_decay=1.0, weight_decay=0.0):
    m = beta * m + (1 - beta) * g
    u = (alpha + sign_decay * sign(g) * sign(m)) * g
    return p * (1 - lr * weight_decay) - lr * u, m
""",
        "The gradient times alpha + 1 or alpha - 1, as gradient and momentum agree in sign or not; sign_decay: the "
        "internal decay. With decoupled weight decay.",
        f"{_PAPER}; TensorFlow contrib AddSignOptimizer",
    ),
)

# The rules of the paper's table for CIFAR-10, as updates over the operands of nos_ext.rule.OPERANDS. In their names,
# the paper's m-hat, v-hat, e^x and sign(g)*sign(m) become mhat, vhat, exp and signs.
_FOUND: Final[Mapping[str, str]] = MappingProxyType(
    {
        "exp_signs_plus_clip_g": "(exp(sign(g) * sign(m)) + clip(g, 1e-4)) * g",
        "clip_mhat_exp_vhat": "clip(m_hat, 1e-4) * exp(v_hat)",
        "mhat_exp_vhat": "m_hat * exp(v_hat)",
        "g_exp_signs": "g * exp(sign(g) * sign(m_hat))",
        "drop_g_exp_signs": "drop(g, 0.3) * exp(sign(g) * sign(m_hat))",
        "mhat_exp_g2": "m_hat * exp(g ** 2)",
        "drop_mhat_over_exp_g2": "drop(m_hat, 0.1) / (exp(g ** 2) + 1e-8)",
        "drop10_g_exp_signs": "drop(g, 0.1) * exp(sign(g) * sign(m_hat))",
        "clip_rmsprop_plus_drop_mhat": "clip(rmsprop, 1e-5) + drop(m_hat, 0.3)",
        "adam_exp_signs": "adam * exp(sign(g) * sign(m_hat))",
        "adam_exp_mhat": "adam * exp(m_hat)",
        "g_plus_drop_mhat": "g + drop(m_hat, 0.3)",
        "drop_mhat_exp_g3": "drop(m_hat, 0.1) * exp(g ** 2 * g)",
        "g_minus_clip_g2": "g - clip(g ** 2, 1e-4)",
        "exp_g_minus_exp_mhat": "exp(g) - exp(m_hat)",
        "drop_mhat_exp_w": "drop(m_hat, 0.3) * exp(1e-3 * w)",
    }
)


def _found(name: str, update: str) -> Entry:
    return Entry(name, update, f"Found by the search: the update is `{update}`.", f"{_PAPER}, table 1")


ENTRIES: Final[Mapping[str, Entry]] = MappingProxyType(
    {entry.name: entry for entry in (*_NAMED, *[_found(name, update) for name, update in _FOUND.items()])}
)


def names() -> tuple[str, ...]:
    """Returns the names of all rules, the well-known ones first."""
    return tuple(ENTRIES)


def rules() -> Iterator[Rule]:
    """Yields all rules, in the order of `names`."""
    return map(get, ENTRIES)


@functools.cache
def get(name: str) -> Rule:
    """Returns the rule of that name. Raises KeyError with the closest name if there is none."""
    if name not in ENTRIES:
        close = difflib.get_close_matches(name, ENTRIES, n=1)
        raise KeyError(f"no rule '{name}'" + (f"; did you mean '{close[0]}'?" if close else f"; {', '.join(ENTRIES)}"))
    entry = ENTRIES[name]
    return as_rule(entry.text.strip(), name).replaced(doc=f"{entry.doc}\n\n{entry.source}.")


def __getattr__(name: str) -> Rule:
    try:
        return get(name)
    except KeyError as error:
        raise AttributeError(f"nos_ext.optim.library has {error.args[0]}") from None


def __dir__() -> list[str]:
    return [*globals(), *ENTRIES]
