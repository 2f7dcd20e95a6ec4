"""Owns the problems of the battery: a bowl, a valley or a plain in eight dimensions, each with one difficulty that is
turned up from level to level.

A trial of a problem has a start, and where there is any a rotation and noise, of its own, drawn from the trial's seed.
All trials are held in one array, (rates, trials, DIMENSION), which a rule moves at many learning rates at once; trials
at different rates meet the same draws.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from ..space.group import Array

DIMENSION: Final = 8
STEPS: Final = 300
_LAST: Final = 30  # steps, over which the final loss is averaged


@dataclass(frozen=True)
class Shape:
    """A loss of x, whose minimum is 0, and its gradient, in coordinates of its own. Trainings begin at a random point
    whose coordinates have the size `away`; where `rotated`, in axes of the trial's own. The origin of these coordinates
    is somewhere else in each trial, so that rules that only make weights small get nowhere; but the first `still`
    coordinates have it at 0."""

    loss: Callable[[Array], Array]
    gradient: Callable[[Array], Array]
    away: Array = field(default_factory=lambda: np.ones(DIMENSION, np.float32))
    rotated: bool = False
    still: int = 0


def bowl(condition: float = 4.0, *, rotated: bool = False) -> Shape:
    """A quadratic whose curvatures go from 1 / condition to 1, evenly in logarithms. The start is so far away along
    each axis that all have an equal part of the loss."""
    curvatures = np.geomspace(1 / condition, 1.0, DIMENSION).astype(np.float32)
    return Shape(
        lambda x: 0.5 * (curvatures * x * x).sum(axis=-1, dtype=np.float64),
        lambda x: curvatures * x,
        away=1 / np.sqrt(curvatures),
        rotated=rotated,
    )


def scaled(decades: float) -> Shape:
    """A round bowl in coordinates whose units differ by so many decades from the first to the last."""
    units = np.logspace(-decades / 2, decades / 2, DIMENSION).astype(np.float32)
    return Shape(
        lambda x: 0.5 * ((x / units) ** 2).sum(axis=-1, dtype=np.float64),
        lambda x: x / units**2,
        away=units,
    )


def edge() -> Shape:
    """The sum of the coordinates' magnitudes, whose gradient never becomes small."""
    return Shape(lambda x: np.abs(x).sum(axis=-1, dtype=np.float64), np.sign)


def plain(width: float) -> Shape:
    """A hole in a plain: the gradient falls off as exp(-|x|^2 / 2), and the start is about `width` away from it."""

    def fall(x: Array) -> Array:
        return np.asarray(np.exp(-0.5 * (x * x).sum(axis=-1, keepdims=True)))

    away = np.full(DIMENSION, width / np.sqrt(DIMENSION), np.float32)
    return Shape(
        lambda x: np.asarray(1.0 - fall(x.astype(np.float64))[..., 0]), lambda x: np.asarray(fall(x) * x), away=away
    )


def saddle(distance: float) -> Shape:
    """A double well in the first coordinate, from a start so near to its saddle, and a bowl in the others."""

    def loss(x: Array) -> Array:
        first = x[..., 0].astype(np.float64)
        return np.asarray(0.25 * (first * first - 1) ** 2 + 0.5 * (x[..., 1:] ** 2).sum(axis=-1, dtype=np.float64))

    def gradient(x: Array) -> Array:
        out = np.array(x)
        out[..., 0] = x[..., 0] ** 3 - x[..., 0]
        return out

    away = np.ones(DIMENSION, np.float32)
    away[0] = distance
    return Shape(loss, gradient, away=away, still=1)  # elsewhere a number so near to the saddle could not be written


def wall(steepness: float) -> Shape:
    """A slope that ends in a wall: cosh grows so steep that one step too long throws a rule far away."""

    def loss(x: Array) -> Array:
        height = np.cosh(np.minimum(np.abs(steepness * x.astype(np.float64)), 700.0)) - 1
        return np.asarray(height.sum(axis=-1) / steepness**2)

    def gradient(x: Array) -> Array:
        return np.asarray(np.sinh(np.clip(steepness * x, -88.0, 88.0)) / np.float32(steepness))

    return Shape(loss, gradient)


@dataclass(frozen=True)
class Problem:
    """A problem of the battery: a shape, and what comes between its gradient and the rule.

    Fields:
        kind, level: what is hard, and how hard: the number that the level turns.
        noise: standard deviation of what is added to each gradient; with `heavy`, of Student's t with two degrees of
            freedom, which has outliers of every size.
        present: the probability that a coordinate's gradient is there; it is 0 otherwise.
        outliers: the probability that a whole gradient is a thousand times too long.
        delay: how many steps old a gradient is.
        drift: how far the minimum moves in a step, in a direction that stays.
        jump: whether the minimum jumps to another place half way.
        goal: the share of the first loss that may be left at the end.
    """

    kind: str
    level: str
    shape: Shape
    noise: float = 0.0
    heavy: bool = False
    present: float = 1.0
    outliers: float = 0.0
    delay: int = 0
    drift: float = 0.0
    jump: bool = False
    goal: float = 0.01

    def trials(self, count: int, *, seed: int) -> Trials:
        """Returns `count` trials, which depend on `seed` and on nothing else."""
        return Trials(self, count, np.random.Generator(np.random.PCG64(seed)))


