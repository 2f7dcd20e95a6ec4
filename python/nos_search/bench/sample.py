"""Owns what benches that compare trainings share: rules drawn at random, and the agreement of two orders of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..gate import Funnel
from ..known import RULES
from ..rules import CompiledRule
from ..space import Space

KNOWN = ("sgd", "momentum", "rmsprop", "adam", "signum", "powersign", "addsign")
_BATCH = 256  # strings for the gates at a time


def random_rules(count: int, seed: int) -> list[CompiledRule]:
    """Returns rules of the paper's space that pass the gates, all different, and none of them one of KNOWN."""
    space, generator = Space(), torch.Generator().manual_seed(seed)
    known = {RULES[name].update for name in KNOWN}
    funnel, found = Funnel(space), list[CompiledRule]()
    while len(found) < count:
        for verdict in funnel.admit([space.sample(generator) for _ in range(_BATCH)]):
            if verdict.rule is not None and verdict.rule.text not in known:
                funnel.record(len(found), verdict.tokens)
                found.append(verdict.rule)
    return found[:count]


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Returns Spearman's rank correlation, or None where too few numbers differ."""
    from scipy.stats import spearmanr  # type: ignore[import-untyped]

    if len(pairs) < 3 or any(len({*side}) == 1 for side in zip(*pairs, strict=True)):
        return None
    return float(spearmanr(*zip(*pairs, strict=True)).statistic)
