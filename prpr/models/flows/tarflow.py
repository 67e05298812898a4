"""TarFlow: affine maps of a sequence, token by token, predicted by causal transformers.

Notation
  x          (N, T, K) tokens: an image's patches, or a point's entries (K = 1)
  m, a       (N, T, K) shift and log-scale
  c          bound of |a|

  z_t = (x_t − m_t) exp(−a_t),   (m_t, c atanh(a_t/c)) = transformer(0, x_0 … x_{t−1})_t
  x_t = z_t exp(a_t) + m_t,      log |det ∂z/∂x| = −Σ a

Source: Zhai et al. 2024 (arXiv:2412.06329). Every second block takes the tokens in reverse
order. Two things differ from the paper. The transformer's input, not its output, is shifted by
one, so the first token is moved too, by what the context says. And a is bounded (c = 3), with a
norm before the last product: no block explodes, whatever it is given.

Forward is one parallel pass. The inverse goes token by token with a cache of keys and values, so
it takes the products of one forward pass. Its derivative is a second such pass, linear in the
tangents, which reads the finished cache: what autodiff stores is that of a forward pass, where
differentiating the loop would store T caches. Both modes and higher orders work.

Left out: the paper's Gaussian noise in training with its denoising step, and guidance. A flow
here models data with a noise in the grid's cells, whose likelihood it bounds (`dequantise`);
Gaussian noise reaches over the cells, so what it fits is another density. Guidance needs a
network that was also trained without its context.
"""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from prpr.errors import ConfigError
from prpr.models.flows.bijector import Array, Bijector, Mapped, sum_items
from prpr.models.flows.transformer import (
    Cache,
    OnTokens,
    Params,
    Transformer,
    check_sizes,
    grid,
    run,
    stacked,
    write,
)


class Autoregressions(Bijector):
    """Blocks of x (N, T, K) one after another, see the head of the module.

    Attributes:
      tokens, entries: T and K.
      blocks: how many; the second, fourth, … take the last token first.
      width, depth, heads: of the transformers.
      bound: c.
      unroll, remat: see `tarflow`.
    """

    tokens: int
    entries: int
    blocks: int = 4
    width: int = 128
    depth: int = 2
    heads: int = 4
    bound: float = 3.0
    unroll: int = 16
    remat: bool = False

    @property
    def _net(self) -> Transformer:
        return Transformer(
            self.tokens,
            2 * self.entries,
            self.width,
            self.depth,
            self.heads,
            causal=True,
            parent=None,
        )

    @nn.compact
    def _params(self, context: Array | None) -> Params:
        return self.param("layers", stacked(self._net, self.blocks, self.entries, context))

    def _upright(self, x: Array) -> Array:
        """Every block turns the tokens round; after an odd number they must be turned back."""
        return x[:, ::-1] if self.blocks % 2 else x

    def _scan(self, body: Any, x: Array, context: Array | None, reverse: bool = False) -> Mapped:
        unroll = self.blocks <= self.unroll
        body = jax.checkpoint(body) if self.remat else body
        return jax.lax.scan(body, x, self._params(context), reverse=reverse, unroll=unroll)

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> Mapped:
        net, bound = self._net, self.bound

        def body(x, params):
            shift, log_scale = _affine(run(net, params, _before(x), context), bound)
            z = (x - shift) * jnp.exp(-log_scale)
            return z[:, ::-1], -sum_items(log_scale)

        z, log_dets = self._scan(body, x, context)
        return self._upright(z), log_dets.sum(axis=0)

    def inverse_and_log_det(self, z: Array, context: Array | None = None) -> Mapped:
        net, bound = self._net, self.bound

        def body(z, params):
            x, log_scale, _ = _decode(net, bound, params, z[:, ::-1], context)
            return x, sum_items(log_scale)

        x, log_dets = self._scan(body, self._upright(z), context, reverse=True)
        return x, log_dets.sum(axis=0)


def _before(x: Array) -> Array:
    """x_{t−1} at place t, and zeros at the first."""
    return jnp.concatenate([jnp.zeros_like(x[:, :1]), x[:, :-1]], axis=1)


def _affine(out: Array, bound: float) -> tuple[Array, Array]:
    """Shift and log-scale from what a transformer says."""
    shift, raw = jnp.split(out, 2, axis=-1)
    return shift, bound * jnp.tanh(raw / bound)


