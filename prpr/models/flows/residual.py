"""Residual flows: z = x + g(x) with a network g that contracts, Lip(g) ≤ L < 1.

Notation: J = ∂g/∂x of one item, D its number of entries, σ(W) the largest singular value, v a
probe (D,) of independent ±1. By Banach's theorem x + g(x) is one-to-one and onto, and its inverse
is the limit of x ← z − g(x).

The bound on Lip(g) is proved, not estimated from below. g is φ between n linear maps, each scaled
to σ ≤ L^(1/n); φ, LipSwish, has slopes in [−1, 1]. The bounds of σ (`lipschitz`) never lie below
it, up to rounding, which a factor 1 + 1e-5 covers.

log det (I + J), which is positive:
  D ≤ `exact_dim`   from the matrix J itself: exact, D times the cost of g.
  else              E_v[vᵀ log(I + J) v] = Σ_k (−1)^{k+1} E_v[vᵀ Jᵏ v] / k

The power series is summed for each item until what is left is known to be below 1e-5 |v|², since
|vᵀ Jʲ v| ≤ |v| |(Jᵀ)ᵏ v| L^{j−k} for j > k. So it needs no Russian roulette, whose purpose is to
stop at random without bias. What is left is the variance of a probe, 2 Σ_{i≠j} S_ij² with S the
symmetric part of log(I + J), divided by the number of probes. Where the collection "probes" holds
random words of each item (`drawn_for`; the likelihoods of a training step fill it from the item's
own noise, the flow's part of a ratio does not), its probes are drawn by them and the estimate has
no bias; with the number that it holds at first all items have the same probes always, log_det is a
deterministic function, and its error at one x does not average out: evaluate so, or with a larger
`exact_dim`, but train with words, as a network could learn to please fixed probes.

The gradient is that of log |det| itself, ∂ log det (I + J) = tr((I + J)⁻¹ ∂J), estimated with the
same probes as wᵀ ∂J v, w = (I + Jᵀ)⁻¹ v, again by a series up to a known rest: without bias where
the probes are drawn, and in memory that does not grow with the terms. It is of first order only.

Sources: Behrmann et al. 2019 (arXiv:1811.00995), Chen et al. 2019 (arXiv:1906.02735: LipSwish,
this gradient, the unbiased log-density).
"""

import math
import zlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from prpr.errors import ConfigError
from prpr.models.flows.bijector import Array, Bijector, Chain, Mapped
from prpr.models.flows.building import check_scales, check_shape, multiscale, with_logit
from prpr.models.flows.glow import ActNorm, InvertibleLinear
from prpr.models.flows.lipschitz import convolution_bound, lip_swish, spectral_bound

_SLACK = 1.0 + 1e-5
_REST = 1e-5  # of a power series, as a part of |v|²


# ---- solving --------------------------------------------------------------------------


def _largest(x: Array) -> Array:
    """(N, ...) -> (N,): the largest entry of each item."""
    return jnp.abs(x).reshape(x.shape[0], -1).max(axis=1)


def _where(items: Array, x: Array, y: Array) -> Array:
    return jnp.where(items.reshape(-1, *[1] * (x.ndim - 1)), x, y)


