"""Owns the captured cohort: a stack whose whole step (forward, backward, update) is one CUDA graph.

A graph is captured once for a task, a number of children and a number of steps, and then serves every rule: programs,
learning rates and seeds are put into device memory (`nos_ext.CapturedStep`), weights and states into the graph's own
tensors. Small children are bound by the host that launches their kernels; a replay is one launch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor

import nos_ext

from ..net import Weights
from ..rules import CompiledRule
from ..task.base import Task
from .stack import Stack
from .training import cross_entropy, fresh_weights

_SLOTS: Final = 8  # state slots, as many as a rule may have
_KEPT: Final = 8  # graphs per process; the rungs of a sweep need three
_WARM_UP: Final = 3  # steps before a capture, as torch wants them


def capture(body: Callable[[], None]) -> Callable[[], None]:
    """Captures `body` on the current CUDA device and returns the replay. It runs `body` a few times before."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP):
            body()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        body()
    return graph.replay


class StepGraph:
    """This is one step of `count` children, with the tensors that it reads and writes.

    `params`, `running` and `slots` are stacked, as in `Stack`. `index` is that of the batch, int64. `losses` are those
    of each child before the update, in nats. `momentum` is that of the running statistics (Weights.momentum), one
    number. `step` is the captured update; its `load` and `set` change what the next replay does.
    """

    def __init__(self, task: Task, count: int, total_steps: int) -> None:
        first, device = fresh_weights(task, 0), task.train.x.device

        def stacked(tensors: Sequence[Tensor]) -> list[Tensor]:
            return [tensor.detach().expand(count, *tensor.shape).contiguous() for tensor in tensors]

        self.params, self.running = stacked(first.params), stacked(first.running)
        self._batch_statistics = [torch.zeros_like(running) for running in self.running]
        self._leaves = [param.detach().requires_grad_() for param in self.params]
        self._grads = [torch.zeros_like(param) for param in self.params]
        dtypes = [torch.float64 if param.dtype == torch.float64 else torch.float32 for param in self.params]
        self.slots = [
            [torch.zeros_like(p, dtype=dtype) for p, dtype in zip(self.params, dtypes, strict=True)]
            for _ in range(_SLOTS)
        ]
        batch = min(task.budget.batch_size, len(task.train))
        self.index = torch.zeros(batch, dtype=torch.int64, device=device)
        self.losses = torch.zeros(count, dtype=self.params[0].dtype, device=device)
        self.momentum = torch.ones((), dtype=self.params[0].dtype, device=device)
        self._task, self._model = task, task.model().stackable()
        self.step = self._captured_step(["g"] * count, total_steps)
        self.replay = self._capture(self._body)

    def _captured_step(self, rules: list[Any], total_steps: int) -> Any:
        return nos_ext.CapturedStep(
            rules, self.params, self._grads, self.slots, lr=[0.0] * len(rules), total_steps=total_steps
        )

    def _capture(self, body: Callable[[], None]) -> Callable[[], None]:
        return capture(body)

    def _loss(self, params: Sequence[Tensor], statistics: Sequence[Tensor], x: Tensor, y: Tensor) -> Tensor:
        weights = Weights(list(params), list(statistics))  # seen 0: the statistics become those of this batch
        return cross_entropy(self._model.logits(weights, x, training=True), y)

    def _body(self) -> None:
        train = self._task.train
        x, y = train.x.index_select(0, self.index), train.y.index_select(0, self.index)
        forward = torch.func.vmap(self._loss, in_dims=(0, 0, None, None))
        losses = forward(self._leaves, self._batch_statistics, x, y)
        for running, batch in zip(self.running, self._batch_statistics, strict=True):
            running.lerp_(batch, self.momentum)
        torch._foreach_copy_(self._grads, torch.autograd.grad(losses.sum(), self._leaves))
        self.losses.copy_(losses.detach())
        self.step()


class Graphs:
    """These are the graphs of a process, the latest used last."""

    def __init__(self, make: Callable[[Task, int, int], StepGraph] = StepGraph) -> None:
        self._make = make
        self._kept: OrderedDict[tuple[int, int, int], tuple[Task, StepGraph]] = OrderedDict()

    def get(self, task: Task, count: int, total_steps: int) -> StepGraph:
        """Returns a graph for the task, which is made now or found."""
        key = (id(task), count, total_steps)  # the task is kept, so that no other one gets its id
        if key not in self._kept:
            if len(self._kept) >= _KEPT:
                self._kept.popitem(last=False)
            self._kept[key] = (task, self._make(task, count, total_steps))
        self._kept.move_to_end(key)
        return self._kept[key][1]


GRAPHS: Final = Graphs()


class NoRoomError(ValueError):
    """A rule is larger than what graphs have room for."""


class GraphStack(Stack):
    """This is a `Stack` whose steps are replayed. There is one at a time: the next one takes the tensors of the graph.
    Raises NoRoomError."""

    def __init__(
        self,
        rules: Sequence[CompiledRule],
        task: Task,
        *,
        lrs: Sequence[float],
        total_steps: int,
        seed: int,
        graphs: Graphs = GRAPHS,
    ) -> None:
        self._graphs = graphs
        super().__init__(rules, task, lrs=lrs, total_steps=total_steps, seed=seed)

    def _begin(self) -> None:
        """Puts weights, states and rules into the graph. From here on its tensors are the stack's."""
        graph = self._graphs.get(self._task, len(self.lrs), self._total_steps)
        with torch.no_grad():
            torch._foreach_copy_(graph.params, self._raw)
            if graph.running:
                torch._foreach_copy_(graph.running, self._running)
            torch._foreach_zero_([x for slot in graph.slots for x in slot])
            for slot, values in zip(graph.slots, self._state, strict=False):
                torch._foreach_copy_(slot, values)
        try:
            for k, program in enumerate(self._programs):
                graph.step.load(program, index=k, lr=self.lrs[k])
        except ValueError as error:
            raise NoRoomError(str(error)) from error
        graph.step.set(step=self._step + 1, seed=self._rule_seed)
        self._raw, self._running = graph.params, graph.running
        self._state = graph.slots[: len(self._state)]
        self._graph, self._momentum = graph, -1.0

    def _advance(self) -> Tensor:
        self._graph.index.copy_(self._batches.next())
        momentum = Weights([], seen=self._step + 1).momentum
        if momentum != self._momentum:
            self._graph.momentum.fill_(momentum)
            self._momentum = momentum
        self._graph.replay()
        return self._graph.losses