class Trials:
    """These are the trials of a problem. `start` is (count, DIMENSION)."""

    def __init__(self, problem: Problem, count: int, draws: np.random.Generator) -> None:
        self._problem, self._draws, self._count = problem, draws, count
        shape = problem.shape
        offset = draws.normal(size=(count, DIMENSION))
        own = (np.sign(offset) * (0.5 + np.abs(offset)) / 1.3 * shape.away).astype(np.float32)
        self._turn: Array | None = None
        if shape.rotated:
            self._turn = np.linalg.qr(draws.normal(size=(count, DIMENSION, DIMENSION)))[0].astype(np.float32)
        self._minimum = (2.0 * draws.normal(size=(count, DIMENSION)) * shape.away).astype(np.float32)
        self._minimum[:, : shape.still] = 0
        self._way = draws.normal(size=(count, DIMENSION)) / np.sqrt(DIMENSION)
        self._jump = (2.0 * draws.normal(size=(count, DIMENSION)) * shape.away).astype(np.float32)
        self.start = self._minimum + self._out(own)
        self.first = shape.loss(own)
        self._old: deque[Array] = deque(maxlen=problem.delay + 1)

    def _out(self, own: Array) -> Array:
        """From the shape's coordinates to those that the rule sees."""
        return own if self._turn is None else np.einsum("tij,...tj->...ti", self._turn, own)

    def _own(self, x: Array, step: int) -> Array:
        """Returns x in the coordinates of the shape, whose minimum is where it is at this step."""
        problem = self._problem
        minimum = self._minimum
        if problem.drift:
            minimum = (minimum + problem.drift * step * self._way).astype(np.float32)
        if problem.jump and step > STEPS // 2:
            minimum = minimum + self._jump
        away = x - minimum
        return away if self._turn is None else np.einsum("tji,...tj->...ti", self._turn, away)

    def gradient(self, x: Array, step: int) -> Array:
        """Returns what the rule is given at step 1, 2, ..., for x of (rates, count, DIMENSION)."""
        problem, size = self._problem, (self._count, DIMENSION)
        g = self._out(problem.shape.gradient(self._own(x, step))).astype(np.float32)
        if problem.delay:
            self._old.append(g)
            g = self._old[0].copy()
        if problem.noise:
            drawn = self._draws.standard_t(2, size) if problem.heavy else self._draws.normal(size=size)
            g += np.float32(problem.noise) * drawn.astype(np.float32)
        if problem.present < 1:
            g *= self._draws.random(size) < problem.present
        if problem.outliers:
            g *= np.where(self._draws.random((self._count, 1)) < problem.outliers, np.float32(1000), np.float32(1))
        return g

    def loss(self, x: Array, step: int) -> Array:
        """Returns the (rates, count) losses after that step."""
        return self._problem.shape.loss(self._own(x, step))


def last_steps(steps: int) -> range:
    """Returns the steps over which the final loss is averaged."""
    return range(max(1, steps - _LAST + 1), steps + 1)


def _battery() -> tuple[Problem, ...]:
    found: list[Problem] = []

    def add(kind: str, level: str, shape: Shape, **settings: float) -> None:
        found.append(Problem(kind, level, shape, **settings))  # type: ignore[arg-type]

    for condition in (10, 100, 1000, 10000):
        add("stiff", f"condition {condition:g}", bowl(condition), goal=0.02)
        add("stiff, turned", f"condition {condition:g}", bowl(condition, rotated=True), goal=0.02)
    for decades in (1, 2, 4, 6):
        add("badly scaled", f"{decades} decades", scaled(decades))
    for noise in (0.1, 0.3, 1, 3):
        add("noisy", f"sd {noise:g}", bowl(), noise=noise, goal=0.1)
        add("heavy-tailed", f"scale {noise:g}", bowl(), noise=noise, heavy=True, goal=0.1)
    for present in (0.5, 0.2, 0.1, 0.03):
        add("sparse", f"{present:.0%} present", bowl(), present=present)
    for chance in (0.003, 0.01, 0.03, 0.1):
        add("outliers", f"{chance:.1%}", bowl(), outliers=chance)
    for width in (2, 3, 4, 5):
        add("plateau", f"{width} away", plain(width), goal=0.1)
    for distance in (1e-3, 1e-6, 1e-12, 1e-24):
        add("saddle", f"{distance:g} from it", saddle(distance))
    for steepness in (1, 3, 6, 12):
        add("cliff", f"steepness {steepness}", wall(steepness))
    for delay in (1, 3, 10, 30):
        add("delayed", f"{delay} steps", bowl(), delay=delay)
    for drift in (0.03, 0.1, 0.3, 1):
        add("drifting", f"{drift:g} a step", bowl(), drift=drift, goal=0.1)
    for condition in (4, 20, 100):
        add("jumping", f"condition {condition}", bowl(condition), jump=True, goal=0.02)
    for noise in (0, 1, 3):
        add("edge", f"noise {noise}", edge(), noise=noise, goal=0.05)
    return tuple(found)


BATTERY: Final = _battery()
KINDS: Final = tuple(dict.fromkeys(problem.kind for problem in BATTERY))
