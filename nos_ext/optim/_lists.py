"""Owns the engine calls of a step, and when what was laid out for them at an earlier step has to be made anew.

In the steady state a step is one call of `_C.Stepper`, which sees in C++ that nothing has been replaced and makes one
engine call for all param groups. More calls are made when step numbers or flags differ. What a user changes - groups,
parameters, states, step numbers - makes the Stepper ask for a new division or for new lists.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from .. import _C
from ..rule import MatrixProgram
from ._clipping import KEY as CLIP
from ._clipping import coefficient, common_clip_norm, running
from ._division import FLAGS, OTHER_FLAGS, Division
from ._grads import Gradients, check_grad, check_param
from ._hollow import take_steps
from ._masters import check_joint, keeps_masters
from ._placed import PlacedStates, States
from ._reductions import forms
from ._rules import Rules
from ._shards import global_norm, is_sharded
from ._stages import Stages
from ._values import Group, Scalar, check_tensor, is_capturable, needs_reading, to_number

_DONE, _DIVISION = 0, 1  # what _C.Stepper.step returns; any other number says that new lists are needed

Resolve = Callable[[str, Any, Group], Scalar]


class StepLists(PlacedStates):
    """StepLists are the lists for `groups` and `state` of an optimizer as they are now, and take its steps.

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

    def __init__(self, rules: Rules, groups: list[Group], state: States, owner: str) -> None:
        self.clips = common_clip_norm(groups) is not None
        own = rules.forms(groups)  # of each group
        self._masters = list(map(keeps_masters, groups))
        check_joint(own)
        self._norm = math.nan  # of the last step that scaled by it
        sharded = any(is_sharded(p) for group in groups for p in group["params"])
        apart = sharded or any(isinstance(program, MatrixProgram) for program in own)
        self._scales = self.clips and apart and self._may_wait
        engine_clips = self.clips and not self._scales
        joins = sharded and self._may_wait
        staged = forms(own, [group["params"] for group in groups]) if joins else own
        run = [running(program, engine_clips) for program in staged]  # by the engine
        self._programs = list(dict.fromkeys(run)) or [running(rules.default.program, engine_clips)]
        self._program_of = [self._programs.index(program) for program in run]  # of each group
        self._hypers = [tuple(program.hyperparameters) for program in run]  # of each group
        slots = max(len(program.state_names) for program in self._programs)
        super().__init__(groups, state, own, slots, engine_clips, owner)
        self._gradients = Gradients(owner, self._params, self._tensors, self._sharded)
        self._division = Division(rules, groups, own, self._group_of, self._tensors)
        self._stepper = self._make_stepper()
        stages = Stages(staged, self._group_of, self._params, self._tensors, self._states, self._state_scales)
        self._stages = stages if stages else None  # None costs a step nothing

    def settle(self) -> bool:
        """Looks whether a `step` in the state has other memory than that in which the engine counts
        (`StepNumbers.settle`). Returns whether one has."""
        return self._numbers.settle()

    def _make_stepper(self) -> Any:
        watched = [tuple([name for name in names if name != CLIP]) for names in self._hypers]
        return _C.Stepper(
            self._programs, self._program_of, self._groups, self._state, watched, (*FLAGS, *OTHER_FLAGS), self._tensors,
            self._states, self._state_scales, self._numbers.all, self._numbers.all.data_ptr(),
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

        if not self._numbers.is_whole():
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
        parts = self._division.by(grads, self._numbers.all.tolist())
        self._stages.run(grads, parts, value, scale, self._stand_ins.members)

    @property
    def grad_norm(self) -> float:
        """The norm of all gradients in the last step, before they were clipped."""
        return self._norm if self._scales else float(self._stepper.gradient_norm)

    def _scaled(self, grads: list[Any], scale: Any) -> tuple[list[Any], float]:
        """Returns gradients and their scale such that the engine's division by the scale clips them."""
        divisor = 1.0 if scale is None else float(to_number("grad_scale", scale))
        if not divisor or not self._gradients.are_readable(grads):
            return grads, divisor  # the engine refuses these by name
        self._norm = global_norm(self._params, grads) / abs(divisor)
        clip = coefficient(common_clip_norm(self._groups) or 0.0, self._norm)
        if math.isnan(clip):  # no scale makes this of numbers
            return [None if grad is None else torch.full_like(grad, math.nan) for grad in grads], divisor
        return grads, divisor / clip if clip else math.inf

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
        parts = self._division.by(grads, self._numbers.all.tolist())
        clip = common_clip_norm(self._groups)
        clips = [clip] if self._engine_clips and clip is not None else []
        self._stepper.divide([(members, *key) for *key, members in parts], read, clips)
