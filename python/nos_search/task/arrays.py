"""Owns tasks of a user's own arrays: examples and their classes become splits, and sizes that nobody named are
chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..bounds import MOST
from ..errors import UsageError
from ..net import Inputs, parse
from .base import Budget, Split, Task, standardise

_SHARE: Final = 0.15  # of the examples, that go to validation, and as many to test
_LEAST: Final = 20  # examples that can be divided into three splits
_BATCH: Final = 64
_HIGHEST: Final = 2**31 - 2  # number of a class or a token
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
        if count is not None:
            _check_whole(argument, count, 1, MOST["--train-steps"], "leave it out for a size that fits the data")
    _check_whole("seed", seed, 0, 2**32 - 1, "leave it out for 0")  # those of RandomState
    for argument, text in (("net", net), ("score", score), ("name", name)):
        if not isinstance(text, str) and not (text is None and argument == "net"):
            raise UsageError(f"{argument} is a {type(text).__name__}; give it as text")
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
        if float(inputs[0].min()) == float(inputs[0].max()):
            raise UsageError(
                f"x has the value {float(inputs[0].min()):g} everywhere, so there is nothing to learn from; give "
                "examples that differ"
            )
        inputs = _features(*inputs) if is_row else list(standardise(*inputs))
    if not all(bool(part.isfinite().all()) for part in inputs if not tokens):
        raise UsageError(
            "x has values so far apart that their mean and variance are not finite in float32; scale them down"
        )
    answers = [answer for _, answer in splits]
    if int(answers[0].min()) == int(answers[0].max()):
        where = "y" if all(bool((answer == answers[0][0]).all()) for answer in answers) else "y, where it trains,"
        raise UsageError(
            f"{where} has one class only, so there is nothing to learn; give examples of two classes or more"
        )
    classes = _numbered("class", "y", answers)
    shape = None
    if tokens:
        shape = Inputs("context", vocabulary=_numbered("token", "x", inputs), length=inputs[0].shape[1])
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


def _check_whole(argument: str, value: Any, least: int, most: int, remedy: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise UsageError(f"{argument} is {value!r}, a {type(value).__name__}; give a whole number, or {remedy}")
    if value < least:
        raise UsageError(f"{argument} {value} is below {least}; {remedy}")
    if value > most:
        raise UsageError(f"{argument} {value} is above {most}; {remedy}")


def _numbered(what: str, argument: str, parts: Sequence[Tensor]) -> int:
    """Returns how many classes or tokens there are, which are numbered from 0. Raises UsageError where some number
    cannot but be missing, as a network has a place for each."""
    count, given = 1 + max(int(part.max()) for part in parts), sum(part.numel() for part in parts)
    if count > given:
        raise UsageError(
            f"{argument} has the {what} {count - 1}, but {given} numbers in all, so most are never there; number those "
            "that there are 0, 1, 2 ..."
        )
    return count


def _examples(name: str, name_of_y: str, pair: tuple[Any, Any]) -> tuple[Tensor, Tensor]:
    """Returns inputs (n, c, h, w) of floats or (n, length) of tokens, and classes (n,)."""
    if not hasattr(pair, "__len__"):
        raise UsageError(f"{name} and {name_of_y}: got a {type(pair).__name__}; give a pair (x, y)")
    if len(pair) != 2:
        raise UsageError(f"{name} and {name_of_y}: got {len(pair)} arrays; give a pair (x, y)")
    inputs, classes = _array(name, pair[0]), _array(name_of_y, pair[1])
    for part, array in ((name, inputs), (name_of_y, classes)):
        if not array.size:
            raise UsageError(f"{part} is empty, of shape {array.shape}; give examples")
    if classes.dtype.kind not in "iu" or classes.ndim != 1:
        raise UsageError(
            f"{name_of_y} has shape {classes.shape} and dtype {classes.dtype}; give class numbers 0, 1, ... as "
            "integers of shape (n,) (cut a continuous target into classes, and number names of classes, first)"
        )
    if len(inputs) != len(classes):
        raise UsageError(f"{name} has {len(inputs)} examples and {name_of_y} has {len(classes)} classes; give one each")
    if int(classes.min()) < 0:
        raise UsageError(f"{name_of_y} has the class {int(classes.min())}; number classes from 0")
    if int(classes.max()) > _HIGHEST:
        raise UsageError(f"{name_of_y} has the class {int(classes.max())}; number classes 0, 1, 2 ...")
    if inputs.dtype.kind in "iub" and inputs.ndim == 2 and inputs.dtype != np.uint8:
        if int(inputs.min()) < 0:
            raise UsageError(f"{name} has the token {int(inputs.min())}; number tokens from 0")
        if int(inputs.max()) > _HIGHEST:
            raise UsageError(f"{name} has the token {int(inputs.max())}; number tokens 0, 1, 2 ...")
        return torch.from_numpy(inputs.astype(np.int64)), torch.from_numpy(classes.astype(np.int64))
    if inputs.dtype.kind not in "fiub" or inputs.ndim not in (2, 3, 4):
        raise UsageError(
            f"{name} has shape {inputs.shape} and dtype {inputs.dtype}; give numbers of shape (n, features), images "
            "(n, height, width) or (n, channels, height, width), or integer tokens (n, length)"
        )
    with np.errstate(over="ignore"):  # said below
        floats = inputs.astype(np.float32)
    if not np.isfinite(floats).all():
        raise UsageError(f"{name} has values that are not finite in float32; fill or leave out these examples")
    if floats.ndim == 2:
        floats = floats[:, None, None, :]  # an image of one row
    elif floats.ndim == 3:
        floats = floats[:, None]
    return torch.from_numpy(np.ascontiguousarray(floats)), torch.from_numpy(classes.astype(np.int64))


def _array(name: str, value: Any) -> NDArray[Any]:
    if isinstance(value, np.ma.MaskedArray) and value.mask.any():
        raise UsageError(f"{name} has {int(value.mask.sum())} masked values; fill or leave out these examples")
    if isinstance(value, Tensor):
        value = value.detach()
        try:
            value = (value.float() if value.dtype == torch.bfloat16 else value).cpu().numpy()  # NumPy has no bfloat16
        except (RuntimeError, TypeError, ValueError) as error:  # sparse, quantized, without data
            said = str(error).splitlines()[0]
            raise UsageError(f"{name} is a tensor that is no dense array: {said}; give a dense tensor") from None
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise UsageError(f"{name} is no array: {error}; give a NumPy array or a torch tensor") from None
    if array.ndim > 0 and array.dtype.kind == "O":
        raise UsageError(f"{name} holds objects of Python, and not numbers alone; give a NumPy array or a tensor")
    if array.ndim == 0:
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
