"""Owns the paper's strategy: a recurrent controller trained by policy gradient on the rewards of its own strings.

REINFORCE with an exponential average of rewards as baseline, an entropy bonus and Adam. The paper's own numbers are
not known for certain (one LSTM layer of 150 units, TRPO, Adam at 1e-5, about 5 strings per update, entropy weight
0.0015, some ten thousand strings on 100 workers); the defaults here are for a few hundred strings on one machine in
minutes, and are this package's choice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch

from ..errors import UsageError
from ..space import Space, Tokens
from .base import Result, State, Strategy
from .policy import Policy


class ControllerStrategy(Strategy):
    """Strings are numbered as they are asked; update k uses the answers to strings k*batch ... (k+1)*batch - 1.

    An update happens when its last answer has come, whatever the order, and answers to later strings wait, so the order
    of tell does not matter. Foreign results join the next update. Results without reward are left out of theirs.

    hidden, embedding: sizes of the LSTM. batch: strings per update. lr: Adam's. entropy: weight of the bonus, per nat.
    duplicate_discount: share of its reward that a rule loses when it was scored before. A duplicate costs nothing and
    teaches nothing, so without a discount a small search ends by writing its first good rule for ever.
    baseline_decay: of the reward average. Advantages are divided by the running standard deviation of the rewards, so
    that lr does not depend on the scale of the task.
    """

    name: ClassVar[str] = "controller"

    def __init__(
        self,
        space: Space,
        *,
        seed: int,
        hidden: int = 64,
        embedding: int = 32,
        batch: int = 8,
        lr: float = 0.01,
        entropy: float = 0.1,
        baseline_decay: float = 0.9,
        duplicate_discount: float = 0.75,
    ) -> None:
        super().__init__(space, seed=seed)
        for option, value, low in (("hidden", hidden, 1), ("embedding", embedding, 1), ("batch", batch, 1)):
            if value < low:
                raise UsageError(f"controller option {option} {value} is below {low}")
        if not (lr > 0 and entropy >= 0 and 0 <= baseline_decay < 1 and 0 <= duplicate_discount <= 1):
            raise UsageError(
                f"controller options lr {lr}, entropy {entropy}, baseline_decay {baseline_decay}, duplicate_discount "
                f"{duplicate_discount} must be > 0, >= 0, in [0, 1) and in [0, 1]"
            )
        self._options = {
            "hidden": hidden,
            "embedding": embedding,
            "batch": batch,
            "lr": lr,
            "entropy": entropy,
            "baseline_decay": baseline_decay,
            "duplicate_discount": duplicate_discount,
        }
        self.batch = batch
        self.entropy_weight = entropy
        self.decay = baseline_decay
        self.discount = duplicate_discount
        self.policy = Policy(space, hidden=hidden, embedding=embedding, generator=self.generator)
        self.optimizer = torch.optim.Adam(self.policy.parameters(), lr=lr)
        self.baseline = 0.0  # average of rewards, and of their squared distance from it; bias-corrected by `weight`
        self.spread = 0.0
        self.weight = 0.0
        self.updates = 0
        self.last_entropy = 0.0
        self._waiting: dict[int, tuple[Tokens, float | None]] = {}
        self._foreign: list[tuple[Tokens, float]] = []

    def options(self) -> dict[str, Any]:
        return dict(self._options)

    def propose(self, n: int) -> Iterable[Tokens]:
        return self.policy.sample(n, self.generator)

    def learn(self, results: Sequence[Result]) -> None:
        for result in results:
            worth = self._worth(result)
            if result.id is not None:
                self._waiting[result.id] = (result.tokens, worth)
            elif worth is not None:
                self._foreign.append((result.tokens, worth))
        while all(self.updates * self.batch + k in self._waiting for k in range(self.batch)):
            answers = [self._waiting.pop(self.updates * self.batch + k) for k in range(self.batch)]
            strings = [(tokens, reward) for tokens, reward in answers if reward is not None] + sorted(self._foreign)
            self._foreign = []
            self.updates += 1
            if strings:
                self._update([tokens for tokens, _ in strings], torch.tensor([reward for _, reward in strings]))

    def _worth(self, result: Result) -> float | None:
        """What the controller learns from: the reward, less the discount on rules that are known already."""
        if result.reward is None or not result.duplicate:
            return result.reward
        return result.reward * (1 - self.discount)

    def _update(self, strings: list[Tokens], rewards: torch.Tensor) -> None:
        mean = float(rewards.mean())
        # The baseline of a batch comes from the batches before it; the first has only itself.
        baseline = self.baseline / self.weight if self.weight else mean
        squared = float(((rewards - baseline) ** 2).mean())
        self.weight = self.decay * self.weight + 1 - self.decay
        self.baseline = self.decay * self.baseline + (1 - self.decay) * mean
        self.spread = self.decay * self.spread + (1 - self.decay) * squared
        scale = max((self.spread / self.weight) ** 0.5, 1e-3)
        log_prob, entropy = self.policy.evaluate(strings)
        loss = -((rewards - baseline) / scale * log_prob).mean() - self.entropy_weight * entropy.mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.last_entropy = float(entropy.detach().mean())

    def metrics(self) -> dict[str, float]:
        """baseline: average reward (once there was an update); entropy: of the last batch, nats per string."""
        if not self.weight:
            return {}
        return {"baseline": self.baseline / self.weight, "entropy": self.last_entropy, "updates": float(self.updates)}

    def state_dict(self) -> State:
        moments = self.optimizer.state_dict()["state"]
        return {
            **super().state_dict(),
            "policy": {name: tensor.clone() for name, tensor in self.policy.state_dict().items()},
            "adam": [{name: value.clone() for name, value in moments[k].items()} for k in sorted(moments)],
            "scalars": {name: getattr(self, name) for name in self._SCALARS},
            "waiting": [[number, list(tokens), reward] for number, (tokens, reward) in sorted(self._waiting.items())],
            "foreign": [[list(tokens), reward] for tokens, reward in self._foreign],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.policy.load_state_dict(state["policy"])
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": dict(enumerate(state["adam"])), "param_groups": groups})
        for name in self._SCALARS:
            setattr(self, name, type(getattr(self, name))(state["scalars"][name]))
        self._waiting = {int(number): (tuple(tokens), reward) for number, tokens, reward in state["waiting"]}
        self._foreign = [(tuple(tokens), reward) for tokens, reward in state["foreign"]]

    _SCALARS: ClassVar[tuple[str, ...]] = ("baseline", "spread", "weight", "updates", "last_entropy")
