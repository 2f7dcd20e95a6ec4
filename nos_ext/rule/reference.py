"""Owns `reference`, which evaluates one step of a rule node by node with NumPy or torch. It is for checks, and slow."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .._memory import has_memory
from .._numbers import LAST_STEP, integer, listed, shown
from ..matrix import orthogonalize
from . import philox
from .definition import Definition
from .expr import ELEMENT, SCALAR, TENSOR, Expr, postorder
from .matrix import NewtonSchulz
from .table import DRAWS, GLOBAL, RANDOM, REDUCTIONS, numpy_function, torch_function


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
    in float32, and returned in their own dtype. Scalars and what is one number per tensor are computed in float64.

    Returns:
        The new parameters, and the new states as ``{name: [tensors]}``. Where a gradient is None or a parameter has no
        elements both are copies.

    Raises:
        TypeError: the rule has no such hyperparameter, or a value is no number.
        ValueError: the rule reads T and total_steps is None, the states are not those of the rule, or lists, shapes or
            numbers do not fit.
    """
    for name in hyperparameters:
        if name not in rule.hyperparameters:
            known = ", ".join(rule.hyperparameters)
            raise TypeError(f"rule '{rule.name}' has no hyperparameter {name!r}; it has {known}")
    params, grads = listed("params", params, "a list of tensors"), listed("grads", grads, "a list of tensors")
    lists = _states(rule, state)
    named = dict(zip(rule.state_names, lists, strict=True))
    others = {"grads": grads, **{f"state[{k!r}]": x for k, x in named.items()}}
    _check_lists(params, others)
    for name, states in named.items():
        _check_states(rule, name, states, params, grads)
    if isinstance(state, Mapping) and len(state) > len(named):
        raise ValueError(f"state has the keys {[*state]}; rule '{rule.name}' has the states {[*named]}")
    for name, members in {"params": params, **others}.items():
        for i, x in enumerate(members):
            if x is not None and not _library(x).has_values(x):
                raise ValueError(f"{name}[{i}] is {shown(x)}, which has no values in memory; pass one that has some")
    given = {**rule.hyperparameters, "lr": lr, **hyperparameters}
    order = postorder(rule.simplified)
    if total_steps is None and any(node.op == "total" for node in order):
        raise ValueError(f"total_steps is None; rule '{rule.name}' reads T: pass the length of the training in steps")
    hypers = {name: _number(name, value) for name, value in given.items()}
    step = integer("step", _number("step", step), 1, LAST_STEP)
    seed = integer("seed", seed, 0, 2**64 - 1)
    total = math.nan if total_steps is None else _number("total_steps", total_steps)
    if total_steps is not None and not 0 < total < math.inf:
        raise ValueError(f"total_steps is {shown(total_steps)}; pass the length of the training in steps, above 0")
    scalars = _scalars(order, hypers, step, total)
    scale = 1.0 if grad_scale is None else _number("grad_scale", grad_scale)
    if scale == 0:
        raise ValueError("grad_scale is 0; pass a number that is not 0")
    factor = (-1.0 if maximize else 1.0) / scale

    tensors: dict[int, _Tensor] = {}
    for i, (p, g) in enumerate(zip(params, grads, strict=True)):
        old = [p, *[states[i] for states in lists]]
        if g is not None and 0 not in _library(p).like.shape:
            tensors[i] = _Tensor(rule, scalars, old, g, factor, (seed, step, tensor_index + i))
    _compute(order, list(tensors.values()))

    new_params: list[Any] = []
    new_state: dict[str, list[Any]] = {name: [] for name in rule.state_names}
    for i, p in enumerate(params):
        old = [p, *[states[i] for states in lists]]
        new = tensors[i].results(old) if i in tensors else [_library(p).result(x, x) for x in old]
        new_params.append(new[0])
        for name, value in zip(rule.state_names, new[1:], strict=True):
            new_state[name].append(value)
    return new_params, new_state


