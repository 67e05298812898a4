"""Jet: couplings of image patches, whose shift and scale a vision transformer predicts.

Notation
  x          (N, H, W, C) an image, (N, T, K) its T patches of K = P·P·C entries
  a, b       the half of (N, T, K) that is kept and the one that is moved, along K or T
  s, m       log-scale and shift, of b's shape

  b' = (b + m) eˢ,   m, r = transformer(a),   eˢ = 2 sigmoid(r),   log_det = Σ s

Source: Kolesnikov, Pinto & Tschannen 2024 (arXiv:2412.15129). No ActNorm, no multiscale, no
invertible product: the entries that a coupling keeps are drawn at random, once and for all.
The transformer ends in zeros, so a coupling starts as the identity. eˢ < 2 bounds what the
forward direction stretches; the inverse divides by eˢ, which has no bound below, as there.

Couplings along K ("channels") and along T ("tokens") follow each other as `kinds` says. Of two
successive couplings of a kind the second keeps what the first moved, so both together move
everything (the original draws every choice along K anew). Those along T keep one colour of a
checkerboard, then every other column, then every other row. A token of either half is cut in
two, so that T tokens of K/2 entries are left whatever the kind; where the colours differ in
number, the last entries of the larger one go to the other half.
"""

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from prpr.errors import ConfigError, unknown_name
from prpr.models.flows.bijector import Array, Bijector, Mapped, sum_items
from prpr.models.flows.transformer import (
    OnTokens,
    Params,
    Transformer,
    check_sizes,
    grid,
    run,
    stacked,
)

KINDS = ("channels", "tokens")
_ORDER = ("channels", "channels", "channels", "channels", "tokens")  # of the paper's main models


