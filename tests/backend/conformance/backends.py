"""Owns the ways of making a call: the reference, what says the meaning of a call, and every back-end.

A back-end that cannot run in this process, as the instruction set is chosen when the module is loaded, answers from one
of its own. All answers are digests of bits, one per call; where two differ, both calls are made again for their bits.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import nos_ext
from nos_ext import _C

from .call import BF16, Call, Memory
from .cases import GROUPS

ROOT = Path(__file__).resolve().parents[3]
Answers = dict[str, list[str]]  # digests by group
# groups of so few rules that each may be compiled
FEW_RULES = ("outputs", "layouts", "kinds_together", "factors", "param_groups", "moved_gradients", "refusals")
NOT_TAKEN = ""  # the digest of a call that a back-end does not take


def outcome(backend: Any, call: Call, number: int) -> list[np.ndarray] | None:
    """The bits of all tensors after a call; None where it is not taken. The number chooses how the work is cut, which
    must not show."""
    if not backend.takes(call):
        return None
    memory = Memory(call)
    try:
        with np.errstate(all="ignore"):
            backend.make(call, memory, backend.tunings[number % len(backend.tunings)])
    except ValueError as error:
        if not call.refused or not re.search(call.refused, str(error)):
            raise
    else:
        assert not call.refused or backend.name == "reference", f"{backend.name} took what it must refuse"
    assert memory.untouched(), f"{backend.name} wrote beside a tensor"
    return list(memory.results())


def digest(arrays: Sequence[np.ndarray] | None) -> str:
    if arrays is None:
        return NOT_TAKEN
    found = hashlib.sha256()
    for x in arrays:
        found.update(x.tobytes())
    return found.hexdigest()


def answers(backend: Any, groups: Sequence[str]) -> Answers:
    """What a back-end of this process answers."""
    return {g: [digest(outcome(backend, call, k)) for k, call in enumerate(GROUPS[g]())] for g in groups}


def torch_tensor(x: np.ndarray | None) -> Any:
    """The same memory."""
    import torch

    if x is None:
        return None
    return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16) if x.dtype == BF16 else torch.from_numpy(x)


def named(program: nos_ext.Program, states: Sequence[Any], scales: Sequence[Any]) -> Any:
    """The states as apply_rule takes them: by name where they have scales."""
    if not scales:
        return states
    names = program.state_names
    return dict(zip([*names, *(f"{name}.scale" for name in names)], [*states, *scales], strict=True))


class Reference:
    """What a call means: apply_rule on one slice of one tensor after the other, with the number that it has in the call.
    A rule that reduces all tensors together gets the same slice of all of them.

    It is the CPU back-end as this process has loaded it, so the others are compared with each other too.
    """

    name = "reference"
    groups: Sequence[str] = tuple(GROUPS)
    tunings: Sequence[Any] = (None,)

    def takes(self, call: Call) -> bool:
        return True

    def make(self, call: Call, memory: Memory, tuning: None) -> None:
        if call.refused:
            return
        steps = [(memory.lists[1], call.step)]
        if memory.earlier is not None:
            steps.insert(0, (memory.earlier, call.step - 1))
        for grads, step in steps:
            lists = [memory.lists[0], grads, *memory.lists[2:]]
            count = len(lists[0])
            # a global reduction is one of all tensors
            cuts = [(0, count)] if call.uses("global") else [(i, i + 1) for i in range(count)]
            for begin, end in cuts:
                for piece, program in enumerate(call.programs):
                    here = [one[begin:end] for one in lists[: 2 + len(program.state_names)]]
                    self._slice(call, program, begin, piece, step, here, [one[begin:end] for one in memory.scales])

    def _slice(
        self,
        call: Call,
        program: nos_ext.Program,
        i: int,
        piece: int,
        step: int,
        lists: Sequence[Sequence[Any]],
        scales: Sequence[Sequence[Any]],
    ) -> None:
        def tensor(number: int, x: np.ndarray | None) -> Any:
            if x is None:
                return None
            own = x.reshape(call.slices, -1)[piece]
            return torch_tensor(own.reshape(()) if number in call.numbers else own)

        p, g, *states = ([tensor(number, x) for x in one] for number, one in enumerate(lists))
        nos_ext.apply_rule(
            program, p, g, named(program, states, [[torch_tensor(x) for x in one] for one in scales]), step=step, total_steps=call.total_steps, seed=call.seed(piece),
            maximize=call.maximize, grad_scale=call.grad_scale, stochastic_rounding=call.stochastic_rounding,
            tensor_index=call.tensor_index + i,
            **{name: value for name, value in call.row(i, piece).items() if name in program.hyperparameters},
        )  # fmt: skip


@dataclass
class Engine:
    """A back-end behind nos_ext's own functions, by the device of the tensors."""

    name: str
    folder: str = "cpu"  # of csrc/backend
    device: str = "cpu"
    groups: Sequence[str] = tuple(GROUPS)
    tunings: Sequence[Mapping[str, int]] = (
        {},
        *(
            {"block": block, "chunk": chunk, "threads": threads}
            for block, (chunk, threads) in itertools.product((4, 12, 128, 512), ((16, 2), (132, 1), (65536, 2)))
        ),
    )

    def takes(self, call: Call) -> bool:
        return True

    def make(self, call: Call, memory: Memory, tuning: Mapping[str, int]) -> None:
        _C.set_tuning(**tuning)
        try:
            known: dict[int, Any] = {}
            lists = [[self._there(x, call.offset, known) for x in one] for one in memory.lists]
            scales = [[self._there(x, call.offset, known) for x in one] for one in memory.scales]
            earlier = memory.earlier and [self._there(x, call.offset, known) for x in memory.earlier]
            if call.row_of:
                self._by_an_optimizer(call, lists, earlier)
            elif earlier is None:
                self._cut(call, lists, scales, len(memory.lists[0]))
            else:
                self._step(call, [lists[0], earlier, *lists[2:]], scales, call.step - 1, 0)
                self._step(call, lists, scales, call.step, 0)
        finally:
            _C.set_tuning()
            if self.device != "cpu":
                self._back(memory.lists, lists)
                self._back(memory.scales, scales)

    def _cut(self, call: Call, lists: list[list[Any]], scales: list[list[Any]], count: int) -> None:
        """Calls with many tensors are made in pieces, by tensor_index."""
        cut = count > 8 and not call.uses("global")
        for begin, end in ((0, 7), (7, 8), (8, count)) if cut else ((0, count),):
            here = [[one[begin:end] for one in every] for every in (lists, scales)]
            self._step(call, *here, call.step, begin)

    def _step(self, call: Call, lists: list[list[Any]], scales: list[list[Any]], step: int, first: int) -> None:
        common = {
            "step": step, "total_steps": call.total_steps, "maximize": call.maximize, "grad_scale": call.grad_scale,
            "stochastic_rounding": call.stochastic_rounding, "tensor_index": call.tensor_index + first,
        }  # fmt: skip
        if call.population:
            lists = [
                [None if x is None else x.view(call.slices, *[-1] * (number not in call.numbers)) for x in one]
                for number, one in enumerate(lists)
            ]
            rows = {name: [row[name] for row in call.rows] for name in call.rows[0]}
            seed: Any = call.seeds[0] if len(call.seeds) == 1 else list(call.seeds)
            nos_ext.apply_population(call.programs, lists[0], lists[1], lists[2:], seed=seed, **common, **rows)
        else:
            lists = [[x.view(()) for x in one] if number in call.numbers else one for number, one in enumerate(lists)]
            states = named(call.programs[0], lists[2:], scales)
            nos_ext.apply_rule(
                call.programs[0], lists[0], lists[1], states, seed=call.seeds[0], **common, **call.rows[0]
            )

    def _by_an_optimizer(self, call: Call, lists: list[list[Any]], earlier: list[Any]) -> None:
        """Two steps from the beginning: states start as zeros, and are the optimizer's until the end."""
        import torch

        from nos_ext.optim import RuleOptimizer

        assert call.step == 2
        assert not any(s.any() for one in lists[2:] for s in one)
        params = [torch.nn.Parameter(p) for p in lists[0]]
        groups = [
            {"params": [p for p, r in zip(params, call.row_of, strict=True) if r == number], **row}
            for number, row in enumerate(call.rows)
        ]
        optimizer = RuleOptimizer(
            groups, call.programs[0], seed=call.seeds[0], total_steps=call.total_steps, **call.rows[0]
        )
        for grads in (earlier, lists[1]):
            for p, g in zip(params, grads, strict=True):
                p.grad = g.to(p.dtype)
            optimizer.step()
        for name, states in zip(call.programs[0].state_names, lists[2:], strict=True):
            for p, s in zip(params, states, strict=True):
                s.copy_(optimizer.state[p][name])

    def _there(self, x: np.ndarray | None, offset: int, known: dict[int, Any]) -> Any:
        """On the device, as far off alignment as here; an array that is known is there already."""
        tensor = torch_tensor(x)
        if self.device == "cpu" or tensor is None:
            return tensor
        import torch

        if id(x) not in known:
            room = torch.empty(tensor.numel() + offset, dtype=tensor.dtype, device=self.device)
            known[id(x)] = room[offset:].copy_(tensor)
        return known[id(x)]

    def _back(self, there: Sequence[Sequence[Any]], lists: list[list[Any]]) -> None:
        for ours, theirs in zip(there, lists, strict=True):
            for x, y in zip(ours, theirs, strict=True):
                if x is not None:
                    torch_tensor(x).copy_(y)


