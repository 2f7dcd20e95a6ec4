"""Owns the named rules as text: a table of well-known optimizers and of the rules that the paper found.

`library.adamw` is a `nos_ext.Rule`; `library.names()` lists them. Where torch.optim has an optimizer of the same name
the rule computes the same numbers (weight decay, dampening, where eps goes). A rule is read when it is first used.
Works without torch.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from ..rule import MatrixProgram, Program, Rule, as_rule
from ._entry import (
    ABOVE_1,
    ANY,
    AT_LEAST_1,
    FRACTION,
    NOT_NEGATIVE,
    POSITIVE,
    UP_TO_1,
    Averaged,
    Entry,
    TorchTwin,
)

_PAPER: Final = (
    "Bello, Zoph, Vasudevan, Le: Neural Optimizer Search with Reinforcement Learning. ICML 2017, arXiv:1709.07417"
)
_KINGMA: Final = "Kingma, Ba: Adam: A method for stochastic optimization. ICLR 2015, arXiv:1412.6980"

_BETAS: Final = {"betas": ("beta1", "beta2")}
_MOMENTS: Final = {"m": "exp_avg", "v": "exp_avg_sq"}
_COUPLED: Final = {"decoupled_weight_decay": False}  # weight decay as L2 regularisation

_NAMED: Final = (
    Entry(
        "sgd",
        """
def sgd(p, g, *, lr, weight_decay=0):
    return p - lr * (g + weight_decay * p)
""",
        "Stochastic gradient descent.",
        "A baseline, and training without memory for states.",
        "Robbins, Monro: A stochastic approximation method. 1951; torch.optim.SGD with momentum=0",
        torch=TorchTwin("SGD", options={"momentum": 0, "nesterov": False}, counts=False),
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
        "Convolutional networks for images, with a schedule of the learning rate.",
        "Polyak: Some methods of speeding up the convergence of iteration methods. 1964; torch.optim.SGD",
        {"dampening": ANY},
        TorchTwin("SGD", {"m": "momentum_buffer"}, options={"nesterov": False}, unless={"momentum": 0}, counts=False),
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
        "As `momentum`; most recipes for residual networks take this one.",
        "Sutskever et al.: On the importance of initialization and momentum in deep learning. ICML 2013; "
        "torch.optim.SGD with nesterov=True",
        torch=TorchTwin("SGD", {"m": "momentum_buffer"}, options={"nesterov": True, "dampening": 0}, counts=False),
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
        "Almost anything, as a first try without weight decay.",
        f"{_KINGMA}; torch.optim.Adam",
        torch=TorchTwin("Adam", _MOMENTS, hypers=_BETAS, options={"amsgrad": False, **_COUPLED}),
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
        "Transformers, and almost anything else with weight decay.",
        "Loshchilov, Hutter: Decoupled weight decay regularization. ICLR 2019, arXiv:1711.05101; torch.optim.AdamW",
        torch=TorchTwin("AdamW", _MOMENTS, hypers=_BETAS, options={"amsgrad": False, "decoupled_weight_decay": True}),
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
        "Reinforcement learning and recurrent networks, with one state less than Adam.",
        "Tieleman, Hinton: Lecture 6.5 of Neural networks for machine learning. 2012; torch.optim.RMSprop",
        {"alpha": NOT_NEGATIVE},
        TorchTwin("RMSprop", {"v": "square_avg"}, options={"momentum": 0, "centered": False}),
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
        "Gradients that are mostly zero, as of embeddings, and convex problems. Its steps only become smaller.",
        "Duchi, Hazan, Singer: Adaptive subgradient methods. JMLR 2011; torch.optim.Adagrad",
        {"lr_decay": NOT_NEGATIVE},
        TorchTwin("Adagrad", {"s": "sum"}),
    ),
    Entry(
        "lion",
        """
def lion(p, g, m, *, lr, beta1=0.9, beta2=0.99, weight_decay=0):
    u = sign(beta1 * m + (1 - beta1) * g)
    return p * (1 - lr * weight_decay) - lr * u, beta2 * m + (1 - beta2) * g
