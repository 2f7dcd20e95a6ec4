"""Owns norms and other reductions of parameters of which this process holds shards.

The engine computes what the shards add to each reduction, all processes add that up together, and what it is then of
the whole tensors is what the engine reads in the place of the reduction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from ..engine import apply_rule
from ..rule import MatrixProgram, Program
from ..rule.expr import Expr
from ..rule.program import SplitProgram, split
from ..rule.table import GLOBAL
from ._hollow import is_hollow
from ._shards import Sharding, join, sharding

_DIVIDED: Final = ("mean", "rms")  # by the number of elements
_ROOTS: Final = ("norm", "rms", "global_norm")


def forms(
    programs: Sequence[Program | MatrixProgram], params: Iterable[Sequence[Any]]
) -> list[Program | MatrixProgram | SplitProgram]:
    """Returns what each group runs, given its rule and its parameters: the rule itself, or cut at its reductions.

    It is cut where a parameter is sharded, and also where a global reduction goes over shards in other groups. A rule
    that draws random numbers is not; `check_shardable` refuses it.

    Raises:
        RuleError: a rule cannot be cut.
    """
    sharded = [any(sharding(p) for p in members) for members in params]
    joins = any(here and _has_globals(program) for program, here in zip(programs, sharded, strict=True))
    out: list[Program | MatrixProgram | SplitProgram] = []
    for program, here in zip(programs, sharded, strict=True):
        if not isinstance(program, Program) or not program.has_tensor_scalars or (here and program.uses_random):
            out.append(program)
        else:
            out.append(split(program) if here or (joins and _has_globals(program)) else program)
    return out


def _has_globals(program: Program | MatrixProgram) -> bool:
    return isinstance(program, Program) and any(op in GLOBAL for op, *_ in program.code)


@dataclass(frozen=True)
class Call:
    """A Call has what the stages of a rule get: gradients, of which those of other calls are None, and arguments."""

    program: SplitProgram
    grads: list[Any]
    arguments: dict[str, Any]


@dataclass(frozen=True)
class _Pass:
    """A _Pass says what is done to the numbers after a stage. All but `count` are indices into the table.

    Fields:
        joined: for each kind of sharding, the sums and the largest magnitudes that the processes join.
        totals: the numbers of several tensors that are added up, and become their sum.
        divided, count: those that are divided by a number of elements, and by which.
        roots: those whose root is taken.
    """

    joined: list[tuple[Sharding, torch.Tensor, torch.Tensor]]
    totals: list[torch.Tensor]
    divided: torch.Tensor
    count: torch.Tensor
    roots: torch.Tensor


class Reductions:
    """Reductions is a table of numbers in float64, with a row for each reduction of a rule and a column for each
    parameter. Its elements are states of the stages: one writes there what the part in this process is, and the next
    one reads there what the reduction is.

    Args:
        programs: the rules that are cut, by the numbers of their groups.
        group_of: of each parameter.
        params: the parameters.
        tensors: what the engine updates for each of them.
        states: the lists of states by slot.
    """

    def __init__(
        self,
        programs: Mapping[int, SplitProgram],
        group_of: Sequence[int],
        params: Sequence[Any],
        tensors: Sequence[Any],
        states: Sequence[list[Any]],
    ) -> None:
        self._programs = programs
        self._columns = {
            g: [i for i, group in enumerate(group_of) if group == g and not is_hollow(params[i])] for g in programs
        }
        self._params = params
        self._tensors = tensors
        self._states = states
        self._table: torch.Tensor | None = None
        self._passes: list[_Pass] = []
        self._done = 0  # passes of this step

    def begin(self) -> None:
        """Begins a step. What has no gradient, or no element in this process, adds nothing."""
        device = next((self._params[i].device for columns in self._columns.values() for i in columns), "cpu")
        with torch.inference_mode(False), torch.no_grad():
            if self._table is None or self._table.device != torch.device(device):
                self._make_table(torch.device(device))
            assert self._table is not None
            self._table.zero_()
        self._done = 0

    def _make_table(self, device: torch.device) -> None:
        rows = max(len(_names(program)) for program in self._programs.values())
        table = torch.zeros((rows, len(self._params)), dtype=torch.float64, device=device)
        cells = [row.unbind() for row in table.unbind()]
        for group, program in self._programs.items():
            for row, states in zip(cells, self._states[len(program.state_names) :], strict=False):
                for i in self._columns[group]:
                    states[i] = row[i]
        stages = max(len(program.stages) for program in self._programs.values())
        self._passes = [self._pass(number, device) for number in range(stages - 1)]
        self._table = table

    def _pass(self, number: int, device: torch.device) -> _Pass:
        joined: dict[Sharding, tuple[list[int], list[int]]] = {}
        totals: dict[Any, list[int]] = {}
        divided: list[int] = []
        count: list[int] = []
        roots: list[int] = []
        for group, program in self._programs.items():
            for name, node in program.results[number] if number < len(program.results) else ():
                first = _names(program).index(name) * len(self._params)
                for i in self._columns[group]:
                    kind = sharding(self._params[i])
                    if kind is not None:
                        joined.setdefault(kind, ([], []))[node.op == "max_abs"].append(first + i)
                    if node.op in GLOBAL:
                        totals.setdefault(_owner(program, name, node), []).append(first + i)
                    if node.op in _DIVIDED:
                        divided.append(first + i)
                        count.append(self._params[i].numel())
                    if node.op in _ROOTS:
                        roots.append(first + i)

        def index(places: list[int]) -> torch.Tensor:
            return torch.tensor(places, dtype=torch.int64, device=device)

        return _Pass(
            [(kind, index(sums), index(largest)) for kind, (sums, largest) in joined.items()],
            [index(places) for places in totals.values()],
            index(divided),
            torch.tensor(count, dtype=torch.float64, device=device),
            index(roots),
        )

    def run(self, calls: Sequence[Call]) -> None:
        """Runs the stages of all calls side by side, so that the processes communicate once after each.

        After an error it goes on where it was, when it is called again in the same step: the other processes may not
        have had the error, and would not communicate again.
        """
        while self._done < len(self._passes):
            for call in calls:
                program = call.program
                if self._done < len(program.stages) - 1:
                    stage = program.stages[self._done]
                    lists = dict(zip(program.stages[-1].state_names, self._states, strict=False))
                    lists = {name: lists[name] for name in stage.state_names}
                    apply_rule(stage, self._tensors, call.grads, lists, **call.arguments)
            with torch.inference_mode(False), torch.no_grad():
                self._finish(self._passes[self._done])
            self._done += 1

    def _finish(self, how: _Pass) -> None:
        """Makes the reductions of what this process has of them."""
        assert self._table is not None
        numbers = self._table.view(-1)
        for kind, *places in how.joined:
            for is_largest, index in enumerate(places):
                if index.numel():
                    numbers[index] = join(numbers[index], kind, largest=bool(is_largest))
        for index in how.totals:
            numbers[index] = _total(numbers[index])
        numbers[how.divided] = numbers[how.divided] / how.count
        numbers[how.roots] = numbers[how.roots].sqrt()


def _names(program: SplitProgram) -> tuple[str, ...]:
    """Returns the states of the last stage that are reductions, in slot order."""
    return tuple(program.stages[-1].state_names[len(program.state_names) :])


def _owner(program: SplitProgram, name: str, node: Expr) -> Any:
    """Returns what tells that tensors have parts of one global reduction. As in the engine that is the rule, but what
    is made of p and g alone is of the parameters of all rules that have it."""
    operands = tuple([x.op for x in node.args])
    return (node.op, operands) if {"param", "grad"}.issuperset(operands) else (program.program, name)


def _total(numbers: torch.Tensor) -> torch.Tensor:
    """Adds up numbers in an order that is the same on every device, so that all processes have the same bits."""
    while len(numbers) > 1:
        half = (len(numbers) + 1) // 2
        rest = numbers[half:]
        numbers = torch.cat([numbers[: len(rest)] + rest, numbers[len(rest) : half]])
    return numbers