@dataclass
class Device(Engine):
    """The CUDA back-end on a device. Of double functions it has the libraries' last bits, so it takes exact ones only."""

    folder: str = "cuda"
    device: str = "cuda"
    groups: Sequence[str] = tuple(GROUPS)
    jit: str = "never"
    tunings: Sequence[Mapping[str, int]] = ({},)
    INEXACT = frozenset({"exp", "log", "pow", "tanh"})

    def takes(self, call: Call) -> bool:
        wide = any(p.dtype == np.float64 for p in call.lists[0]) or call.uses("reduce", "global")
        return not wide or not any(op in self.INEXACT for p in call.programs for op, *_ in p.code)

    def make(self, call: Call, memory: Memory, tuning: Mapping[str, int]) -> None:
        before = nos_ext.set_jit(self.jit)
        try:
            super().make(call, memory, tuning)
        finally:
            nos_ext.set_jit(before)


@dataclass
class CudaOnHost:
    """The CUDA back-end's tables and kernels, run by the host (tests/backend/cuda/host.py).

    The kernel is the interpreter's, or one that was compiled for the rule of the call.
    """

    name: str = "the CUDA kernel on the host"
    folder: str = "cuda"
    compiled: Any = None
    groups: Sequence[str] = tuple(GROUPS)
    tunings: Sequence[Mapping[str, int]] = ({}, {"registers": 0}, {"chunk": 32}, {"chunk": 1024, "registers": 4})
    blocks: int = 0  # of the last call

    def takes(self, call: Call) -> bool:
        return True

    def make(self, call: Call, memory: Memory, tuning: Mapping[str, int]) -> None:
        from tests.backend.cuda import host

        self.blocks = host.apply(
            call.programs if call.population else call.programs[0], memory.lists[0], memory.lists[1], memory.lists[2:],
            groups=call.rows, group_of=call.row_of or None, step=call.step, total_steps=call.total_steps,
            seeds=[call.seed(row) for row in range(len(call.rows))], tensor_index=call.tensor_index,
            factor=(-1 if call.maximize else 1) / (call.grad_scale or 1), stochastic_rounding=call.stochastic_rounding,
            first_grads=memory.earlier, compiled=self.compiled, scales=memory.scales or None, **tuning,
        )  # fmt: skip