""",
        "Lion: the sign of an interpolation of momentum and gradient, with decoupled weight decay.",
        "Transformers with one state instead of two; lr 3 to 10 times below AdamW's, weight_decay as much above.",
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
        "As `lion`, of which it is the plain form; the base of methods that send signs over a network.",
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
        "Where SGD with momentum works: images and translation, by the paper, with a decay of lr and of the sign term.",
        f"{_PAPER}; TensorFlow contrib PowerSignOptimizer",
        {"base": POSITIVE, "sign_decay": ANY},
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
        "As `powersign`; it needs no exponential, and stands still where the signs disagree.",
        f"{_PAPER}; TensorFlow contrib AddSignOptimizer",
        {"alpha": ANY, "sign_decay": ANY},
    ),
    Entry(
        "amsgrad",
        """
def amsgrad(p, g, m, v, top, *, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0):
    g = g + weight_decay * p
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g ** 2
    top = max(top, v)
    return p - lr / (1 - beta1 ** t) * m / (sqrt(top) / sqrt(1 - beta2 ** t) + eps), m, v, top
""",
        "Adam over the largest v so far, so that its steps never grow again; with L2 regularisation as weight decay.",
        "Where Adam goes astray late in a training because rare, large gradients are forgotten.",
        "Reddi, Kale, Kumar: On the convergence of Adam and beyond. ICLR 2018, arXiv:1904.09237; torch.optim.Adam with "
        "amsgrad=True",
        torch=TorchTwin(
            "Adam", {**_MOMENTS, "top": "max_exp_avg_sq"}, hypers=_BETAS, options={"amsgrad": True, **_COUPLED}
        ),
    ),
    Entry(
        "nadam",
        """
def nadam(p, g, m, v, product, *, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0, momentum_decay=0.004):
    mu = beta1 * (1 - 0.5 * 0.96 ** (t * momentum_decay))
    mu_next = beta1 * (1 - 0.5 * 0.96 ** ((t + 1) * momentum_decay))
    product = where(t == 1, 1, product) * mu
    g = g + weight_decay * p
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g ** 2
    d = sqrt(v / (1 - beta2 ** t)) + eps
    u = (1 - mu) / (1 - product) * g / d + mu_next / (1 - product * mu_next) * m / d
    return p - lr * u, m, v, product
""",
        "Adam with Nesterov's momentum, whose weight mu grows; `product` is that of all mu so far. With L2 "
        "regularisation as weight decay.",
        "As `adam`, where momentum helps; often a little faster early on.",
        "Dozat: Incorporating Nesterov momentum into Adam. ICLR workshop 2016; torch.optim.NAdam",
        {"momentum_decay": NOT_NEGATIVE},
        TorchTwin("NAdam", {**_MOMENTS, "product": "mu_product"}, spread=("product",), hypers=_BETAS, options=_COUPLED),
    ),
    Entry(
        "radam",
        """
def radam(p, g, m, v, *, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0):
    g = g + weight_decay * p
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g ** 2
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * t * beta2 ** t / (1 - beta2 ** t)
    r = sqrt((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length))
    u = where(length > 5, r * sqrt(1 - beta2 ** t) / (sqrt(v) + eps), 1)
    return p - lr * (m / (1 - beta1 ** t)) * u, m, v
""",
        "Adam whose steps are small until the variance of v is known, and that of momentum before (`length`: of the "
        "average in v). With L2 regularisation as weight decay.",
        "As `adam` without a warm-up of the learning rate.",
        "Liu et al.: On the variance of the adaptive learning rate and beyond. ICLR 2020, arXiv:1908.03265; "
        "torch.optim.RAdam",
        torch=TorchTwin("RAdam", _MOMENTS, hypers=_BETAS, options=_COUPLED),
    ),
    Entry(
        "adamax",
        """
def adamax(p, g, m, u, *, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0):
    g = g + weight_decay * p
    m = beta1 * m + (1 - beta1) * g
    u = max(beta2 * u, abs(g) + eps)
    return p - lr / (1 - beta1 ** t) * m / u, m, u
