"""Owns the paper's strategy: a recurrent controller that is trained by reinforcement learning on the rewards of its
strings.

PPO is the default; TRPO (which the paper used) and REINFORCE are options. All have an exponential average of rewards as
baseline and an entropy bonus. The paper's own numbers are not known for certain (one LSTM layer of 150 units, Adam at
1e-5, about 5 strings per update, entropy weight 0.0015, some ten thousand strings on 100 workers); the defaults here
are for some hundreds of strings on one machine in minutes, and are this package's choice (docs/search.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

import nos_ext
from nos_ext.optim import library

from ..errors import UsageError, choose
from ..space import SearchSpace, Tokens
from .base import Result, State, Strategy
from .learn import ALGORITHMS, ppo_slope, reinforce_slope, trpo_step
from .policy import Policy
from .unrolled import Unrolled

_Row = tuple[Tokens, float, bool, "float | None"]  # string, reward, duplicate, log-probability when it was drawn


class ControllerStrategy(Strategy):
    """The controller draws strings `batch` at a time and numbers them as they are asked; update k uses the answers to
    strings k*batch ... (k+1)*batch - 1.

    An update happens when its last answer has come, whatever the order, and answers to later strings wait, so the order
    of tell does not matter. Foreign results join the next update. Results without reward are left out of theirs.

    `algorithm` is "ppo", "trpo" or "reinforce". `hidden` and `embedding` are sizes of the LSTM, `batch` counts the
    strings per update, and `lr` is Adam's (for PPO and REINFORCE).
    `entropy` is the weight of the bonus, per nat. PPO makes `epochs` passes over a batch and clips its ratio at `clip`;
    TRPO may move by `kl` nats per string in an update.
    `duplicate_discount` is the share of its reward that a rule loses when it was scored before. A duplicate costs
    nothing and teaches nothing, so without a discount a small search ends by writing its first good rule for ever.
    `baseline_decay` is that of the reward average. Advantages are divided by the running standard deviation of the
    rewards, so that lr does not depend on the scale of the task.
    """

    name: ClassVar[str] = "controller"
    version: ClassVar[int] = 2

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        algorithm: str = "ppo",
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
    ) -> None:
        super().__init__(space, seed=seed)
        if algorithm not in ALGORITHMS:
            raise choose("controller option algorithm", algorithm, ALGORITHMS)
        for option, value in (("hidden", hidden), ("embedding", embedding), ("batch", batch), ("epochs", epochs)):
            if value < 1:
                raise UsageError(f"controller option {option} {value} is below 1")
        if not (lr > 0 and entropy >= 0 and 0 <= baseline_decay < 1 and 0 <= duplicate_discount <= 1):
            raise UsageError(
                f"controller options lr {lr}, entropy {entropy}, baseline_decay {baseline_decay}, duplicate_discount "
                f"{duplicate_discount} must be > 0, >= 0, in [0, 1) and in [0, 1]"
            )
        if not (0 < clip < 1 and kl > 0):
            raise UsageError(f"controller options clip {clip}, kl {kl} must be in (0, 1) and > 0")
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
        }
        self.algorithm = algorithm
        self.batch = batch
        self.epochs, self.clip, self.kl = epochs, clip, kl
        self.entropy_weight = entropy
        self.decay = baseline_decay
        self.discount = duplicate_discount
        self.policy = Policy(space, hidden=hidden, embedding=embedding, generator=self.generator)
        self.lr = lr
        self._network = Unrolled(self.policy, batch)
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
        self._waiting: dict[int, tuple[Tokens, float | None, bool]] = {}  # ..., reward, whether it is a duplicate's
        self._foreign: list[tuple[Tokens, float, bool]] = []

    def options(self) -> dict[str, Any]:
        return dict(self._options)

    def propose(self, n: int) -> Iterable[Tokens]:
        while len(self._drawn) < n:
            self._drawn += zip(*self._network.sample(self.generator), strict=True)
        taken, self._drawn = self._drawn[:n], self._drawn[n:]
        self._old.update((self.asked + k, log_prob) for k, (_, log_prob) in enumerate(taken))
        return [tokens for tokens, _ in taken]

    def learn(self, results: Sequence[Result]) -> None:
        for result in results:
            worth = self._worth(result)
            if result.id is not None:
                self._waiting[result.id] = (result.tokens, worth, result.duplicate)
            elif worth is not None:
                self._foreign.append((result.tokens, worth, result.duplicate))
        while all(self.updates * self.batch + k in self._waiting for k in range(self.batch)):
            rows: list[_Row] = []
            for number in range(self.updates * self.batch, (self.updates + 1) * self.batch):
                tokens, reward, duplicate = self._waiting.pop(number)
                old = self._old.pop(number)
                if reward is not None:
                    rows.append((tokens, reward, duplicate, old))
            rows += [(*row, None) for row in sorted(self._foreign)]
            self._foreign = []
            self.updates += 1
            if rows:
                self._update(rows)

    def _worth(self, result: Result) -> float | None:
        if result.reward is None or not result.duplicate:
            return result.reward
        return result.reward - self.discount * abs(result.reward)

    def _update(self, rows: Sequence[_Row]) -> None:
        rewards = np.array([reward for _, reward, _, _ in rows], np.float32)
        # Only new rules move the baseline. So a controller that repeats itself is below it, and is driven away.
        fresh = np.array([reward for _, reward, duplicate, _ in rows if not duplicate], np.float32)
        # The baseline of a batch comes from the batches before it; the first has only itself.
        baseline = self.baseline / self.weight if self.weight else float((fresh if len(fresh) else rewards).mean())
        if len(fresh):
            squared = float(((fresh - baseline) ** 2).mean())
            self.weight = self.decay * self.weight + 1 - self.decay
            self.baseline = self.decay * self.baseline + (1 - self.decay) * float(fresh.mean())
            self.spread = self.decay * self.spread + (1 - self.decay) * squared
        spread = self.spread / self.weight if self.weight else 1.0
        advantage = (rewards - np.float32(baseline)) / np.float32(max(spread**0.5, 1e-3))
        network = self._network if len(rows) == self.batch else Unrolled(self.policy, len(rows))
        strings = [tokens for tokens, *_ in rows]
        network.strings(strings)
        network.forward()
        self.last_entropy = float((network.entropies() * network.live).sum(axis=0).mean())
        now = network.log_prob()
        known = np.array([np.nan if old is None else old for *_, old in rows], np.float32)
        old = np.where(np.isnan(known), now, known)
        if self.algorithm == "trpo":
            given = torch.from_numpy(old), torch.from_numpy(advantage)
            trpo_step(self.policy, self.policy.batch(strings), *given, entropy=self.entropy_weight, limit=self.kl)
            return
        for epoch in range(self.epochs if self.algorithm == "ppo" else 1):
            if epoch:
                network.forward()
            if self.algorithm == "ppo":
                slope = ppo_slope(network.log_prob(), old, advantage, self.clip)
            else:
                slope = reinforce_slope(advantage)
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
            "waiting": [[number, list(row[0]), *row[1:]] for number, row in sorted(self._waiting.items())],
            "drawn": [[list(tokens), log_prob] for tokens, log_prob in self._drawn],
            "old": [[number, log_prob] for number, log_prob in sorted(self._old.items())],
            "foreign": [[list(row[0]), *row[1:]] for row in sorted(self._foreign)],
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
        self._waiting = {int(number): (tuple(row[0]), row[1], row[2]) for number, *row in state["waiting"]}
        self._drawn = [(tuple(tokens), log_prob) for tokens, log_prob in state["drawn"]]
        self._old = {int(number): log_prob for number, log_prob in state["old"]}
        self._foreign = [(tuple(row[0]), row[1], row[2]) for row in state["foreign"]]

    _SCALARS: ClassVar[tuple[str, ...]] = ("baseline", "spread", "weight", "updates", "last_entropy")
