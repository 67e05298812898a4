"""Small fully connected models for points in the plane (and other vectors).

Notation: z (N, dim_z), y (N,) int class (ignored where num_classes is 1), points (N, dim),
          B (dim, width/2) frequencies in radians a unit
They have the same call shapes as `prpr.models.biggan`.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from prpr.models import layers

Array = jax.Array
_PLAIN = layers.Style(spectral_norm=False)


def _with_class(x: Array, y: Array, num_classes: int) -> Array:
    if num_classes == 1:
        return x
    return jnp.concatenate([x, jax.nn.one_hot(y, num_classes, dtype=x.dtype)], axis=-1)


class Generator(nn.Module):
    """z (N, dim_z), y (N,) -> points (N, dim)."""

    dim: int
    num_classes: int = 1
    dim_z: int = 2
    width: int = 16
    depth: int = 2

    @nn.compact
    def __call__(self, z: Array, y: Array, *, train: bool) -> Array:
        h = _with_class(z, y, self.num_classes)
        for i in range(self.depth):
            dense = layers.Dense(self.width, style=_PLAIN, name=f"layer{i}")
            h = jax.nn.relu(dense(h, train=train))
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

    @nn.compact
    def __call__(self, x: Array, y: Array, *, train: bool) -> Array:
        style = layers.Style(spectral_norm=self.spectral_norm)
        if self.fourier:
            normal = nn.initializers.normal(self.fourier)
            b = self.param("frequencies", normal, (x.shape[-1], max(self.width // 2, 1)))
            angle = x @ b
            x = jnp.concatenate([x, jnp.sin(angle), jnp.cos(angle)], axis=-1)
        h = _with_class(x, y, self.num_classes)
        for i in range(self.depth):
            dense = layers.Dense(self.width, style=style, name=f"layer{i}")
            h = jax.nn.leaky_relu(dense(h, train=train), 0.2)
        out = layers.Dense(1, style=style, name="out")
        return out(h, train=train)[:, 0]
