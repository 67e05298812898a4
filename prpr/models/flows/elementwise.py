"""Monotone maps of single entries, and the logit that images pass through.

Notation: x, y of one shape (...); parameters per entry; `log_slope` (...) is log dy/dx of the
direction that was taken; K bins of a spline, B its bound. The functions hold no parameters: a
network gives them, unconstrained.

Sources: RealNVP (Dinh, Sohl-Dickstein & Bengio 2017, arXiv:1605.08803) for the affine map and the
logit; Durkan et al. 2019, arXiv:1906.04032, for the rational-quadratic spline, equations 4 to 8,
and 29 for its inverse.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prpr.errors import ConfigError
from prpr.models.flows.bijector import Array, Bijector, Mapped, sum_items

MIN_BIN = 1e-3  # least width and height of a bin, as a part of the whole
MAX_LOG_SLOPE = math.log(1e3)  # slopes at knots lie in [1/1000, 1000]


def bounded(raw: Array, bound: float) -> Array:
    """bound·tanh(raw/bound): slope 1 at 0, never beyond ±bound."""
    return bound * jnp.tanh(raw / bound)


def affine(x: Array, shift: Array, log_scale: Array) -> Mapped:
    """y = x·exp(log_scale) + shift, and log dy/dx; all (...)."""
    return x * jnp.exp(log_scale) + shift, log_scale


def affine_inverse(y: Array, shift: Array, log_scale: Array) -> Mapped:
    """x = (y − shift)·exp(−log_scale), and log dx/dy; all (...)."""
    return (y - shift) * jnp.exp(-log_scale), -log_scale


# ---- splines --------------------------------------------------------------------------


def _shares(raw: Array) -> Array:
    """(..., K) unconstrained -> (..., K) widths or heights as parts of the whole."""
    return MIN_BIN + (1.0 - MIN_BIN * raw.shape[-1]) * jax.nn.softmax(raw, axis=-1)


class _Bin(NamedTuple):
    """Where a bin begins, its sizes, and the slopes at its two ends; all (...)."""

    x: Array
    width: Array
    y: Array
    height: Array
    first: Array
    last: Array


def _bin(at: Array, along: Array, bound: float, raw: tuple[Array, Array, Array]) -> _Bin:
    """The bin that holds `at` on the axis whose bins' shares are `along`.

    Args:
      at: (...) in [−B, B].
      along: (..., K), of the widths or of the heights.
      bound: B.
      raw: widths, heights (..., K) as shares; slopes (..., K − 1), unconstrained.
    """
    widths, heights, slopes = raw
    bins = along.shape[-1]
    # Sums up to each inner knot. They only say which bin it is, so no gradient goes through them;
    # a product, since a cumulative sum takes XLA four times as long on a CPU.
    upto = jnp.asarray(np.triu(np.ones((bins, bins - 1))), along.dtype)
    below = jax.lax.stop_gradient(jnp.matmul(along, upto, precision=jax.lax.Precision.HIGHEST))
    index = (at[..., None] >= bound * (2.0 * below - 1.0)).sum(axis=-1)[..., None]
    place = jax.lax.broadcasted_iota(index.dtype, along.shape, along.ndim - 1)
    here, before = place == index, place < index

    # Sums over masks, not gathers: their gradient is no scatter.
    def total(mask: Array, values: Array) -> Array:
        return jnp.where(mask, values, 0.0).sum(axis=-1)

    def slope(mask: Array) -> Array:
        # At ±B no entry is picked, and the slope is exp(0) = 1.
        return jnp.exp(bounded(total(mask, slopes), MAX_LOG_SLOPE))

    return _Bin(
        bound * (2.0 * total(before, widths) - 1.0),
        2.0 * bound * total(here, widths),
        bound * (2.0 * total(before, heights) - 1.0),
        2.0 * bound * total(here, heights),
        slope(here[..., 1:]),
        slope(here[..., :-1]),
    )


def _within(part: Array) -> Array:
    """To [0, 1], with slope 1 at both ends.

    Rounding may lead out of the bin, where the slope of this bin's curve need not be positive.
    """
    return jnp.where(part < 0.0, 0.0, jnp.where(part > 1.0, 1.0, part))


def _log_slope(part: Array, steep: Array, first: Array, last: Array) -> Array:
    """log dy/dx at ξ = part of a bin with height/width = steep (equation 5)."""
    rest = part * (1.0 - part)
    above = last * part**2 + 2.0 * steep * rest + first * (1.0 - part) ** 2
    below = steep + (first + last - 2.0 * steep) * rest
    return 2.0 * jnp.log(steep) + jnp.log(above) - 2.0 * jnp.log(below)


def rational_quadratic(
    x: Array, widths: Array, heights: Array, slopes: Array, bound: float
) -> Mapped:
    """A monotone rational-quadratic spline on [−B, B], the identity outside.

    In bin k with ξ = (x − x_k)/w, s = h/w and slopes δ_k, δ_{k+1} at its ends

        y = y_k + h (s ξ² + δ_k ξ(1−ξ)) / (s + (δ_{k+1} + δ_k − 2s) ξ(1−ξ))

    The slope is 1 at ±B, so the map is continuously differentiable everywhere. Zeros for all
    parameters make it the identity.

    Args:
      x: (...).
      widths, heights: (..., K), through a softmax.
      slopes: (..., K − 1), logarithms, bounded; at the inner knots.
      bound: B.

    Returns:
      y (...), log dy/dx (...).
    """
    widths, heights = _shares(widths), _shares(heights)
    inside = jnp.abs(x) < bound
    # Clipped, so that what is not taken outside is finite, and its gradient too.
    held = jnp.clip(x, -bound, bound)
    x0, width, y0, height, first, last = _bin(held, widths, bound, (widths, heights, slopes))
    part, steep = _within((held - x0) / width), height / width
    rest = part * (1.0 - part)
    below = steep + (first + last - 2.0 * steep) * rest
    y = y0 + height * (steep * part**2 + first * rest) / below
    log_slope = _log_slope(part, steep, first, last)
    return jnp.where(inside, y, x), jnp.where(inside, log_slope, 0.0)


def rational_quadratic_inverse(
    y: Array, widths: Array, heights: Array, slopes: Array, bound: float
) -> Mapped:
    """The inverse of `rational_quadratic` and its log dx/dy; arguments as there.

    ξ solves aξ² + bξ + c = 0 with a + b > 0 >= c (equation 29). Of the two formulas of its root
    the one is taken whose sum does not cancel,

        ξ = −2c / (b + √(b² − 4ac)) if b >= 0,   ξ = (−b + √(b² − 4ac)) / 2a if b < 0 < a
    """
    widths, heights = _shares(widths), _shares(heights)
    inside = jnp.abs(y) < bound
    held = jnp.clip(y, -bound, bound)
    x0, width, y0, height, first, last = _bin(held, heights, bound, (widths, heights, slopes))
    steep, up = height / width, held - y0
    bend = up * (first + last - 2.0 * steep)
    a, b, c = height * (steep - first) + bend, height * first - bend, -steep * up
    # Positive but for rounding, since the map is strictly monotone.
    square = jnp.maximum(b**2 - 4.0 * a * c, float(jnp.finfo(y.dtype).tiny))
    both = jnp.abs(b) + jnp.sqrt(square)
    part = _within(jnp.where(b >= 0.0, -2.0 * c, both) / jnp.where(b >= 0.0, both, 2.0 * a))
    log_slope = _log_slope(part, steep, first, last)
    return jnp.where(inside, x0 + width * part, y), jnp.where(inside, -log_slope, 0.0)


# ---- images ---------------------------------------------------------------------------


class Logit(Bijector):
    """Images -> real numbers without edges, entry by entry.

    With w = 2/(levels − 1) the step of the grid (0 if there is none), data with their noise lie
    in [−1 − w/2, 1 + w/2]; with p that range mapped to [0, 1],

        z = log t − log(1 − t),   t = α + (1 − 2α) p

    (RealNVP, 4.1, there t = α + (1 − α) p). Beyond the range z goes on along its tangent, so the
    map is one-to-one on the whole line, and so is its inverse: a sample may lie outside the
    range, and has the density that it has.

    Attributes:
      levels: values that an entry can have; 0 for images that are continuous on [−1, 1].
      alpha: α, in (0, ½).
    """

    levels: int = 0
    alpha: float = 0.05

    def __post_init__(self) -> None:
        if not 0.0 < self.alpha < 0.5:
            raise ConfigError(f"Logit: alpha = {self.alpha!r} must lie between 0 and 1/2.")
        if self.levels < 0 or self.levels == 1:
            raise ConfigError(
                f"Logit: levels = {self.levels!r} must be at least 2, or 0 for continuous data."
            )
        super().__post_init__()

    @property
    def _range(self) -> tuple[float, float]:
        """Its low end and its length."""
        half = 1.0 / (self.levels - 1) if self.levels else 0.0
        return -1.0 - half, 2.0 + 2.0 * half

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> Mapped:
        del context
        low, length = self._range
        t = self.alpha + (1.0 - 2.0 * self.alpha) * ((x - low) / length)
        held = jnp.clip(t, self.alpha, 1.0 - self.alpha)
        log_one, log_rest = jnp.log(held), jnp.log1p(-held)
        z = log_one - log_rest + (t - held) / (self.alpha * (1.0 - self.alpha))
        slope = math.log((1.0 - 2.0 * self.alpha) / length)
        return z, sum_items(slope - log_one - log_rest)

    def inverse_and_log_det(self, z: Array, context: Array | None = None) -> Mapped:
        del context
        low, length = self._range
        end = math.log((1.0 - self.alpha) / self.alpha)
        held = jnp.clip(z, -end, end)
        t = jax.nn.sigmoid(held) + (z - held) * (self.alpha * (1.0 - self.alpha))
        x = low + length * ((t - self.alpha) / (1.0 - 2.0 * self.alpha))
        slope = math.log(length / (1.0 - 2.0 * self.alpha))
        log_slope = jax.nn.log_sigmoid(held) + jax.nn.log_sigmoid(-held) + slope
        return x, sum_items(log_slope)
