"""Distributions in the plane whose density is known: what a learnt frontier is compared with.

Notation
  x          (..., 2) a point; p its density
  K, k       number of labels (a component, arm, moon or square) and one of them, all equally likely
             except in `skewed`
  R_a        rotation by the angle a
  s          standard deviation of the noise

The usual samplers of moons, spirals and pinwheels have no closed density, so they are defined
here such that they have one:

  ring8, grid25, skewed    Gaussian mixtures, see `prpr.data.synthetic`
  two_moons, spirals       a curve, its rotations, and Gaussian noise (`Strokes`): a quadrature
  pinwheel                 Gaussians under a twist that preserves areas (`Pinwheel`): closed
  checkerboard             blurred squares (`Checkerboard`): closed

All but 1e-4 of each lies in [−4, 4]², and the scale of each is that of `ring8`.
"""

import dataclasses
from collections.abc import Callable
from functools import cached_property
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from prpr import errors
from prpr.data import randomness
from prpr.data.dataset import Dataset
from prpr.data.synthetic import MIXTURES, POINTS, Mixture

Labelled = tuple[np.ndarray, np.ndarray]


class Law(Protocol):
    """A distribution in the plane: a sampler, and the density of what it samples."""

    @property
    def classes(self) -> int:
        """How many labels there are."""
        ...

    def sample(self, rng: np.random.Generator, n: int) -> Labelled:
        """n points (n, 2) float32 and the label of each, (n,) int32."""
        ...

    def log_density(self, x: jax.Array) -> jax.Array:
        """log p(x), (..., 2) -> (...), in the dtype of x."""
        ...


@dataclasses.dataclass(frozen=True)
class Strokes:
    """Points along K strokes, with noise: x = R_{2πk/K} c(v) + s ε, ε ~ N(0, I).

        p(x) = 1/K Σ_k ∫₀¹ N(x; R_{2πk/K} c(v), s² I) d(v) dv,     d(v) = power·v^(power − 1)

    The integral is a Gauss-Legendre quadrature of `order` nodes in each of `panels` equally long
    parts of the curve. Wherever p(x) > 1e-8 max p its relative error is at most 2e-9 for
    `two_moons` and 2e-7 for `spirals` (2.4 nodes for each s of the curve). Further out, where the
    integrand is steeper, it grows, and the density goes on to fall like a Gaussian's.

    Attributes:
      curve: c, v (n,) in [0, 1] -> (n, 2), smooth.
      arms: K, at least 1.
      scale: s > 0.
      power: of the density d of v: 1 for a constant one.
      panels, order: of the quadrature; K·panels·order terms for each x.

    Raises:
      ConfigError: a number that is out of its range.
    """

    curve: Callable[[np.ndarray], np.ndarray]
    arms: int = 2
    scale: float = 0.1
    power: int = 1
    panels: int = 10
    order: int = 12

    def __post_init__(self):
        _positive(self, "arms", "scale", "power", "panels", "order")

    @property
    def classes(self) -> int:
        return self.arms

    def sample(self, rng: np.random.Generator, n: int) -> Labelled:
        """n points (n, 2) float32 and the stroke of each, (n,) int32."""
        arm = _labels(rng, n, self.arms)
        v = rng.random(n) ** (1 / self.power)
        points = _rotated(self.curve(v), 2 * np.pi * arm / self.arms)
        points = points + self.scale * rng.standard_normal((n, 2))
        return points.astype(np.float32), arm

    @cached_property
    def _nodes(self) -> Mixture:
        """The quadrature: Gaussians at its nodes, weighed by its weights."""
        node, weight = np.polynomial.legendre.leggauss(self.order)
        # Panels of one length: the integrand is a Gaussian of the width s along the curve.
        fine = np.linspace(0, 1, 10_001)
        steps = np.linalg.norm(np.diff(self.curve(fine), axis=0), axis=1)
        length = np.concatenate([[0.0], np.cumsum(steps)])
        edges = np.interp(np.linspace(0, length[-1], self.panels + 1), length, fine)
        half = np.diff(edges)[:, None] / 2
        v = (edges[:-1, None] + half * (node + 1)).ravel()
        share = (half * weight).ravel() * self.power * v ** (self.power - 1) / self.arms
        centres = self.curve(v)
        turns = 2 * np.pi * np.arange(self.arms) / self.arms
        arms = [_rotated(centres, np.full(len(v), turn)) for turn in turns]
        return Mixture(np.concatenate(arms), self.scale, np.tile(share, self.arms))

    def log_density(self, x: jax.Array) -> jax.Array:
        """log p(x), see the class; x (..., 2) -> (...)."""
        return self._nodes.log_density(x)


