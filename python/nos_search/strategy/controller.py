"""Owns the paper's strategy: a recurrent controller that is trained by reinforcement learning on the rewards of its
strings.

By default it is trained by PPO with a priority queue, beside a population that evolves: half of the proposals are the
population's, and the policy is pulled to the best rules of all. The policy alone, trained by TRPO (which the paper
used), REINFORCE, PPO or the risk-seeking gradient (learn.py), is a choice of options. All have an entropy bonus, and
all but the risk-seeking gradient an exponential average of rewards as baseline.
The paper's own numbers are not known for certain (one LSTM layer of 150 units, Adam at 1e-5, about 5 strings per
update, entropy weight 0.0015, some ten thousand strings on 100 workers); the defaults here are for some hundreds of
strings on one machine in minutes, and are this package's choice (docs/search.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

import nos_ext
from nos_ext.optim import library

from ..errors import UsageError, choose
from ..space import SearchSpace, Tokens
from .base import Result, State, Strategy
from .lately import Lately
from .learn import ALGORITHMS, ppo_slope, reinforce_slope, risk_advantage, trpo_step
from .policy import Policy
from .population import Population, as_member
from .queue import ALONE, Entry, Queue
from .unrolled import Unrolled

_NETWORKS: Final = 4  # that are kept beside the batch's own: with a large batch each takes megabytes


class _Answer(NamedTuple):
    """What a string earned, with the discount of one that `repeats` taken off; None is no reward. `full` is what the
    queue takes it for, or None where the queue does not get it."""

    tokens: Tokens
    reward: float | None
    repeats: bool
    family: int
    full: float | None


class _Row(NamedTuple):
    """An answer with a reward. `old` is the log-probability when the string was drawn, or None for one that the policy
    did not draw."""

    tokens: Tokens
    reward: float
    repeats: bool
    old: float | None


class ControllerStrategy(Strategy):
    """The controller draws strings `batch` at a time and numbers them as they are asked; update k uses the answers to
    strings k*batch ... (k+1)*batch - 1.

    An update happens when its last answer has come, whatever the order, and answers to later strings wait, so the order
    of tell does not matter. Foreign results join the next update. Results without reward are left out of theirs.

    `algorithm` is "ppo", "trpo", "reinforce", "risk" or "pqt". `hidden` and `embedding` are sizes of the LSTM, `batch`
    counts the strings per update, and `lr` is Adam's (for all but TRPO). `entropy` is the weight of the bonus, per nat.
    `epochs` counts the passes over a batch that ppo, risk and pqt make; ppo and risk clip their ratio at `clip`. TRPO
    may move by `kl` nats per string in an update. Risk learns from the best `share` of a batch only.
    The `queue` best strings so far, one of each family, are what pqt makes likely: it adds `pull` times the mean of
    their log-probabilities to what PPO maximises (Abolafia et al. 2018, section 3).
    With `mutants` above 0 that share of the proposals is not drawn from the policy (Mundhenk et al. 2021): they are
    children of a population as evolution has it, of `population` members with `tournament` (population.py), which are
    all strings that earned something, whoever proposed them. The policy learns of them by the queue alone: its gradient
    is about what it draws itself. With `warm_start` 1 the first proposals are the founders of the space.
    A string that was proposed lately (lately.py) is drawn again, up to `redraws` times: it would be answered without a
    training. One that still comes is proposed again, so that the policy learns that it repeats itself.
    `duplicate_discount` is the share of its reward that a rule loses when it was scored before, or, with `families` 1,
    when one of its family was. Neither teaches anything, so without a discount a small search ends by writing its first
    good rule for ever. With `families` 1 the population has one member of each family, too.
    `baseline_decay` is that of the reward average. Advantages are divided by the running standard deviation of the
    rewards, so that lr does not depend on the scale of the task.
    """

    name: ClassVar[str] = "controller"
    version: ClassVar[int] = 2
    older: ClassVar[Mapping[str, Any]] = {
        "share": 0.25,
        "queue": 10,
        "pull": 0.5,
        "mutants": 0.0,
        "population": 64,
        "tournament": 8,
        "warm_start": 0,
        "redraws": 0,
        "families": 0,
    }

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        algorithm: str = "pqt",
        hidden: int = 64,
        embedding: int = 32,
        batch: int = 16,
        lr: float = 0.01,
        entropy: float = 0.05,
        epochs: int = 3,
        clip: float = 0.2,
        kl: float = 0.1,
        baseline_decay: float = 0.9,
        duplicate_discount: float = 0.75,
        share: float = 0.25,
        queue: int = 10,
        pull: float = 0.5,
        mutants: float = 0.5,
        population: int = 256,
        tournament: int = 8,
        warm_start: int = 1,
        redraws: int = 8,
        families: int = 1,
    ) -> None:
        super().__init__(space, seed=seed)
        if algorithm not in ALGORITHMS:
            raise choose("controller option algorithm", algorithm, ALGORITHMS)
        for option, value in (
            ("hidden", hidden),
            ("embedding", embedding),
            ("batch", batch),
            ("epochs", epochs),
            ("queue", queue),
        ):
            if value < 1:
                raise UsageError(f"controller option {option} {value} is below 1")
        if not (lr > 0 and entropy >= 0 and 0 <= baseline_decay < 1 and 0 <= duplicate_discount <= 1):
            raise UsageError(
                f"controller options lr {lr}, entropy {entropy}, baseline_decay {baseline_decay}, duplicate_discount "
                f"{duplicate_discount} must be > 0, >= 0, in [0, 1) and in [0, 1]"
            )
        if not (0 < clip < 1 and kl > 0):
            raise UsageError(f"controller options clip {clip}, kl {kl} must be in (0, 1) and > 0")
        if redraws < 0:
            raise UsageError(f"controller option redraws {redraws} is below 0")
        if not (0 < share <= 1 and 0 <= mutants < 1 and warm_start in (0, 1)):
            raise UsageError(
                f"controller options share {share}, mutants {mutants}, warm_start {warm_start} must be in (0, 1], in "
                "[0, 1), and 0 or 1"
            )
        self._options = {
            "algorithm": algorithm,
            "hidden": hidden,
            "embedding": embedding,
            "batch": batch,
            "lr": lr,
            "entropy": entropy,
            "epochs": epochs,
            "clip": clip,
            "kl": kl,
            "baseline_decay": baseline_decay,
            "duplicate_discount": duplicate_discount,
            "share": share,
            "queue": queue,
            "pull": pull,
            "mutants": mutants,
            "population": population,
            "tournament": tournament,
            "warm_start": warm_start,
            "redraws": redraws,
            "families": families,
        }
        self.algorithm = algorithm
        self.batch = batch
        self.epochs, self.clip, self.kl = epochs, clip, kl
        self.entropy_weight = entropy
        self.decay = baseline_decay
        self.discount, self.families = duplicate_discount, families
        self.share, self.pull, self.mutants = share, pull, mutants
        self.queue = Queue(queue)
        self.population = Population(space, population, tournament=tournament, families=families)
        self._first = list(space.founders()) if warm_start else []
        self.redraws = redraws
        self._lately = Lately(space)
        self.policy = Policy(space, hidden=hidden, embedding=embedding, generator=self.generator)
        self.lr = lr
        self._network = Unrolled(self.policy, batch)
        self._others = lru_cache(maxsize=_NETWORKS)(partial(Unrolled, self.policy))  # by the number of their strings
        self._adam = nos_ext.compile_rule(library.get("adam"))
        self._moments = {name: [torch.zeros_like(self.policy.flat)] for name in self._adam.state_names}
        self._steps = 0  # of Adam
        self.baseline = 0.0  # average of rewards, and of their squared distance from it; bias-corrected by `weight`
        self.spread = 0.0
        self.weight = 0.0
        self.updates = 0
        self.last_entropy = 0.0
        self._drawn: list[tuple[Tokens, float]] = []  # not asked for yet, with their log-probabilities
        self._old: dict[int, float] = {}  # log-probability of each candidate when it was drawn, until its update
        self._waiting: dict[int, _Answer] = {}
        self._foreign: list[_Answer] = []

    def options(self) -> dict[str, Any]:
        return dict(self._options)

    def propose(self, n: int) -> Iterable[Tokens]:
        return [self._next(self.asked + k) for k in range(n)]

    def _next(self, number: int) -> Tokens:
        if number < len(self._first):
            tokens = self._first[number]
        else:
            tokens, log_prob = self._fresh()
            if log_prob is not None:
                self._old[number] = log_prob
        self._lately.add(tokens)
        return tokens

    def _fresh(self) -> tuple[Tokens, float | None]:
        """Returns a string that was not proposed lately, if one comes soon, with its log-probability where the policy
        drew it."""
        drawn = self._once()
        for _ in range(self.redraws):
            if drawn[0] not in self._lately:
                break
            drawn = self._once()
        return drawn

    def _once(self) -> tuple[Tokens, float | None]:
        if self.mutants and self.population.members and self._draw() < self.mutants:
            child = self.population.child(self.generator)
            if child is not None:
                return child, None
        if not self._drawn:
            self._drawn += zip(*self._network.sample(self.generator), strict=True)
        return self._drawn.pop(0)

    def _draw(self) -> float:
        return float(torch.rand((), dtype=torch.float64, generator=self.generator))

    def learn(self, results: Sequence[Result]) -> None:
        for result in results:
            answer = self._answer(result)
            if result.id is not None:
                self._waiting[result.id] = answer
            elif answer.reward is not None:
                self._foreign.append(answer)
        if self.mutants:
            self.population.add(as_member(result, result.reward) for result in results if result.reward)
        while all(self.updates * self.batch + k in self._waiting for k in range(self.batch)):
            rows: list[_Row] = []
            for number in range(self.updates * self.batch, (self.updates + 1) * self.batch):
                answer, old = self._waiting.pop(number), self._old.pop(number, None)
                if answer.reward is None:
                    continue
                self._offer(answer)
                if old is not None:
                    rows.append(_Row(answer.tokens, answer.reward, answer.repeats, old))
            for answer in sorted(self._foreign, key=_by_string):
                self._offer(answer)
                rows.append(_Row(answer.tokens, answer.reward or 0.0, answer.repeats, None))
            self._foreign = []
            self.updates += 1
            if rows:
                self._update(rows)

    def _answer(self, result: Result) -> _Answer:
        family = ALONE if result.family is None else result.family
        # Of a foreign result nobody knows whether it was the first of its family.
        known = bool(self.families) and None not in (result.id, result.family) and not result.founds
        repeats = result.duplicate or known
        reward = result.reward
        if reward is not None and repeats:
            reward -= self.discount * abs(reward)
        return _Answer(result.tokens, reward, repeats, family, None if result.duplicate else result.reward)

    def _offer(self, answer: _Answer) -> None:
        if answer.full is not None:
            self.queue.offer(Entry(answer.full, answer.family, answer.tokens))

    def _update(self, rows: Sequence[_Row]) -> None:
        rewards = np.array([row.reward for row in rows], np.float32)
        # Only what is new moves the baseline. So a controller that repeats itself is below it, and is driven away.
        fresh = np.array([row.reward for row in rows if not row.repeats], np.float32)
        # The baseline of a batch comes from the batches before it; the first has only itself.
        baseline = self.baseline / self.weight if self.weight else float((fresh if len(fresh) else rewards).mean())
        if len(fresh):
            squared = float(((fresh - baseline) ** 2).mean())
            self.weight = self.decay * self.weight + 1 - self.decay
            self.baseline = self.decay * self.baseline + (1 - self.decay) * float(fresh.mean())
            self.spread = self.decay * self.spread + (1 - self.decay) * squared
        spread = self.spread / self.weight if self.weight else 1.0
        scale = np.float32(max(spread**0.5, 1e-3))
        if self.algorithm == "risk":
            advantage = risk_advantage(rewards, self.share) / scale
        else:
            advantage = (rewards - np.float32(baseline)) / scale
        best = self.queue.strings if self.algorithm == "pqt" else []
        strings = [*(row.tokens for row in rows), *best]
        network = self._network if len(strings) == self.batch else self._others(len(strings))
        network.strings(strings)
        network.forward()
        self.last_entropy = float((network.entropies() * network.live).sum(axis=0)[: len(rows)].mean())
        now = network.log_prob()[: len(rows)]
        known = np.array([np.nan if row.old is None else row.old for row in rows], np.float32)
        old = np.where(np.isnan(known), now, known)
        if self.algorithm == "trpo":
            given = torch.from_numpy(old), torch.from_numpy(advantage)
            trpo_step(self.policy, self.policy.batch(strings), *given, entropy=self.entropy_weight, limit=self.kl)
            return
        for epoch in range(1 if self.algorithm == "reinforce" else self.epochs):
            if epoch:
                network.forward()
            if self.algorithm == "reinforce":
                slope = reinforce_slope(advantage)
            else:
                slope = ppo_slope(network.log_prob()[: len(rows)], old, advantage, self.clip)
            if best:
                slope = np.concatenate([slope, np.full(len(best), self.pull / len(best), np.float32)])
            self._ascend(network.backward(network.slope(slope, self.entropy_weight)))

    def _ascend(self, gradient: Tensor) -> None:
        """Makes one step of Adam up the gradient."""
        self._steps += 1
        nos_ext.apply_rule(
            self._adam, [self.policy.flat], [gradient], self._moments, lr=self.lr, step=self._steps, maximize=True
        )

    def metrics(self) -> dict[str, float]:
        """Returns the average reward as "baseline" (once there was an update), the "entropy" of the last batch in nats
        per string, and the number of "updates"."""
        if not self.weight:
            return {}
        return {"baseline": self.baseline / self.weight, "entropy": self.last_entropy, "updates": float(self.updates)}

    def state_dict(self) -> State:
        moments = zip(*(self.policy.views(flat.clone()) for (flat,) in self._moments.values()), strict=True)
        steps = torch.tensor(float(self._steps))
        return {
            **super().state_dict(),
            "policy": {name: tensor.clone() for name, tensor in self.policy.state_dict().items()},
            # as torch.optim.Adam has it, one entry for each parameter, and none before the first step
            "adam": [{"step": steps, "exp_avg": m, "exp_avg_sq": v} for m, v in moments] if self._steps else [],
            "scalars": {name: getattr(self, name) for name in self._SCALARS},
            "waiting": [[number, list(row.tokens), *row[1:]] for number, row in sorted(self._waiting.items())],
            "drawn": [[list(tokens), log_prob] for tokens, log_prob in self._drawn],
            "old": [[number, log_prob] for number, log_prob in sorted(self._old.items())],
            "foreign": [[list(row.tokens), *row[1:]] for row in sorted(self._foreign, key=_by_string)],
            "queue": self.queue.state(),
            "population": self.population.state(),
            "lately": self._lately.state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.policy.load_state_dict(state["policy"])
        self._steps = int(state["adam"][0]["step"]) if state["adam"] else 0
        for (flat,), name in zip(self._moments.values(), ("exp_avg", "exp_avg_sq"), strict=True):
            flat.zero_()
            for view, entry in zip(self.policy.views(flat), state["adam"], strict=False):
                view.copy_(entry[name])
        for name in self._SCALARS:
            setattr(self, name, type(getattr(self, name))(state["scalars"][name]))
        # A state of before there were families has neither these nor a queue.
        self._waiting = {int(number): _stored(*row) for number, *row in state["waiting"]}
        self._drawn = [(tuple(tokens), log_prob) for tokens, log_prob in state["drawn"]]
        self._old = {int(number): log_prob for number, log_prob in state["old"]}
        self._foreign = [_stored(*row) for row in state["foreign"]]
        self.queue.load(state.get("queue", []))
        self.population.load(state.get("population", []))
        self._lately.load(state.get("lately", torch.empty(0)))

    _SCALARS: ClassVar[tuple[str, ...]] = ("baseline", "spread", "weight", "updates", "last_entropy")


def _by_string(answer: _Answer) -> tuple[Any, ...]:
    return answer.tokens, answer.reward, answer.repeats, answer.family


def _stored(tokens: Sequence[int], reward: float | None, repeats: bool, family: int = ALONE, *full: float) -> _Answer:
    """Returns an answer from its row in a state. Before families had a discount, `full` was the reward."""
    return _Answer(tuple(tokens), reward, repeats, family, full[0] if full else None if repeats else reward)
