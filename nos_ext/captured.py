"""Owns CapturedStep: an optimizer step that a CUDA graph can hold while its rule and scalars change."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from . import _C
from ._numbers import LAST_STEP, flag, integer, listed, number, plain, shown
from .matrix import refusal
from .rule import MatrixProgram, Program, compile_rule

__all__ = ["CapturedStep"]


class CapturedStep:
    """A CapturedStep is one step of a rule that reads the rule, hyperparameters, seed and step number from device
    memory.

    Capture it once in a CUDA graph; `set` and `load` then change what the next replay does, without a new capture:

        >>> step = nos_ext.CapturedStep("g * exp(sign(g) * sign(m))", params, grads, state, lr=0.1)
        >>> with torch.cuda.graph(graph):
        ...     loss().backward()
        ...     step()
        >>> graph.replay()
        >>> step.set(lr=0.05)                 # the same rule, another learning rate
        >>> step.load(another_rule, step=1)   # another rule, from its first step

    A step is two kernels: a prologue counts the step up and evaluates the rule's scalar code in double, then one launch
    updates all tensors. A rule with reductions takes a few more, and then `load` refuses another rule, as it may need
    other launches. Everything is ordered by the current stream: replay, `set` and `load` on the same one.

    Args:
        rule: a `Program`, what `compile_rule` takes, or a list of K of these: a population, where program k updates
            slice k of the leading dimension, as in `apply_population`.
        params, grads, state: as in `apply_rule` (`apply_population` for a list), on one CUDA device. The tensors must
            keep their memory: gradients that are made before the capture and kept by
            ``zero_grad(set_to_none=False)``. `state` may have more lists than the rule, for later rules with more
            states.
        lr, **hyperparameters: numbers, or tensors of one element, which are read once; for a population also sequences
            of K numbers.
        step: number of the next step, 1-based.
        total_steps: length of the training in steps, for rules that read ``T``.
        seed: key of the random draws; for a population also a sequence of K.
        maximize, grad_scale, tensor_index: as in `apply_rule`.
        max_instructions, max_scalars, max_temporaries: room for later rules: device instructions, constants and scalar
            instructions each, and temporaries beyond the registers (each takes 8 KB of shared memory per block).

    Raises:
        ValueError, TypeError: an argument that does not fit; tensors on the CPU, or a build without CUDA.
        RuntimeError: a call but `step()` itself inside a capture; a CUDA error.
    """

    def __init__(
        self,
        rule: Any,
        params: Sequence[Any],
        grads: Sequence[Any],
        state: Mapping[str, Sequence[Any]] | Sequence[Sequence[Any]],
        *,
        lr: Any,
        step: int = 1,
        total_steps: float | None = None,
        seed: int | Sequence[int] = 0,
        maximize: bool = False,
        grad_scale: float | None = None,
        tensor_index: int = 0,
        max_instructions: int = 512,
        max_scalars: int = 128,
        max_temporaries: int = 4,
        **hyperparameters: Any,
    ) -> None:
        self._population = isinstance(rule, list | tuple)
        self._programs = [_program(r) for r in rule] if self._population else [_program(rule)]
        if not self._programs:
            raise ValueError("rule is an empty list; pass at least one rule")
        if isinstance(state, Mapping):
            names = self._programs[0].state_names
            if set(state) != set(names) or any(p.state_names != names for p in self._programs):
                raise ValueError(f"state has the keys {list(state)}; the rule has the states {list(names)}")
            state = [state[name] for name in names]
        params = listed("params", params, "a list of tensors")
        grads = listed("grads", grads, "a list of tensors")
        slots = listed("state", state, "{name: [tensors]} or the lists in slot order")
        slots = [tuple(listed(f"state {k}", slot, "a list of tensors")) for k, slot in enumerate(slots)]
        sizes = {"max_instructions": max_instructions, "max_scalars": max_scalars, "max_temporaries": max_temporaries}
        most = [integer(name, value, 0, 2**31 - 1) for name, value in sizes.items()]
        tensor_index = integer("tensor_index", tensor_index, 0, 2**31)
        self._factor = gradient_factor(flag("maximize", maximize), grad_scale)
        self._total = _length(total_steps)
        self._seeds = _seeds(seed, len(self._programs))
        self._hypers = [dict[str, float]() for _ in self._programs]
        for k in range(len(self._programs)):
            self._hypers[k] = self._values(k, {"lr": lr, **hyperparameters})
        self._check_total(self._programs)
        done = _step_number(step) - 1
        self._step = _C.CapturedStep(
            self._programs, self._population, tuple(params), tuple(grads), slots,
            [0] * len(params), len(self._programs), tensor_index, most[0], most[1], most[2],
        )  # fmt: skip
        self._step.set_head(done, self._factor)
        for k in range(len(self._programs)):
            self._write_row(k)

    def __call__(self) -> None:
        """Launches one step on the current stream; inside a capture, adds it to the graph."""
        self._step.launch()

    @property
    def step(self) -> int:
        """This is the number of the next step. Reading it waits for the current stream."""
        return int(self._step.steps_done()) + 1

    def set(self, *, step: int | None = None, seed: Any = None, total_steps: float | None = None, **hyper: Any) -> None:
        """Changes the step number, the seed, the length of the training or hyperparameters. What is not named stays.

        A hyperparameter of a population is one number or K of them, and reaches the programs that have it.
        """
        for name in hyper:
            if all(name not in p.hyperparameters for p in self._programs):
                raise TypeError(f"no rule of this step has a hyperparameter '{name}'")
        hypers = [
            {**self._hypers[k], **self._given(k, {n: v for n, v in hyper.items() if n in p.hyperparameters})}
            for k, p in enumerate(self._programs)
        ]
        seeds = self._seeds if seed is None else _seeds(seed, len(self._programs))
        total = self._total if total_steps is None else _length(total_steps)
        if step is not None:
            self._step.set_head(_step_number(step) - 1, self._factor)
        self._hypers, self._seeds, self._total = hypers, seeds, total
        for k in range(len(self._programs)):
            self._write_row(k)

    def load(
        self, rule: Any, *, index: int = 0, step: int | None = None, lr: float | None = None, **hyperparameters: Any
    ) -> None:
        """Puts another rule in the place of rule `index`. Graphs that were captured run it from their next replay on.

        Neither the rules of the step nor the other rule may have reductions. lr stays unless given; the other
        hyperparameters take the new rule's defaults. The states are left as they are:
        fill them with zeros for a fresh start.
        """
        index = integer("index", index, 0, len(self._programs) - 1)
        program = _program(rule)
        self._check_total([program])
        number = None if step is None else _step_number(step)
        before = self._programs[index]
        self._programs[index] = program
        try:
            values = self._values(index, {**hyperparameters, "lr": self._hypers[index]["lr"] if lr is None else lr})
            self._step.load(index, program)
        except BaseException:
            self._programs[index] = before
            raise
        self._hypers[index] = values
        if number is not None:
            self._step.set_head(number - 1, self._factor)
        self._write_row(index)

    # -- values -------------------------------------------------------------------------------------------------------

    def _given(self, k: int, given: Mapping[str, Any]) -> dict[str, float]:
        return {n: _number(n, _per_row(n, v, len(self._programs))[k]) for n, v in given.items()}

    def _values(self, k: int, given: Mapping[str, Any]) -> dict[str, float]:
        """Returns one value for each hyperparameter of program k: the one that is given, or else its default."""
        known = self._programs[k].hyperparameters
        for name in given:
            if name not in known and not (self._population and any(name in p.hyperparameters for p in self._programs)):
                raise TypeError(
                    f"rule '{self._programs[k].name}' has no hyperparameter '{name}'; it has {', '.join(known)}"
                )
        defaults = {n: v for n, v in known.items() if v is not None}
        return {**defaults, **self._given(k, {n: v for n, v in given.items() if n in known})}

    def _check_total(self, programs: Sequence[Program]) -> None:
        for p in programs:
            if p.uses_total_steps and self._total is None:
                raise ValueError(
                    f"total_steps is None; rule '{p.name}' reads T: pass the length of the training in steps"
                )

    def _write_row(self, k: int) -> None:
        total = math.nan if self._total is None else float(self._total)
        values = [self._hypers[k][name] for name in self._programs[k].hyperparameters]
        self._step.set_row(k, self._seeds[k], total, values)


# Names of arguments of CapturedStep, which no hyperparameter may have. (The compiler refuses the names of
# apply_rule's.)
_OWN: Final = frozenset(("rule", "index", "max_instructions", "max_scalars", "max_temporaries"))


def _program(rule: Any) -> Program:
    if isinstance(rule, bytes | bytearray | memoryview):
        rule = Program.from_bytes(rule)
    elif not isinstance(rule, Program | MatrixProgram):
        rule = compile_rule(rule)
    if isinstance(rule, MatrixProgram):
        raise refusal(rule, "a captured step")
    for name in rule.hyperparameters:
        if name in _OWN:
            raise ValueError(
                f"rule '{rule.name}' has a hyperparameter named '{name}', which is an argument of CapturedStep; "
                "rename it"
            )
    program: Program = rule
    return program


def _per_row(name: str, value: Any, rows: int) -> list[Any]:
    """Returns a value for every row, given one for all or as many as there are rows."""
    if not isinstance(value, list | tuple):
        return [value] * rows
    if len(value) != rows:
        raise ValueError(f"{name} has {len(value)} values but there are {rows} rules; pass one number or one per rule")
    return list(value)


def _number(name: str, value: Any) -> float:
    """Returns a hyperparameter as a number. A tensor of one element gives its element."""
    if not isinstance(plain(value), int | float) and hasattr(value, "item"):
        try:
            value = value.item()
        except (RuntimeError, ValueError):
            raise TypeError(f"{name} is {shown(value)}; pass a number or a tensor of one element") from None
    return number(name, value)


def _seeds(seed: Any, rows: int) -> list[int]:
    return [integer("seed", value, 0, 2**64 - 1) for value in _per_row("seed", seed, rows)]


def _length(total_steps: Any) -> float | None:
    if total_steps is None:
        return None
    total = number("total_steps", total_steps, "a number of steps, or None")
    if not total > 0:
        raise ValueError(f"total_steps is {shown(total_steps)}; pass a positive number of steps, or None")
    return total


def gradient_factor(maximize: bool, grad_scale: Any) -> float:
    """Returns what a step multiplies gradients with. `grad_scale` is what they have been multiplied with, or None.

    Raises ValueError where that is 0 or NaN.
    """
    scale = 1.0 if grad_scale is None else _number("grad_scale", grad_scale)
    if scale == 0 or math.isnan(scale):
        raise ValueError(f"grad_scale is {shown(grad_scale)}; pass a number that is not 0")
    return (-1.0 if maximize else 1.0) / scale


def _step_number(step: Any) -> int:
    return integer("step", step, 1, LAST_STEP)