@dataclasses.dataclass(frozen=True)
class Pinwheel:
    """K Gaussians on rays from the origin, twisted: x = R_{κ|u|²} u,

        u = R_{2πk/K} (radius + radial·ε₁, tangential·ε₂)

    In polar coordinates the twist is a shear (ρ, φ) -> (ρ, φ + κρ²), so it preserves areas, and
    |x| = |u| makes it invertible at sight: p(x) = p_u(R_{−κ|x|²} x), p_u a Gaussian mixture.

    Attributes:
      arms: K, at least 1.
      radius: of the arms' middles, > 0.
      radial, tangential: standard deviations along and across an arm, > 0.
      twist: κ, in radians for a squared length; its sign is the sense of the rotation.

    Raises:
      ConfigError: a number that is out of its range.
    """

    arms: int = 5
    radius: float = 1.8
    radial: float = 0.45
    tangential: float = 0.15
    twist: float = 0.15

    def __post_init__(self):
        _positive(self, "arms", "radius", "radial", "tangential")

    @property
    def classes(self) -> int:
        return self.arms

    def sample(self, rng: np.random.Generator, n: int) -> Labelled:
        """n points (n, 2) float32 and the arm of each, (n,) int32."""
        arm = _labels(rng, n, self.arms)
        noise = rng.standard_normal((n, 2))
        straight = noise * [self.radial, self.tangential] + [self.radius, 0.0]
        turn = 2 * np.pi * arm / self.arms + self.twist * np.sum(straight**2, axis=1)
        return _rotated(straight, turn).astype(np.float32), arm

    def log_density(self, x: jax.Array) -> jax.Array:
        """log p(x), see the class; x (..., 2) -> (...)."""
        first, second = x[..., 0], x[..., 1]
        back = -self.twist * (first * first + second * second)
        cos, sin = jnp.cos(back), jnp.sin(back)
        u, v = cos * first - sin * second, sin * first + cos * second
        log_each = []
        for turn in 2 * np.pi * np.arange(self.arms) / self.arms:
            c, s = float(np.cos(turn)), float(np.sin(turn))
            along = (c * u + s * v - self.radius) / self.radial
            across = (c * v - s * u) / self.tangential
            log_each.append(-0.5 * (along * along + across * across))
        constant = np.log(2 * np.pi * self.radial * self.tangential * self.arms)
        return jax.nn.logsumexp(jnp.stack(log_each, axis=-1), axis=-1) - float(constant)


