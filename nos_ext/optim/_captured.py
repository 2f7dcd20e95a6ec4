"""Owns the step of optimizers with capturable=True, whose launches a CUDA graph can hold.

Every launch reads its scalars and the number of the step from device memory, so replays count, and follow a learning
rate that is a tensor. A step outside a capture uses the same launches; their tables are made again when tensors move.
A step inside a capture has tables of its own, which last as long as the optimizer: gradients that the capture makes lie
at addresses of the graph's own pool.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from .. import _C
from ..captured import gradient_factor
from ._clipping import common_clip_norm
from ._division import FLAGS, OTHER_FLAGS
from ._lists import Resolve, StepLists
from ._masters import keeps_masters
from ._placed import States
from ._rules import Rules
from ._step_numbers import StepNumbers
from ._values import Group, check_capturable, is_capturable, to_number

_KEPT: Final = 4  # tables of eager steps that are kept: gradients that are made anew take turns in a few places
_READABLE: Final = (torch.float32, torch.float64)


@dataclass(frozen=True)
class _Part:
    """A _Part has the parameters of one launch. Element i of `mask`, in float64 on the device, is 1.0 if the launch
    counts a step of parameter i."""

    members: list[int]
    flags: tuple[Any, ...]  # their values, in the order of FLAGS
    mask: torch.Tensor


@dataclass(frozen=True)
class _Row:
    """A _Row is what the launch gets for a param group: numbers, or the memory from which they are read.

    `sources` has an address for each hyperparameter, or 0 for none. Bit i of `wide` says that the number at source i is
    a float64.
    """

    values: tuple[float, ...]
    sources: tuple[int, ...]
    wide: int


class _Tables:
    """_Tables are a `_C.CapturedStep`, with what was last put into it."""

    def __init__(self, step: Any, key: Any) -> None:
        self.step, self.key = step, key
        self.head: Any = None
        self.rows: dict[int, Any] = {}

    def set_head(self, *head: Any) -> None:
        if self.head != head:
            self.step.set_head(0, *head)
            self.head = head

    def set_row(self, number: int, seed: int, total_steps: float | None, row: _Row) -> None:
        if self.rows.get(number) != (seed, total_steps, row):
            total = math.nan if total_steps is None else float(total_steps)
            self.step.set_row(number, seed, total, row.values, row.sources, row.wide)
            self.rows[number] = (seed, total_steps, row)


class CapturedLists(StepLists):
    """CapturedLists are `StepLists` on one CUDA device, whose launches can be captured."""

    _may_wait = False

    def __init__(self, rules: Rules, groups: list[Group], state: States, owner: str) -> None:
        self._parts: list[_Part] = []
        self._divided: Any = None  # what the parts were made of
        self._eager: list[_Tables] = []  # the latest ones first
        self._held: list[_Tables] = []  # those that graphs read
        super().__init__(rules, groups, state, owner)
        if len(self._programs) > 1:
            raise ValueError(
                "capturable is True but param groups have different rules, or master weights in some of them only, "
                "which a captured step cannot run; leave it False, or make an optimizer for each"
            )
        self._kept_groups = list(groups)  # keeps the groups alive, so that no other object gets their id
        self._shape = self._shape_of(groups, state)

    def _make_numbers(self, count: int) -> StepNumbers:
        for i, param in enumerate(self._params):
            if not _on_device(param):
                raise ValueError(
                    f"capturable is True but parameter {i} is on {param.device}; CUDA graphs need parameters on a CUDA "
                    "device: move the model before the optimizer is used, or leave capturable False"
                )
        device = self._params[0].device if self._params else torch.device("cpu")
        return StepNumbers(torch.zeros(count, dtype=torch.float64, device=device))

    def _make_stepper(self) -> Any:
        return None

    @property
    def in_graphs(self) -> bool:
        """Tells whether a step was captured."""
        return bool(self._held)

    @property
    def grad_norm(self) -> float:
        """The norm of the gradients is on the device alone: whoever wants it here would have to wait for it."""
        return math.nan

    # -- one step -----------------------------------------------------------------------------------------------------

    def step(self, groups: Any, state: Any, resolve: Resolve, scale: Any) -> bool:
        capturing = _is_capturing()
        if self._shape != self._shape_of(groups, state):
            if capturing:
                raise _too_late("param groups or states have been replaced")
            return False
        grads = self._prepared()
        if grads is None:
            if capturing:
                raise _too_late("a parameter has become another tensor")
            return False
        division = self._division_of(grads)
        if division != self._divided:
            if capturing:
                raise _too_late("other parameters than in the last step have a gradient, or flags have changed")
            self._divide_by_counts(grads)
            self._divided = division
            self._shape = self._shape_of(groups, state)
        rows = [self._row(group, resolve) for group in groups]
        factor = gradient_factor(False, scale)
        try:
            ready = self._ready(grads, rows, factor, capturing)
        except (TypeError, ValueError):  # nothing has been launched by then
            if not self._repair(grads):
                raise
            ready = self._ready(grads, rows, factor, capturing)
        for part, tables in zip(self._parts, ready, strict=True):
            self._count(part)
            tables.step.launch()
        self._finish(grads)
        return True

    def _count(self, part: _Part) -> None:
        with torch.no_grad():
            self._numbers.all.add_(part.mask)

    # -- what has changed ---------------------------------------------------------------------------------------------

    def _shape_of(self, groups: list[Group], state: States) -> Any:
        """Returns a value that stays equal while groups, parameters and states are the objects of which the lists were
        made."""
        params = [[id(p) for p in group["params"]] for group in groups]
        entries = [[(name, id(x)) for name, x in state[p].items()] if state.get(p) else None for p in self._params]
        # A step that has moved to other memory is not counted any more.
        counts = [cell.data_ptr() for cell in self._numbers.cells.values()]
        kinds = common_clip_norm(groups) is not None, is_capturable(groups), list(map(keeps_masters, groups))
        return id(groups), id(state), [id(group) for group in groups], params, entries, counts, kinds

    def _division_of(self, grads: Sequence[Any]) -> Any:
        flags = [tuple(group[name] for name in (*FLAGS, *OTHER_FLAGS)) for group in self._groups]
        return [g is not None for g in grads], flags

    def _divide_by_counts(self, grads: Sequence[Any]) -> None:
        """Divides the parameters into launches by their flags and numbers of steps. It waits for the device."""
        self._make_missing(grads)
        parts = []
        for _, *flags, members in self._division.by(grads, self._numbers.all.tolist()):
            if self._programs[0].uses_total_steps and flags[FLAGS.index("total_steps")] is None:
                raise ValueError(
                    f"total_steps is None; rule '{self._programs[0].name}' reads T: pass the length of the training"
                )
            mask = torch.zeros(len(self._params), dtype=self._numbers.all.dtype, device="cpu")
            mask[members] = 1.0
            parts.append(_Part(members, tuple(flags), mask.to(self._numbers.all.device)))
        self._parts, self._eager = parts, []

    # -- tables -------------------------------------------------------------------------------------------------------

    def _row(self, group: Group, resolve: Resolve) -> _Row:
        values, sources, wide = [], [], 0
        for i, name in enumerate(self._hypers[0]):
            value = resolve(name, group[name], group)
            if isinstance(value, torch.Tensor) and _on_device(value):
                if value.dtype not in _READABLE or value.device != self._numbers.all.device:
                    raise TypeError(
                        f"{name} is a tensor of {value.dtype} on {value.device}; with capturable=True pass float32 or "
                        f"float64 on {self._numbers.all.device}, or a number"
                    )
                wide |= (value.dtype == torch.float64) << i
                values.append(math.nan)
                sources.append(value.data_ptr())
                continue
            check_capturable(name, value)
            values.append(to_number(name, value))
            sources.append(0)
        return _Row(tuple(values), tuple(sources), wide)

    def _ready(self, grads: list[Any], rows: list[_Row], factor: float, capturing: bool) -> list[_Tables]:
        """Returns the tables of every part, found or made anew, with the scalars of this step in them."""
        out = []
        for part in self._parts:
            tables = self._tables(part, grads, capturing)
            maximize, seed, total_steps, rounding = part.flags
            tables.set_head((-factor if maximize else factor), rounding, self._numbers.all[part.members[0]].data_ptr())
            for number, row in enumerate(rows):
                tables.set_row(number, seed, total_steps, row)
            out.append(tables)
        if capturing:
            self._held += out  # graphs read their memory, so they are kept
        return out

    def _tables(self, part: _Part, grads: list[Any], capturing: bool) -> _Tables:
        chosen: list[Any] = [None] * len(grads)
        for i in part.members:
            chosen[i] = grads[i]
        lists = [self._tensors, chosen, *self._states, *self._state_scales]
        key = [x.data_ptr() if x is not None else 0 for one in lists for x in one]
        if not capturing:
            for tables in self._eager:
                if tables.key == key:
                    self._eager.remove(tables)
                    self._eager.insert(0, tables)
                    return tables
        # There is room for this rule and no other, as it is never exchanged.
        step = _C.CapturedStep(
            self._programs, False, tuple(self._tensors), tuple(chosen), [tuple(s) for s in self._states],
            self._group_of, len(self._groups), 0, 0, 0, 0, True, [tuple(s) for s in self._state_scales],
        )  # fmt: skip
        tables = _Tables(step, key)
        if not capturing:
            self._eager = [tables, *self._eager][: _KEPT * len(self._parts)]
        return tables


def _on_device(tensor: torch.Tensor) -> bool:
    return tensor.is_cuda


def _is_capturing() -> bool:
    return torch.cuda.is_current_stream_capturing()


def _too_late(what: str) -> RuntimeError:
    return RuntimeError(
        f"{what}, and the step is being captured; take a step like the captured one before the capture (torch's "
        "recipe: a few warm-up steps on a side stream)"
    )
