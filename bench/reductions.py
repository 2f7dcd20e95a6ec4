"""Rules with reductions, and clipping by the global norm, against what people use for them.

* LAMB against torch's _foreach ops (written here) and pytorch_optimizer's. Its limit is that of its two passes: the
  stream of a rule with two states, then that of one without, which is as much memory as both passes touch.
* AdamW with `clip_norm` against clip_grad_norm_ and torch's AdamW.
* A step normalised in each tensor, against the limit of a step that is not: what a pass costs whose data lie in cache.
* Many candidates whose rule has two norms, in one call and in a call each.
* Muon's step of matrices, against torch.optim.Muon.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

import nos_ext
from nos_ext.optim import RuleOptimizer, library

from .case import Arena, Case, Contender, repeated
from .harness import Effort, measure, summary
from .optim import IMPLEMENTATIONS
from .peers import ENGINE, LIMIT, native
from .rules import LR, RULES
from .sizes import SIZES

STEP: Final = 10
NORMALISED: Final = "def normalised(p, g, *, lr):\n    return p - lr / norm(g) * g\n"
TWO_NORMS: Final = """
def two_norms(p, g, m, v, *, lr):
    m = 0.9 * m + 0.1 * g
    v = 0.99 * v + 0.01 * g ** 2
    u = m / (sqrt(v) + 1e-8) + 0.01 * p
    return p - lr * norm(p) / (norm(u) + 1e-8) * u, m, v
