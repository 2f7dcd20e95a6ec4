"""Owns what a step needs, laid out for the engine and kept between steps: tensors, step numbers, engine calls.

In the steady state a step is one call of `_C.Stepper`, which sees in C++ that nothing has been replaced and makes one
engine call for all param groups. More calls are made when step numbers or flags differ. What a user changes - groups,
parameters, states, step numbers - makes the Stepper ask for a new division or for new lists.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch

from .. import _C
from ..program import Program
from ._grads import Gradients, check_param
from ._shards import check_draws, is_sharded, local
from ._values import Scalar, needs_reading, to_number

# Keys of a param group that the engine takes once for a call; in the order of `_C.Stepper.divide`.
FLAGS: Final = ("maximize", "seed", "total_steps", "stochastic_rounding")
_DONE, _DIVISION = 0, 1  # what _C.Stepper.step returns; any other number: new lists are needed

Group = dict[str, Any]
States = dict[Any, Any]
Resolve = Callable[[str, Any, Group], Scalar]


def state_dtype(param: torch.Tensor) -> torch.dtype:
    """float64 beside float64 parameters, float32 beside all others."""
    return torch.float64 if param.dtype == torch.float64 else torch.float32


class StepLists:
    """The lists for `groups` and `state` of an optimizer as they are now.

    Args:
        program: the rule.
        groups: the optimizer's param_groups.
        state: the optimizer's state. The `step` of every parameter in it becomes a view of one tensor, so that they
            can be read and advanced at once.
        owner: name of the optimizer, for messages.
    """

    def __init__(self, program: Program, groups: list[Group], state: States, owner: str) -> None:
        self._program = program
        self._groups = groups
        self._state = state
        self._owner = owner
        self._hypers = tuple(program.hyperparameters)
        self._params: list[Any] = [p for group in groups for p in group["params"]]
        self._group_of = [i for i, group in enumerate(groups) for _ in group["params"]]
        self._sharded = [i for i, p in enumerate(self._params) if is_sharded(p)]
        # Parameters that never had a gradient have no state and stand aside: they may be of any dtype and kind.
        nothing = torch.empty(0)
        self._tensors: list[Any] = [nothing] * len(self._params)
        self._states: list[list[Any]] = [[nothing] * len(self._params) for _ in program.state_names]
        self._gradients = Gradients(owner, self._params, self._sharded)
        with torch.inference_mode(False), torch.no_grad():
            self._steps = torch.zeros(len(self._params), dtype=torch.float32, device=self._counter_device())
            for i, param in enumerate(self._params):
                if state.get(param):
                    self._adopt(i)
        self._stepper = self._make_stepper()

    def _counter_device(self) -> torch.device:
        """Where the numbers of steps are kept."""
        return torch.device("cpu")

    def _make_stepper(self) -> Any:
        return _C.Stepper(
            self._program, self._groups, self._state, self._hypers, FLAGS, self._tensors, self._states, self._steps,
            self._steps.data_ptr(),
        )  # fmt: skip

    def step(self, groups: Any, state: Any, resolve: Resolve, scale: Any) -> bool:
        """Take one step with every parameter that has a gradient.

        False, with nothing done, if `groups` and `state` are not what the lists were made of any more.

        Args:
            groups, state: of the optimizer.
            resolve: gives the number, tensor or function that a value in a group stands for.
            scale: what the gradients have been multiplied with, or None.
        """

        def read(group: int, hyper: int, value: Any) -> Any:
            scalar = resolve(self._hypers[hyper], value, self._groups[group])
            return scalar if needs_reading(scalar) else to_number(self._hypers[hyper], scalar)

        grads: list[Any] | None = None
        if self._gradients.any_odd:
            grads = self._prepared()
        divided = False
        repaired = False
        while True:
            try:
                outcome = self._stepper.step(groups, state, read, scale, grads)
            except (TypeError, ValueError):  # the engine has changed nothing
                grads = grads or self._stepper.gradients()
                if repaired or not self._gradients.repair(grads):
                    raise
                repaired = True
                continue
            if outcome == _DONE:
                return True
            if outcome != _DIVISION or divided:
                return False
            divided = True
            grads = self._prepared()
            self._divide(grads, read)

    def _prepared(self) -> list[Any]:
        """The gradients, and the lists, fit for the engine."""
        grads: list[Any] = [p.grad for p in self._params]
        for i in self._sharded:
            if grads[i] is not None and self._state.get(self._params[i]):
                self._localise(i)
        self._gradients.prepare(grads)
        return grads

    def _divide(self, grads: Sequence[Any], read: Callable[[int, int, Any], Any]) -> None:
        """Make states where there are none yet, and divide the parameters with gradients into engine calls."""
        self._make_missing(grads)
        parts = self._division_by(grads, self._steps.tolist())
        self._stepper.divide([(members, *key) for *key, members in parts], read)

    def _make_missing(self, grads: Sequence[Any]) -> None:
        """States of parameters that have a gradient for the first time."""
        new = [i for i, g in enumerate(grads) if g is not None and not self._state.get(self._params[i])]
        for i in new:  # before anything is made
            self._gradients.check(i, grads[i])
            check_param(self._owner, i, self._params[i])
        for i in new:
            self._make(i)

    def _division_by(self, grads: Sequence[Any], taken: Sequence[float]) -> list[tuple[Any, ...]]:
        """For each engine call: steps taken, the FLAGS, and the parameters."""
        parts: dict[Any, list[int]] = {}
        for i, grad in enumerate(grads):
            if grad is not None:
                group = self._groups[self._group_of[i]]
                parts.setdefault((int(taken[i]), *(group[name] for name in FLAGS)), []).append(i)
        return [(*key, members) for key, members in parts.items()]

    def _make(self, i: int) -> None:
        """A new state for parameter i, and its place in the lists."""
        param = self._params[i]
        with torch.inference_mode(False), torch.no_grad():
            entry: dict[str, Any] = {"step": self._steps[i]}
            for name in self._program.state_names:
                entry[name] = torch.zeros_like(param, dtype=state_dtype(param), memory_format=torch.preserve_format)
        self._state[param] = entry
        self._place(i, entry)

    def _adopt(self, i: int) -> None:
        """The existing state of parameter i; its step becomes a view of `_steps`."""
        entry = self._state[self._params[i]]
        missing = [name for name in ("step", *self._program.state_names) if name not in entry]
        if missing:
            raise KeyError(
                f"the state of parameter {i} has the keys {sorted(entry)} but not {missing}; rule "
                f"'{self._program.name}' needs them: delete the state of the parameter to start afresh"
            )
        self._steps[i] = float(entry["step"])
        entry["step"] = self._steps[i]
        self._place(i, entry)

    def _place(self, i: int, entry: dict[str, Any]) -> None:
        self._tensors[i] = self._params[i]
        for states, name in zip(self._states, self._program.state_names, strict=True):
            states[i] = entry[name]
        if i in self._sharded:
            if self._program.uses_random:
                check_draws(self._program.name, i, self._params[i])
            self._localise(i)

    def _localise(self, i: int) -> None:
        """Shards are looked up at every step: FSDP may move them."""
        param = self._params[i]
        self._tensors[i] = local(param)
        entry = self._state[param]
        for states, name in zip(self._states, self._program.state_names, strict=True):
            states[i] = local(entry[name])