""",
        "Adam with a decaying maximum of |g| in place of the root of the mean square.",
        "Embeddings, and gradients with rare large values, whose steps it bounds.",
        f"{_KINGMA}; torch.optim.Adamax",
        torch=TorchTwin("Adamax", {"m": "exp_avg", "u": "exp_inf"}, hypers=_BETAS),
    ),
    Entry(
        "adadelta",
        """
def adadelta(p, g, v, d, *, lr, rho=0.9, eps=1e-6, weight_decay=0):
    g = g + weight_decay * p
    v = rho * v + (1 - rho) * g ** 2
    u = sqrt(d + eps) / sqrt(v + eps) * g
    return p - lr * u, v, rho * d + (1 - rho) * u ** 2
""",
        "The gradient over the root of its mean square, times that of the updates so far, so that the units agree.",
        "Training without a search for a learning rate: lr=1 is the published rule.",
        "Zeiler: ADADELTA: An adaptive learning rate method. 2012, arXiv:1212.5701; torch.optim.Adadelta",
        {"rho": UP_TO_1},
        TorchTwin("Adadelta", {"v": "square_avg", "d": "acc_delta"}),
    ),
    Entry(
        "rprop",
        """
def rprop(p, g, last, size, *, lr, eta_minus=0.5, eta_plus=1.2, step_min=1e-6, step_max=50):
    s = sign(g * last)
    change = where(s > 0, eta_plus, where(s < 0, eta_minus, 1))
    size = clip(where(t == 1, lr, size) * change, step_min, step_max)
    g = where(s < 0, 0, g)
    return p - sign(g) * size, g, size
""",
        "Steps of a size of their own for each element, which grows while the gradient keeps its sign and shrinks when "
        "that changes; lr is the first size, and is read at the first step only.",
        "Gradients of the full batch, which have no noise. It is unfit for mini-batches.",
        "Riedmiller, Braun: A direct adaptive method for faster backpropagation learning: the RPROP algorithm. 1993; "
        "torch.optim.Rprop",
        {"eta_minus": FRACTION, "eta_plus": ABOVE_1, "step_min": NOT_NEGATIVE, "step_max": NOT_NEGATIVE},
        TorchTwin(
            "Rprop",
            {"last": "prev", "size": "step_size"},
            hypers={"etas": ("eta_minus", "eta_plus"), "step_sizes": ("step_min", "step_max")},
        ),
    ),
    Entry(
        "adan",
        """
def adan(p, g, m, d, v, last, *, lr, beta1=0.98, beta2=0.92, beta3=0.99, eps=1e-8, weight_decay=0):
    change = where(t == 1, 0, g - last)
    m = beta1 * m + (1 - beta1) * g
    d = beta2 * d + (1 - beta2) * change
    v = beta3 * v + (1 - beta3) * (g + beta2 * change) ** 2
    u = (m / (1 - beta1 ** t) + beta2 * d / (1 - beta2 ** t)) / (sqrt(v) / sqrt(1 - beta3 ** t) + eps)
    return (p - lr * u) / (1 + lr * weight_decay), m, d, v, g
""",
        "Adam with Nesterov's momentum made of the change of the gradient; weight decay as a proximal step. The betas "
        "are written as in the authors' code, 1 minus those of the paper.",
        "Vision transformers and large batches; it takes larger learning rates than AdamW and has four states.",
        "Xie et al.: Adan: Adaptive Nesterov momentum algorithm for faster optimizing deep models. 2022, "
        "arXiv:2208.06677",
    ),
    Entry(
        "adabelief",
        """
def adabelief(p, g, m, s, *, lr, beta1=0.9, beta2=0.999, eps=1e-16, weight_decay=0):
    p = p * (1 - lr * weight_decay)
    m = beta1 * m + (1 - beta1) * g
    s = beta2 * s + (1 - beta2) * (g - m) ** 2 + eps
    return p - lr / (1 - beta1 ** t) * m / (sqrt(s) / sqrt(1 - beta2 ** t) + eps), m, s