class Couplings(Bijector):
    """Couplings of x (N, T, K) one after another, see the head of the module.

    Attributes:
      rows, columns: of the tokens, T = rows · columns.
      entries: K.
      kinds: of each coupling, "channels" or "tokens".
      width, depth, heads: of the transformers.
      unroll, remat: see `jet`.
    """

    rows: int
    columns: int
    entries: int
    kinds: tuple[str, ...]
    width: int = 128
    depth: int = 1
    heads: int = 4
    unroll: int = 16
    remat: bool = False

    @property
    def _half(self) -> tuple[int, int]:
        """Tokens and entries of a half; an odd K is left whole."""
        t, k = self.rows * self.columns, self.entries
        return (t // 2, k) if k % 2 else (t, k // 2)

    @property
    def _net(self) -> Transformer:
        tokens, entries = self._half
        return Transformer(tokens, 2 * entries, self.width, self.depth, self.heads, parent=None)

    @nn.compact
    def _layers(self, context: Array | None) -> tuple[Params, ...]:
        """Parameters, order and its inverse, of all couplings."""
        initial = stacked(self._net, len(self.kinds), self._half[1], context)
        order = orders(self.rows, self.columns, self.entries, self.kinds)
        return self.param("layers", initial), order, np.argsort(order, axis=1)

    def _scan(self, body: Any, x: Array, context: Array | None, reverse: bool = False) -> Mapped:
        unroll = len(self.kinds) <= self.unroll
        body = jax.checkpoint(body) if self.remat else body
        return jax.lax.scan(body, x, self._layers(context), reverse=reverse, unroll=unroll)

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> Mapped:
        net, half = self._net, self._half

        def body(x, layer):
            params, order, inverse = layer
            kept, moved = _cut(x, order, half)
            shift, log_scale = _predict(net, params, kept, context)
            z = _join(kept, (moved + shift) * jnp.exp(log_scale), inverse)
            return z, sum_items(log_scale)

        z, log_dets = self._scan(body, x.reshape(len(x), -1), context)
        return z.reshape(x.shape), log_dets.sum(axis=0)

    def inverse_and_log_det(self, z: Array, context: Array | None = None) -> Mapped:
        net, half = self._net, self._half

        def body(z, layer):
            params, order, inverse = layer
            kept, moved = _cut(z, order, half)
            shift, log_scale = _predict(net, params, kept, context)
            x = _join(kept, moved * jnp.exp(-log_scale) - shift, inverse)
            return x, -sum_items(log_scale)

        x, log_dets = self._scan(body, z.reshape(len(z), -1), context, reverse=True)
        return x.reshape(z.shape), log_dets.sum(axis=0)


def _take(x: Array, places: Array) -> Array:
    return x.at[:, places].get(unique_indices=True, mode="promise_in_bounds")


def _cut(x: Array, order: Array, half: tuple[int, int]) -> list[Array]:
    """(N, T·K) -> what is kept and what is moved, each (N, *half)."""
    return [part.reshape(-1, *half) for part in jnp.split(_take(x, order), 2, axis=1)]


def _join(kept: Array, moved: Array, inverse: Array) -> Array:
    n = kept.shape[0]
    return _take(jnp.concatenate([kept.reshape(n, -1), moved.reshape(n, -1)], axis=1), inverse)


def _predict(
    net: Transformer, params: Params, kept: Array, context: Array | None
) -> tuple[Array, Array]:
    """Shift and log-scale of what is moved."""
    shift, raw = jnp.split(run(net, params, kept, context), 2, axis=-1)
    return shift, jax.nn.log_sigmoid(raw) + math.log(2.0)


def jet(
    shape: Sequence[int],
    *,
    patch: int = 4,
    couplings: int = 16,
    width: int = 128,
    depth: int = 1,
    heads: int = 4,
    kinds: Sequence[str] = _ORDER,
    unroll: int = 16,
    remat: bool = False,
) -> Bijector:
    """Jet for images.

    Args:
      shape: (H, W, C).
      patch: P, a divisor of H and W.
      couplings: how many; every two of a kind move everything.
      width, depth, heads: of each coupling's transformer.
      kinds: "channels" and "tokens", repeated until there are enough couplings.
      unroll: up to so many couplings are written out in the program. More are a loop: it compiles
        in the time of one, and its training step takes 1.4 times as long on a CPU.
      remat: whether the backward pass computes a coupling anew and does not keep its activations.

    Raises:
      ConfigError: no image, a patch that does not divide its sides, an odd number K of entries
        with "channels", one patch only with "tokens", an odd T·K, sizes that are no
        transformer's, a kind that is unknown.
    """
    rows, columns = grid("jet", shape, patch)
    check_sizes("jet", heads, width, depth=depth, couplings=couplings)
    tokens, entries = rows * columns, patch * patch * shape[-1]
    for kind in kinds:
        if kind not in KINDS:
            raise unknown_name("kind of coupling", kind, KINDS)
    if not kinds:
        raise ConfigError(f"jet: kinds = {kinds!r}; name at least one of {', '.join(KINDS)}.")
    if entries % 2 and tokens % 2:
        raise ConfigError(
            f"jet: {tokens} patches of {patch} x {patch} x {shape[-1]} have an odd number of "
            "entries, which cannot be halved: use an even patch."
        )
    if "channels" in kinds and entries % 2:
        raise ConfigError(
            f"jet: a patch of {patch} x {patch} x {shape[-1]} has {entries} entries, an odd "
            "number that couplings along the channels cannot halve: use an even patch, or "
            "kinds = ('tokens',)."
        )
    if "tokens" in kinds and tokens == 1:
        raise ConfigError(
            f"jet: patch = {patch} makes one token of an image of {shape[0]} x {shape[1]}, which "
            "couplings along the tokens cannot cut: use a smaller patch, or kinds = ('channels',)."
        )
    each = tuple(itertools.islice(itertools.cycle(kinds), couplings))
    bijector = Couplings(rows, columns, entries, each, width, depth, heads, unroll, remat)
    return OnTokens(tuple(shape), patch, bijector)


@functools.cache
def orders(rows: int, columns: int, entries: int, kinds: tuple[str, ...]) -> np.ndarray:
    """(couplings, T·K) places of a flattened item: those that are kept, then those moved."""
    draws = {
        "channels": _of_channels(rows * columns, entries),
        "tokens": _of_tokens(rows, columns, entries),
    }
    return np.stack([next(draws[kind]) for kind in kinds])


def _both(order: np.ndarray) -> Iterator[np.ndarray]:
    """The order, and the one that keeps what it moves."""
    yield order
    yield np.roll(order, order.size // 2)


def _of_channels(tokens: int, entries: int) -> Iterator[np.ndarray]:
    """Halves at random, the same in every program: ranks of Philox words, by the draw's number."""
    place = np.arange(tokens * entries).reshape(tokens, entries)
    for draw in itertools.count():
        ranks = np.argsort(np.random.Philox(key=draw).random_raw(entries), kind="stable")
        kept, moved = np.split(ranks, 2)
        yield from _both(np.concatenate([place[:, kept], place[:, moved]], axis=None))


def _of_tokens(rows: int, columns: int, entries: int) -> Iterator[np.ndarray]:
    """Checkerboard, columns, rows, where the grid has two of them."""
    place = np.arange(rows * columns * entries).reshape(rows * columns, entries)
    row, column = np.divmod(np.arange(rows * columns), columns)
    for colour in itertools.cycle((row + column, column, row)):
        odd = colour % 2
        if odd.any():
            yield from _both(place[np.argsort(odd, kind="stable")].reshape(-1))
