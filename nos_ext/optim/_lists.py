"""Owns what a step needs: tensors, step numbers and engine calls. They are laid out for the engine and kept between
steps.

In the steady state a step is one call of `_C.Stepper`, which sees in C++ that nothing has been replaced and makes one
engine call for all param groups. More calls are made when step numbers or flags differ. What a user changes - groups,
parameters, states, step numbers - makes the Stepper ask for a new division or for new lists.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final

import torch

from .. import _C
from .._numbers import LAST_STEP
from .._state_dtypes import SCALE, checked_state_dtype
from ..rule import MatrixProgram, Program
from ..rule.master import MASTER
from ..rule.program import SplitProgram
from ._clipping import KEY as CLIP
from ._clipping import coefficient, common_clip_norm, running
from ._grads import Gradients, check_grad, check_param
from ._hollow import first_master, first_states, is_hollow, take_steps
from ._layout import DenseCopies, has_memory, like
from ._masters import KEY as MASTERS
from ._masters import check_joint, keeps_masters
from ._quantized import CODES, check_state_dtype, decoded, encoded
from ._reductions import forms
from ._rules import Rules
from ._shards import StandIns, check_shardable, global_norm, is_sharded, local
from ._stages import Stages
from ._values import (
    Scalar,
    check_tensor,
    checked_flags,
    is_capturable,
    needs_reading,
    rounding,
    step_count,
    to_number,
)

# Keys of a param group whose value is the same for a whole engine call, in the order of `_C.Stepper.divide`.
FLAGS: Final = ("maximize", "seed", "total_steps", "stochastic_rounding")
# The other keys that are looked at before the step after a change: a division depends on them, or refuses the change.
OTHER_FLAGS: Final = (CLIP, MASTERS, "rule", "state_dtype", "capturable", "differentiable", "foreach", "fused")
_DONE, _DIVISION = 0, 1  # what _C.Stepper.step returns; any other number says that new lists are needed

Group = dict[str, Any]
States = dict[Any, Any]
Resolve = Callable[[str, Any, Group], Scalar]


class StepLists:
    """StepLists are the lists for `groups` and `state` of an optimizer as they are now.

    Args:
        rules: the rules of the groups. With a `clip_norm` in the groups, clipped forms of them are what runs. But where
            a parameter is sharded, or a rule has orthogonalize, the norm is made before the engine's call, and the
            gradients are scaled by it. Rules with orthogonalize, and those with reductions where parameters are
            sharded, run in stages, of which the engine's call is the last.
        groups: the optimizer's param_groups.
        state: the optimizer's state. The `step` of every parameter in it becomes a tensor whose memory is a piece of
            one tensor's, so that they can be read and advanced at once.
        owner: name of the optimizer, for messages.
    """

    _may_wait: ClassVar = True  # whether a step may wait for other processes, or for a number

    def __init__(self, rules: Rules, groups: list[Group], state: States, owner: str) -> None:
        self._rules = rules
        self.clips = common_clip_norm(groups) is not None
        self._params: list[Any] = [p for group in groups for p in group["params"]]
        self._sharded = [i for i, p in enumerate(self._params) if is_sharded(p)]
        self._own = rules.forms(groups)  # of each group
        self._masters = list(map(keeps_masters, groups))
        check_joint(self._own)
        apart = bool(self._sharded) or any(isinstance(program, MatrixProgram) for program in self._own)
        self._scales = self.clips and apart and self._may_wait
        self._norm = math.nan  # of the last step that did so
        joins = bool(self._sharded) and self._may_wait
        staged = forms(self._own, [group["params"] for group in groups]) if joins else self._own
        own = [self._running(program) for program in staged]
        self._programs = list(dict.fromkeys(own)) or [self._running(rules.default.program)]
        self._program_of = [self._programs.index(program) for program in own]  # of each group
        self._groups = groups
        self._state = state
        self._owner = owner
        self._hypers = [tuple(program.hyperparameters) for program in own]  # of each group
        self._group_of = [i for i, group in enumerate(groups) for _ in group["params"]]
        self._hollow = [i for i, p in enumerate(self._params) if is_hollow(p)]
        # A parameter that never had a gradient has no state and is not looked at. It may be of any dtype and kind.
        nothing = torch.empty(0, device="cpu")
        self._tensors: list[Any] = [nothing] * len(self._params)
        self._states: list[list[Any]] = [
            [nothing] * len(self._params) for _ in range(max(len(program.state_names) for program in self._programs))
        ]
        self._state_scales: list[list[Any]] = []  # empty where no state is quantized, or as `_states`
        self._placed: set[int] = set()
        self._new: list[Any] = []  # parameters whose state was made in this step
        self._copies = self._make_copies(owner)
        self._stand_ins = StandIns({i for i in self._sharded if self._program(i).per_tensor_states})
        self._gradients = Gradients(owner, self._params, self._tensors, self._sharded)
        self._cells: dict[int, torch.Tensor] = {}  # the `step` of every parameter that has a state
        self._seen: dict[int, float] = {}  # how many steps each had taken when it was last looked at
        with torch.inference_mode(False), torch.no_grad():
            self._memory, self._steps = self._counters(len(self._params))
            self._own_holders = sys.getrefcount(self._memory)  # what _is_whole() counts while there are no cells
            for i in set(range(len(self._params))).difference(self._hollow):
                if state.get(self._params[i]):
                    self._adopt(i)
        self._check_shared()
        self._stepper = self._make_stepper()
        stages = Stages(staged, self._group_of, self._params, self._tensors, self._states, self._state_scales)
        self._stages = stages if stages else None  # None costs a step nothing

    def _running(self, program: Program | MatrixProgram | SplitProgram) -> Program:
        """Returns what the engine runs for a rule."""
        return running(program, self.clips and not self._scales)

    def _counters(self, number: int) -> tuple[Any, torch.Tensor]:
        """Makes the memory for the numbers of steps. Returns the memory, to which each tensor in it holds one
        reference, and all of it as one tensor. It is float64, which counts on where float32 stops, at 2**24."""
        memory = bytearray(8 * number)
        if not number:
            return memory, torch.zeros(0, dtype=torch.float64, device="cpu")
        return memory, torch.frombuffer(memory, dtype=torch.float64)

    def _chosen(self, i: int) -> str | None:
        """Returns the state_dtype of parameter i."""
        return checked_state_dtype(self._groups[self._group_of[i]]["state_dtype"])

    def _make_copies(self, owner: str) -> DenseCopies:
        return DenseCopies(owner)

    def _home(self, param: Any) -> torch.device:
        """Returns where the states of a parameter are."""
        return param.device  # type: ignore[no-any-return]

    def _program(self, i: int) -> Program | MatrixProgram:
        """Returns what is run for parameter i."""
        return self._own[self._group_of[i]]

    def _make_stepper(self) -> Any:
        watched = [tuple([name for name in names if name != CLIP]) for names in self._hypers]
        return _C.Stepper(
            self._programs, self._program_of, self._groups, self._state, watched, (*FLAGS, *OTHER_FLAGS), self._tensors,
            self._states, self._state_scales, self._steps, self._steps.data_ptr(),
        )  # fmt: skip

    def step(self, groups: Any, state: Any, resolve: Resolve, scale: Any) -> bool:
        """Takes one step with every parameter that has a gradient.

        Returns False, with nothing done, if `groups` and `state` are not what the lists were made of any more.

        Args:
            groups, state: of the optimizer.
            resolve: gives the number, tensor or function that a value in a group stands for.
            scale: what the gradients have been multiplied with, or None.
        """

        def read(group: int, hyper: int, value: Any) -> Any:
            name = self._hypers[group][hyper]
            scalar = resolve(name, value, self._groups[group])
            if isinstance(scalar, torch.Tensor):
                check_tensor(name, scalar)
            return scalar if needs_reading(scalar) else to_number(name, scalar)

        if not self._is_whole():
            return False
        grads: list[Any] | None = None
        if self._sharded or self._hollow or self._gradients.odd or self._copies.pairs:
            grads = self._prepared()
            if grads is None:
                return False
        if self._scales:
            if common_clip_norm(self._groups) is None:
                return False
            grads, scale = self._scaled(grads or self._stepper.gradients(), scale)
        if self._stages:
            self._stages.begin()
        divided = False
        repaired = False
        while True:
            try:
                if self._stages:
                    grads = grads or self._stepper.gradients()
                    self._stand_ins.put_into(grads)
                    self._run_stages(grads, read, scale)
                outcome = self._stepper.step(groups, state, read, scale, grads)
            except (TypeError, ValueError):  # the engine has changed nothing by then
                grads = grads or self._stepper.gradients()
                if repaired or not self._repair(grads):
                    raise
                repaired = True
                continue
            if self._stages:
                self._stages.forget()
            if outcome == _DONE:
                if grads is not None:  # always true when something is left to do
                    self._finish(grads)
                return True
            if outcome != _DIVISION or divided or self.settle():
                return False
            divided = True
            if (common_clip_norm(self._groups) is not None) != self.clips or is_capturable(self._groups):
                return False
            if list(map(keeps_masters, self._groups)) != self._masters:
                return False
            if not self._scales:
                grads = self._prepared()
            if grads is None:
                return False
            self._divide(grads, read)

    def _run_stages(self, grads: Sequence[Any], read: Callable[[int, int, Any], Any], scale: Any) -> None:
        """Runs the stages of rules that come before the engine's step."""
        if any(g is not None and i not in self._placed for i, g in enumerate(grads)):
            return  # the engine asks for a new division first

        def value(group: int, hyper: int) -> Any:
            name = self._hypers[group][hyper]
            return read(group, hyper, self._groups[group][name])

        assert self._stages
        parts = self._division_by(grads, self._steps.tolist())
        self._stages.run(grads, parts, value, scale, self._stand_ins.members)

    @property
    def grad_norm(self) -> float:
        """The norm of all gradients in the last step, before they were clipped."""
        return self._norm if self._scales else float(self._stepper.gradient_norm)

    def _scaled(self, grads: list[Any], scale: Any) -> tuple[list[Any], float]:
        """Returns gradients and their scale such that the engine's division by the scale clips them."""
        divisor = 1.0 if scale is None else float(to_number("grad_scale", scale))
        self._norm = global_norm(self._params, grads) / abs(divisor)
        clip = coefficient(common_clip_norm(self._groups) or 0.0, self._norm)
        if math.isnan(clip):  # no scale makes this of numbers
            return [None if grad is None else torch.full_like(grad, math.nan) for grad in grads], divisor
        return grads, divisor / clip if clip else math.inf

    def settle(self) -> bool:
        """Looks whether a `step` in the state has other memory than that in which the engine counts. Returns whether
        one has.

        share_memory_(), an assignment to .data and set_() do that. Every step notices it, and takes the number that
        stands there for the one that counts, unless the old memory stays in use elsewhere. Then a number that the
        parameter has had since the last look is taken for one that was moved, and brought up to date.
        """
        base, size = self._steps.data_ptr(), self._steps.element_size()
        moved = [i for i, cell in self._cells.items() if cell.data_ptr() != base + i * size]
        taken = self._steps.tolist()
        if self._is_whole():
            for i in moved:
                cell = self._cells[i]
                stands = cell.numel() == 1 and has_memory(cell) and not cell.is_complex()
                if stands and self._seen[i] <= float(cell) < taken[i]:
                    with torch.inference_mode(False), torch.no_grad():
                        cell.fill_(taken[i])
        self._seen.update((i, taken[i]) for i in self._cells)
        return bool(moved)

    def _is_whole(self) -> bool:
        """Tells whether the memory of every step is in use: each holds one reference to it."""
        return sys.getrefcount(self._memory) == self._own_holders + len(self._cells)

    def make_states(self) -> None:
        """Makes the states of all parameters that have a gradient, and counts no step."""
        self._make_missing([p.grad for p in self._params])
        self._new.clear()

    def forget_new(self) -> None:
        """Drops the states that were made in a step that was then refused, so that it has changed nothing."""
        for param in self._new:
            self._state.pop(param, None)
        self._new.clear()

    def _prepared(self) -> list[Any] | None:
        """Makes the lists and the gradients fit for the engine. Returns the gradients, or None if a parameter has
        become another tensor."""
        grads: list[Any] = [p.grad for p in self._params]
        for i in self._sharded:
            if grads[i] is not None and self._state.get(self._params[i]):
                self._localise(i)
        for i in self._hollow:  # the engine does not take these
            if grads[i] is not None:
                check_grad(self._owner, i, grads[i])
                check_param(self._owner, i, self._params[i])
                grads[i] = None
        if not self._copies.fill(grads):
            return None
        self._gradients.prepare(grads)
        return grads

    def _repair(self, grads: list[Any]) -> bool:
        """After an error of the engine, gives parameters, states and gradients layouts that agree. Returns False if
        they do already."""
        realigned = [self._realign(i) for i, grad in enumerate(grads) if grad is not None and i in self._placed]
        self._check_shared()
        return self._gradients.repair(grads) or any(realigned)

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

    def _finish(self, grads: Sequence[Any]) -> None:
        """Does what is left to do after the engine's part."""
        self._new.clear()
        self._copies.write_back(grads)
        if self._hollow:
            members = [(i, self._params[i], self._program(i), self._chosen(i), False) for i in self._hollow]
            take_steps(self._owner, self._state, members)

    def _divide(self, grads: list[Any], read: Callable[[int, int, Any], Any]) -> None:
        """Makes states where there are none yet, and divides the parameters that have gradients into engine calls."""
        self._make_missing(grads)
        parts = self._division_by(grads, self._steps.tolist())
        clip = common_clip_norm(self._groups)
        clips = [] if clip is None or self._scales else [clip]
        self._stepper.divide([(members, *key) for *key, members in parts], read, clips)

    def _make_missing(self, grads: Sequence[Any]) -> None:
        """Makes the states of parameters that have a gradient for the first time."""
        new = [i for i, g in enumerate(grads) if g is not None and not self._state.get(self._params[i])]
        for i in new:  # checks come before anything is made
            check_grad(self._owner, i, grads[i])
            check_param(self._owner, i, self._params[i])
            check_state_dtype(i, self._params[i], self._chosen(i))
        for i in new:
            self._make(i)
        if new:
            self._check_shared()

    def _division_by(self, grads: Sequence[Any], taken: Sequence[float]) -> list[tuple[Any, ...]]:
        """Returns, for each engine call, the number of steps taken, the FLAGS, and the parameters."""
        for group, program in zip(self._groups, self._own, strict=True):
            if self._rules.of(group).form(group) != program:
                raise ValueError(
                    f"a param group has got the rule of another group:\n{group['rule']}\nthe rule of a group stays "
                    "what it was made with: add a new group, or make a new optimizer"
                )
        flags = []
        for group in self._groups:
            checked = checked_flags(group)
            checked["stochastic_rounding"] = rounding(checked)
            flags.append(tuple([checked[name] for name in FLAGS]))
        counts: dict[float, int] = {}
        parts: dict[Any, list[int]] = {}
        for i, grad in enumerate(grads):
            if grad is not None:
                if taken[i] not in counts:
                    counts[taken[i]] = self._checked_count(i, taken[i])
                device = self._tensors[i].device  # an engine call has one
                parts.setdefault((counts[taken[i]], *flags[self._group_of[i]], device), []).append(i)
        return [(*key[:-1], members) for key, members in parts.items()]

    def _checked_count(self, i: int, value: Any) -> int:
        """Returns how many steps parameter i has taken, after a check that another one is possible."""
        count = step_count(f"state of parameter {i}: step", value)
        if count == LAST_STEP:
            raise OverflowError(
                f"parameter {i} has taken {count} steps, which is all that the 32 bits for the number of a step can "
                "count; make a new optimizer, or set the state's step to a smaller number"
            )
        return count

    def _make(self, i: int) -> None:
        """Makes a new state for parameter i and puts it into the lists."""
        param = self._params[i]
        with torch.inference_mode(False), torch.no_grad():
            entry = {
                "step": self._cell(i, 0),
                **first_states(self._program(i), param, self._chosen(i), self._home(param)),
            }
        self._state[param] = entry
        self._new.append(param)
        self._place(i, entry)

    def _adopt(self, i: int) -> None:
        """Puts the existing state of parameter i into the lists. Its step becomes a piece of `_steps`. Master weights
        begin and end here, where the group's flag has changed since the state was made."""
        entry = self._state[self._params[i]]
        program = self._program(i)
        if MASTER not in program.state_names:
            entry.pop(MASTER, None)
        elif MASTER not in entry:
            entry[MASTER] = first_master(self._params[i], self._home(self._params[i]))
        missing = [name for name in ("step", *program.state_names) if name not in entry]
        missing += [name + SCALE for name in program.state_names if _lacks_scales(entry, name)]
        if missing:
            raise KeyError(
                f"the state of parameter {i} has the keys {sorted(map(str, entry))} but not {missing}; rule "
                f"'{program.name}' needs them: delete the state of the parameter to start afresh"
            )
        entry["step"] = self._cell(i, step_count(f"state of parameter {i}: step", entry["step"]))
        self._place(i, entry)

    def _cell(self, i: int, count: int) -> torch.Tensor:
        """Returns element i of `_steps` as a tensor with a storage of its own, so that saving it saves 8 bytes and not
        all numbers."""
        self._steps[i] = count
        cell = torch.empty(0, dtype=self._steps.dtype, device=self._steps.device).set_(self._piece(i), 0, (), ())
        self._cells[i], self._seen[i] = cell, count
        return cell

    def _piece(self, i: int) -> torch.UntypedStorage:
        """Returns the storage of element i."""
        return torch.frombuffer(self._memory, dtype=torch.float64, count=1, offset=8 * i).untyped_storage()

    def _place(self, i: int, entry: dict[str, Any]) -> None:
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
            clips = self.clips and not self._scales
            check_shardable(self._program(i), i, self._params[i], clips=clips, captured=not self._may_wait)
            self._localise(i)
        else:
            self._tensors[i] = self._copies.dense(i, self._params[i])

    def _check_shared(self) -> None:
        if self._copies.pairs:
            self._copies.check_shared((i, self._params[i]) for i in sorted(self._placed))

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


def _lacks_scales(entry: dict[str, Any], name: str) -> bool:
    value = entry.get(name)
    return isinstance(value, torch.Tensor) and value.dtype in CODES and name + SCALE not in entry
