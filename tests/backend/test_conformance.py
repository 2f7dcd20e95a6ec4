"""Every back-end that is compiled in, or that the host can run, gives the same bits for every call of the suite."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import pytest

import nos_ext
from tests.backend.conformance.backends import (
    BACKENDS,
    NOT_TAKEN,
    ROOT,
    Device,
    Engine,
    OtherProcess,
    Reference,
    answers,
    outcome,
)
from tests.backend.conformance.call import Call, Memory
from tests.backend.conformance.cases import GROUPS


@cache
def expected(group: str) -> list[str]:
    return answers(Reference(), [group])[group]


def other_bits(backend: Any, groups: tuple[str, ...]) -> list[tuple[str, int]]:
    """The calls whose results differ from the reference's."""
    found = backend.answers(groups) if isinstance(backend, OtherProcess) else answers(backend, groups)
    wrong = []
    for group in groups:
        assert any(found[group]), f"{backend.name} takes no call of {group}"
        both = enumerate(zip(found[group], expected(group), strict=True))
        wrong += [(group, k) for k, (ours, theirs) in both if ours not in (theirs, NOT_TAKEN)]
    return wrong


def difference(backend: Any, group: str, number: int) -> str:
    """The first element that differs, and what was called."""
    call: Call = next(itertools.islice(GROUPS[group](), number, None))
    ours = backend.bits(group, number) if isinstance(backend, OtherProcess) else outcome(backend, call, number)
    theirs = outcome(Reference(), call, 0)
    for k, (a, b) in enumerate(zip(ours or [], theirs or [], strict=True)):
        for i in np.flatnonzero(a != b)[:1]:
            code = call.programs[0].disassemble()
            return f"{group} {number}: tensor {k} of {a.size}, element {i}: {a[i]:#x}, not {b[i]:#x}\n{code}"
    return f"{group} {number}: not when it is called alone"


@pytest.mark.parametrize("name", BACKENDS)
def test_same_bits(name: str) -> None:
    backend = BACKENDS[name]
    wrong = other_bits(backend, tuple(backend.groups))
    shown = "\n".join(difference(backend, *one) for one in wrong[:3])
    assert not wrong, f"{len(wrong)} calls have other bits than the reference:\n{shown}"


def test_every_back_end_is_in_the_suite() -> None:
    folders = {path.name for path in (ROOT / "csrc/backend").iterdir() if path.is_dir()}
    assert folders <= {*nos_ext.build_info()}, "a folder has no row in csrc/plan/devices.def"
    assert {backend.folder for backend in BACKENDS.values()} == folders


def test_tensors_that_are_copied_to_a_device_and_back() -> None:
    """The way in which the suite calls a device, where there is none."""
    copied = Device("by copies", device="cpu:0")
    assert (
        other_bits(copied, ("layouts", "kinds_together", "param_groups", "moved_gradients", "populations", "refusals"))
        == []
    )


@dataclass
class Faulty(Engine):
    """A back-end that overlooks a part of every call."""

    overlooks: Mapping[str, Any] = field(default_factory=dict)

    def make(self, call: Call, memory: Memory, tuning: Mapping[str, int]) -> None:
        if "earlier" in self.overlooks and memory.earlier is not None:
            memory.earlier = [x.copy() for x in memory.lists[1]]
        super().make(replace(call, **self.overlooks), memory, tuning)


@pytest.mark.parametrize(
    ("group", "overlooks"),
    [
        ("layouts", {"tensor_index": 0}),
        ("layouts", {"seeds": [0]}),
        ("layouts", {"step": 1}),
        ("factors", {"maximize": False}),
        ("factors", {"grad_scale": None}),
        ("stochastic_rounding", {"stochastic_rounding": False}),
        ("stochastic_rounding", {"stochastic_rounding": "states"}),
        ("param_groups", {"row_of": [0, 0, 0, 0, 0]}),
        ("populations", {"seeds": [100]}),
        ("moved_gradients", {"earlier": None}),
        ("populations", {"total_steps": 11.0}),
    ],
    ids=str,
)
def test_a_fault_is_seen(group: str, overlooks: dict[str, Any]) -> None:
    assert other_bits(Faulty("faulty", overlooks=overlooks), (group,))


def test_what_is_written_beside_a_tensor_is_seen() -> None:
    class Beside(Engine):
        def make(self, call: Call, memory: Memory, tuning: Mapping[str, int]) -> None:
            super().make(call, memory, tuning)
            p = memory.lists[0][0]
            ctypes.memset(p.ctypes.data + p.nbytes, 0, 1)

    with pytest.raises(AssertionError, match="wrote beside a tensor"):
        answers(Beside("beside"), ["factors"])


def test_what_must_be_refused_and_is_not_is_seen() -> None:
    class Lenient(Engine):
        def make(self, call: Call, memory: Memory, tuning: Mapping[str, int]) -> None:
            pass

    with pytest.raises(AssertionError, match="lenient took what it must refuse"):
        answers(Lenient("lenient"), ["refusals"])
