"""Owns the part of a step that comes before the engine's where rules have orthogonalize: their stages but the last."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from ..engine import run_stages
from ..rule import MatrixProgram, Program
from ._values import needs_reading, to_number


class MatrixStages:
    """MatrixStages runs those stages, and puts their results into the lists of states that the last stages read.

    Args:
        programs: the rule of each group.
        group_of: of each parameter.
        tensors: what the engine updates for each of them.
        states: the lists of states by slot, in which temporaries come after the states of a rule.
    """

    def __init__(
        self,
        programs: Sequence[Program | MatrixProgram],
        group_of: Sequence[int],
        tensors: Sequence[Any],
        states: Sequence[list[Any]],
    ) -> None:
        self._programs = {g: program for g, program in enumerate(programs) if isinstance(program, MatrixProgram)}
        self._group_of = group_of
        self._tensors = tensors
        self._states = states

    def __bool__(self) -> bool:
        return bool(self._programs)

    def run(
        self,
        grads: Sequence[Any],
        parts: Iterable[tuple[Any, ...]],
        value: Callable[[int, int], Any],
        scale: Any,
    ) -> None:
        """Runs the stages for all parameters that have a gradient.

        Args:
            grads: of each parameter, or None.
            parts: the number of steps taken, maximize, seed, total_steps, stochastic_rounding, and the parameters.
            value: tells what hyperparameter j of group i is: a number, a tensor, or a function of the step.
            scale: what the gradients have been multiplied with, or None.
        """
        factor = 1.0 if scale is None else to_number("grad_scale", scale)
        for taken, maximize, seed, total_steps, _, members in parts:
            for group, program in self._programs.items():
                chosen = [i for i in members if self._group_of[i] == group]
                if not chosen:
                    continue
                arguments = {
                    name: _number(name, value(group, k), taken) for k, name in enumerate(program.hyperparameters)
                }
                arguments |= {"step": taken + 1, "seed": seed, "total_steps": total_steps, "maximize": maximize}
                given: list[Any] = [None] * len(grads)
                for i in chosen:
                    given[i] = grads[i]
                state = dict(zip(program.state_names, self._states, strict=False))
                results = run_stages(program, self._tensors, given, state, {**arguments, "grad_scale": factor})
                for slot, name in enumerate(program.stages[-1].state_names):
                    for i in chosen if name in results else ():
                        self._states[slot][i] = results[name][i]

    def forget(self) -> None:
        """Drops the results of the last step, so that no memory is kept between steps."""
        for group, program in self._programs.items():
            for states in self._states[len(program.state_names) : len(program.stages[-1].state_names)]:
                for i, owner in enumerate(self._group_of):
                    if owner == group:
                        states[i] = _NOTHING


_NOTHING = torch.empty(0, device="cpu")


def _number(name: str, value: Any, taken: int) -> float:
    if needs_reading(value) and not isinstance(value, torch.Tensor):
        value = value(taken)
    return to_number(name, value)
