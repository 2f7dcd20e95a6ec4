"""Owns the strategy that leaves the choice to a sampler of optuna (an optional package), which is TPE by default.

Every position is a categorical parameter over all its tokens; what the sampler proposes against the masks is repaired.
A fresh sampler with a seed from this strategy's generator makes each proposal, and the study holds the answered trials
in order of their numbers, so nothing of optuna's own state decides what comes next.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from ..errors import UsageError, choose
from ..space import SearchSpace, Tokens
from .base import Result, State, Strategy

if TYPE_CHECKING:
    import optuna

SAMPLERS = ("tpe", "random")


class OptunaStrategy(Strategy):
    """This asks the sampler "tpe" or "random". TPE begins after `startup` random strings. The sampler sees the latest
    `window` answered trials; its time grows with them."""

    name: ClassVar[str] = "optuna"

    def __init__(
        self, space: SearchSpace, *, seed: int, sampler: str = "tpe", startup: int = 32, window: int = 256
    ) -> None:
        super().__init__(space, seed=seed)
        if sampler not in SAMPLERS:
            raise choose("optuna option sampler", sampler, SAMPLERS)
        if startup < 1 or window < 1:
            raise UsageError(f"optuna options startup {startup}, window {window} must be at least 1")
        try:
            import optuna
        except ImportError:
            raise UsageError("strategy 'optuna' needs the package optuna: pip install 'nos-ext[optuna]'") from None
        self._optuna = optuna
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._options = {"sampler": sampler, "startup": startup, "window": window}
        self._window = window
        self._space = {
            f"{k:02d} {position.name}": optuna.distributions.CategoricalDistribution(range(len(position.tokens)))
            for k, position in enumerate(space.positions)
        }
        self._answers: list[tuple[int, Tokens, float]] = []  # by number; those from outside have number -1
        self._study: optuna.Study | None = None  # made of the answers; None when it is out of date

    def options(self) -> dict[str, Any]:
        return dict(self._options)

    def propose(self, n: int) -> Iterable[Tokens]:
        study = self._current()
        return [self._propose(study) for _ in range(n)]

    def _propose(self, study: optuna.Study) -> Tokens:
        seed = int(torch.randint(2**31, (), generator=self.generator))
        samplers = self._optuna.samplers
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # multivariate is marked experimental
            sampler = (
                samplers.RandomSampler(seed=seed)
                if self._options["sampler"] == "random"
                else samplers.TPESampler(seed=seed, n_startup_trials=self._options["startup"], multivariate=True)
            )
        study.sampler = sampler
        # The trial that is asked for stays in the study as running, where samplers do not look. The next answer makes a
        # new study.
        params = study.ask(fixed_distributions=dict(self._space)).params
        return self.space.repair([params[name] for name in self._space])

    def _current(self) -> optuna.Study:
        if self._study is None:
            self._study = self._optuna.create_study(direction="maximize")
            self._study.add_trials(
                self._optuna.trial.create_trial(
                    value=reward,
                    params=dict(zip(self._space, tokens, strict=True)),
                    distributions=dict(self._space),
                )
                for _, tokens, reward in self._answers
            )
        return self._study

    def learn(self, results: Sequence[Result]) -> None:
        for result in results:
            if result.reward is not None:
                self._answers.append((-1 if result.id is None else result.id, result.tokens, result.reward))
        self._answers.sort()
        del self._answers[: -self._window]
        self._study = None

    def state_dict(self) -> State:
        return {**super().state_dict(), "answers": [[n, list(tokens), reward] for n, tokens, reward in self._answers]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._answers = [(int(n), tuple(tokens), float(reward)) for n, tokens, reward in state["answers"]]
        self._study = None
