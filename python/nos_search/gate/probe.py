"""Owns the numerical probe of token strings, which evaluates thousands of updates at once on fixed numbers without
compiling them.

The operands of a vocabulary are computed once on fixed gradients, parameters and draws. A string is then a handful of
array operations over all strings of a batch, in float32 as in training: no rule text, no compiler, no interpreter. The
update u is a function of the history of g, of w, t and the draws, so its values on the probe stand for the function.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..space import Space
from ..space.group import Array, Meaning
from .formula import functions, operand_values

_ORDINARY = 13  # so many elements of the effect stimulus come first, with gradients that are ordinary
_CHUNK = 512  # strings at once: their values stay in cache


@dataclass(frozen=True, eq=False)  # one is another's equal if it is the same object, so that caches find it
class Stimulus:
    """A stimulus is what a probe shows to rules: (steps, elements) gradients and parameters of a run that has
    `total_steps`.

    Only the last `shown` steps are looked at; those before fill the averages. The elements are `parts` runs side by
    side, which have equal draws. For rules with reductions a run is a training of several tensors, whose first elements
    `cuts` tells; to all others that makes no difference.
    """

    grads: Array
    params: Array
    total_steps: int
    shown: int
    parts: int = 1
    cuts: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Counts the numbers per string: the shown steps times the elements."""
        return int(self.shown * self.grads.shape[1])

    def split(self) -> list[tuple[Array, Array]]:
        """Returns the (grads, params) of each part."""
        return list(
            zip(np.split(self.grads, self.parts, axis=1), np.split(self.params, self.parts, axis=1), strict=True)
        )

    def flat(self, parts: Sequence[Sequence[Array]]) -> Array:
        """Returns (size,) float32 numbers from values by part and step."""
        steps = [np.concatenate(values) for values in zip(*parts, strict=True)]
        return np.concatenate(steps[-self.shown :]).astype(np.float32)


@functools.cache  # every look at a run folder makes the gates anew, for its families
def _values(operand: str, stimulus: Stimulus) -> Array:
    """Returns the (size,) float32 values of an operand on a stimulus, which nobody may change."""
    values = stimulus.flat(
        [
            operand_values(operand, list(params), list(grads), total_steps=stimulus.total_steps)
            for grads, params in stimulus.split()
        ]
    )
    values.flags.writeable = False
    return values


class TokenProbe(Meaning[Array]):
    """This evaluates the updates of strings of a space on a stimulus. A value is (size,) float32 numbers, or a row of
    them for each string."""

    def __init__(self, space: Space, stimulus: Stimulus, *, seed: int, one_draw: bool = False) -> None:
        """With `one_draw` all places draw the same numbers, so that it does not matter where in a string a drop
        stands; else drops at different places are independent."""
        self.stimulus, self._shape = stimulus, space.shape
        self._unary, self._binary = functions(space)
        size, places = stimulus.size, 2 * self._shape.groups
        rng = np.random.Generator(np.random.PCG64(seed))
        elements = stimulus.grads.shape[1] // stimulus.parts
        drawn = rng.random((1 if one_draw else places, stimulus.shown, 1, elements), dtype=np.float32)
        draws = np.repeat(drawn, stimulus.parts, axis=2).reshape(-1, size)
        self._draws = np.broadcast_to(draws, (places, size))
        self._operands = [_values(space.token_text(token), stimulus) for token in space.operands]

    @functools.cached_property  # not every probe of a run is asked
    def _sides(self) -> list[Array]:
        with np.errstate(all="ignore"):
            return [side + np.float32(0) for side in self._shape.plain_sides(self)]  # no negative zeros

    def operand(self, token: int) -> Array:
        return self._operands[token]

    def unary(self, token: int, x: Array, place: int) -> Array:
        return self._unary[token](x, uniform=self._draws[place])

    def binary(self, token: int, left: Array, right: Array) -> Array:
        return self._binary[token](left, right)

    def __call__(self, strings: Array) -> Array:
        """Returns the (n, size) float32 updates of (n, length) int strings."""
        out = np.empty((len(strings), self.stimulus.size), np.float32)
        with np.errstate(all="ignore"):
            for start in range(0, len(strings), _CHUNK):
                part = strings[start : start + _CHUNK]
                out[start : start + _CHUNK] = self._shape.fold_many(part, self, self._sides)
        return out


@functools.cache
def effect_stimulus() -> Stimulus:
    """Returns two sets of 16 gradients side by side over three steps, with equal parameters and draws and unrelated
    gradients.

    Magnitudes from 1e-6 to 60 show clips, overflow and what happens at 0. Ordinary gradients are one tensor and the
    others are another, so that the reductions of one say nothing about the other, and those of all tensors differ from
    both.
    """
    rng = np.random.Generator(np.random.PCG64(20_170_901))
    sizes = np.array([1e-6, 1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.1, 0.3, 0.3, 1.0, 5.0, 60.0, 0.0])
    steps = 3
    grads = np.empty((steps, 32))
    for half in (slice(0, 16), slice(16, 32)):
        # Signs stay the same for a while, so that averages and gradients agree at some elements and not at others.
        signs = np.where(rng.random((steps, 16)) < 0.6, 1.0, -1.0) * np.where(rng.random(16) < 0.5, 1.0, -1.0)
        grads[:, half] = sizes * rng.uniform(0.5, 1.5, (steps, 16)) * signs
    weights = rng.uniform(-1.0, 1.0, (steps, 16))
    return Stimulus(
        grads, np.concatenate([weights, weights], axis=1), total_steps=4, shown=steps, parts=2, cuts=(_ORDINARY,)
    )


