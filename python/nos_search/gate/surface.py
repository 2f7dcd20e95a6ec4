"""Owns the analytic surfaces that rules are screened on: their values, gradients and starts, and how far a rule has
come.

No minimum is at the origin, nor on the way to it: a rule that only makes weights small must get nowhere. One vector
holds all surfaces side by side, so that one update moves a rule on every surface at once. Coordinates are the last
axis, and everything works on float32 arrays of any leading shape.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..space.group import Array


@dataclass(frozen=True)
class Surface:
    """A surface has a value(x) and a gradient(x, out) of coordinates (..., d). Its lowest value is 0, which it has at
    each of `minima`, and trainings begin at `start`.

    `noise` is the standard deviation of what is added to each gradient. `curvatures` are those of a quadratic, and
    empty for other surfaces. `doc` is the formula.
    """

    name: str
    start: tuple[float, ...]
    value: Callable[[Array], Array]
    gradient: Callable[[Array, Array], None]
    doc: str
    minima: tuple[tuple[float, ...], ...]
    noise: float = 0.0
    curvatures: tuple[float, ...] = ()

    @property
    def dimension(self) -> int:
        return len(self.start)


def _rosenbrock(x: Array) -> Array:
    return (1 - x[..., 0]) ** 2 + 100 * (x[..., 1] - x[..., 0] ** 2) ** 2  # type: ignore[no-any-return]


def _rosenbrock_gradient(x: Array, out: Array) -> None:
    a, b = x[..., 0], x[..., 1]
    valley = 200 * (b - a * a)
    out[..., 1] = valley
    valley = valley * a
    out[..., 0] = 2 * a - 2 - 2 * valley


def _beale_terms(x: Array) -> list[tuple[float, Array]]:
    a, b = x[..., 0], x[..., 1]
    power = np.ones_like(b)
    terms = []
    for constant in (1.5, 2.25, 2.625):
        power = power * b
        terms.append((constant, a * (power - 1)))
    return terms


def _beale(x: Array) -> Array:
    return sum((constant + term) ** 2 for constant, term in _beale_terms(x))  # type: ignore[return-value]


def _beale_gradient(x: Array, out: Array) -> None:
    a, b = x[..., 0], x[..., 1]
    b2 = b * b
    r1, r2, r3 = 1.5 + a * (b - 1), 2.25 + a * (b2 - 1), 2.625 + a * (b2 * b - 1)
    out[..., 0] = 2 * (r1 * (b - 1) + r2 * (b2 - 1) + r3 * (b2 * b - 1))
    out[..., 1] = 2 * a * (r1 + 2 * b * r2 + 3 * b2 * r3)


def _saddle(x: Array) -> Array:
    a, b = x[..., 0] - 2, x[..., 1]
    return a * a - b * b + 0.25 * b**4 + 1  # type: ignore[no-any-return]


def _saddle_gradient(x: Array, out: Array) -> None:
    a, b = x[..., 0], x[..., 1]
    out[..., 0] = 2 * a - 4
    out[..., 1] = b * (b * b - 2)


def _plateau(x: Array) -> Array:
    return 1 - np.exp(-0.5 * ((x[..., 0] - 5) ** 2 + (x[..., 1] - 3) ** 2))  # type: ignore[no-any-return]


def _plateau_gradient(x: Array, out: Array) -> None:
    a, b = x[..., 0] - 5, x[..., 1] - 3
    slope = np.exp(-0.5 * (a * a + b * b))
    out[..., 0] = a * slope
    out[..., 1] = b * slope


_CENTRE = np.array((2.0, -2.0, 2.0, -2.0), np.float32)


def _quadratic(curvatures: tuple[float, ...]) -> tuple[Callable[[Array], Array], Callable[[Array, Array], None]]:
    scale = np.array(curvatures, np.float32)

    def value(x: Array) -> Array:
        return 0.5 * (scale * (x - _CENTRE) ** 2).sum(axis=-1)  # type: ignore[no-any-return]

    def gradient(x: Array, out: Array) -> None:
        np.multiply(x - _CENTRE, scale, out=out)

    return value, gradient


SURFACES: tuple[Surface, ...] = (
    Surface(
        "rosenbrock",
        (-1.2, 1.0),
        _rosenbrock,
        _rosenbrock_gradient,
        "(1 - x)^2 + 100 (y - x^2)^2",
        minima=((1.0, 1.0),),
    ),
    Surface(
        "beale",
        (1.0, 1.5),
        _beale,
        _beale_gradient,
        "(1.5 - x + xy)^2 + (2.25 - x + xy^2)^2 + (2.625 - x + xy^3)^2",
        minima=((3.0, 0.5),),
    ),
    Surface(
        "saddle",
        (1.0, 1e-3),
        _saddle,
        _saddle_gradient,
        "(x - 2)^2 - y^2 + y^4 / 4 + 1",
        minima=((2.0, 2.0**0.5), (2.0, -(2.0**0.5))),
    ),
    Surface(
        "plateau",
        (2.5, 1.5),
        _plateau,
        _plateau_gradient,
        "1 - exp(-((x - 5)^2 + (y - 3)^2) / 2)",
        minima=((5.0, 3.0),),
    ),
    Surface(
        "ill-conditioned",
        (1.0, -1.0, 1.0, -1.0),
        *_quadratic((0.1, 1.0, 10.0, 100.0)),
        "quadratic in four dimensions with curvatures 0.1, 1, 10, 100",
        minima=(tuple(_CENTRE.tolist()),),
        curvatures=(0.1, 1.0, 10.0, 100.0),
    ),
    Surface(
        "noisy",
        (1.0, -1.0, 1.0, -1.0),
        *_quadratic((0.5, 1.0, 2.0, 4.0)),
        "quadratic in four dimensions with curvatures 0.5, 1, 2, 4, and gradient noise of standard deviation 1",
        minima=(tuple(_CENTRE.tolist()),),
        noise=1.0,
        curvatures=(0.5, 1.0, 2.0, 4.0),
    ),
)
DIMENSION = sum(surface.dimension for surface in SURFACES)
_DECADES = 4.0  # a loss that falls by so many decades scores 1


def blocks() -> list[tuple[Surface, slice]]:
    """Returns each surface with its coordinates in the common vector."""
    found, start = [], 0
    for surface in SURFACES:
        found.append((surface, slice(start, start + surface.dimension)))
        start += surface.dimension
    return found


# The factors of x in gradients that are multiples of x, as one vector. It is 0 for surfaces that compute their
# gradients.
_LINEAR = np.concatenate(
    [np.array(surface.curvatures or (0.0,) * surface.dimension, np.float32) for surface in SURFACES]
)
_OFFSET = _LINEAR * np.concatenate(
    [_CENTRE if surface.curvatures else np.zeros(surface.dimension, np.float32) for surface in SURFACES]
)
_CURVED = [(surface, where) for surface, where in blocks() if not surface.curvatures]


def start_vector() -> Array:
    """Returns the (DIMENSION,) point where every training starts."""
    return np.concatenate([np.array(surface.start, np.float32) for surface in SURFACES])


def noise_vectors(steps: int, *, seed: int) -> Array:
    """Returns (steps, DIMENSION) gradient noise. It is zero where a surface has none."""
    rng = np.random.Generator(np.random.PCG64(seed))
    scale = np.concatenate([np.full(surface.dimension, surface.noise) for surface in SURFACES])
    return np.asarray(rng.normal(size=(steps, DIMENSION)) * scale, np.float32)


def gradients(x: Array, out: Array, noise: Array | float = 0.0) -> None:
    """Writes the gradient of every surface at x (..., DIMENSION) to out, with `noise` (DIMENSION,) added to it.

    Only quadratics have noise, and all of them are done in one product.
    """
    np.multiply(x, _LINEAR, out=out)
    out += noise - _OFFSET
    for surface, where in _CURVED:
        surface.gradient(x[..., where], out[..., where])


def losses(x: Array) -> Array:
    """Returns the loss on each surface, (..., surfaces)."""
    return np.stack([surface.value(x[..., where]) for surface, where in blocks()], axis=-1)


def scores(x: Array) -> Array:
    """Returns for each surface, (..., surfaces), how many of four decades of the loss have been won since the start, as
    a number in [0, 1].

    It is 0 when the loss rose or is not finite.
    """
    with np.errstate(all="ignore"):
        won = np.log10(losses(start_vector())) - np.log10(np.maximum(losses(x), 1e-30))
        return np.asarray(np.where(np.isfinite(won), np.clip(won / _DECADES, 0.0, 1.0), 0.0))
