"""Transformers over tokens, in parallel or one token at a time with a cache.

Notation
  N, T, K    items, tokens of an item, entries of a token
  W, H       width of the network, its heads; a head has W/H entries
  x          (N, T, K) tokens, h (N, T, W) activations, y (N, T, outputs)
  context    (N, C) that every token is told besides, or None
  cache      keys and values (N, H, T, W/H) of every block, at the places of earlier tokens

  h = x A + position + context B
  h = h + attention(norm(h)),   h = h + mlp(norm(h))           `depth` times
  y = norm(h) E + e,            E = 0 and e = 0 at the start, so that y = 0

Pre-norm blocks as in the vision transformer (Dosovitskiy et al. 2021, arXiv:2010.11929). With
`causal` y_t depends on x_0 … x_t only, and `step` finds it from x_t and the cache, by the same
parameters. The last norm makes y bounded by the parameters, whatever x is.

An image becomes tokens by space to depth: (N, P·h, P·w, C) -> (N, h·w, P·P·C), rows first.
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from prpr.errors import ConfigError
from prpr.models.flows.bijector import Array, Bijector, Mapped

Pair = tuple[Array, Array]  # keys, values
Cache = tuple[Pair, ...]  # of each block
Params = Any
Initial = Callable[[Array], Params]

# An inverse repeats the forward's products in other shapes. Factors that GPUs and TPUs round to
# fewer bits would make the two directions differ.
_PRECISION = "highest"
_PAST = -1e30  # a logit whose softmax is 0


def _dense(features: int, *, zero: bool = False, bias: bool = True) -> nn.Dense:
    start = nn.initializers.zeros if zero else nn.initializers.lecun_normal()
    return nn.Dense(features, use_bias=bias, kernel_init=start, precision=_PRECISION)


class LayerNorm(nn.Module):
    """(h − mean)/√(var + 10⁻⁶) · scale + bias over the last axis.

    Flax's own has a variance that cancels by default, and mixes types in float64.
    """

    @nn.compact
    def __call__(self, h: Array) -> Array:
        scale = self.param("scale", nn.initializers.ones, h.shape[-1:], jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, h.shape[-1:], jnp.float32)
        apart = h - h.mean(axis=-1, keepdims=True)
        unit = apart * jax.lax.rsqrt(jnp.square(apart).mean(axis=-1, keepdims=True) + 1e-6)
        axes = tuple(range(h.ndim - 1))
        return unit * jnp.expand_dims(scale, axes) + jnp.expand_dims(bias, axes)


class Attention(nn.Module):
    """softmax(q kᵀ/√(W/H)) v for every head, and a last product.

    Attributes:
      width: W.
      heads: H, a divisor of W.
      causal: a token looks at itself and at earlier ones only.
    """

    width: int
    heads: int
    causal: bool = False

    def setup(self) -> None:
        self.qkv = _dense(3 * self.width)
        self.out = _dense(self.width)

    def _heads(self, h: Array) -> tuple[Array, ...]:
        """(..., W) -> queries, keys and values, each (..., H, W/H)."""
        parts = self.qkv(h).reshape(*h.shape[:-1], 3, self.heads, self.width // self.heads)
        query, key, value = jnp.unstack(parts, axis=-3)
        return query * (self.width // self.heads) ** -0.5, key, value

    def __call__(self, h: Array) -> Array:
        """(N, T, W) -> (N, T, W)."""
        n, t, _ = h.shape
        query, key, value = (part.swapaxes(1, 2) for part in self._heads(h))
        logits = jnp.einsum("nhqd,nhkd->nhqk", query, key, precision=_PRECISION)
        if self.causal:
            seen = jnp.tril(jnp.ones((t, t), bool))[None, None]
            logits = jnp.where(seen, logits, _PAST)
        weights = jax.nn.softmax(logits, axis=-1)
        found = jnp.einsum("nhqk,nhkd->nhqd", weights, value, precision=_PRECISION)
        return self.out(found.swapaxes(1, 2).reshape(n, t, self.width))

    def step(self, h: Array, past: Pair, t: Array) -> tuple[Array, Pair]:
        """Token t alone: h (N, W), past at places before t -> (N, W), its key and value.

        Places of `past` from t on are not looked at. The token's own pair is not written there
        first: what is read would then be new in every step, and autodiff would keep T copies.
        """
        query, key, value = self._heads(h)
        keys, values = past
        logits = jnp.einsum("nhd,nhsd->nhs", query, keys, precision=_PRECISION)
        seen = (jnp.arange(keys.shape[2]) < t)[None, None]
        logits = jnp.where(seen, logits, _PAST)
        own = (query * key).sum(axis=-1, keepdims=True)
        weights = jax.nn.softmax(jnp.concatenate([logits, own], axis=-1), axis=-1)
        found = jnp.einsum("nhs,nhsd->nhd", weights[..., :-1], values, precision=_PRECISION)
        found = found + weights[..., -1:] * value
        return self.out(found.reshape(h.shape)), (key, value)


class Block(nn.Module):
    """h + attention(norm(h)), and then h + mlp(norm(h)), with GELU."""

    width: int
    heads: int
    expansion: int = 4
    causal: bool = False

    def setup(self) -> None:
        self.norm = LayerNorm()
        self.attention = Attention(self.width, self.heads, self.causal)
        self.mlp_norm = LayerNorm()
        self.up = _dense(self.expansion * self.width)
        self.down = _dense(self.width)

    def _mlp(self, h: Array) -> Array:
        return h + self.down(nn.gelu(self.up(self.mlp_norm(h))))

    def __call__(self, h: Array) -> Array:
        """(N, T, W) -> (N, T, W)."""
        return self._mlp(h + self.attention(self.norm(h)))

    def step(self, h: Array, past: Pair, t: Array) -> tuple[Array, Pair]:
        """Token t alone: h (N, W) -> (N, W), its key and value."""
        found, pair = self.attention.step(self.norm(h), past, t)
        return self._mlp(h + found), pair


class Transformer(nn.Module):
    """See the head of the module; zero at initialisation.

    Attributes:
      tokens: T.
      outputs: entries of y_t.
      width, heads: W and H.
      depth: number of blocks.
      expansion: width of an MLP's middle, in W.
      causal: y_t looks at x_0 … x_t only, and there is `step`.
    """

    tokens: int
    outputs: int
    width: int = 128
    depth: int = 2
    heads: int = 4
    expansion: int = 4
    causal: bool = False

    def setup(self) -> None:
        self.enter = _dense(self.width)
        self.condition = _dense(self.width, bias=False)
        start = nn.initializers.normal(self.width**-0.5)
        self.position = self.param("position", start, (self.tokens, self.width), jnp.float32)
        self.blocks = [
            Block(self.width, self.heads, self.expansion, self.causal) for _ in range(self.depth)
        ]
        self.norm = LayerNorm()
        self.exit = _dense(self.outputs, zero=True)

    def __call__(self, x: Array, context: Array | None = None) -> Array:
        """x (N, T, K), context (N, C) -> y (N, T, outputs)."""
        h = self.enter(x) + self.position[None]
        if context is not None:
            h = h + self.condition(context)[:, None]
        for block in self.blocks:
            h = block(h)
        return self.exit(self.norm(h))

    def step(self, x: Array, context: Array | None, cache: Cache, t: Array) -> tuple[Array, Cache]:
        """y_t of a causal network.

        Args:
          x: (N, K), token t.
          context: (N, C) or None.
          cache: of `empty_cache`, with the pairs of all tokens before t written into it.
          t: scalar int, the token's place.

        Returns:
          y_t (N, outputs); for each block the token's key and value (N, H, W/H), for `write`.
        """
        h = self.enter(x) + jax.lax.dynamic_index_in_dim(self.position, t)
        if context is not None:
            h = h + self.condition(context)
        pairs = []
        for block, past in zip(self.blocks, cache, strict=True):
            h, pair = block.step(h, past, t)
            pairs.append(pair)
        return self.exit(self.norm(h)), tuple(pairs)

    def empty_cache(self, n: int, dtype: jnp.dtype) -> Cache:
        """For n items."""
        zeros = jnp.zeros((n, self.heads, self.tokens, self.width // self.heads), dtype)
        return ((zeros, zeros),) * self.depth


def write(cache: Cache, pairs: Cache, t: Array) -> Cache:
    """The cache with a token's pairs (N, H, W/H) at place t."""
    return jax.tree.map(
        lambda old, new: jax.lax.dynamic_update_index_in_dim(old, new, t, axis=2), cache, pairs
    )


