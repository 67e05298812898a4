"""Glow's layers, and the classical flows by name: `realnvp`, `glow`, `spline`.

Notation: x (N, D) or (N, H, W, C); C channels (entries, for a vector), M = H·W pixels (1 for a
vector).

Sources: Glow (Kingma & Dhariwal 2018, arXiv:1807.03039) for actnorm, the 1 x 1 convolution and
the multi-scale order; RealNVP (arXiv:1605.08803); neural spline flows (arXiv:1906.04032).
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from prpr.models.flows.bijector import Array, Bijector, Chain, Mapped
from prpr.models.flows.building import check_scales, check_shape, multiscale, shuffle, with_logit
from prpr.models.flows.couplings import AffineCoupling, Coupling, SplineCoupling
from prpr.models.flows.multiscale import Multiscale, Squeeze

_HIGHEST = jax.lax.Precision.HIGHEST
_CONSTANT = 1e-5  # a deviation below this part of the largest entry is rounding


def _times(x: Array) -> int:
    """How many pixels an item has: how often a map of channels is applied."""
    return math.prod(x.shape[1:-1])


def _each(value: Array, x: Array) -> Array:
    """One log_det () -> one for each item (N,), float32."""
    return jnp.broadcast_to(value.astype(jnp.float32), (x.shape[0],))


class ActNorm(Bijector):
    """z = (x + shift)·exp(log_scale), both (C,).

    Initialised by the data that `init` gives to the forward direction: each channel then has mean
    0 and deviation 1. A channel that is constant there keeps scale 1, so zeros change nothing;
    nor does an `init` through the inverse, which sees no data.
    """

    @nn.compact
    def _parameters(self, x: Array, data: bool) -> tuple[Array, Array]:
        channels = (x.shape[-1],)
        axes = tuple(range(x.ndim - 1))
        data = data and self.is_initializing()

        def shift(_: Array) -> Array:
            return -x.mean(axis=axes) if data else jnp.zeros(channels, x.dtype)

        def log_scale(_: Array) -> Array:
            if not data:
                return jnp.zeros(channels, x.dtype)
            deviation = x.std(axis=axes)
            varies = deviation > _CONSTANT * jnp.abs(x).max(axis=axes)
            return -jnp.log(jnp.where(varies, deviation, 1.0))

        shift_, log_scale_ = self.param("shift", shift), self.param("log_scale", log_scale)
        lead = (1,) * (x.ndim - 1)
        return shift_.reshape(*lead, -1), log_scale_.reshape(*lead, -1)

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> Mapped:
        del context
        shift, log_scale = self._parameters(x, True)
        z = (x + shift) * jnp.exp(log_scale)
        return z, _each(_times(x) * log_scale.sum(), x)

    def inverse_and_log_det(self, z: Array, context: Array | None = None) -> Mapped:
        del context
        shift, log_scale = self._parameters(z, False)
        x = z * jnp.exp(-log_scale) - shift
        return x, _each(-_times(z) * log_scale.sum(), z)


class InvertibleLinear(Bijector):
    """z = x W on the last axis, W = P L (U + diag(s)): Glow's 1 x 1 convolution.

        log |det ∂z/∂x| = M Σ log |s|

    P is a permutation and L a unit lower, U a strictly upper triangular matrix, from the LU
    decomposition of a random rotation. L, U and log |s| are trained. P and the signs of s are
    not: they are kept in the collection `constants`, beside the parameters.
    """

    @nn.compact
    def _factors(self, channels: int) -> tuple[Array, Array, Array, Array]:
        """Rows' places (C,), L, U + diag(s), and Σ log |s|."""
        start = (jnp.eye(channels), jnp.eye(channels), jnp.eye(channels))
        if self.is_initializing():
            key = self.make_rng("params")
            start = jax.scipy.linalg.lu(jax.random.orthogonal(key, channels))
        permutation, lower, upper = start
        diagonal = jnp.diagonal(upper)
        # Floats, so that a mean over pieces or devices leaves them what they are.
        p = self.variable("constants", "permutation", lambda: permutation).value
        sign = self.variable("constants", "sign", lambda: jnp.sign(diagonal)).value
        l_ = self.param("lower", lambda _: jnp.tril(lower, -1))
        u_ = self.param("upper", lambda _: jnp.triu(upper, 1))
        log_s = self.param("log_s", lambda _: jnp.log(jnp.abs(diagonal)))
        lower = jnp.tril(l_, -1) + jnp.eye(channels, dtype=l_.dtype)
        upper = jnp.triu(u_, 1) + jnp.diag(sign.astype(log_s.dtype) * jnp.exp(log_s))
        return jnp.argmax(p, axis=1), lower, upper, log_s.sum()

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> Mapped:
        del context
        place, lower, upper, log_det = self._factors(x.shape[-1])
        matrix = jnp.matmul(lower, upper, precision=_HIGHEST)[place]
        return jnp.matmul(x, matrix, precision=_HIGHEST), _each(_times(x) * log_det, x)

    def inverse_and_log_det(self, z: Array, context: Array | None = None) -> Mapped:
        del context
        place, lower, upper, log_det = self._factors(z.shape[-1])
        solve = jax.scipy.linalg.solve_triangular
        one = jnp.eye(z.shape[-1], dtype=lower.dtype)
        first = solve(lower, one, lower=True, unit_diagonal=True)
        # Of W = P L U the inverse is U⁻¹ L⁻¹ Pᵀ.
        matrix = jnp.matmul(solve(upper, one), first, precision=_HIGHEST)[:, place]
        return jnp.matmul(z, matrix, precision=_HIGHEST), _each(-_times(z) * log_det, z)


