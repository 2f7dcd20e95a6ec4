"""Owns the part of a step that comes before the engine's where rules are cut into stages: their stages but the last.

Rules with orthogonalize are always cut; those with reductions are where shards of their parameters are updated.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import torch

from .._state_dtypes import SCALE
from ..engine import run_stages
from ..rule import MatrixProgram, Program
from ..rule.program import SplitProgram
from ._reductions import Call, Reductions
from ._values import needs_reading, to_number


class Stages:
    """Stages runs those stages, and puts their results into the lists of states that the last stages read.

    Args:
        programs: what each group runs.
        group_of: of each parameter.
        params: the parameters.
        tensors: what the engine updates for each of them.
        states: the lists of states by slot, in which temporaries come after the states of a rule.
        scales: the lists of their scales, or nothing.
    """

    def __init__(
        self,
        programs: Sequence[Program | MatrixProgram | SplitProgram],
        group_of: Sequence[int],
        params: Sequence[Any],
        tensors: Sequence[Any],
        states: Sequence[list[Any]],
        scales: Sequence[list[Any]],
    ) -> None:
        self._matrices = {g: program for g, program in enumerate(programs) if isinstance(program, MatrixProgram)}
        split = {g: program for g, program in enumerate(programs) if isinstance(program, SplitProgram)}
        self._reductions = Reductions(split, group_of, params, tensors, states) if split else None
        self._split = split
        self._group_of = group_of
        self._tensors = tensors
        self._states = states
        self._scales = scales

    def __bool__(self) -> bool:
        return bool(self._matrices or self._split)

    def begin(self) -> None:
        """Begins a step. `run` may then be called several times, and communicates only once."""
        if self._reductions:
            self._reductions.begin()

    def run(
        self,
        grads: Sequence[Any],
        parts: Iterable[tuple[Any, ...]],
        value: Callable[[int, int], Any],
        scale: Any,
        without: Collection[int],
    ) -> None:
        """Runs the stages for all parameters that have a gradient.

        Args:
            grads: of each parameter, or None.
            parts: the number of steps taken, maximize, seed, total_steps, stochastic_rounding, and the parameters.
            value: tells what hyperparameter j of group i is: a number, a tensor, or a function of the step.
            scale: what the gradients have been multiplied with, or None.
            without: the parameters of which this process holds no element, so that they add nothing to a reduction.
        """
        factor = 1.0 if scale is None else to_number("grad_scale", scale)
        parts = list(parts)
        for group, matrix in self._matrices.items():
            for given, arguments in self._calls(group, matrix, grads, parts, value):
                state = dict(zip(matrix.state_names, self._states, strict=False))
                state |= {name + SCALE: one for name, one in zip(matrix.state_names, self._scales, strict=False)}
                results = run_stages(matrix, self._tensors, given, state, {**arguments, "grad_scale": factor})
                for slot, name in enumerate(matrix.stages[-1].state_names):
                    for i, grad in enumerate(given if name in results else ()):
                        if grad is not None:
                            self._states[slot][i] = results[name][i]
        if self._reductions:
            held = [None if i in without else grad for i, grad in enumerate(grads)]
            calls = [
                Call(program, given, {**arguments, "grad_scale": factor})
                for group, program in self._split.items()
                for given, arguments in self._calls(group, program, held, parts, value)
            ]
            self._reductions.run(calls)

    def _calls(
        self,
        group: int,
        program: MatrixProgram | SplitProgram,
        grads: Sequence[Any],
        parts: Iterable[tuple[Any, ...]],
        value: Callable[[int, int], Any],
    ) -> Iterator[tuple[list[Any], dict[str, Any]]]:
        """Makes, for each part that has parameters of the group, their gradients and the other arguments."""
        for taken, maximize, seed, total_steps, _, members in parts:
            given: list[Any] = [None] * len(grads)
            for i in members:
                if self._group_of[i] == group:
                    given[i] = grads[i]
            if any(grad is not None for grad in given):
                numbers = {
                    name: _number(name, value(group, k), taken) for k, name in enumerate(program.hyperparameters)
                }
                yield given, {
                    **numbers, "step": taken + 1, "seed": seed, "total_steps": total_steps, "maximize": maximize
                }  # fmt: skip

    def forget(self) -> None:
        """Drops the tensors that are results of the last step, so that no memory is kept between steps."""
        for group, program in self._matrices.items():
            for states in self._states[len(program.state_names) : len(program.stages[-1].state_names)]:
                for i, owner in enumerate(self._group_of):
                    if owner == group:
                        states[i] = _NOTHING


_NOTHING = torch.empty(0, device="cpu")


def _number(name: str, value: Any, taken: int) -> float:
    if needs_reading(value) and not isinstance(value, torch.Tensor):
        value = value(taken)
    return to_number(name, value)
