"""Owns the numbers of steps that parameters have taken: the `step` in each state is a piece of one tensor's memory, so
that the engine reads and advances all of them at once."""

from __future__ import annotations

import sys

import torch

from .._memory import has_memory


class StepNumbers:
    """StepNumbers are the numbers of an optimizer's parameters.

    They are float64, which counts on where float32 stops, at 2**24. Those of this class may be on a device; a captured
    step, which advances them there, compares the addresses of the cells itself.

    Fields:
        all: the tensor of them.
        cells: the `step` of every parameter that has a state, by the parameter's index.
    """

    def __init__(self, zeros: torch.Tensor) -> None:
        self.all = zeros
        self.cells: dict[int, torch.Tensor] = {}

    def start(self, i: int, taken: int) -> torch.Tensor:
        """Sets number i, and returns it as a tensor with a storage of its own, so that saving it saves 8 bytes and not
        all numbers."""
        self.all[i] = taken
        cell = torch.empty(0, dtype=self.all.dtype, device=self.all.device).set_(self._piece(i), 0, (), ())
        self.cells[i] = cell
        return cell

    def _piece(self, i: int) -> torch.UntypedStorage:
        """Returns the storage of number i."""
        size = self.all.element_size()
        piece: torch.UntypedStorage = self.all.untyped_storage()[i * size : (i + 1) * size]
        return piece

    def is_whole(self) -> bool:
        """Tells whether the memory of every cell is in use."""
        return True

    def settle(self) -> bool:
        """Looks whether a cell has other memory than that in which the engine counts. Returns whether one has."""
        return False


class HostStepNumbers(StepNumbers):
    """HostStepNumbers notice when a cell gets other memory, as by share_memory_(), an assignment to .data and set_().

    Every step notices it, and takes the number that stands there for the one that counts, unless the old memory stays
    in use elsewhere. Then a number that the parameter has had since the last look is taken for one that was moved, and
    brought up to date.
    """

    def __init__(self, count: int) -> None:
        self._memory = bytearray(8 * count)  # every tensor in it holds one reference to it
        super().__init__(torch.frombuffer(self._memory, dtype=torch.float64) if count else _none())
        self._seen: dict[int, float] = {}  # how many steps each had taken when it was last looked at
        self._own_holders = sys.getrefcount(self._memory)  # what is_whole() counts while there are no cells

    def start(self, i: int, taken: int) -> torch.Tensor:
        self._seen[i] = taken
        return super().start(i, taken)

    def _piece(self, i: int) -> torch.UntypedStorage:
        return torch.frombuffer(self._memory, dtype=torch.float64, count=1, offset=8 * i).untyped_storage()

    def is_whole(self) -> bool:
        return sys.getrefcount(self._memory) == self._own_holders + len(self.cells)

    def settle(self) -> bool:
        base, size = self.all.data_ptr(), self.all.element_size()
        moved = [i for i, cell in self.cells.items() if cell.data_ptr() != base + i * size]
        taken = self.all.tolist()
        if self.is_whole():
            for i in moved:
                cell = self.cells[i]
                stands = cell.numel() == 1 and has_memory(cell) and not cell.is_complex()
                if stands and self._seen[i] <= float(cell) < taken[i]:
                    with torch.inference_mode(False), torch.no_grad():
                        cell.fill_(taken[i])
        self._seen.update((i, taken[i]) for i in self.cells)
        return bool(moved)


def _none() -> torch.Tensor:
    """Returns no numbers, of which frombuffer makes no tensor."""
    return torch.zeros(0, dtype=torch.float64, device="cpu")
