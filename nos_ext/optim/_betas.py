"""Owns `betas`: the decay rates of a rule's moving averages as one tuple, beside the keys of their own.

torch's optimizers have such a tuple in their param groups; OneCycleLR, CyclicLR and fastai read and write it there. The
hyperparameters of a rule are numbers, `beta1` and `beta2`. So the param groups of a rule that has any (or one named
`beta`) have both, and a group sees to it that they agree whichever is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import torch

from .._numbers import shown

KEY: Final = "betas"
_NAME: Final = re.compile(r"beta\d*")


def beta_names(hyperparameters: Iterable[str]) -> tuple[str, ...]:
    """Returns the hyperparameters that `betas` stands for, in its order. A rule may use that name for itself; then they
    are none."""
    names = tuple(hyperparameters)
    return () if KEY in names else tuple(sorted(filter(_NAME.fullmatch, names), key=lambda name: (len(name), name)))


def spread(given: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Returns `given` with what its `betas` says under the names that these stand for.

    Raises:
        TypeError: `betas` is no tuple or list.
        ValueError: it has another length, or says something else than a name that is given as well.
    """
    out = dict(given)
    if not names or KEY not in out:
        return out
    betas = out.pop(KEY)
    check_betas(betas, names)
    for name, value in zip(names, betas, strict=True):
        if not _same(out.setdefault(name, value), value):
            raise ValueError(f"betas is {shown(betas)} but {name} is {shown(out[name])}; pass one of the two")
    return out


def check_betas(betas: Any, names: tuple[str, ...]) -> None:
    """Raises TypeError or ValueError unless `betas` has one value for each of `names`."""
    wanted = f"pass a tuple of {len(names)}: ({', '.join(names)}{',' * (len(names) == 1)})"
    if not isinstance(betas, tuple | list):
        raise TypeError(f"betas is {shown(betas)}; {wanted}")
    if len(betas) != len(names):
        raise ValueError(f"betas is {shown(betas)}, which has {len(betas)} values; {wanted}")


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
        return a is b or (isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and torch.equal(a, b))
    return a is b or bool(a == b)


class LinkedGroup(dict[str, Any]):
    """A LinkedGroup is a param group whose `betas` and the hyperparameters that these stand for always agree."""

    names: tuple[str, ...] = ()  # of these hyperparameters; still empty while a copy or a pickle is being read

    def __setitem__(self, key: str, value: Any) -> None:
        if key == KEY and self.names:
            check_betas(value, self.names)
            super().update(zip(self.names, value, strict=True))
            value = tuple(value)
        super().__setitem__(key, value)
        if key in self.names and KEY in self:
            super().__setitem__(KEY, tuple([self[name] for name in self.names]))

    def update(self, *args: Any, **keywords: Any) -> None:
        for key, value in dict(*args, **keywords).items():
            self[key] = value

    def __ior__(self, other: Any) -> LinkedGroup:  # type: ignore[override,misc]
        self.update(other)
        return self


def linked(group: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Returns a group that keeps `betas` and `names` in agreement: the group itself if it does, or there are none."""
    if not names or (isinstance(group, LinkedGroup) and group.names == names and KEY in group):
        return group
    out = LinkedGroup(spread(group, names))
    dict.__setitem__(out, KEY, tuple([out[name] for name in names]))
    out.names = names
    return out