""",
        "Adam over the deviation of the gradient from its average instead of over its size; with decoupled weight "
        "decay.",
        "Images and GANs, where Adam generalises worse than SGD.",
        "Zhuang et al.: AdaBelief optimizer: Adapting stepsizes by the belief in observed gradients. NeurIPS 2020, "
        "arXiv:2010.07468",
    ),
    Entry(
        "ademamix",
        """
def ademamix(
    p, g, m, v, slow, *, lr, beta1=0.9, beta2=0.999, beta3=0.9999, alpha=5, warmup_steps=0, eps=1e-8, weight_decay=0
):
    part = min(t / max(warmup_steps, 1), 1)
    first = log(max(beta1, 1e-8))
    final = log(beta3)
    rate = where(part < 1, min(exp(first * final / ((1 - part) * final + part * first)), beta3), beta3)
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g ** 2
    slow = rate * slow + (1 - rate) * g
    u = (m / (1 - beta1 ** t) + part * alpha * slow) / (sqrt(v) / sqrt(1 - beta2 ** t) + eps)
    return p * (1 - lr * weight_decay) - lr * u, m, v, slow
""",
        "AdamW with a second, much slower momentum. Over warmup_steps its weight grows from 0 to alpha, and its rate "
        "from beta1 to beta3; with 0 of them both are there from the first step.",
        "Long trainings of language models, where old gradients still help; warmup_steps is then their whole length.",
        "Pagliardini, Ablin, Grangier: The AdEMAMix optimizer: Better, faster, older. ICLR 2025, arXiv:2409.03137",
        {"beta3": FRACTION, "alpha": NOT_NEGATIVE, "warmup_steps": NOT_NEGATIVE},
    ),
    Entry(
        "schedule_free_adamw",
        """
def schedule_free_adamw(p, g, z, v, *, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0, warmup_steps=0):
    warmup = max(warmup_steps, 1)
    done = min(t, warmup)
    part = done / warmup
    total = done * (done + 1) * (2 * done + 1) / 6 / warmup ** 2 + (t - done)
    c = part ** 2 / total
    z = where(t == 1, p, z)
    v = beta2 * v + (1 - beta2) * g ** 2
    u = g / (sqrt(v / (1 - beta2 ** t)) + eps) + weight_decay * p
    step = part * lr * u
    return p + c * (z - p) + (beta1 * (1 - c) - 1) * step, z - step, v
""",
        "AdamW that averages its weights instead of decaying its learning rate, which warms up over warmup_steps. "
        "Before evaluation call `optimizer.eval()`, which puts the averaged weights in place, and before training "
        "`optimizer.train()`. The learning rate is meant to stay as it is.",
        "Trainings whose length is not known beforehand; larger lr than AdamW's, and a warm-up.",
        "Defazio et al.: The road less scheduled. NeurIPS 2024, arXiv:2405.15682",
        {"beta1": FRACTION, "warmup_steps": NOT_NEGATIVE},
        averaged=Averaged("z", "beta1"),
    ),
    Entry(
        "lamb",
        """
def lamb(p, g, m, v, *, lr, beta1=0.9, beta2=0.999, eps=1e-6, weight_decay=0.01):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g ** 2
    u = 1 / (1 - beta1 ** t) * m / (sqrt(1 / (1 - beta2 ** t) * v) + eps) + weight_decay * p
    size = norm(p)
    length = norm(u)
    trust = where(size > 0, where(length > 0, size / length, 1), 1)
    return p - lr * trust * u, m, v
""",
        "AdamW whose step is, in each tensor, as long as the tensor's norm times lr.",
        "Large batches (thousands of examples and more), where Adam's step would be too long for some layers.",
        "You et al.: Large batch optimization for deep learning: Training BERT in 76 minutes. ICLR 2020, "
        "arXiv:1904.00962, algorithm 2",
    ),
    Entry(
        "lars",
        """
