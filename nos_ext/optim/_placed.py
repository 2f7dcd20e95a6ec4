"""Owns the parameters and states of an optimizer in lists, as the engine takes them: what stands in a list for a
parameter, how its states are made, and how those that exist are taken over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from .._memory import has_memory, is_emptied
from .._numbers import shown
from .._state_dtypes import SCALE, checked_state_dtype
from ..rule import MatrixProgram, Program
from ..rule.master import MASTER
from ._grads import check_grad, check_param
from ._hollow import first_master, first_states, is_hollow
from ._layout import DenseCopies, like
from ._quantized import CODES, check_state_dtype, decoded, encoded
from ._shards import StandIns, check_shardable, is_sharded, local
from ._step_numbers import HostStepNumbers, StepNumbers
from ._values import Group, step_count

States = dict[Any, Any]


class PlacedStates:
    """PlacedStates are the lists of an optimizer's parameters and states.

    Args:
        groups: the optimizer's param_groups.
        state: the optimizer's state. The `step` of every parameter in it becomes a tensor whose memory is a piece of
            one tensor's (`StepNumbers`).
        own: of each group: its rule, with master weights where it keeps them.
        slots: how many states the rule with the most of them has when it runs, temporaries included.
        engine_clips: whether the engine's call clips the gradients by their norm.
        owner: name of the optimizer, for messages.
    """

    _may_wait: ClassVar = True  # whether a step may wait for other processes, or for a number

    def __init__(
        self,
        groups: list[Group],
        state: States,
        own: Sequence[Program | MatrixProgram],
        slots: int,
        engine_clips: bool,
        owner: str,
    ) -> None:
        self._groups = groups
        self._state = state
        self._own = own
        self._engine_clips = engine_clips
        self._owner = owner
        self._params: list[Any] = [p for group in groups for p in group["params"]]
        self._group_of = [i for i, group in enumerate(groups) for _ in group["params"]]
        self._sharded = [i for i, p in enumerate(self._params) if is_sharded(p)]
        self._hollow = [i for i, p in enumerate(self._params) if is_hollow(p)]
        # A parameter that never had a gradient has no state and is not looked at. It may be of any dtype and kind.
        nothing = torch.empty(0, device="cpu")
        self._tensors: list[Any] = [nothing] * len(self._params)
        self._states: list[list[Any]] = [[nothing] * len(self._params) for _ in range(slots)]
        self._state_scales: list[list[Any]] = []  # empty where no state is quantized, or as `_states`
        self._placed: set[int] = set()
        self._new: list[Any] = []  # parameters whose state was made in this step
        self._copies = self._make_copies(owner)
        self._stand_ins = StandIns({i for i in self._sharded if self._program(i).per_tensor_states})
        with torch.inference_mode(False), torch.no_grad():
            self._numbers = self._make_numbers(len(self._params))
            for i in set(range(len(self._params))).difference(self._hollow):
                if state.get(self._params[i]):
                    self._adopt(i)
        self._check_shared()

    def _chosen(self, i: int) -> str | None:
        """Returns the state_dtype of parameter i."""
        return checked_state_dtype(self._groups[self._group_of[i]]["state_dtype"])

    def _make_copies(self, owner: str) -> DenseCopies:
        return DenseCopies(owner)

    def _make_numbers(self, count: int) -> StepNumbers:
        return HostStepNumbers(count)

    def _home(self, param: Any) -> torch.device:
        """Returns where the states of a parameter are."""
        return param.device  # type: ignore[no-any-return]

    def _program(self, i: int) -> Program | MatrixProgram:
        """Returns what is run for parameter i."""
        return self._own[self._group_of[i]]

    def make_states(self) -> None:
        """Makes the states of all parameters that have a gradient, and counts no step."""
        self._make_missing([p.grad for p in self._params])
        self._new.clear()

    def forget_new(self) -> None:
        """Drops the states that were made in a step that was then refused, so that it has changed nothing."""
        for param in self._new:
            self._state.pop(param, None)
        self._new.clear()

    def _make_missing(self, grads: Sequence[Any]) -> None:
        """Makes the states of parameters that have a gradient for the first time."""
        new = [i for i, g in enumerate(grads) if g is not None and not self._state.get(self._params[i])]
        for i in new:  # checks come before anything is made
            check_param(self._owner, i, self._params[i])
            check_grad(self._owner, i, grads[i])
            check_state_dtype(i, self._params[i], self._chosen(i))
            self._check_master(i)
        for i in new:
            self._make(i)
        if new:
            self._check_shared()

    def _make(self, i: int) -> None:
        """Makes a new state for parameter i and puts it into the lists."""
        param = self._params[i]
        with torch.inference_mode(False), torch.no_grad():
            entry = {
                "step": self._numbers.start(i, 0),
                **first_states(self._program(i), param, self._chosen(i), self._home(param)),
            }
        self._state[param] = entry
        self._new.append(param)
        self._place(i, entry)

    def _check_master(self, i: int) -> None:
        """Raises ValueError if parameter i has no values of which master weights could be made."""
        if MASTER in self._program(i).state_names and is_emptied(self._params[i]):
            raise ValueError(
                f"parameter {i} is {shown(self._params[i])}, whose storage was resized to less, and master weights "
                "begin with its values; give it values first"
            )

    def _adopt(self, i: int) -> None:
        """Puts the existing state of parameter i into the lists. Its step becomes a piece of `_numbers`. Master weights
        begin and end here, where the group's flag has changed since the state was made."""
        entry = self._state[self._params[i]]
        program = self._program(i)
        if MASTER not in program.state_names:
            entry.pop(MASTER, None)
        elif MASTER not in entry:
            self._check_master(i)
            entry[MASTER] = first_master(self._params[i], self._home(self._params[i]))
        missing = [name for name in ("step", *program.state_names) if name not in entry]
        missing += [name + SCALE for name in program.state_names if _lacks_scales(entry, name)]
        if missing:
            raise KeyError(
                f"the state of parameter {i} has the keys {sorted(map(str, entry))} but not {missing}; rule "
                f"'{program.name}' needs them: delete the state of the parameter to start afresh"
            )
        entry["step"] = self._numbers.start(i, step_count(f"state of parameter {i}: step", entry["step"]))
        self._place(i, entry)

    def _place(self, i: int, entry: dict[str, Any]) -> None:
        """Puts parameter i and its state into the lists."""
        self._placed.add(i)
        if MASTER in self._program(i).state_names:
            self._copies.unread.add(i)
        for slot, name in enumerate(self._program(i).state_names):
            self._states[slot][i] = entry[name]
            if name + SCALE in entry and not self._state_scales:
                self._state_scales += [[None] * len(self._params) for _ in self._states]
            if self._state_scales:
                self._state_scales[slot][i] = entry.get(name + SCALE)
        if i in self._sharded:
            clips, captured = self._engine_clips, not self._may_wait
            check_shardable(self._program(i), i, self._params[i], clips=clips, captured=captured)
            self._localise(i)
        else:
            self._tensors[i] = self._copies.dense(i, self._params[i])

    def _localise(self, i: int) -> None:
        """Looks up the shards of parameter i. This is done at every step, as FSDP may move them."""
        param, program = self._params[i], self._program(i)
        self._tensors[i] = local(param)
        entry = self._state[param]
        for states, name in zip(self._states, program.state_names, strict=False):
            states[i] = local(entry[name])
        if self._stand_ins.needed(i, param, self._tensors[i]):
            for lists, name in zip([self._tensors, *self._states], ["p", *program.state_names], strict=False):
                if not lists[i].numel():
                    lists[i] = self._stand_ins.tensor(i, name, lists[i])

    def _realign(self, i: int) -> bool:
        """Brings the states into the layout of parameter i, which `model.to(memory_format=...)` may have changed."""
        param = self._params[i]
        if i in self._sharded:
            return False
        dense = self._copies.dense(i, param)
        changed = (dense is param) != (self._tensors[i] is param)
        self._tensors[i] = dense
        for slot in range(len(self._program(i).state_names)):
            value = self._states[slot][i]
            if not isinstance(value, torch.Tensor):
                continue  # the engine refuses it by name
            if value.shape == dense.shape and has_memory(value) and value.stride() != dense.stride():
                with torch.inference_mode(False), torch.no_grad():
                    if value.dtype in CODES:  # other elements make a block now
                        scales = self._state_scales[slot][i]
                        moved, scales.data = encoded(
                            like(dense, torch.float32).copy_(decoded(value, scales)), value.dtype
                        )
                    else:
                        moved = like(dense, value.dtype).copy_(value)
                    value.data = moved
                changed = True
        return changed

    def _check_shared(self) -> None:
        """Raises ValueError if a placed parameter that has gaps shares memory with another one."""
        if self._copies.pairs:
            self._copies.check_shared((i, self._params[i]) for i in sorted(self._placed))


def _lacks_scales(entry: dict[str, Any], name: str) -> bool:
    value = entry.get(name)
    return isinstance(value, torch.Tensor) and value.dtype in CODES and name + SCALE not in entry