"""
CANDIDATES: Final = 4096
CANDIDATE: Final = 100  # elements
MATRICES: Final = ((256, 126), (1024, 12))  # rows and columns, and how many of them


def applied(name: str, source: Any, params: Sequence[Tensor], grads: Sequence[Tensor]) -> Contender:
    program = nos_ext.compile_rule(source)
    state = nos_ext.init_state(program, params)
    return Contender(
        name, repeated(lambda: nos_ext.apply_rule(program, params, grads, state, lr=LR, step=STEP)), peer=False
    )


def foreach_lamb(params: list[Tensor], grads: list[Tensor], m: list[Tensor], v: list[Tensor]) -> None:
    """library.lamb with its default hyperparameters, one torch call for each op over all tensors."""
    torch._foreach_lerp_(m, grads, 0.1)
    torch._foreach_mul_(v, 0.999)
    torch._foreach_addcmul_(v, grads, grads, 0.001)
    u = torch._foreach_div(v, 1 - 0.999**STEP)
    torch._foreach_sqrt_(u)
    torch._foreach_add_(u, 1e-6)
    torch._foreach_reciprocal_(u)
    torch._foreach_mul_(u, m)
    torch._foreach_div_(u, 1 - 0.9**STEP)
    torch._foreach_add_(u, params, alpha=0.01)
    sizes, lengths = torch.stack(torch._foreach_norm(params)), torch.stack(torch._foreach_norm(u))
    trust = torch.where((sizes > 0) & (lengths > 0), sizes / lengths, 1.0) * -LR
    torch._foreach_mul_(u, list(trust.unbind()))
    torch._foreach_add_(params, u)


def _streams(case: Case, *tensors: int) -> Contender:
    """Passes that touch so many arrays each, one after the other."""
    lists = case.lists
    jobs = []
    for count in tensors:
        states = dict(zip(("m", "v"), lists[2:count], strict=False))
        part = Case(case.rule, case.params, case.grads, states, case.step, case.threads)
        jobs.append(native.fastest(f"stream_{count}", part, [0.0]))

    def run(n: int) -> None:
        for _ in range(n):
            for job in jobs:
                job.run(1)

    return Contender(LIMIT, run, peer=False)


def _lamb(case: Case) -> list[Contender]:
    plain = [p.detach() for p in case.params]
    m, v = case.state["m"], case.state["v"]
    out = [applied(ENGINE, library.lamb, plain, case.grads)]
    out.append(Contender("_foreach", repeated(lambda: foreach_lamb(plain, case.grads, m, v))))
    try:
        peers = importlib.import_module("pytorch_optimizer")
    except ImportError:
        return out
    theirs = peers.Lamb(case.params, lr=LR, weight_decay=0.01, weight_decouple=False, max_grad_norm=0.0)
    return [*out, Contender("pytorch_optimizer Lamb", repeated(theirs.step))]


def _clipped(case: Case) -> list[Contender]:
    params = case.params
    out = [Contender(ENGINE, repeated(RuleOptimizer(params, library.adamw, LR, clip_norm=1e-3).step), peer=False)]
    for kind in ("fused", "foreach"):
        theirs = torch.optim.AdamW(params, lr=LR, **IMPLEMENTATIONS[kind])

        def step(theirs: torch.optim.Optimizer = theirs) -> None:
            # A limit that nothing reaches, as clip_grad_norm_ would make the gradients smaller and smaller. It
            # multiplies them all the same.
            torch.nn.utils.clip_grad_norm_(params, 1e9)
            theirs.step()

        out.append(Contender(f"clip_grad_norm_, AdamW {kind}", repeated(step)))
    return out


def _normalised(case: Case) -> list[Contender]:
    return [applied(ENGINE, NORMALISED, [p.detach() for p in case.params], case.grads)]


@dataclass(frozen=True, slots=True)
class Scene:
    """rule: of RULES, the one whose states the case has. limit: of each pass that cannot be spared, how many arrays it
    touches; empty where peers say enough. bytes: of an element, moved by these passes."""

    title: str
    rule: str
    build: Callable[[Case], list[Contender]]
    limit: tuple[int, ...]
    bytes: int


SCENES: Final = {
    "lamb": Scene("LAMB", "adamw", _lamb, (4, 2), 40),
    "adamw, clip_norm": Scene("AdamW with clipping", "adamw", _clipped, (), 32),
    "normalised": Scene("Step normalised in each tensor", "sgd", _normalised, (2,), 16),
}


def _population() -> list[Contender]:
    program = nos_ext.compile_rule(TWO_NORMS)
    generator = torch.Generator().manual_seed(0)
    p, g = (torch.empty(CANDIDATES, CANDIDATE).uniform_(-1, 1, generator=generator) for _ in range(2))
    programs, state = [program] * CANDIDATES, [[torch.zeros_like(p)], [torch.zeros_like(p)]]
    rows = [([p[k]], [g[k]], [[s[0][k]] for s in state]) for k in range(CANDIDATES)]

    def one_call() -> None:
        nos_ext.apply_population(programs, [p], [g], state, lr=LR, step=STEP)

    def a_call_each() -> None:
        for params, grads, states in rows:
            nos_ext.apply_rule(program, params, grads, states, lr=LR, step=STEP)

    return [
        Contender(ENGINE, repeated(one_call), peer=False),
        Contender("apply_rule for each", repeated(a_call_each), peer=False),
    ]


def _muon(side: int, count: int) -> list[Contender]:
    generator = torch.Generator().manual_seed(0)
    out = []
    for name, make in ((ENGINE, lambda p: RuleOptimizer(p, library.muon, LR)), ("Muon", torch.optim.Muon)):
        params = [torch.nn.Parameter(torch.randn(side, side, generator=generator)) for _ in range(count)]
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator)
        out.append(Contender(name, repeated(make(params).step), peer=name != ENGINE))
    return out


SIZES_OF_MODELS: Final = ("convnet", "1e7", "resnet50", "gpt2")


def run(sizes: Sequence[str], effort: Effort, threads: int) -> Iterator[dict[str, Any]]:
    for size in (name for name in SIZES_OF_MODELS if name in sizes):
        for scene in SCENES.values():
            case = Arena(SIZES[size]).case(RULES[scene.rule], threads=threads)
            found = scene.build(case)
            if scene.limit:
                found.append(_streams(case, *scene.limit))
            outcome = measure(found, effort, lambda: None, (ENGINE,))
            yield {"scene": f"{scene.title}, {SIZES[size].what}", "base": ENGINE} | summary(outcome, ENGINE, LIMIT)
    outcome = measure(_population(), effort, lambda: None, (ENGINE,))
    title = f"A rule with two norms, {CANDIDATES} candidates of {CANDIDATE} elements"
    yield {"scene": title, "base": ENGINE} | summary(outcome, ENGINE)
    for side, count in MATRICES:
        outcome = measure(_muon(side, count), effort, lambda: None, (ENGINE,))
        title = f"Muon, {count} matrices of {side}x{side}"
        yield {"scene": title, "base": ENGINE} | summary(outcome, ENGINE)