def lars(p, g, m, *, lr, momentum=0.9, trust_coefficient=0.001, weight_decay=0):
    size = norm(p)
    length = norm(g) + weight_decay * size
    trust = where(size > 0, where(length > 0, trust_coefficient * size / length, 1), 1)
    m = momentum * m + lr * trust * (g + weight_decay * p)
    return p - m, m
""",
        "Momentum whose learning rate is, in each tensor, proportional to the tensor's norm over its gradient's.",
        "Convolutional networks with large batches. Give biases and norms a group of their own, with `momentum`.",
        "You, Gitman, Ginsburg: Large batch training of convolutional networks. 2017, arXiv:1708.03888, algorithm 1",
        {"trust_coefficient": NOT_NEGATIVE},
    ),
    Entry(
        "stable_adamw",
        """
def stable_adamw(p, g, m, v, *, lr, beta1=0.9, beta2=0.99, eps=1e-8, weight_decay=0.01):
    b1 = beta1 * (1 - beta1 ** (t - 1)) / (1 - beta1 ** t)
    b2 = beta2 * (1 - beta2 ** (t - 1)) / (1 - beta2 ** t)
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g ** 2
    rate = lr / max(1, sqrt(mean(g ** 2 / max(v, eps ** 2))))
    return p * (1 - rate * weight_decay) - rate * m / (sqrt(v) + eps), m, v
""",
        "AdamW that takes shorter steps in a tensor whose gradients are larger than v expects, as Adafactor does.",
        "Trainings in low precision, and others whose loss has spikes; it needs no clipping of gradients.",
        "Wortsman et al.: Stable and low-precision training for large-scale vision-language models. NeurIPS 2023, "
        "arXiv:2304.13013, algorithm 2",
    ),
    Entry(
        "adamh",
        """