def _states(rule: Definition, state: Mapping[str, Sequence[Any]] | Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
    """Returns the lists of states in slot order."""
    names = list(rule.state_names)
    if isinstance(state, Mapping):
        if not set(names).issubset(state):
            raise ValueError(f"state has the keys {[*state]}; rule '{rule.name}' has the states {names}")
        lists = [state[name] for name in names]
    else:
        lists = listed("state", state, "{name: [tensors]} or the lists in slot order")
    if len(lists) != len(names):
        raise ValueError(f"state has {len(lists)} lists; rule '{rule.name}' has the states {names}")
    return [listed(f"state[{name!r}]", states, "a list of tensors") for name, states in zip(names, lists, strict=True)]


def _check_lists(params: Sequence[Any], others: Mapping[str, Sequence[Any]]) -> None:
    for name, tensors in others.items():
        if len(tensors) != len(params):
            raise ValueError(f"{name} has {len(tensors)} tensors but params has {len(params)}; pass one per parameter")
    for i, (p, g) in enumerate(zip(params, others["grads"], strict=True)):
        if g is not None and _shape(g) != _shape(p):
            raise ValueError(
                f"grads[{i}] has shape {_shape(g)} but params[{i}] has {_shape(p)}; pass tensors of equal shape"
            )


def _check_states(
    rule: Definition, name: str, states: Sequence[Any], params: Sequence[Any], grads: Sequence[Any]
) -> None:
    """Raises ValueError for states of codes, and for those of a wrong shape where there is something to compute."""
    is_number = name in rule.per_tensor_states
    for i, (x, p) in enumerate(zip(states, params, strict=True)):
        kind = str(getattr(x, "dtype", "")).removeprefix("torch.")
        if kind in ("int8", "uint8"):
            raise ValueError(
                f"state[{name!r}][{i}] is {kind}, whose scales reference does not read; pass states of floats, as "
                "init_state without a state_dtype makes them"
            )
        if grads[i] is not None and 0 not in _shape(p) and _shape(x) != (() if is_number else _shape(p)):
            wanted = "() for one number per tensor" if is_number else f"{_shape(p)} as params[{i}]"
            raise ValueError(f"state[{name!r}][{i}] has shape {_shape(x)}; it must be {wanted}")


def _shape(x: Any) -> tuple[int, ...]:
    return tuple(x.shape) if hasattr(x, "shape") else np.shape(x)


def _number(name: str, value: Any) -> float:
    """Returns a number, or the element of a tensor, as a float."""
    try:
        if not isinstance(value, str | bytes):
            return float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        pass
    raise TypeError(f"{name} is {shown(value)}; pass a number or a tensor of one element")


def _scalars(order: Sequence[Expr], hypers: Mapping[str, float], step: int, total: float) -> dict[Expr, Any]:
    """Computes the values of all scalar nodes, in float64."""
    fixed: dict[str, Any] = {"step": step, "total": total}
    values: dict[Expr, Any] = {}
    with np.errstate(all="ignore"):
        for node in order:
            if node.level != SCALAR:
                continue
            if node.args:
                values[node] = numpy_function(node.op)(*[values[x] for x in node.args])
            else:
                values[node] = np.float64(
                    hypers[str(node.value)] if node.op == "hyper" else fixed.get(node.op, node.value)
                )
    return values


def _compute(order: Sequence[Expr], tensors: Sequence[_Tensor]) -> None:
    """Computes the values of all nodes. No tensor goes on after a global reduction before all have come to it."""
    done = 0
    with np.errstate(all="ignore"):
        for place, node in enumerate(order):
            if node.op in GLOBAL and tensors:
                for tensor in tensors:
                    tensor.compute(order[done:place])
                vectors = [np.concatenate([tensor.vector(x) for tensor in tensors]) for x in node.args]
                value = numpy_function(node.op)(*vectors)
                for tensor in tensors:
                    tensor.numbers[node] = value
                done = place
        for tensor in tensors:
            tensor.compute(order[done:])


class _NumPy:
    """_NumPy computes in float64 arrays of the shape of p."""

    def __init__(self, p: Any) -> None:
        self.like = np.asarray(p)

    def function(self, op: str) -> Callable[..., Any]:
        return numpy_function(op)

    def tensor(self, x: Any) -> Any:
        return np.asarray(x, dtype=np.float64)

    scalar = tensor

    def number(self, x: Any) -> Any:
        return np.float64(np.asarray(x).item())

    def doubles(self, x: Any) -> Any:
        return x

    @staticmethod
    def has_values(x: Any) -> bool:
        return True

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
        x = x.detach() if isinstance(x, self._torch.Tensor) else self._torch.from_numpy(np.array(x, order="C"))
        return x.to(dtype=self._dtype, device=self._device)

    def scalar(self, x: Any) -> Any:
        return self._torch.tensor(float(x), dtype=self._dtype, device=self._device)

    def number(self, x: Any) -> Any:
        return np.float64(x.item())

    def doubles(self, x: Any) -> Any:
        """Returns elements as a NumPy array in float64, for reductions."""
        return x.detach().double().cpu().numpy()

    @staticmethod
    def has_values(x: Any) -> bool:
        return bool(has_memory(x))

    def result(self, value: Any, like: Any) -> Any:
        out = self._torch.empty_like(like, requires_grad=False)
        if not isinstance(value, self._torch.Tensor):
            value = self._torch.tensor(float(value), dtype=self._torch.float64)
        return out.copy_(value.detach())


_Library = _NumPy | _Torch


def _library(p: Any) -> _Library:
    return _Torch(p) if type(p).__module__.partition(".")[0] == "torch" else _NumPy(p)


class _Tensor:
    """A _Tensor has the values of all nodes that are known so far, for one parameter.

    `old` has p, then the states. `key` is seed, step and number of the tensor.
    """

    def __init__(
        self,
        rule: Definition,
        scalars: Mapping[Expr, Any],
        old: Sequence[Any],
        g: Any,
        factor: float,
        key: tuple[int, int, int],
    ) -> None:
        self._rule = rule
        self._key = key
        self.library = library = _library(old[0])
        gradient = library.tensor(g)
        self._leaves = {"p": old[0], **dict(zip(rule.state_names, old[1:], strict=True))}
        self._gradient = gradient if factor == 1.0 else gradient * factor
        self.numbers = dict(scalars)  # of scalars, and of what is one number per tensor
        self._elements: dict[Expr, Any] = {}

    def compute(self, nodes: Sequence[Expr]) -> None:
        """Computes the values of nodes whose operands have been computed."""
        for node in nodes:
            if node.level == ELEMENT:
                self._elements[node] = self._element(node)
            elif node not in self.numbers:
                self.numbers[node] = self._number(node)

    def elements(self, node: Expr) -> Any:
        """Returns the value of a node for ops on elements: a number is rounded to their type."""
        if node not in self._elements:
            self._elements[node] = self.library.scalar(self.numbers[node])
        return self._elements[node]

    def vector(self, node: Expr) -> Any:
        """Returns the elements of a node as one row in float64."""
        return self.library.doubles(self.elements(node)).ravel()

    def results(self, old: Sequence[Any]) -> list[Any]:
        """Makes the new p and the new states."""
        values = [self.numbers[x] if x.level == TENSOR else self.elements(x) for x in self._rule.simplified]
        return [self.library.result(value, like) for value, like in zip(values, old, strict=True)]

    def _element(self, node: Expr) -> Any:
        library = self.library
        if node.op == "grad":
            return self._gradient
        if not node.args:
            return library.tensor(self._leaves["p" if node.op == "param" else str(node.value)])
        if isinstance(node.value, NewtonSchulz):
            out = library.tensor(self.elements(node.args[0])) + 0.0
            orthogonalize([out], node.value)
            return out
        random: dict[str, Any] = {}
        if node.op in RANDOM:
            kind = DRAWS[node.op]
            random[f"_{kind}"] = library.tensor(philox.draw(kind, library.like, *self._key, self._rule.sites[node]))
        return library.function(node.op)(*[self.elements(x) for x in node.args], **random)

    def _number(self, node: Expr) -> Any:
        if not node.args:
            return self.library.number(self._leaves[str(node.value)])
        if node.op in REDUCTIONS:
            return numpy_function(node.op)(*[self.vector(x) for x in node.args])
        return numpy_function(node.op)(*[self.numbers[x] for x in node.args])