def patches(x: Array, patch: int) -> Array:
    """(N, P·h, P·w, C) -> (N, h·w, P·P·C), P = patch."""
    n, height, width, c = x.shape
    x = x.reshape(n, height // patch, patch, width // patch, patch, c)
    return x.swapaxes(2, 3).reshape(n, -1, patch * patch * c)


def unpatch(tokens: Array, patch: int, shape: Sequence[int]) -> Array:
    """(N, h·w, P·P·C) -> (N, *shape), shape = (P·h, P·w, C)."""
    height, width, c = shape
    x = tokens.reshape(-1, height // patch, width // patch, patch, patch, c)
    return x.swapaxes(2, 3).reshape(-1, height, width, c)


def run(net: Transformer, params: Params, *inputs: Any, method: str = "__call__") -> Any:
    """What a method of the network gives, with these parameters."""
    return net.apply({"params": params}, *inputs, method=method)


def stacked(net: Transformer, count: int, entries: int, context: Array | None) -> Initial:
    """key -> parameters of `count` networks of x (N, T, entries), each leaf (count, ...).

    A flow's layers are equal but for their parameters, so they can be a loop's body.
    """
    x = jnp.zeros((1, net.tokens, entries), jnp.float32)
    told = None if context is None else jnp.zeros((1, context.shape[-1]), jnp.float32)

    def initial(key: Array) -> Params:
        keys = jax.random.split(key, count)
        return jax.vmap(lambda one: net.init(one, x, told)["params"])(keys)

    return initial


class OnTokens(Bijector):
    """A map of tokens as one of images or points, which are rearranged; log_det is the map's.

    Attributes:
      shape: of an item: (H, W, C), or (D,), which is D tokens of one entry.
      patch: side of an image's patches.
      bijector: of (N, T, K).
    """

    shape: tuple[int, ...]
    patch: int
    bijector: Bijector

    def _in(self, x: Array) -> Array:
        return x[..., None] if len(self.shape) == 1 else patches(x, self.patch)

    def _out(self, tokens: Array) -> Array:
        if len(self.shape) == 1:
            return tokens[..., 0]
        return unpatch(tokens, self.patch, self.shape)

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> Mapped:
        z, log_det = self.bijector.forward_and_log_det(self._in(x), context)
        return self._out(z), log_det

    def inverse_and_log_det(self, z: Array, context: Array | None = None) -> Mapped:
        x, log_det = self.bijector.inverse_and_log_det(self._in(z), context)
        return self._out(x), log_det


def grid(model: str, shape: Sequence[int], patch: int) -> tuple[int, int]:
    """Rows and columns of an image's patches.

    Raises:
      ConfigError: shape is no image's, or the patch does not divide its sides.
    """
    if len(shape) != 3 or min(shape) < 1:
        raise ConfigError(f"{model}: shape = {tuple(shape)}; an image's is (H, W, C).")
    height, width, _ = shape
    if patch < 1 or height % patch or width % patch:
        sides = range(1, min(height, width) + 1)
        fit = [side for side in sides if height % side == 0 and width % side == 0]
        raise ConfigError(
            f"{model}: patch = {patch} does not divide the sides of an image of {height} x "
            f"{width}: use one of {', '.join(map(str, fit))}."
        )
    return height // patch, width // patch


def check_sizes(model: str, heads: int, width: int, **counts: int) -> None:
    """Refuses what cannot be a transformer.

    Raises:
      ConfigError: a size below 1, or a width that the heads do not divide.
    """
    for name, value in {"width": width, "heads": heads, **counts}.items():
        if value < 1:
            raise ConfigError(f"{model}: {name} = {value}; it must be at least 1.")
    if width % heads:
        raise ConfigError(
            f"{model}: width = {width} cannot be shared by heads = {heads}: use a multiple, such "
            f"as {heads * max(1, round(width / heads))}."
        )
