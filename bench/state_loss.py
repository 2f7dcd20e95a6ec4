"""What smaller states cost in loss: python -m bench.state_loss [--task charlm] [--rules adamw,...] [--seeds 5].

Trains the task's network by each rule with states in float32, bfloat16 and int8, at the same learning rate and with the
same seeds: the same weights and batches. Prints the validation loss of float32 states with the standard deviation over
the seeds, and for the others the mean of the paired differences to it with its standard error.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any, Final

from torch import Tensor

import nos_ext
from nos_search.rules import compile_rule
from nos_search.task import load
from nos_search.train.training import Training

STATE_DTYPES: Final = (None, "bfloat16", "int8")
RATES: Final = {"adamw": 3e-3, "lion": 3e-4, "powersign": 0.1, "rmsprop": 3e-3}


class SmallTraining(Training):
    """A SmallTraining is a Training whose states have another dtype."""

    def __init__(self, state_dtype: str | None, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.state = nos_ext.init_state(self.rule.program, self._raw, state_dtype=state_dtype)

    def _update(self, grads: list[Tensor]) -> None:
        nos_ext.apply_rule(
            self.rule.program, self._raw, grads, self.state, lr=self.lr * self._factor(self.step - 1), step=self.step,
            total_steps=self.total_steps, seed=self._rule_seed, stochastic_rounding="states",
        )  # fmt: skip


def losses(task_name: str, rule: str, steps: int, seeds: int) -> dict[str | None, list[float]]:
    """The validation losses in nats of every seed, by the dtype of the states."""
    task, compiled = load(task_name), compile_rule(rule)
    out: dict[str | None, list[float]] = {}
    for state_dtype in STATE_DTYPES:
        for seed in range(seeds):
            training = SmallTraining(
                state_dtype, compiled, task, lr=RATES[rule], total_steps=steps, seed=seed, decay="cosine"
            )
            training.run(steps)
            out.setdefault(state_dtype, []).append(training.measure(task.val).loss)
    return out


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.state_loss", description=__doc__)
    parser.add_argument("--task", default="charlm")
    parser.add_argument("--rules", default="adamw", help=f"of {', '.join(RATES)}, with commas between them")
    parser.add_argument("--seeds", type=int, default=5, help="at least 2")
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args(argv)
    for rule in options.rules.split(","):
        found = losses(options.task, rule, options.steps, options.seeds)
        wide = found[None]
        print(f"{rule:10} float32   loss {mean(wide):.4f}, standard deviation over seeds {stdev(wide):.4f}")
        for state_dtype in STATE_DTYPES[1:]:
            differences = [x - y for x, y in zip(found[state_dtype], wide, strict=True)]
            error = stdev(differences) / len(differences) ** 0.5
            print(
                f"{rule:10} {state_dtype:9} difference {mean(differences):+.4f}, standard error {error:.4f}", flush=True
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