@dataclass
class OtherProcess:
    """The CPU back-end in a process whose environment chooses the instruction set and the tier."""

    name: str
    environment: dict[str, str]
    folder: str = "cpu"
    groups: Sequence[str] = tuple(GROUPS)

    def answers(self, groups: Sequence[str]) -> Answers:
        return json.loads(self._run("--groups", *groups))

    def bits(self, group: str, number: int) -> list[np.ndarray]:
        with tempfile.NamedTemporaryFile(suffix=".npz") as file:
            self._run("--bits", group, str(number), file.name)
            with np.load(file.name) as found:
                return [found[f"arr_{i}"] for i in range(len(found.files))]

    def _run(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "tests.backend.conformance", *arguments]
        path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
        # threads that wait for each other do it asleep, as the machine may be busy
        environment = {**os.environ, "OMP_WAIT_POLICY": "passive", **self.environment, "PYTHONPATH": path}
        out = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
        assert out.returncode == 0, out.stderr[-4000:]
        return out.stdout


def cpu_backends() -> Iterator[OtherProcess]:
    for isa in nos_ext.build_info()["cpu"]["isas"]:
        for native in ("0", "1") if isa != "baseline" else ("0",):
            name = f"{'native' if native == '1' else 'interpreter'}, {isa}"
            yield OtherProcess(name, {"NOS_ISA": isa, "NOS_NATIVE": native})


def cuda_backends() -> Iterator[Any]:
    yield CudaOnHost()
    if nos_ext.build_info()["cuda"]["devices"]:
        yield Device("CUDA, interpreted")
        if not _C.jit_status().startswith("off"):
            yield Device("CUDA, compiled", jit="always", groups=FEW_RULES)


BACKENDS = {b.name: b for b in (*cpu_backends(), *cuda_backends())}
