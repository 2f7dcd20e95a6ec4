"""Owns `reference`, which evaluates one step of a rule node by node with NumPy or torch. It is for checks, and slow."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from . import philox
from .definition import Definition
from .expr import Expr, postorder
from .table import DRAWS, RANDOM, numpy_function, torch_function


def reference(
    rule: Definition,
    params: Sequence[Any],
    grads: Sequence[Any],
    state: Mapping[str, Sequence[Any]] | Sequence[Sequence[Any]] = (),
    *,
    lr: Any,
    step: int = 1,
    total_steps: float | None = None,
    seed: int = 0,
    maximize: bool = False,
    grad_scale: Any = None,
    tensor_index: int = 0,
    **hyperparameters: Any,
) -> tuple[list[Any], dict[str, list[Any]]]:
    """Computes one step and returns its results as new tensors. The arguments are those of nos_ext.apply_rule.

    NumPy arrays are computed and returned in float64. torch tensors are computed in float64 if they are float64, else
    in float32, and returned in their own dtype. Scalars are computed in float64.

    Returns:
        The new parameters, and the new states as ``{name: [tensors]}``. Where a gradient is None both are copies.

    Raises:
        TypeError: the rule has no such hyperparameter.
        ValueError: the rule reads T and total_steps is None, or the states are not those of the rule.
    """
    for name in hyperparameters:
        if name not in rule.hyperparameters:
            known = ", ".join(rule.hyperparameters)
            raise TypeError(f"rule '{rule.name}' has no hyperparameter {name!r}; it has {known}")
    lists = [state[name] for name in rule.state_names] if isinstance(state, Mapping) else list(state)
    if len(lists) != len(rule.state_names):
        raise ValueError(f"state has {len(lists)} lists; rule '{rule.name}' has the states {list(rule.state_names)}")
    given = {**rule.hyperparameters, "lr": lr, **hyperparameters}
    order = postorder(rule.simplified)
    if total_steps is None and any(node.op == "total" for node in order):
        raise ValueError(f"total_steps is None; rule '{rule.name}' reads T: pass the length of the training in steps")
    hypers = {name: float(value) for name, value in given.items()}
    scalars = _scalars(order, hypers, step, math.nan if total_steps is None else float(total_steps))
    factor = (-1.0 if maximize else 1.0) / (1.0 if grad_scale is None else float(grad_scale))

    new_params: list[Any] = []
    new_state: dict[str, list[Any]] = {name: [] for name in rule.state_names}
    for i, (p, g) in enumerate(zip(params, grads, strict=True)):
        old = [p, *[tensors[i] for tensors in lists]]
        library: _Library = _Torch(p) if type(p).__module__.partition(".")[0] == "torch" else _NumPy(p)
        if g is None:
            new = [library.result(x, x) for x in old]
        else:
            values = _tensors(rule, order, library, scalars, old, g, factor, (seed, step, tensor_index + i))
            new = [library.result(values[x], like) for x, like in zip(rule.simplified, old, strict=True)]
        new_params.append(new[0])
        for name, value in zip(rule.state_names, new[1:], strict=True):
            new_state[name].append(value)
    return new_params, new_state


def evaluate(
    order: Sequence[Expr],
    known: Mapping[Expr, Any],
    function: Callable[[str], Callable[..., Any]],
    draw: Callable[[Expr], Mapping[str, Any]] = lambda node: {},
) -> dict[Expr, Any]:
    """Computes the value of every node of a postorder list with the functions of the op table.

    `known` has the values of the leaves, and of any other nodes. `draw` gives the random operands of a random node.
    """
    values = dict(known)
    with np.errstate(all="ignore"):
        for node in order:
            if node not in values:
                random = draw(node) if node.op in RANDOM else {}
                values[node] = function(node.op)(*[values[x] for x in node.args], **random)
    return values


def _scalars(order: Sequence[Expr], hypers: Mapping[str, float], step: int, total: float) -> dict[Expr, Any]:
    """Computes the values of all scalar nodes, in float64."""
    fixed = {"step": step, "total": total}
    nodes = [node for node in order if node.scalar]
    leaves: dict[Expr, Any] = {}
    for node in nodes:
        if not node.args:
            value = hypers[str(node.value)] if node.op == "hyper" else fixed.get(node.op, node.value)
            leaves[node] = np.float64(value)
    return evaluate(nodes, leaves, numpy_function)


class _NumPy:
    """_NumPy computes in float64 arrays of the shape of p."""

    def __init__(self, p: Any) -> None:
        self.like = np.asarray(p)

    def function(self, op: str) -> Callable[..., Any]:
        return numpy_function(op)

    def tensor(self, x: Any) -> Any:
        return np.asarray(x, dtype=np.float64)

    scalar = tensor

    def result(self, value: Any, like: Any) -> Any:
        out: Any = np.empty_like(like, dtype=np.float64, subok=False)
        out[...] = value
        return out


class _Torch:
    """_Torch computes on p's device, in float64 if p is float64 and else in float32."""

    def __init__(self, p: Any) -> None:
        import torch

        self._torch = torch
        self._device = p.device
        self._dtype = torch.float64 if p.dtype == torch.float64 else torch.float32
        self.like = np.lib.stride_tricks.as_strided(np.empty(1), tuple(p.shape), p.stride())

    def function(self, op: str) -> Callable[..., Any]:
        return functools.partial(torch_function(op), _F=self._dtype)

    def tensor(self, x: Any) -> Any:
        x = x.detach() if isinstance(x, self._torch.Tensor) else self._torch.from_numpy(np.ascontiguousarray(x))
        return x.to(dtype=self._dtype, device=self._device)

    def scalar(self, x: Any) -> Any:
        return self._torch.tensor(float(x), dtype=self._dtype, device=self._device)

    def result(self, value: Any, like: Any) -> Any:
        out = self._torch.empty_like(like, requires_grad=False)
        return out.copy_(value.detach())


_Library = _NumPy | _Torch


def _tensors(
    rule: Definition,
    order: Sequence[Expr],
    library: _Library,
    scalars: Mapping[Expr, Any],
    old: Sequence[Any],
    g: Any,
    factor: float,
    key: tuple[int, int, int],
) -> dict[Expr, Any]:
    """Computes the values of all nodes for one parameter.

    `old` has p, then the states. `key` is seed, step and number of the tensor.
    """
    known = {node: library.scalar(value) for node, value in scalars.items()}
    gradient = library.tensor(g)
    leaves = {"p": library.tensor(old[0]), "g": gradient if factor == 1.0 else gradient * factor}
    leaves |= {name: library.tensor(x) for name, x in zip(rule.state_names, old[1:], strict=True)}
    for node in order:
        if not node.args and not node.scalar:
            known[node] = leaves[{"param": "p", "grad": "g"}.get(node.op) or str(node.value)]

    def draw(node: Expr) -> Mapping[str, Any]:
        kind = DRAWS[node.op]
        return {f"_{kind}": library.tensor(philox.draw(kind, library.like, *key, rule.sites[node]))}

    return evaluate(order, known, library.function, draw)