def _limit(step: Callable[[Array], Array], start: Array, lipschitz: float) -> Array:
    """The fixed point of a contraction, for each item: x ← step(x) until it moves by rounding.

    After k steps the error is at most L^k/(1 − L) |x₁ − x₀|, which bounds the steps. Items that
    have arrived stay, so none depends on which others are in its batch.
    """
    eps = float(jnp.finfo(start.dtype).eps)
    most = math.ceil(math.log(eps * (1.0 - lipschitz)) / math.log(lipschitz))

    def go_on(state: tuple[Array, Array, Array]) -> Array:
        _, moving, i = state
        return moving.any() & (i < most)

    def advance(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        x, moving, i = state
        new = step(x)
        far = _largest(new - x) > eps * jnp.maximum(_largest(new), 1.0)
        return _where(moving, new, x), moving & far, i + 1

    moving = jnp.ones(start.shape[0], jnp.bool_)
    return jax.lax.while_loop(go_on, advance, (start, moving, jnp.int32(0)))[0]


def solve(g: Callable[[Array], Array], z: Array, lipschitz: float) -> Array:
    """x (N, ...) with x + g(x) = z; derivatives by the implicit function theorem.

    dx = (I + J)⁻¹ (dz − ∂g), and transposed for gradients; both are fixed points of contractions
    with the same L, v ← b − Jv. g may close over whatever is differentiated.
    """

    def linear(apply: Callable[[Array], Array], b: Array) -> Array:
        return _limit(lambda v: b + v - apply(v), b, lipschitz)

    def tangent(apply: Callable[[Array], Array], b: Array) -> Array:
        return jax.lax.custom_linear_solve(apply, b, linear, transpose_solve=linear)

    def root(f: Callable[[Array], Array], start: Array) -> Array:
        return _limit(lambda x: x - f(x), start, lipschitz)

    return jax.lax.custom_root(lambda x: x + g(x) - z, z, root, tangent)


# ---- log det --------------------------------------------------------------------------


def exact_log_det(g: Callable[[Array], Array], x: Array) -> Array:
    """log det (I + J) (N,) from the matrices J (N, D, D)."""
    n, d = x.shape[0], math.prod(x.shape[1:])
    _, push = jax.linearize(g, x)

    def column(direction: Array) -> Array:
        moved = push(jnp.broadcast_to(direction.reshape(1, *x.shape[1:]), x.shape))
        return moved.reshape(n, d)

    one = jnp.eye(d, dtype=x.dtype)
    jacobian = jax.vmap(column, out_axes=2)(one)
    return jnp.linalg.slogdet(jacobian + one[None])[1]


def estimated_log_det(g: Callable[[Array], Array], x: Array, v: Array, lipschitz: float) -> Array:
    """vᵀ log(I + J) v (N,) for one probe v (N, ...); its gradient is wᵀ ∂J v, see the head."""
    _, pull = jax.vjp(g, jax.lax.stop_gradient(x))
    most = math.ceil(math.log(_REST * (1.0 - lipschitz)) / math.log(lipschitz))

    def dot(a: Array, b: Array) -> Array:
        return (a * b).reshape(a.shape[0], -1).sum(axis=1)

    full = dot(v, v)

    def go_on(state: Any) -> Array:
        return state[3].any() & (state[4] <= most)

    def advance(state: Any) -> Any:
        term, value, w, moving, k = state
        term = pull(term)[0]
        sign = jnp.where(k % 2 == 1, 1.0, -1.0).astype(x.dtype)
        value = jnp.where(moving, value + sign * dot(term, v) / k.astype(x.dtype), value)
        w = _where(moving, w - sign * term, w)
        rest = jnp.sqrt(dot(term, term) * full) * (lipschitz / (1.0 - lipschitz))
        return term, value, w, moving & (rest > _REST * full), k + 1

    moving = jnp.ones(x.shape[0], jnp.bool_)
    start = (v, jnp.zeros(x.shape[0], x.dtype), v, moving, jnp.int32(1))
    _, value, w, _, _ = jax.lax.stop_gradient(jax.lax.while_loop(go_on, advance, start))
    slope = dot(w, jax.jvp(g, (x,), (v,))[1])
    return value + slope - jax.lax.stop_gradient(slope)


# ---- probes ---------------------------------------------------------------------------


def drawn_for(variables: Any, noise: Array) -> Any:
    """A model's variables, in which each item has the random words that its probes are drawn by.

    They are of the item, not of its place in a batch: so a batch may be cut.

    Args:
      variables: of any model; those without probes come back as they are.
      noise: (N, ...) float32 random numbers of the items, of which the first and the last are read.
    """
    if "probes" not in variables:
        return variables
    flat = noise.reshape(noise.shape[0], -1)
    words = jax.lax.bitcast_convert_type(jnp.stack([flat[:, 0], flat[:, -1]], axis=1), jnp.uint32)
    return {**variables, "probes": jax.tree.map(lambda _: words, variables["probes"])}


def _rademacher(words: Array | None, layer: str, count: int, x: Array) -> Array:
    """±1, (count, N, ...), of each item by its words (N, 2); else (count, 1, ...), the same always.

    `layer` tells those of one layer from another's.
    """
    own = jax.random.key(zlib.crc32(layer.encode()))
    if words is None:
        return jax.random.rademacher(own, (count, 1, *x.shape[1:]), x.dtype)

    def one(pair: Array) -> Array:
        key = jax.random.fold_in(jax.random.fold_in(own, pair[0]), pair[1])
        return jax.random.rademacher(key, (count, *x.shape[1:]), x.dtype)

    return jax.vmap(one, out_axes=1)(words)


# ---- the map --------------------------------------------------------------------------


class Residual(Bijector):
    """z = x + g(x); see the head of the module.

    g is a perceptron for vectors, and for images a 3 x 3 convolution, `depth` − 1 of 1 x 1, and a
    3 x 3 one. The context is added to its hidden layers: it needs no bound, as L is in x only.

    Attributes:
      shape: of an item, (D,) or (H, W, C).
      width, depth: of g's hidden layers.
      lipschitz: L, in (0, 1).
      exact_dim: largest D whose log |det| is taken from the matrix.
      probes: probes for an item where D is larger.

    Raises:
      ConfigError: L is not in (0, 1), or another number is out of its range.
    """

    shape: tuple[int, ...]
    width: int = 64
    depth: int = 2
    lipschitz: float = 0.9
    exact_dim: int = 16
    probes: int = 1

    def __post_init__(self) -> None:
        if len(self.shape) not in (1, 3) or min(self.shape) < 1:
            raise ConfigError(f"Residual: shape = {self.shape} must be (D,) or (H, W, C).")
        if not 0.0 < self.lipschitz < 1.0:
            raise ConfigError(
                f"Residual: lipschitz = {self.lipschitz!r} must lie between 0 and 1, or x + g(x) "
                "has no inverse."
            )
        for key in ("width", "depth", "probes"):
            if getattr(self, key) < 1:
                raise ConfigError(f"Residual: {key} = {getattr(self, key)!r} must be at least 1.")
        super().__post_init__()

    @property
    def _exact(self) -> bool:
        """Whether log |det| is taken from the matrix."""
        return math.prod(self.shape) <= self.exact_dim

    @nn.compact
    def _network(self, context: Array | None) -> Callable[[Array], Array]:
        """g, as a pure function that closes over its scaled kernels."""
        if self.is_initializing() and not self._exact:  # a number, where words are to be
            self.variable("probes", "words", lambda: jnp.zeros((), jnp.float32))
        image = len(self.shape) == 3
        c = self.shape[-1]
        sizes = [c, *[self.width] * self.depth, c]
        n = len(sizes) - 1
        share = self.lipschitz ** (1.0 / n)
        kernels, biases, betas = [], [], []
        for i in range(n):
            side = (3, 3) if image and i in (0, n - 1) else (1, 1) if image else ()
            init = nn.initializers.zeros if i == n - 1 else nn.initializers.lecun_normal()
            size = (*side, sizes[i], sizes[i + 1])
            kernel = self.param(f"kernel{i}", init, size, jnp.float32)
            if side == (3, 3):
                bound = convolution_bound(kernel, *self.shape[:2])
            else:
                bound = spectral_bound(kernel.reshape(size[-2:]))
            # As in the source, kernels that are small enough stay as they are.
            kernels.append(kernel * jnp.minimum(1.0, share / (_SLACK * bound)))
            bias = self.param(f"bias{i}", nn.initializers.zeros, size[-1:], jnp.float32)
            biases.append(bias.reshape(*[1] * len(self.shape), -1))
            if i < n - 1:
                betas.append(self.param(f"beta{i}", nn.initializers.constant(0.5), (), jnp.float32))
                if context is not None:
                    dense = nn.Dense(self.width, use_bias=False, name=f"context{i}")
                    added = dense(context)
                    added = added.reshape(-1, *[1] * (len(self.shape) - 1), self.width)
                    biases[i] = biases[i] + added

        def g(x: Array) -> Array:
            for i, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
                x = (_convolve(x, kernel) if image else x @ kernel) + bias
                x = lip_swish(x, betas[i]) if i < n - 1 else x
            return x

        return g

    def _log_det(self, g: Callable[[Array], Array], x: Array) -> Array:
        if self._exact:
            return exact_log_det(g, x).astype(jnp.float32)
        words = self.get_variable("probes", "words", None)
        words = None if words is None or words.ndim == 0 else words
        probes = _rademacher(words, "/".join(self.path), self.probes, x)

        def one(v: Array) -> Array:
            return estimated_log_det(g, x, jnp.broadcast_to(v, x.shape), self.lipschitz)

        return jax.vmap(one)(probes).mean(axis=0).astype(jnp.float32)

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> Mapped:
        g = self._network(context)
        return x + g(x), self._log_det(g, x)

    def inverse_and_log_det(self, z: Array, context: Array | None = None) -> Mapped:
        g = self._network(context)
        x = solve(g, z, self.lipschitz)
        return x, -self._log_det(g, x)


def _convolve(x: Array, kernel: Array) -> Array:
    if kernel.shape[:2] == (1, 1):
        return x @ kernel[0, 0]
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def residual(
    shape: tuple[int, ...],
    *,
    depth: int = 8,
    width: int = 64,
    hidden: int = 2,
    lipschitz: float = 0.9,
    exact_dim: int = 16,
    probes: int = 1,
    scales: int | None = None,
    levels: int = 0,
) -> Bijector:
    """`depth` times actnorm and a residual map; images as in `glow`, with no coupling anywhere.

    Args:
      shape: of an item, (D,) or (H, W, C).
      depth: residual maps, for images at each scale.
      width, hidden: of their networks.
      lipschitz, exact_dim, probes: as in `Residual`.
      scales: squeezes of an image; None for up to 3 that leave a side of 2.
      levels: of an image's grid; if not 0, images pass through `Logit` first.

    Raises:
      ConfigError: a number out of its range, or sides that cannot be halved so often.
    """
    check_shape("residual", shape, depth)

    def steps(here: tuple[int, ...]) -> list[Bijector]:
        def one() -> list[Bijector]:
            return [ActNorm(), Residual(here, width, hidden, lipschitz, exact_dim, probes)]

        return [m for _ in range(depth) for m in one()] + [ActNorm()]

    if len(shape) == 1:
        return Chain(steps(shape))
    n = check_scales("residual", shape, scales)
    return with_logit(multiscale(shape, n, steps, lambda _: [InvertibleLinear()]), levels)