# ---- flows by name --------------------------------------------------------------------


def realnvp(
    shape: tuple[int, ...],
    *,
    depth: int = 8,
    width: int = 64,
    hidden: int = 2,
    scales: int | None = None,
    levels: int = 0,
) -> Bijector:
    """Affine couplings with fixed masks, each after an `ActNorm` in the place of batch norm.

    Images: at each scale half of `depth` couplings over checkerboards, a squeeze, half of them
    over channels, and the factoring out; at the end checkerboards again.

    Args:
      shape: of an item, (D,) or (H, W, C).
      depth: couplings, for images at each scale.
      width, hidden: of each coupling's network (for images `hidden` residual blocks).
      scales: squeezes of an image; None for up to 3 that leave a side of 2.
      levels: of an image's grid; if not 0, images pass through `Logit` first.

    Raises:
      ConfigError: a vector of one entry, or sides that cannot be halved so often.
    """
    check_shape("realnvp", shape, depth)

    def coupling(here: tuple[int, ...], i: int, mask: str) -> list[Bijector]:
        mix = [] if mask == "checkerboard" else shuffle(here, i)
        one = AffineCoupling(here, mask, i % 2 == 1, width, hidden)  # pyright: ignore
        return [ActNorm(), *mix, one]

    def several(here: tuple[int, ...], n: int, mask: str) -> list[Bijector]:
        return [one for i in range(n) for one in coupling(here, i, mask)]

    if len(shape) == 1:
        return Chain(several(shape, depth, "halves"))
    n, here, maps = check_scales("realnvp", shape, scales), tuple(shape), []
    half = max(depth // 2, 1)
    for i in range(n):
        squeeze = Squeeze(here)
        parts = [*several(here, half, "checkerboard"), squeeze]
        here = squeeze.latent_shape
        parts += several(here, half, "halves")
        if i == n - 1:
            parts += several(here, half, "checkerboard") if min(here[:2]) > 1 else []
        maps.append(Chain(parts))
        here = (*here[:-1], here[-1] // 2)
    maps = maps or [Chain(several(here, depth, "checkerboard"))]
    return with_logit(Multiscale(shape, maps), levels)


def _mixed(
    name: str,
    shape: tuple[int, ...],
    depth: int,
    scales: int | None,
    levels: int,
    coupling: Callable[[tuple[int, ...]], Coupling],
    prior: Callable[[tuple[int, ...]], Coupling],
) -> Bijector:
    """`depth` times actnorm, linear map, coupling; for images at each scale."""
    check_shape(name, shape, depth)

    def steps(here: tuple[int, ...]) -> list[Bijector]:
        return [m for _ in range(depth) for m in (ActNorm(), InvertibleLinear(), coupling(here))]

    if len(shape) == 1:
        return Chain(steps(shape))
    n = check_scales(name, shape, scales)
    return with_logit(multiscale(shape, n, steps, lambda here: [prior(here)]), levels)


def glow(
    shape: tuple[int, ...],
    *,
    depth: int = 8,
    width: int = 64,
    hidden: int = 2,
    scales: int | None = None,
    levels: int = 0,
) -> Bijector:
    """Glow: at each scale a squeeze, `depth` steps, and half of the channels factored out.

    A step is actnorm, a linear map of the channels, an affine coupling of their halves. What is
    factored out is first shifted and scaled given what is kept. Arguments and errors are those of
    `realnvp`; further, an odd number of channels where there is no squeeze.
    """

    def coupling(here: tuple[int, ...]) -> Coupling:
        return AffineCoupling(here, width=width, depth=hidden)

    return _mixed("glow", shape, depth, scales, levels, coupling, coupling)


def spline(
    shape: tuple[int, ...],
    *,
    depth: int = 4,
    width: int = 64,
    hidden: int = 2,
    bins: int | None = None,
    bound: float = 5.0,
    scales: int | None = None,
    levels: int = 0,
) -> Bijector:
    """Rational-quadratic splines of `bins` bins on [−bound, bound] as couplings.

    Vectors: the two halves in turn, as in `realnvp`: in the plane a spline along each axis fits
    better than along learned directions, and many bins better than many couplings. Images: as in
    `glow`. Further arguments and errors are those of these two; `bins` None is 32 for vectors and
    8 for images.
    """
    check_shape("spline", shape, depth)
    bins = bins if bins is not None else 32 if len(shape) == 1 else 8

    def coupling(here: tuple[int, ...], flip: bool = False) -> Coupling:
        return SplineCoupling(here, flip=flip, width=width, depth=hidden, bins=bins, bound=bound)

    def prior(here: tuple[int, ...]) -> Coupling:
        return AffineCoupling(here, width=width, depth=hidden)

    if len(shape) == 1:
        return Chain(
            [
                one
                for i in range(depth)
                for one in (ActNorm(), *shuffle(shape, i), coupling(shape, i % 2 == 1))
            ]
        )
    return _mixed("spline", shape, depth, scales, levels, coupling, prior)
