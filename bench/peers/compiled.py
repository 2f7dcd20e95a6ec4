"""The eager update of the whole list under torch.compile, static shapes: what a generated kernel reaches.

The scalars of the step are constants of the compiled code. In training they change (bias correction, decays) and would
have to come in as tensors, so this favours torch.compile a little.
"""

from __future__ import annotations

import functools
import time
from typing import Final

import torch

from ..case import Case, Contender, Unavailable
from .eager import UPDATES

# Compiling takes about 0.2 s for each tensor of a list: longer lists are compiled for one rule and length only.
MAX_TENSORS: Final = 16
LONG_LISTS: Final = {("powersign", 161)}


@functools.cache
def _warm_up() -> None:
    """What the very first compilation needs once per process (imports, precompiled headers) is no cost of a rule."""
    torch.compile(lambda x: x.add_(1))(torch.zeros(16))


def build(case: Case) -> Contender:
    tensors = len(case.params)
    if tensors > MAX_TENSORS and (case.rule.name, tensors) not in LONG_LISTS:
        raise Unavailable(f"compiling a list of {tensors} tensors takes about 0.2 s a tensor")
    update, k, lists = UPDATES[case.rule.name], case.rule.at(case.step), case.lists

    def step(*lists: list[torch.Tensor]) -> None:
        for tensors in zip(*lists, strict=True):
            update(k, *tensors)

    _warm_up()
    torch._dynamo.reset()
    compiled = torch.compile(step, fullgraph=True, dynamic=False)

    @torch.no_grad()
    def run(n: int) -> None:
        for _ in range(n):
            compiled(*lists)

    start = time.perf_counter()
    run(1)
    return Contender("torch.compile", run, build_seconds=time.perf_counter() - start)
