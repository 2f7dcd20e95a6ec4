"""Owns what a step needs, laid out for the engine and kept between steps: tensors, step numbers, rows of scalars.

In the steady state a step reads the gradients, compares identities (in C: `map` and `operator.is_`), and makes one
engine call for all param groups. More calls are made when step numbers, seeds, total_steps or `maximize` differ.
Whatever a user changes - groups, parameters, states, step numbers - is noticed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import is_, itemgetter
from typing import Any, Final

import torch

from .. import _C
from ..program import Program
from ._grads import Gradients, check_param
from ._shards import check_draws, is_sharded, local
from ._values import Scalar, needs_reading, to_number

_FLAGS: Final = ("maximize", "seed", "total_steps")
_END: Final = object()
_params = itemgetter("params")

Group = dict[str, Any]
States = dict[Any, Any]
Resolve = Callable[[str, Any, Group], Scalar]


@dataclass(slots=True)
class Part:
    """The parameters that go into one engine call."""

    program: Program  # one for each part, as the engine keeps the plan of the last call with its program
    mask: list[bool] | None  # None: every gradient there is
    increment: torch.Tensor  # 1 for each parameter of the part, 0 for the others
    step: int  # steps taken so far
    flags: tuple[bool, int, float | None]
    rows: list[list[float]]  # one per group: its hyperparameters, lr first


def state_dtype(param: torch.Tensor) -> torch.dtype:
    """float64 beside float64 parameters, float32 beside all others."""
    return torch.float64 if param.dtype == torch.float64 else torch.float32


class StepLists:
    """The lists for `groups` and `state` of an optimizer as they are now.

    Args:
        program: the rule.
        groups: the optimizer's param_groups.
        state: the optimizer's state. The `step` of every parameter in it becomes a view of one tensor, so that one
            addition advances them all.
        resolve: gives the number, tensor or function that a value in a group stands for.
        owner: name of the optimizer, for messages.
    """

    def __init__(self, program: Program, groups: Sequence[Group], state: States, resolve: Resolve, owner: str) -> None:
        self._program = program
        self._groups = groups
        self._state = state
        self._resolve = resolve
        self._owner = owner
        self._hypers = tuple(program.hyperparameters)
        self._read_names = (*self._hypers, *_FLAGS)
        self._read = itemgetter(*self._read_names)
        self._sizes = list(map(len, map(_params, groups)))
        self.params: list[Any] = list(chain.from_iterable(map(_params, groups)))
        self._group_of = [i for i, size in enumerate(self._sizes) for _ in range(size)]
        self._sharded = [i for i, p in enumerate(self.params) if is_sharded(p)]
        # Parameters that never had a gradient have no state and stand aside: they may be of any dtype and kind.
        nothing = torch.empty(0)
        self._tensors: list[Any] = [nothing] * len(self.params)
        self._states: list[list[Any]] = [[nothing] * len(self.params) for _ in program.state_names]
        self._gradients = Gradients(owner, self.params, self._sharded)
        self._absent: list[bool] | None = None
        self._parts: list[Part] = []
        self._raw: list[Any] = []
        self._reread: dict[tuple[int, int], Scalar] = {}  # (group, hyperparameter) -> tensor or function
        with torch.inference_mode(False), torch.no_grad():
            self._steps = torch.zeros(len(self.params), dtype=torch.float32)
            for i, param in enumerate(self.params):
                if state.get(param):
                    self._adopt(i)
        self._remember()

    def current(self, groups: Sequence[Group], state: States) -> bool:
        """Whether these are still the parameters and states that the lists were made from."""
        try:
            params = list(map(_params, groups))
            return (
                groups is self._groups
                and state is self._state
                and list(map(len, params)) == self._sizes
                and all(map(is_, self._objects(params, state), self._known))
            )
        except TypeError:  # something else than a dict in the state
            return False

    def update(self, scale: Any) -> None:
        """Take one step with every parameter that has a gradient."""
        grads: list[Any] = [p.grad for p in self.params]
        absent = [g is None for g in grads]
        if absent != self._absent or self._steps._version != self._version:
            self._divide(grads, absent)
        raw = list(chain.from_iterable(map(self._read, self._groups)))
        if not all(map(is_, raw, self._raw)):
            width = len(self._read_names)
            if any(raw[k::width] != self._raw[k::width] for k in range(len(self._hypers), width)):
                self._divide(grads, absent)
            else:
                self._take_over(raw, self._raw)
        for i in self._sharded:
            if not absent[i]:
                self._localise(i)
        self._gradients.prepare(grads)
        for part in self._parts:
            self._call(part, grads, scale)

    def _call(self, part: Part, grads: list[Any], scale: Any) -> None:
        for (group, hyper), value in self._reread.items():
            part.rows[group][hyper] = to_number(self._hypers[hyper], value, part.step)
        if part.mask is not None:
            grads = [g if take else None for g, take in zip(grads, part.mask, strict=True)]
        maximize, seed, total_steps = part.flags

        for attempt in (1, 2):
            try:
                _C.apply_groups(
                    part.program, self._tensors, grads, self._states, self._group_of, part.rows,
                    step=part.step + 1, total_steps=total_steps, seed=seed, maximize=maximize, grad_scale=scale,
                )  # fmt: skip
                break
            except (TypeError, ValueError):  # the engine has changed nothing
                if attempt == 2 or not self._gradients.repair(grads):
                    raise
        self._steps.add_(part.increment)
        self._version = self._steps._version
        part.step += 1

    # -- what changes from time to time -------------------------------------------------------------------------------

    def _take_over(self, raw: list[Any], old: Sequence[Any]) -> None:
        """Put the values that are not in `old` into the rows; note which must be read at every step."""
        width, hypers = len(self._read_names), len(self._hypers)
        for k, (value, before) in enumerate(zip(raw, old, strict=True)):
            if value is before:
                continue
            g, h = divmod(k, width)
            if h >= hypers:
                continue
            if type(value) is float:  # a schedule's new lr, most likely
                number = value
                self._reread.pop((g, h), None)
            else:
                scalar = self._resolve(self._hypers[h], value, self._groups[g])
                if needs_reading(scalar):
                    self._reread[g, h] = scalar
                    continue
                number = to_number(self._hypers[h], scalar, 0)
                self._reread.pop((g, h), None)
            for part in self._parts:
                part.rows[g][h] = number
        self._raw = raw

    def _flags(self, i: int) -> tuple[bool, int, float | None]:
        """maximize, seed and total_steps of parameter i."""
        group = self._groups[self._group_of[i]]
        return bool(group["maximize"]), group["seed"], group["total_steps"]

    def _divide(self, grads: Sequence[Any], absent: list[bool]) -> None:
        """Make states where there are none yet, and divide the parameters with gradients into engine calls."""
        new = [i for i, g in enumerate(grads) if g is not None and not self._state.get(self.params[i])]
        for i in new:  # before anything is made
            self._gradients.check(i, grads[i])
            check_param(self._owner, i, self.params[i])
        for i in new:
            self._make(i)
        self._remember()
        taken = self._steps.tolist()
        parts: dict[Any, list[int]] = {}
        for i, missing in enumerate(absent):
            if not missing:
                parts.setdefault((int(taken[i]), self._flags(i)), []).append(i)
        self._parts = []
        for (step, flags), members in parts.items():
            increment = torch.zeros(len(self.params), dtype=torch.float32)
            increment[members] = 1.0
            rows = [[0.0] * len(self._hypers) for _ in self._groups]
            program = Program.from_bytes(self._program.bytecode)
            mask = [bool(n) for n in increment.tolist()] if len(parts) > 1 else None
            self._parts.append(Part(program, mask, increment, step, flags, rows))
        self._absent = absent
        raw = list(chain.from_iterable(map(self._read, self._groups)))
        self._take_over(raw, [_END] * len(raw))

    def _make(self, i: int) -> None:
        """A new state for parameter i, and its place in the lists."""
        param = self.params[i]
        with torch.inference_mode(False), torch.no_grad():
            entry: dict[str, Any] = {"step": self._steps[i]}
            for name in self._program.state_names:
                entry[name] = torch.zeros_like(param, dtype=state_dtype(param), memory_format=torch.preserve_format)
        self._state[param] = entry
        self._place(i, entry)

    def _adopt(self, i: int) -> None:
        """The existing state of parameter i; its step becomes a view of `_steps`."""
        entry = self._state[self.params[i]]
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
        self._tensors[i] = self.params[i]
        for states, name in zip(self._states, self._program.state_names, strict=True):
            states[i] = entry[name]
        if i in self._sharded and self._program.uses_random:
            check_draws(self._program.name, i, self.params[i])

    def _localise(self, i: int) -> None:
        """Shards are looked up at every step: FSDP may move them."""
        param = self.params[i]
        self._tensors[i] = local(param)
        entry = self._state[param]
        for states, name in zip(self._states, self._program.state_names, strict=True):
            states[i] = local(entry[name])

    def _objects(self, params: Sequence[Sequence[Any]], state: States) -> Iterator[Any]:
        """All objects whose identity the lists depend on."""
        return chain(chain.from_iterable(params), chain.from_iterable(map(dict.values, state.values())), (_END,))

    def _remember(self) -> None:
        self._known = list(self._objects(list(map(_params, self._groups)), self._state))
        self._version = self._steps._version