@dataclasses.dataclass(frozen=True)
class Checkerboard:
    """A square of `side` × `side` fields around the origin; points on those with i + j even.

        x = (a point drawn uniformly on these fields) + edge·η,  η logistic in both coordinates
        p(x) = Σ_{i + j even} b_i(x₁) b_j(x₂) / (K width²)
        b_i(t) = σ((t − l_i)/edge) − σ((t − r_i)/edge)
               = σ((t − l_i)/edge) σ((r_i − t)/edge) (1 − exp(−width/edge))

    K the number of these fields, [l_i, r_i] the side of one, σ the logistic function. The even i
    pair with each other, and so do the odd ones: the sum is a product of two plus another.

    Soft edges (edge > 0) are the default. Maximum likelihood does without them, as a flow's q is
    positive everywhere. But whatever looks at log p itself does not: with hard ones log p is flat
    inside and −∞ outside, so that a sampler that climbs log r has no gradient at all (NaN where
    −∞ meets a finite derivative), reverse KL is infinite for every flow, and sums over a grid
    converge with the step instead of its square. The blur is logistic rather than Gaussian since
    the product has no cancellation and |∂ log p| <= 1/edge in each coordinate, however far x is.
    Its standard deviation, 1.8 edge, is a twentieth of a field. With edge = 0, log p is −∞ off
    the fields.

    Attributes:
      side: fields in a row, at least 2.
      width: of a field, > 0.
      edge: scale of the blur, >= 0.

    Raises:
      ConfigError: a number that is out of its range.
    """

    side: int = 4
    width: float = 1.0
    edge: float = 0.03

    def __post_init__(self):
        _positive(self, "width")
        if self.side < 2:
            raise errors.ConfigError(f"Checkerboard: side={self.side!r} must be at least 2")
        if not (np.isfinite(self.edge) and self.edge >= 0):
            raise errors.ConfigError(f"Checkerboard: edge={self.edge!r} must be 0 or positive")

    @cached_property
    def fields(self) -> np.ndarray:
        """(K, 2) the row and column (i, j) of each label's field."""
        ij = np.stack(np.meshgrid(*[np.arange(self.side)] * 2, indexing="ij"), axis=-1)
        return ij[ij.sum(axis=-1) % 2 == 0]

    @property
    def classes(self) -> int:
        return len(self.fields)

    def sample(self, rng: np.random.Generator, n: int) -> Labelled:
        """n points (n, 2) float32 and the field of each, (n,) int32."""
        field = _labels(rng, n, self.classes)
        points = (self.fields[field] - self.side / 2 + rng.random((n, 2))) * self.width
        points = points + self.edge * rng.logistic(size=(n, 2))
        return points.astype(np.float32), field

    def log_density(self, x: jax.Array) -> jax.Array:
        """log p(x), see the class; x (..., 2) -> (...)."""
        even, odd = self._log_rows(x)
        both = jnp.logaddexp(even[..., 0] + even[..., 1], odd[..., 0] + odd[..., 1])
        return both - float(np.log(self.classes * self.width**2))

    def _log_rows(self, x: jax.Array) -> list[jax.Array]:
        """log Σ_i b_i(x_d), (..., 2), over even and over odd i."""
        out = []
        for parity in (0, 1):
            rows = np.arange(parity, self.side, 2)
            logs = [self._log_row(x, float((i + 0.5 - self.side / 2) * self.width)) for i in rows]
            out.append(jax.nn.logsumexp(jnp.stack(logs), axis=0))
        return out

    def _log_row(self, t: jax.Array, centre: float) -> jax.Array:
        """log b_i(t) for the row with this centre."""
        half = 0.5 * self.width
        t = t - centre
        if self.edge == 0:
            return jnp.where((t >= -half) & (t < half), 0.0, -jnp.inf).astype(t.dtype)
        inside = jax.nn.log_sigmoid((half + t) / self.edge)
        inside = inside + jax.nn.log_sigmoid((half - t) / self.edge)
        return inside + float(np.log(-np.expm1(-self.width / self.edge)))


def _positive(law: Any, *names: str) -> None:
    for name in names:
        value = getattr(law, name)
        if not (np.isfinite(value) and value > 0):
            raise errors.ConfigError(f"{type(law).__name__}: {name}={value!r} must be positive")


def _labels(rng: np.random.Generator, n: int, classes: int) -> np.ndarray:
    """(n,) int32, uniform in [0, classes)."""
    return (rng.random(n) * classes).astype(np.int32)


def _rotated(points: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Each of points (n, 2) by its angle (n,)."""
    cos, sin = np.cos(angle), np.sin(angle)
    x, y = points.T
    return np.stack([cos * x - sin * y, sin * x + cos * y], axis=1)


def _moon(v: np.ndarray) -> np.ndarray:
    """scikit-learn's upper moon, 4/3 as large; the lower one is it turned by π."""
    return 4 / 3 * np.stack([np.cos(np.pi * v) - 0.5, np.sin(np.pi * v) - 0.25], axis=1)


def _spiral(v: np.ndarray) -> np.ndarray:
    """A turn and a half of Archimedes' spiral, of radius θ/4 at the angle θ = 3πv."""
    angle = 3 * np.pi * v
    return angle[:, None] / 4 * np.stack([np.cos(angle), np.sin(angle)], axis=1)


LAWS: dict[str, Law] = {
    **MIXTURES,
    "two_moons": Strokes(_moon),
    # v² uniform: about as many points for each length of the spiral.
    "spirals": Strokes(_spiral, power=2, panels=14, order=20),
    "checkerboard": Checkerboard(),
    "pinwheel": Pinwheel(),
}


def law(name: str) -> Law:
    """The distribution `name`; ConfigError for a name not in LAWS."""
    if name not in LAWS:
        raise errors.unknown_name("distribution in the plane", name, LAWS)
    return LAWS[name]


def points(name: str, seed: int) -> Dataset:
    """POINTS samples of the distribution `name` with their labels."""
    source = law(name)
    rng = np.random.Generator(randomness.philox(seed, randomness.SAMPLE))
    return Dataset(*source.sample(rng, POINTS), source.classes, name)
