"""Each rule over the whole list of tensors, one torch._foreach_ call for each operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor

from ..case import Case, Contender

Scalars = Mapping[str, float]
Tensors = list[Tensor]


def _square_average(v: Tensors, g: Tensors, keep: float, rest: float) -> None:
    torch._foreach_mul_(v, keep)
    torch._foreach_addcmul_(v, g, g, rest)


def _signs(g: Tensors, m: Tensors) -> Tensors:
    u = torch._foreach_sign(g)
    torch._foreach_mul_(u, torch._foreach_sign(m))
    return list(u)


def _clamp(x: Tensors, bound: float) -> Tensors:
    out = list(torch._foreach_clamp_min(x, -bound))
    torch._foreach_clamp_max_(out, bound)
    return out


def sgd(k: Scalars, p: Tensors, g: Tensors) -> None:
    torch._foreach_add_(p, g, alpha=-k["lr"])


def momentum(k: Scalars, p: Tensors, g: Tensors, m: Tensors) -> None:
    torch._foreach_mul_(m, k["beta"])
    torch._foreach_add_(m, g)
    torch._foreach_add_(p, m, alpha=-k["lr"])


def adam(k: Scalars, p: Tensors, g: Tensors, m: Tensors, v: Tensors) -> None:
    torch._foreach_lerp_(m, g, k["rest1"])
    _square_average(v, g, k["beta2"], k["rest2"])
    u = torch._foreach_sqrt(v)
    torch._foreach_div_(u, k["root"])
    torch._foreach_add_(u, k["eps"])
    torch._foreach_addcdiv_(p, m, u, -k["step"])


def adamw(k: Scalars, p: Tensors, g: Tensors, m: Tensors, v: Tensors) -> None:
    torch._foreach_mul_(p, k["keep"])
    adam(k, p, g, m, v)


def lion(k: Scalars, p: Tensors, g: Tensors, m: Tensors) -> None:
    u = torch._foreach_lerp(m, g, k["rest1"])
    torch._foreach_sign_(u)
    torch._foreach_mul_(p, k["keep"])
    torch._foreach_add_(p, u, alpha=-k["lr"])
    torch._foreach_lerp_(m, g, k["rest2"])


def rmsprop(k: Scalars, p: Tensors, g: Tensors, v: Tensors) -> None:
    _square_average(v, g, k["alpha"], k["rest"])
    u = torch._foreach_sqrt(v)
    torch._foreach_add_(u, k["eps"])
    torch._foreach_addcdiv_(p, g, u, -k["lr"])


def powersign(k: Scalars, p: Tensors, g: Tensors, m: Tensors) -> None:
    torch._foreach_lerp_(m, g, k["rest"])
    u = _signs(g, m)
    if k["power"] != 1.0:
        torch._foreach_mul_(u, k["power"])
    torch._foreach_exp_(u)
    torch._foreach_addcmul_(p, u, g, -k["lr"])


def addsign(k: Scalars, p: Tensors, g: Tensors, m: Tensors) -> None:
    torch._foreach_lerp_(m, g, k["rest"])
    u = _signs(g, m)
    torch._foreach_add_(u, k["alpha"])
    torch._foreach_addcmul_(p, u, g, -k["lr"])


def random15(k: Scalars, p: Tensors, g: Tensors, m: Tensors) -> None:
    torch._foreach_lerp_(m, g, k["rest"])
    a = torch._foreach_abs(m)
    x = _signs(g, m)
    torch._foreach_exp_(x)
    torch._foreach_mul_(x, torch._foreach_pow(a, k["exponent"]))
    torch._foreach_mul_(x, _clamp(g, k["bound"]))
    y = torch._foreach_mul(g, g)
    torch._foreach_add_(y, k["eps"])
    torch._foreach_log_(y)
    torch._foreach_sqrt_(a)
    torch._foreach_addcmul_(x, y, a)
    torch._foreach_add_(p, x, alpha=-k["lr"])


def random40(k: Scalars, p: Tensors, g: Tensors, m: Tensors, v: Tensors) -> None:
    torch._foreach_lerp_(m, g, k["rest1"])
    _square_average(v, g, k["beta2"], k["rest2"])
    a = torch._foreach_tanh(m)
    torch._foreach_sub_(a, _clamp(g, k["small"]))
    b = torch._foreach_abs(g)
    torch._foreach_neg_(b)
    torch._foreach_exp_(b)
    torch._foreach_mul_(b, torch._foreach_sign(m))
    c = torch._foreach_add(v, k["eps"])
    torch._foreach_sqrt_(c)
    d = torch._foreach_div(g, c)
    h = torch._foreach_mul(d, d)
    torch._foreach_add_(h, 1.0)
    torch._foreach_log_(h)
    i = torch._foreach_maximum(torch._foreach_mul(a, b), torch._foreach_minimum(d, h))
    x = [torch.where(q > w, s, t) for q, w, s, t in zip(g, p, i, h, strict=True)]  # there is no _foreach_where
    torch._foreach_mul_(x, torch._foreach_pow(torch._foreach_abs(p), k["exponent"]))
    torch._foreach_mul_(x, x)
    torch._foreach_add_(x, 1.0)
    torch._foreach_rsqrt_(x)
    torch._foreach_mul_(x, m)
    torch._foreach_div_(x, c)
    torch._foreach_tanh_(x)
    torch._foreach_addcmul_(x, p, torch._foreach_exp(torch._foreach_neg(v)), -0.5)
    torch._foreach_add_(x, b)
    x = _clamp(x, 1.0)
    torch._foreach_addcmul_(x, a, h)
    torch._foreach_sign_(d)
    torch._foreach_addcmul_(x, d, i, -1.0)
    torch._foreach_add_(p, x, alpha=-k["lr"])


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
            update(k, *lists)

    return Contender("_foreach", run)
