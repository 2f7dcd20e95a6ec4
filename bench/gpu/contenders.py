"""Owns what runs a cell: the engine's tiers, eager and in a graph, and torch's ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import torch

import nos_ext

from ..case import Case, Contender, NotApplicable, Unavailable, repeated
from ..peers import eager, foreach
from ..peers.engine import optimizer, program
from ..rules import LR, TOTAL_STEPS
from .timing import synchronize

INTERPRETER: Final = "nos_ext"
COMPILED: Final = "nos_ext compiled"
GRAPH: Final = "nos_ext in a graph"


def _tier(case: Case, name: str, mode: str) -> Contender:
    """apply_rule with the tier fixed; the steps are alike, so the plan is the same from call to call."""
    compiled, t = program(case.rule.text), case.step
    if mode == "always" and not _on_cuda(case):
        raise Unavailable("rules are compiled for CUDA tensors only")

    def run(n: int) -> None:
        before = nos_ext.set_jit(mode)
        try:
            for _ in range(n):
                nos_ext.apply_rule(
                    compiled, case.params, case.grads, case.state, lr=LR, step=t, total_steps=TOTAL_STEPS
                )
        finally:
            nos_ext.set_jit(before)

    return Contender(name, run, peer=False)


def _on_cuda(case: Case) -> bool:
    return bool(case.params[0].is_cuda)


def captured(step: Callable[[], Any]) -> Callable[[int], None]:
    """A run(n) that replays the CUDA graph of one step."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return repeated(graph.replay)


def _graph(case: Case) -> Contender:
    if not _on_cuda(case):
        raise Unavailable("CUDA graphs need CUDA tensors")
    step = nos_ext.CapturedStep(
        program(case.rule.text), case.params, case.grads, case.state, lr=LR, total_steps=TOTAL_STEPS
    )
    return Contender(GRAPH, captured(step), peer=False)


def _rule_optimizer(case: Case) -> Contender:
    """The torch.optim.Optimizer around the engine, as users call it, interpreted."""
    inner = optimizer(case)

    def run(n: int) -> None:
        before = nos_ext.set_jit("never")
        try:
            inner.run(n)
        finally:
            nos_ext.set_jit(before)

    return Contender("RuleOptimizer", run, peer=False)


_OPTIM: Final[Mapping[str, Any]] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def _optim(case: Case, kind: str) -> Contender:
    """torch.optim with states of its own, in the parameters' dtype."""
    if case.rule.name not in _OPTIM:
        raise NotApplicable(f"torch.optim has no {case.rule.name}")
    make = _OPTIM[case.rule.name]
    name = f"torch {kind}"
    if kind in ("fused", "foreach"):
        return Contender(name, repeated(make(case.params, lr=LR, **{kind: True}).step))
    if not _on_cuda(case):
        raise Unavailable("CUDA graphs need CUDA tensors")
    lr = torch.tensor(LR, device=case.params[0].device)
    return Contender(name, captured(make(case.params, lr=lr, fused=True, capturable=True).step))


CONTENDERS: Final[Mapping[str, Callable[[Case], Contender]]] = {
    INTERPRETER: partial(_tier, name=INTERPRETER, mode="never"),
    COMPILED: partial(_tier, name=COMPILED, mode="always"),
    GRAPH: _graph,
    "RuleOptimizer": _rule_optimizer,
    "torch fused": partial(_optim, kind="fused"),
    "torch foreach": partial(_optim, kind="foreach"),
    "torch fused in a graph": partial(_optim, kind="fused in a graph"),
    "_foreach": foreach.build,
    "eager": eager.build,
}


def contenders(case: Case) -> tuple[list[Contender], dict[str, str]]:
    """All of a case, and why one that could be there is missing."""
    found, missing = [], {}
    for name, build in CONTENDERS.items():
        try:
            contender = build(case)
            contender.run(1)  # what cannot run says so here, not in the middle of a measurement
            synchronize("cuda" if _on_cuda(case) else "cpu")
            found.append(contender)
        except NotApplicable:
            pass
        except Exception as error:  # a peer that fails must not cost the rest of a run
            kind = "" if isinstance(error, Unavailable) else f"{type(error).__name__}: "
            missing[name] = kind + str(error)[:300]
    return found, missing
