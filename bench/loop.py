"""A step inside real training: forward and backward of a ConvNet on a batch of 32 come before each timed step.

So caches hold activations instead of parameters, gradients are new tensors each time, and torch's threads have other
work. The contenders train the same network in turn; the time of a step includes fetching p.grad.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from .case import Arena, Case, Contender
from .harness import Effort, measure, summary
from .peers import ENGINE, LIMIT, contenders, native
from .rules import RULES
from .sizes import SIZES

RULE_NAMES: Final = ("adam", "powersign")
BATCH: Final = 32
# numexpr and the native passes were built on the addresses of gradients that are gone after a backward pass.
LEFT_OUT: Final = (LIMIT, *native.LABELS, "numexpr")
_READS_CASE: Final = (ENGINE, "eager", "_foreach", "torch.compile")  # these take gradients from case.grads


def loss(params: list[Tensor], images: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the network whose shapes are sizes.CONVNET."""
    x = images
    for i in range(0, 6, 2):
        x = F.max_pool2d(F.relu(F.conv2d(x, params[i], params[i + 1], padding=1)), 2)
    x = F.relu(F.linear(x.flatten(1), params[6], params[7]))
    return F.cross_entropy(F.linear(x, params[8], params[9]), labels)


def _init(case: Case, generator: torch.Generator) -> None:
    with torch.no_grad():
        for p in case.params:
            bound = (6 / p[0].numel()) ** 0.5 if p.dim() > 1 else 0.0
            p.uniform_(-bound, bound, generator=generator)
        for tensors in case.state.values():
            for x in tensors:
                x.zero_()


def _in_loop(contender: Contender, case: Case) -> Contender:
    if contender.name not in _READS_CASE:
        return contender
    params, grads, inner = case.params, case.grads, contender.run

    def run(n: int) -> None:
        grads[:] = [p.grad for p in params]  # type: ignore[misc]
        inner(n)

    return replace(contender, run=run)


def train(case: Case, seed: int = 0) -> Callable[[], None]:
    """A function that leaves the gradients of the next batch in p.grad."""
    generator = torch.Generator().manual_seed(seed)
    _init(case, generator)
    images = torch.randn(8, BATCH, 3, 32, 32, generator=generator)
    labels = torch.randint(10, (8, BATCH), generator=generator)
    batch = 0

    def forward_backward() -> None:
        nonlocal batch
        batch = (batch + 1) % len(images)
        for p in case.params:
            p.grad = None
        loss(case.params, images[batch], labels[batch]).backward()  # type: ignore[no-untyped-call]

    return forward_backward


def run(effort: Effort, threads: int, compiles: bool) -> Iterator[dict[str, Any]]:
    effort = replace(effort, min_sample=0.0)  # one call per sample: the second would find warm caches
    for name in RULE_NAMES:
        case = Arena(SIZES["convnet"]).case(RULES[name], threads=threads)
        forward_backward = train(case)
        forward_backward()
        case.grads[:] = [p.grad for p in case.params]  # type: ignore[misc]
        found, missing = contenders(case, (*LEFT_OUT, *(() if compiles else ("torch.compile",))))
        outcome = measure([_in_loop(c, case) for c in found], effort, forward_backward, (ENGINE,))
        yield {"rule": name, "batch": BATCH, "missing": missing} | summary(outcome, ENGINE)
