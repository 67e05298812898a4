"""Small fully connected models for points in the plane (and other vectors).

Notation: z (N, dim_z), y (N,) int class (ignored where num_classes is 1), points (N, dim),
          B (dim, width/2) frequencies in radians a unit
They have the same call shapes as `prpr.models.biggan`. With a `dial`, the range of log λ, y is
that of `prpr.models.dial`, and λ scales and shifts what every hidden layer makes.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from prpr.models import layers
from prpr.models.dial import Dial, heard

Array = jax.Array
_PLAIN = layers.Style(spectral_norm=False)


def _with_class(x: Array, y: Array, num_classes: int) -> Array:
    if num_classes == 1:
        return x
    return jnp.concatenate([x, jax.nn.one_hot(y, num_classes, dtype=x.dtype)], axis=-1)


Span = tuple[float, float] | None


def _turned(h: Array, log_lam: Array | None, span: Span, name: str) -> Array:
    """(1 + scale(λ)) h + shift(λ), which is h at the start."""
    if log_lam is None or span is None:
        return h
    scale, shift = jnp.split(Dial(2 * h.shape[-1], *span, name=name)(log_lam), 2, axis=-1)
    return h * (1 + scale) + shift


class Generator(nn.Module):
    """z (N, dim_z), y (N,) -> points (N, dim)."""

    dim: int
    num_classes: int = 1
    dim_z: int = 2
    width: int = 16
    depth: int = 2
    dial: Span = None

    @nn.compact
    def __call__(self, z: Array, y: Array, *, train: bool) -> Array:
        y, log_lam = heard(y)
        h = _with_class(z, y, self.num_classes)
        for i in range(self.depth):
            dense = layers.Dense(self.width, style=_PLAIN, name=f"layer{i}")
            h = _turned(dense(h, train=train), log_lam, self.dial, f"dial{i}")
            h = jax.nn.relu(h)
        return layers.Dense(self.dim, style=_PLAIN, name="out")(h, train=train)


class Critic(nn.Module):
    """points (N, dim), y (N,) -> (N,).

    With `fourier` > 0 the points x are seen as x, sin Bx, cos Bx, where B starts as normal of
    deviation `fourier` and is trained: layers on x alone are slow to learn a ratio that changes
    over a small part of the plane (Tancik et al. 2020, arXiv:2006.10739, who fix B and leave x
    itself out).
    """

    num_classes: int = 1
    width: int = 64
    depth: int = 2
    spectral_norm: bool = False
    fourier: float = 0.0
    dial: Span = None

    @nn.compact
    def __call__(self, x: Array, y: Array, *, train: bool) -> Array:
        y, log_lam = heard(y)
        style = layers.Style(spectral_norm=self.spectral_norm)
        if self.fourier:
            normal = nn.initializers.normal(self.fourier)
            b = self.param("frequencies", normal, (x.shape[-1], max(self.width // 2, 1)))
            angle = x @ b
            x = jnp.concatenate([x, jnp.sin(angle), jnp.cos(angle)], axis=-1)
        h = _with_class(x, y, self.num_classes)
        for i in range(self.depth):
            dense = layers.Dense(self.width, style=style, name=f"layer{i}")
            h = _turned(dense(h, train=train), log_lam, self.dial, f"dial{i}")
            h = jax.nn.leaky_relu(h, 0.2)
        out = layers.Dense(1, style=style, name="out")
        return out(h, train=train)[:, 0]
