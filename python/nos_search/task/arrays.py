"""Owns tasks of a user's own arrays: examples and their classes become splits, and sizes that nobody named are
chosen."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import UsageError
from ..net import Inputs, parse
from .base import Budget, Split, Task, standardise

_SHARE: Final = 0.15  # of the examples, that go to validation, and as many to test
_LEAST: Final = 20  # examples that can be divided into three splits
_BATCH: Final = 64
_SWEEP_EPOCHS, _TRAIN_EPOCHS = 1, 5  # as in the paper
_NETS: Final = {"image": "convnet-2-8", "row": "mlp-2-64", "context": "mlp-1-64"}


def from_arrays(
    x: Any,
    y: Any,
    *,
    val: tuple[Any, Any] | None,
    test: tuple[Any, Any] | None,
    net: str | None,
    batch_size: int | None,
    sweep_steps: int | None,
    train_steps: int | None,
    score: str,
    mirrors: bool,
    name: str,
    seed: int,
) -> Task:
    """See Task.from_arrays."""
    for argument, count in (("batch_size", batch_size), ("sweep_steps", sweep_steps), ("train_steps", train_steps)):
        if count is not None and count < 1:
            raise UsageError(f"{argument} {count} is below 1; leave it out for a size that fits the data")
    train = _examples("x", "y", (x, y))
    parts = {"val": val, "test": test}
    found = {part: _examples(f"{part}[0]", f"{part}[1]", pair) for part, pair in parts.items() if pair is not None}
    for part, (other, _) in found.items():
        if other.shape[1:] != train[0].shape[1:] or other.dtype != train[0].dtype:
            raise UsageError(
                f"{part}[0] has examples of shape {tuple(other.shape[1:])} and x has examples of "
                f"{tuple(train[0].shape[1:])}, or one of them has tokens; give all splits the same shape and kind"
            )
    missing = [part for part in parts if part not in found]
    if missing:
        train, *drawn = _divided(*train, parts=len(missing), seed=seed)
        found.update(zip(missing, drawn, strict=True))
    splits = [train, found["val"], found["test"]]
    tokens = not train[0].is_floating_point()
    is_row = train[0].shape[1:3] == (1, 1)
    inputs = [part for part, _ in splits]
    if not tokens:
        inputs = _features(*inputs) if is_row else list(standardise(*inputs))
    answers = [answer for _, answer in splits]
    classes = 1 + max(int(answer.max()) for answer in answers)
    if classes < 2:
        raise UsageError("y has one class only, so there is nothing to learn; give examples of two classes or more")
    shape = None
    if tokens:
        shape = Inputs("context", vocabulary=1 + max(int(part.max()) for part in inputs), length=inputs[0].shape[1])
    kind = "context" if tokens else "row" if is_row else "image"
    spec = parse(net or _NETS[kind], "context" if tokens else "image")
    size = min(batch_size or _BATCH, len(answers[0]))
    epoch = max(1, len(answers[0]) // size)
    budget = Budget(size, sweep_steps or _SWEEP_EPOCHS * epoch, train_steps or _TRAIN_EPOCHS * epoch)
    data_train, data_val, data_test = (Split(part, answer) for part, answer in zip(inputs, answers, strict=True))
    task = Task(
        name,
        data_train,
        data_val,
        data_test,
        classes=classes,
        width=spec.width,
        budget=budget,
        net=spec.name,
        depth=spec.depth,
        inputs=shape,
        mirrors=mirrors,
    )
    return task.with_options(score=score)  # which checks the score, and that the network fits


def _examples(name: str, name_of_y: str, pair: tuple[Any, Any]) -> tuple[Tensor, Tensor]:
    """Returns inputs (n, c, h, w) of floats or (n, length) of tokens, and classes (n,)."""
    if len(pair) != 2:
        raise UsageError(f"{name} and {name_of_y}: got {len(pair)} arrays; give a pair (x, y)")
    inputs, classes = _array(name, pair[0]), _array(name_of_y, pair[1])
    if classes.dtype.kind not in "iu" or classes.ndim != 1:
        raise UsageError(
            f"{name_of_y} has shape {classes.shape} and dtype {classes.dtype}; give class numbers 0, 1, ... as "
            "integers of shape (n,) (cut a continuous target into classes, and number names of classes, first)"
        )
    if len(inputs) != len(classes) or len(classes) == 0:
        raise UsageError(f"{name} has {len(inputs)} examples and {name_of_y} has {len(classes)} classes; give one each")
    if int(classes.min()) < 0:
        raise UsageError(f"{name_of_y} has the class {int(classes.min())}; number classes from 0")
    if inputs.dtype.kind in "iub" and inputs.ndim == 2 and inputs.dtype != np.uint8:
        if int(inputs.min()) < 0:
            raise UsageError(f"{name} has the token {int(inputs.min())}; number tokens from 0")
        return torch.from_numpy(inputs.astype(np.int64)), torch.from_numpy(classes.astype(np.int64))
    if inputs.dtype.kind not in "fiub" or inputs.ndim not in (2, 3, 4):
        raise UsageError(
            f"{name} has shape {inputs.shape} and dtype {inputs.dtype}; give numbers of shape (n, features), images "
            "(n, height, width) or (n, channels, height, width), or integer tokens (n, length)"
        )
    floats = inputs.astype(np.float32)
    if not np.isfinite(floats).all():
        raise UsageError(f"{name} has values that are not finite in float32; fill or leave out these examples")
    if floats.ndim == 2:
        floats = floats[:, None, None, :]  # an image of one row
    elif floats.ndim == 3:
        floats = floats[:, None]
    return torch.from_numpy(np.ascontiguousarray(floats)), torch.from_numpy(classes.astype(np.int64))


def _array(name: str, value: Any) -> NDArray[Any]:
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise UsageError(f"{name} is no array: {error}; give a NumPy array or a torch tensor") from None
    if array.ndim == 0 or array.dtype.kind == "O":
        raise UsageError(f"{name} is a {type(value).__name__}, and no array of numbers; give a NumPy array or a tensor")
    return array


def _features(train: Tensor, *others: Tensor) -> list[Tensor]:
    """Returns rows of features, each with mean 0 and variance 1 over the training split, or 0 where it is constant."""
    mean, std = train.mean(0), train.std(0)
    return [torch.where(std > 0, (x - mean) / std, 0.0).contiguous() for x in (train, *others)]


def _divided(x: Tensor, y: Tensor, *, parts: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Returns what is left of the examples, and `parts` splits that were drawn from them."""
    if len(y) < _LEAST:
        raise UsageError(
            f"x has {len(y)} examples, too few to divide; give at least {_LEAST}, or splits of your own: "
            "val=(x, y), test=(x, y)"
        )
    order = torch.from_numpy(np.random.RandomState(seed).permutation(len(y)))
    count = max(1, round(_SHARE * len(y)))
    cuts = [order[parts * count :], *[order[k * count : (k + 1) * count] for k in range(parts)]]
    return [(x[cut], y[cut]) for cut in cuts]
