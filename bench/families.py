"""From which distance on do rules differ? `python -m bench.gates --families N`.

N rules of the paper's space are scored on charmlp with two seeds each: the known optimizers, random rules that pass the
gates, and mutants of the known and of the best random ones, chosen so that there are near pairs as well as far ones.
All pairs of rules that learn at all are put into bins by distance (nos_search/gate/families.py). Rules whose best rate
is the first or last of the sweep are left out: for them a constant factor, which the distance does not see, decides.

For each bin stands by how much the two rules of a pair differ at equal seeds, beside by how much one rule differs
between two seeds, less what seeds do to all rules alike; both are root mean squares. Rules are as good as equal up to
the distance below which, all pairs together, the former is not the larger.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nos_search.gate import Funnel
from nos_search.gate.families import THRESHOLD, behaviours, distance
from nos_search.gate.judge import judge_of
from nos_search.space import Space, Tokens
from nos_search.space.group import Array
from nos_search.task import load
from nos_search.train.child import LEARNING_RATES, ScoringProtocol, score
from nos_search.train.seeds import derive_seed

EDGES = (0.0, 1e-5, 1e-4, 3e-4, 1e-3, 2e-3, 4e-3, 1e-2, 3e-2, 0.1, 0.3, math.inf)
_SEEDS = 2
_LEARNS = 0.5  # of the best reward, at least: any measure tells the others apart
_DRAWN = 64  # so many mutants are drawn for each that is taken


@dataclass(frozen=True)
class _Rule:
    """A rule with its behaviour, and its rewards and learning rates with each seed."""

    text: str
    behaviour: Array
    rewards: tuple[float, ...]
    rates: tuple[float | None, ...]

    @property
    def inside(self) -> bool:
        """Tells whether its best rates lie within those that the sweep tries."""
        return all(rate is not None and LEARNING_RATES[0] < rate < LEARNING_RATES[-1] for rate in self.rates)


class _Source:
    """Gives rules of the space that pass the gates, each once."""

    def __init__(self, seed: int) -> None:
        self.space = Space(groups=2)
        self.generator = torch.Generator().manual_seed(seed)
        self._funnel, self._judge, self._count = Funnel(self.space), judge_of(self.space), 0

    def passed(self, strings: Sequence[Tokens]) -> list[Tokens]:
        """Returns those that pass and have not been taken."""
        return [verdict.tokens for verdict in self._funnel.admit(strings) if verdict.status == "passed"]

    def take(self, tokens: Tokens) -> None:
        self._funnel.record(self._count, tokens)
        self._count += 1

    def behaviours(self, strings: Sequence[Tokens]) -> Array:
        self._judge.start(strings)
        return behaviours(self._judge.behaviour(range(len(strings))))

    def random(self, count: int) -> list[Tokens]:
        found: list[Tokens] = []
        while len(found) < count:
            found += self.passed([self.space.sample(self.generator) for _ in range(256)])
        return found[:count]

    def mutants(self, parents: Sequence[Tokens], count: int) -> list[Tokens]:
        """Returns mutants of one or two changes, about equally many for each bin of distances from their parent."""
        bins: list[list[Tokens]] = [[] for _ in EDGES[1:]]
        for _ in range(max(1, count * _DRAWN // 256)):
            where = torch.randint(len(parents), (256,), generator=self.generator).tolist()
            children = {}
            for k in where:
                child = self.space.mutate(parents[k], self.generator)
                if float(torch.rand((), generator=self.generator)) < 0.5:
                    child = self.space.mutate(child, self.generator)
                children[child] = parents[k]
            kept = self.passed(list(children))
            far = distance(self.behaviours(kept), self.behaviours([children[child] for child in kept]))
            for child, place in zip(kept, np.searchsorted(EDGES, far, side="right") - 1, strict=True):
                if child not in bins[place]:
                    bins[place].append(child)
        in_turn = itertools.zip_longest(*bins)
        return [child for row in in_turn for child in row if child is not None][:count]


def measure(n: int, seed: int, *, note: Callable[[str], None]) -> dict[str, Any]:
    """Returns the figures of all bins, fit for JSON."""
    task, protocol, source = load("charmlp"), ScoringProtocol(threads=1), _Source(seed)
    seeds = [derive_seed(seed, "families", k) for k in range(_SEEDS)]
    judge = judge_of(source.space)
    rules: list[_Rule] = []

    def scored(strings: Sequence[Tokens]) -> list[tuple[float, Tokens]]:
        judge.start(strings)
        found = []
        for row, (tokens, point) in enumerate(zip(strings, source.behaviours(strings), strict=True)):
            compiled = judge.rule(row, "")
            outcomes = [score(compiled, task, protocol, seed=each) for each in seeds]
            rewards = tuple(outcome.reward for outcome in outcomes)
            rules.append(_Rule(compiled.text, point, rewards, tuple(outcome.lr for outcome in outcomes)))
            source.take(tokens)
            found.append((statistics.fmean(rewards), tokens))
            if len(rules) % 50 == 0:
                note(f"{len(rules)} of {n} rules scored")
        return found

    known = source.passed(list(source.space.known().values()))
    scored(known)
    drawn = scored(source.random(max(1, (n - len(known)) // 3)))
    best = [tokens for _, tokens in sorted(drawn, reverse=True)[: max(1, len(drawn) // 8)]]
    scored(source.mutants([*known, *best], n - len(rules)))
    return figures(rules)


def figures(rules: Sequence[_Rule]) -> dict[str, Any]:
    least = _LEARNS * max(min(rule.rewards) for rule in rules)
    rules = [rule for rule in rules if min(rule.rewards) >= least and rule.inside]
    rewards = np.array([rule.rewards for rule in rules])
    changes = rewards[:, 0] - rewards[:, 1]
    changes -= np.median(changes)  # what the seeds do to all rules alike
    points = np.stack([rule.behaviour for rule in rules])
    first, second = np.triu_indices(len(rules), 1)
    far = np.concatenate([distance(points[k], points[k + 1 :]) for k in range(len(rules) - 1)])
    between = ((rewards[first] - rewards[second]) ** 2).mean(axis=1)
    within = (changes[first] ** 2 + changes[second] ** 2) / 2
    rows = []
    equal = None
    for low, high in itertools.pairwise(EDGES):
        here = (far >= low) & (far < high)
        if here.any():
            pair, seed = float(between[here].mean()) ** 0.5, float(within[here].mean()) ** 0.5
            below = far < high
            if high < math.inf and between[below].mean() <= within[below].mean():
                equal = high
            rows.append({"from": low, "to": high, "pairs": int(here.sum()), "rules": pair, "seeds": seed})
    return {
        "rules": len(rules),
        "bins": [{**row, "to": None if row["to"] == math.inf else row["to"]} for row in rows],
        "threshold": equal,
        "in_force": THRESHOLD,
        "learned": [{"rule": rule.text, "rewards": list(rule.rewards)} for rule in rules],
    }


def table(found: dict[str, Any]) -> str:
    """Returns the bins as Markdown."""
    lines = [
        f"{found['rules']} rules that learn; as good as equal up to {found['threshold']}, in force {found['in_force']}",
        "",
        "| distance | pairs | two rules | two seeds | ratio |",
        "|---|---|---|---|---|",
    ]
    for row in found["bins"]:
        name = f"{row['from']:g} to {row['to']:g}" if row["to"] else f"above {row['from']:g}"
        ratio = row["rules"] / row["seeds"] if row["seeds"] else math.inf
        lines.append(f"| {name} | {row['pairs']} | {row['rules']:.4f} | {row['seeds']:.4f} | {ratio:.2f} |")
    return "\n".join(lines)