def adamh(p, g, m, v, size, *, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    size = where(t == 1, norm(p), size)
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g ** 2
    u = m / (1 - beta1 ** t) / (sqrt(v / (1 - beta2 ** t)) + eps)
    w = p - lr * size / max(norm(u), eps) * u
    return size / max(norm(w), eps) * w, m, v, size
""",
        "Adam that keeps the norm of every tensor as it was at the start, by steps whose length is that norm times lr "
        "(Adam Hyperball). `size` is the norm.",
        "Weight matrices of transformers, in the place of weight decay. Not for biases, nor for tensors that start at "
        "zero.",
        "Wen et al.: Fantastic pretraining optimizers and where to find them II: Hyperball optimization. 2026, "
        "arXiv:2606.16899",
    ),
    Entry(
        "normalized_sgd",
        """
def normalized_sgd(p, g, m, *, lr, beta=0.9, eps=1e-12, weight_decay=0):
    m = beta * m + (1 - beta) * (g + weight_decay * p)
    return p - lr / max(global_norm(m), eps) * m, m
""",
        "Momentum whose step over all parameters has length lr, whatever the size of the gradients.",
        "Recurrent networks, and losses that have cliffs and plateaus.",
        "Cutkosky, Mehta: Momentum improves normalized SGD. ICML 2020, arXiv:2002.03305",
    ),
    Entry(
        "adafactor",
        """
def adafactor(p, g, v, *, lr, beta2_decay=-0.8, eps1=1.1920929e-07, eps2=0.001, d=1.0, weight_decay=0):
    beta2 = 1 - t ** beta2_decay
    rate = max(eps2, rms(p)) * min(lr, 1 / sqrt(t))
    p = p * (1 - lr * weight_decay)
    v = beta2 * v + (1 - beta2) * g ** 2
    u = g / sqrt(max(v, eps1 ** 2))
    return p - rate / max(1, rms(u) / d) * u, v
""",
        "The gradient over its root mean square, in steps relative to the size of a tensor, and clipped. Its second "
        "moments are not factored: for a matrix it takes as much memory as RMSProp and is a little better informed.",
        "Transformers, as T5's. lr bounds the relative size of a step.",
        "Shazeer, Stern: Adafactor: Adaptive learning rates with sublinear memory cost. ICML 2018, arXiv:1804.04235; "
        "torch.optim.Adafactor for vectors",
        {"beta2_decay": ANY, "eps1": NOT_NEGATIVE, "eps2": NOT_NEGATIVE, "d": AT_LEAST_1},
    ),
    Entry(
        "cautious_adamw",
        """
def cautious_adamw(p, g, m, v, *, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
    p = p * (1 - lr * weight_decay)
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g ** 2
    u = m / (1 - beta1 ** t) / (sqrt(v) / sqrt(1 - beta2 ** t) + eps)
    agrees = u * g > 0
    return p - lr / max(mean(agrees), 0.001) * agrees * u, m, v
""",
        "AdamW that moves only those weights whose update agrees in sign with the gradient, and these further.",
        "As `adamw`, with its hyperparameters.",
        "Liang et al.: Cautious optimizers: Improving training with one line of code. 2024, arXiv:2411.16085",
    ),
    Entry(
        "cautious_lion",
        """
def cautious_lion(p, g, m, *, lr, beta1=0.9, beta2=0.99, weight_decay=0):
    u = sign(beta1 * m + (1 - beta1) * g)
    agrees = u * g > 0
    m = beta2 * m + (1 - beta2) * g
    return p * (1 - lr * weight_decay) - lr / max(mean(agrees), 0.001) * agrees * u, m
""",
        "Lion that moves only those weights whose update agrees in sign with the gradient, and these further.",
        "As `lion`, with its hyperparameters.",
        "Liang et al.: Cautious optimizers: Improving training with one line of code. 2024, arXiv:2411.16085",
    ),
    Entry(
        "muon",
        """
def muon(p, g, m, *, lr, momentum=0.95, weight_decay=0.1):
    m = momentum * m + (1 - momentum) * g
    u = orthogonalize(momentum * m + (1 - momentum) * g, adjust="original")
    return p * (1 - lr * weight_decay) - lr * u, m
""",
        "Nesterov momentum, orthogonalized: all directions of a matrix move alike. lr is adjusted to the shape as by "
        "torch's Muon; with adjust='match_rms_adamw' in the rule, steps are as long as AdamW's, and so lr is AdamW's.",
        "Hidden matrices of transformers and convolutions; `nos_ext.optim.groups` gives the rest to another rule.",
        "Jordan et al.: Muon: An optimizer for hidden layers in neural networks. 2024, "
        "kellerjordan.github.io/posts/muon; torch.optim.Muon",
        torch=TorchTwin(
            "Muon",
            {"m": "momentum_buffer"},
            options={"nesterov": True, "ns_coefficients": (3.4445, -4.7750, 2.0315), "eps": 1e-7, "ns_steps": 5},
            unless={"adjust_lr_fn": "match_rms_adamw"},
            counts=False,
        ),
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
    doc = f"Found by the search: the update is `{update}`."
    return Entry(name, update, doc, "A find of the search, to try beside `powersign`.", f"{_PAPER}, table 1")


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
    """Returns the rule of that name. Raises KeyError with the nearest names if there is none."""
    if name not in ENTRIES:
        near = difflib.get_close_matches(name.lower(), ENTRIES, n=3)
        raise KeyError(
            f"no rule '{name}'; " + (f"did you mean {' or '.join(map(repr, near))}?" if near else ", ".join(ENTRIES))
        )
    entry = ENTRIES[name]
    return as_rule(entry.text.strip(), name).replaced(doc=f"{entry.doc}\n\n{entry.source}.")


@functools.cache
def entry_of(program: Program | MatrixProgram) -> Entry | None:
    """Returns the entry of the rule that was compiled to `program`, or None if it is no rule of the library."""
    if program.name not in ENTRIES:
        return None
    rule = get(program.name)
    own = (rule.compile().fingerprint, rule.compile(contract=True).fingerprint)
    return ENTRIES[program.name] if program.fingerprint in own else None


def __getattr__(name: str) -> Rule:
    try:
        return get(name)
    except KeyError as error:
        raise AttributeError(f"nos_ext.optim.library has {error.args[0]}") from None


def __dir__() -> list[str]:
    return [*globals(), *ENTRIES]