# elements of each half with ordinary gradients, |g| <= 1 and not 0: a rule that is not finite there cannot train
ORDINARY = np.flatnonzero(np.tile(np.arange(16) < _ORDINARY, 3))


@functools.cache
def descent_stimulus() -> Stimulus:
    """Returns ten steps of noisy gradients about a fixed mean, in four regimes of size and noise, each a tensor. The
    last three steps are shown."""
    rng = np.random.Generator(np.random.PCG64(20_170_902))
    steps, parts = 10, []
    for size, noise in ((1e-3, 1.0), (1e-2, 0.5), (1e-1, 0.5), (1e-2, 2.0)):
        mean = size * rng.normal(size=24)
        parts.append(mean + noise * size * rng.normal(size=(steps, 24)))
    weights = 0.1 * rng.normal(size=(1, 96))
    return Stimulus(
        np.concatenate(parts, axis=1), np.repeat(weights, steps, axis=0), total_steps=100, shown=3, cuts=(24, 48, 72)
    )


BEHAVIOUR_PARTS = 4  # regimes of `behaviour_stimulus`, of equally many elements


@functools.cache
def behaviour_stimulus() -> Stimulus:
    """Returns a whole run of twelve steps, in four regimes of gradient size and noise, each a tensor of 16 elements.
    All steps are shown, from the first to the end of every decay.

    In each tensor half of the elements are noise, whose sign is another one at every second step. The signs of the
    others persist, and change at one step in ten, in the noisiest regime at one in two.
    """
    rng = np.random.Generator(np.random.PCG64(20_170_905))
    steps, each, parts = 12, 16, []
    for size, changes in ((1e-4, 0.3), (1e-3, 0.1), (1e-2, 0.5), (1e-1, 0.2)):
        scales = size * np.exp(0.7 * rng.normal(size=each))
        odds = np.where(np.arange(each) < each // 2, changes, 0.5)
        signs = np.cumprod(np.where(rng.random((steps, each)) < odds, -1.0, 1.0), axis=0)
        parts.append(scales * signs * rng.uniform(0.5, 1.5, (steps, each)))
    weights = 0.1 * rng.normal(size=(1, BEHAVIOUR_PARTS * each))
    cuts = tuple(range(each, BEHAVIOUR_PARTS * each, each))
    return Stimulus(
        np.concatenate(parts, axis=1), np.repeat(weights, steps, axis=0), total_steps=steps, shown=steps, cuts=cuts
    )


def halves(updates: Array) -> tuple[Array, Array]:
    """Returns the updates under the two sets of gradients of `effect_stimulus`, (n, 48) each."""
    shaped = updates.reshape(len(updates), 3, 2, 16)
    return shaped[:, :, 0].reshape(len(updates), 48), shaped[:, :, 1].reshape(len(updates), 48)


def has_effect(first: Array, second: Array) -> Array:
    """Tells of each rule, (n,) bool, whether other gradients give another update. NaN is equal to NaN."""
    differ = (first != second) & ~(np.isnan(first) & np.isnan(second))
    return np.asarray(differ.any(axis=1))


def is_finite(first: Array) -> Array:
    """Tells of each rule, (n,) bool, whether the update is a number wherever the gradient is an ordinary one."""
    return np.asarray(np.isfinite(first[:, ORDINARY]).all(axis=1))


def fingerprints(updates: Array) -> Array:
    """Returns (n,) uint64 hashes of the updates, rounded to 12 bits of mantissa. NaN, overflow and underflow count as
    such."""
    plain = np.where(np.abs(updates) < 1e-30, np.float32(0), updates)
    plain[np.isnan(updates)] = np.nan
    rounded = ((plain + np.float32(0)).view(np.uint32) + np.uint32(0x400)) >> np.uint32(11)
    result: Array = (rounded.astype(np.uint64) * _multipliers(updates.shape[1])).sum(axis=1, dtype=np.uint64)
    return np.asarray(result ^ (result >> np.uint64(32)))


@functools.cache
def _multipliers(n: int) -> Array:
    raw: Array = np.random.PCG64(20_170_903).random_raw(n)
    return np.asarray(raw.astype(np.uint64) | np.uint64(1))


def descent_cosines(updates: Array) -> Array:
    """Returns the (n,) mean cosines between the update and the mean gradient, over regimes and steps. NaN counts as
    -1."""
    stimulus = descent_stimulus()
    mean = stimulus.grads.mean(axis=0).reshape(4, 24).astype(np.float32)
    mean = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    shaped = updates.reshape(len(updates), 3, 4, 24).astype(np.float64)
    with np.errstate(all="ignore"):
        cosine = (shaped * mean).sum(axis=3) / np.sqrt((shaped**2).sum(axis=3))
    return np.asarray(np.where(np.isfinite(cosine), cosine, -1.0).mean(axis=(1, 2)))