def _token(
    net: Transformer,
    bound: float,
    t: Array,
    params: Params,
    previous: Array,
    z: Array,
    context: Array | None,
    cache: Cache,
) -> tuple[Array, Array, Cache]:
    """x_t, its log-scale, both (N, K), and its pairs, from x_{t−1}, z_t and the cache."""
    out, pairs = run(net, params, previous, context, cache, t, method="step")
    shift, log_scale = _affine(out, bound)
    return z * jnp.exp(log_scale) + shift, log_scale, pairs


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _decode(
    net: Transformer, bound: float, params: Params, z: Array, context: Array | None
) -> tuple[Array, Array, Cache]:
    """z (N, T, K) -> x, log-scale (N, T, K), and the cache of all tokens."""
    rows = z.swapaxes(0, 1)

    def body(carry, row):
        previous, cache = carry
        z_t, t = row
        x, log_scale, pairs = _token(net, bound, t, params, previous, z_t, context, cache)
        return (x, write(cache, pairs, t)), (x, log_scale)

    start = jnp.zeros_like(rows[0]), net.empty_cache(z.shape[0], z.dtype)
    (_, cache), found = jax.lax.scan(body, start, (rows, jnp.arange(net.tokens)))
    x, log_scale = (part.swapaxes(0, 1) for part in found)
    return x, log_scale, cache


@_decode.defjvp
def _decode_jvp(net, bound, primals, tangents):
    """The same loop over tangents: of x_{t−1} and of the cache so far they are carried.

    Everything else that a token needs is known from the start, the cache's values too, since
    `_token` does not look at places from t on.
    """
    params, z, context = primals
    d_params, d_z, d_context = tangents
    x, log_scale, cache = _decode(net, bound, params, z, context)

    def body(carry, row):
        d_previous, d_cache = carry
        previous, z_t, d_z_t, t = row
        _, (d_x, d_log_scale, d_pairs) = jax.jvp(
            functools.partial(_token, net, bound, t),
            (params, previous, z_t, context, cache),
            (d_params, d_previous, d_z_t, d_context, d_cache),
        )
        return (d_x, write(d_cache, d_pairs, t)), (d_x, d_log_scale)

    rows = [part.swapaxes(0, 1) for part in (_before(x), z, d_z)]
    start = jnp.zeros_like(rows[0][0]), jax.tree.map(jnp.zeros_like, cache)
    (_, d_cache), found = jax.lax.scan(body, start, (*rows, jnp.arange(net.tokens)))
    d_x, d_log_scale = (part.swapaxes(0, 1) for part in found)
    return (x, log_scale, cache), (d_x, d_log_scale, d_cache)


def tarflow(
    shape: Sequence[int],
    *,
    patch: int = 4,
    blocks: int = 4,
    width: int = 128,
    depth: int = 2,
    heads: int = 4,
    bound: float = 3.0,
    unroll: int = 16,
    remat: bool = False,
) -> Bijector:
    """TarFlow for images, and for points, whose tokens are their entries.

    Args:
      shape: (H, W, C) or (D,).
      patch: side of an image's patches, a divisor of H and W; not read for points.
      blocks: how many; every second one goes backwards.
      width, depth, heads: of each block's transformer.
      bound: c, of a block's log-scales.
      unroll: up to so many blocks are written out in the program. More are a loop: it compiles
        in the time of one, and its training step takes 1.4 times as long on a CPU.
      remat: whether the backward pass computes a block anew and does not keep its activations.

    Raises:
      ConfigError: neither image nor point, a patch that does not divide the sides, sizes that
        are no transformer's, a bound that is not positive.
    """
    if len(shape) == 1:
        tokens, entries = shape[0], 1
    else:
        rows, columns = grid("tarflow", shape, patch)
        tokens, entries = rows * columns, patch * patch * shape[-1]
    check_sizes("tarflow", heads, width, depth=depth, blocks=blocks, tokens=tokens)
    if not 0 < bound < float("inf"):
        raise ConfigError(f"tarflow: bound = {bound} of a block's log-scales; it must be positive.")
    bijector = Autoregressions(tokens, entries, blocks, width, depth, heads, bound, unroll, remat)
    return OnTokens(tuple(shape), patch, bijector)
