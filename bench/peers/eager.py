"""Each rule as a PyTorch user writes it, tensor by tensor: in place where it can be, with lerp_, addcmul_ and such."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor

from ..case import Case, Contender

Scalars = Mapping[str, float]


def sgd(k: Scalars, p: Tensor, g: Tensor) -> None:
    p.add_(g, alpha=-k["lr"])


def momentum(k: Scalars, p: Tensor, g: Tensor, m: Tensor) -> None:
    m.mul_(k["beta"]).add_(g)
    p.add_(m, alpha=-k["lr"])


def adam(k: Scalars, p: Tensor, g: Tensor, m: Tensor, v: Tensor) -> None:
    m.lerp_(g, k["rest1"])
    v.mul_(k["beta2"]).addcmul_(g, g, value=k["rest2"])
    p.addcdiv_(m, v.sqrt().div_(k["root"]).add_(k["eps"]), value=-k["step"])


def adamw(k: Scalars, p: Tensor, g: Tensor, m: Tensor, v: Tensor) -> None:
    p.mul_(k["keep"])
    adam(k, p, g, m, v)


def lion(k: Scalars, p: Tensor, g: Tensor, m: Tensor) -> None:
    p.mul_(k["keep"]).add_(m.lerp(g, k["rest1"]).sign_(), alpha=-k["lr"])
    m.lerp_(g, k["rest2"])


def rmsprop(k: Scalars, p: Tensor, g: Tensor, v: Tensor) -> None:
    v.mul_(k["alpha"]).addcmul_(g, g, value=k["rest"])
    p.addcdiv_(g, v.sqrt().add_(k["eps"]), value=-k["lr"])


def powersign(k: Scalars, p: Tensor, g: Tensor, m: Tensor) -> None:
    m.lerp_(g, k["rest"])
    u = torch.sign(g).mul_(torch.sign(m))
    if k["power"] != 1.0:
        u.mul_(k["power"])
    p.addcmul_(u.exp_(), g, value=-k["lr"])


def addsign(k: Scalars, p: Tensor, g: Tensor, m: Tensor) -> None:
    m.lerp_(g, k["rest"])
    p.addcmul_(torch.sign(g).mul_(torch.sign(m)).add_(k["alpha"]), g, value=-k["lr"])


def random15(k: Scalars, p: Tensor, g: Tensor, m: Tensor) -> None:
    m.lerp_(g, k["rest"])
    a = m.abs()
    x = torch.sign(g).mul_(torch.sign(m)).exp_().mul_(a.pow(k["exponent"])).mul_(g.clamp(-k["bound"], k["bound"]))
    x.addcmul_(g.square().add_(k["eps"]).log_(), a.sqrt_())
    p.sub_(x, alpha=k["lr"])


def random40(k: Scalars, p: Tensor, g: Tensor, m: Tensor, v: Tensor) -> None:
    m.lerp_(g, k["rest1"])
    v.mul_(k["beta2"]).addcmul_(g, g, value=k["rest2"])
    a = m.tanh().sub_(g.clamp(-k["small"], k["small"]))
    b = g.abs().neg_().exp_().mul_(m.sign())
    c = v.add(k["eps"]).sqrt_()
    d = g / c
    h = d.square().add_(1).log_()
    i = torch.maximum(a * b, torch.minimum(d, h))
    x = torch.where(g > p, i, h).mul_(p.abs().pow_(k["exponent"]))
    x.square_().add_(1).rsqrt_().mul_(m).div_(c).tanh_()
    x.addcmul_(p, v.neg().exp_(), value=-0.5).add_(b).clamp_(-1, 1)
    x.addcmul_(a, h).addcmul_(d.sign_(), i, value=-1)
    p.sub_(x, alpha=k["lr"])


UPDATES: Final[Mapping[str, Callable[..., None]]] = {
    "sgd": sgd,
    "momentum": momentum,
    "adam": adam,
    "adamw": adamw,
    "lion": lion,
    "rmsprop": rmsprop,
    "powersign": powersign,
    "powersign_cd": powersign,
    "addsign": addsign,
    "random15": random15,
    "random40": random40,
}


def build(case: Case) -> Contender:
    update, k, lists = UPDATES[case.rule.name], case.rule.at(case.step), case.lists

    @torch.no_grad()
    def run(n: int) -> None:
        for _ in range(n):
            for tensors in zip(*lists, strict=True):
                update(k, *tensors)

    return Contender("eager", run)
