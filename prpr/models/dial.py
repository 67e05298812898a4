"""λ as an input: one model for every λ of a range, turned when it is sampled.

Where a model has a dial its second argument y is (N, 2) float32, the class and log λ of each item
(`told`), instead of (N,) classes.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array


def told(y: Array, log_lam: Array) -> Array:
    """Classes (..., N) and log λ (..., N) -> (..., N, 2): what models with a dial take as y."""
    return jnp.stack([y.astype(jnp.float32), jnp.broadcast_to(log_lam, y.shape)], axis=-1)


def heard(y: Array) -> tuple[Array, Array | None]:
    """(classes (N,) int32, log λ (N,)) of what `told` made; log λ is None for plain classes."""
    if y.ndim == 1:
        return y, None
    return y[:, 0].astype(jnp.int32), y[:, 1]


class Dial(nn.Module):
    """log λ (N,) -> (N, features), zero at the start: a trained model that gets one stays the same.

    u, log λ from −1 to 1 over the range, is seen as u, sin(kπu/2), cos(kπu/2) for k up to
    `frequencies` (Fourier features), through one hidden layer.

    Attributes:
      features: numbers that it gives.
      low, high: ends of log λ.
      width: of the hidden layer.
    """

    features: int
    low: float
    high: float
    width: int = 32
    frequencies: int = 3

    @nn.compact
    def __call__(self, log_lam: Array) -> Array:
        u = (2 * log_lam - (self.low + self.high)) / max(self.high - self.low, 1e-6)
        angle = u[:, None] * (jnp.pi / 2 * jnp.arange(1.0, self.frequencies + 1))[None]
        seen = jnp.concatenate([u[:, None], jnp.sin(angle), jnp.cos(angle)], axis=-1)
        hidden = jax.nn.silu(nn.Dense(self.width, name="hidden")(seen))
        return nn.Dense(self.features, kernel_init=nn.initializers.zeros, name="out")(hidden)
