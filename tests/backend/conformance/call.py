"""Owns Call: one call of the engine, given by values, and the memory in which it is made."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import nos_ext

OPS = {op["name"]: op["domain"] for op in nos_ext.op_table()}
BF16 = np.dtype(np.uint16)  # bfloat16 travels as its bits
Lists = list[list[Any]]  # params, grads, states: arrays, and None where a gradient is missing


@dataclass(frozen=True)
class Call:
    """A step of one program on all tensors, or of a population: one program for each slice of their leading dimension.

    Every back-end must write the same bits for it. Where `earlier` is given, the call is two steps: the one before took
    these gradients, which lie elsewhere in memory.
    """

    programs: Sequence[nos_ext.Program]
    lists: Lists
    rows: Sequence[dict[str, float]] = ({"lr": 0.1},)  # hyperparameters: of each param group, or of each slice
    row_of: Sequence[int] = ()  # the param group of each tensor, which never falls; empty: there is one group
    population: bool = False
    seeds: Sequence[int] = (5,)  # one for all, or one per slice
    step: int = 3
    total_steps: float = 10.0
    maximize: bool = False
    grad_scale: float | None = None
    stochastic_rounding: bool | str = False
    tensor_index: int = 0
    earlier: Sequence[Any] | None = None
    offset: int = 0  # elements that every tensor lies off a multiple of 64 bytes
    guarded: str = ""  # "before", "behind": there is a page next to every tensor that may not be touched
    shared: tuple[tuple[int, int], tuple[int, int]] | None = None  # (list, tensor) twice: the second lies in the first
    scales: Sequence[Sequence[Any]] = ()  # of each state: a float32 array per tensor, None where it is not quantized
    refused: str = ""  # what the error says that the call must raise

    def row(self, tensor: int, piece: int) -> dict[str, float]:
        return self.rows[piece if self.population else self.row_of[tensor] if self.row_of else 0]

    def seed(self, piece: int) -> int:
        return self.seeds[piece if len(self.seeds) > 1 else 0]

    @property
    def slices(self) -> int:
        return len(self.programs) if self.population else 1

    @property
    def numbers(self) -> set[int]:
        """The lists in which a tensor has one number for each slice."""
        return {2 + p.state_names.index(name) for p in self.programs for name in p.per_tensor_states}

    def uses(self, *domains: str) -> bool:
        """Whether a program has an op of one of these domains."""
        return any(OPS[op] in domains for p in self.programs for op, *_ in p.code)


def canonical(x: np.ndarray) -> np.ndarray:
    """The bits, with one NaN for all: which of them an operation gives is the machine's choice."""
    if x.dtype.kind == "i" or x.dtype == np.uint8:
        return x
    if x.dtype == BF16:
        return np.where(x & 0x7FFF > 0x7F80, np.uint16(0x7FC0), x)
    x = np.where(np.isnan(x), np.nan, x).astype(x.dtype)
    return x.view({2: np.uint16, 4: np.uint32, 8: np.uint64}[x.itemsize])


class Memory:
    """Where the tensors of a call lie: between elements that nobody may change, or between pages that nobody may touch."""

    PAD = 32  # elements on either side, which is a multiple of 64 bytes
    CANARY = 77

    def __init__(self, call: Call) -> None:
        self._rooms: list[tuple[np.ndarray, int, int]] = []  # the array, and where its tensor begins and ends
        self._guarded = call.guarded
        self._offset = call.offset
        self.lists: Lists = [[self._put(x) for x in one] for one in call.lists]
        self.scales: Lists = [[self._put(x) for x in one] for one in call.scales]
        self.earlier = None if call.earlier is None else [self._put(x) for x in call.earlier]
        if call.shared:
            (one, i), (other, j) = call.shared
            self.lists[other][j] = self.lists[one][i]

    def _put(self, x: Any) -> Any:
        if x is None:
            return None
        room, begin = self._room(x.size, x.dtype)
        room[begin : begin + x.size] = x
        self._rooms.append((room, begin, begin + x.size))
        return room[begin : begin + x.size]

    def _room(self, size: int, dtype: np.dtype) -> tuple[np.ndarray, int]:
        if self._guarded:
            return guarded(size, dtype, self._guarded), 0
        item = dtype.itemsize
        count = size + 2 * self.PAD + self._offset
        raw = np.empty(count * item + 64, np.uint8)
        start = -raw.ctypes.data % 64
        room = raw[start : start + count * item].view(dtype)
        room[:] = self.CANARY
        return room, self.PAD + self._offset

    def untouched(self) -> bool:
        """Whether everything beside the tensors is as it was."""
        return all((r[:a] == self.CANARY).all() and (r[b:] == self.CANARY).all() for r, a, b in self._rooms)

    def results(self) -> Iterator[np.ndarray]:
        """The bits of all parameters, gradients, states and scales."""
        return (canonical(x) for one in (*self.lists, *self.scales) for x in one if x is not None)


def guarded(size: int, dtype: np.dtype, where: str) -> np.ndarray:
    """An array that begins where a page ends which may not be touched, or ends where one begins."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    page, needed = mmap.PAGESIZE, size * dtype.itemsize
    end = page + -(-max(needed, 1) // page) * page
    memory = np.frombuffer(mmap.mmap(-1, end + page), np.uint8)
    for guard in (0, end):
        assert libc.mprotect(memory.ctypes.data + guard, page, 0) == 0
    begin = page if where == "before" else end - needed
    return memory[begin : begin + needed].view(dtype)
